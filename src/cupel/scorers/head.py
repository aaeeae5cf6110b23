"""Log-probability of given tokens under a vocabulary head, tile by tile: the logits of a batch never exist at one time.

Both axes are tiled to a budget of bytes. Backward computes a tile again, with three exceptions that save a matrix product: a tile that
fits a second budget is kept; a frozen head (LoRA) has its hidden gradient taken in forward, scaled in backward; without gradient nothing
is kept at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cupel.scorers.anatomy import Head

#: bytes of temporary tiles, and bytes of tiles kept for backward
TILE_BYTES = 64 << 20
KEEP_BYTES = 64 << 20
_ROWS = 256  # fewer rows than this waste the matrix product: the vocabulary is tiled instead


class Tiling(NamedTuple):
    """rows [token axis], columns [vocabulary axis] of a tile; `keep` rows whose tile is kept for backward."""

    rows: int
    columns: int
    keep: int


def tiling(n_tokens: int, n_vocabulary: int, tile_bytes: int = TILE_BYTES, keep_bytes: int = KEEP_BYTES) -> Tiling:
    """Tiles of float32 logits of which two are alive at a time, within `tile_bytes`; at least 16 x 256.

    >>> tiling(1000, 1000), tiling(5000, 50_000, tile_bytes=1 << 20, keep_bytes=0)
    (Tiling(rows=1000, columns=1000, keep=1000), Tiling(rows=256, columns=512, keep=0))
    """
    cells = max(tile_bytes // 8, 1)
    rows = min(n_tokens, cells // n_vocabulary)
    if rows < min(_ROWS, n_tokens):
        rows = min(n_tokens, _ROWS)
        return Tiling(rows, min(n_vocabulary, max(256, cells // rows)), 0)
    keep = min(n_tokens, keep_bytes // (4 * n_vocabulary))
    return Tiling(max(rows, 1), n_vocabulary, keep if keep == n_tokens else keep // rows * rows)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which softmax and sums are taken: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def token_logp(hidden: Tensor, target: Tensor, head: Head, tile_bytes: int = TILE_BYTES, keep_bytes: int = KEEP_BYTES) -> Tensor:
    """[M], float32 or better: log softmax(cap(scale (h W' + b)))[target], for hidden states [M, H] and target tokens [M].

    Gradients reach hidden states, weight and bias, where they are wanted; they are computed in float32 per tile, matrix products in the
    dtype of the hidden states, and the weight's gradient is summed in float32.
    """
    if head.scale != 1.0:
        hidden, bias = hidden * head.scale, None if head.bias is None else head.bias * head.scale
    else:
        bias = head.bias
    wants = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, head.weight, bias))
    plan = tiling(len(target), len(head.weight), tile_bytes, keep_bytes if wants else 0)
    return _TokenLogp.apply(hidden, head.weight, bias, target, head.softcap, plan, wants)  # type: ignore[no-any-return]


def tile_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """[rows, columns] logits of one tile, in float32 or better."""
    logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
    logits = logits.to(wide(hidden.dtype))
    if softcap is not None:
        logits = torch.tanh_(logits.div_(softcap)).mul_(softcap)
    return logits


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, softcap: float | None, plan: Tiling, wants: bool
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return _forward(ctx, hidden, weight, bias, target, softcap, plan, wants)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        with torch.autocast(gradient.device.type, enabled=False):
            return (*_backward(ctx, gradient), None, None, None, None)


def _forward(
    ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, softcap: float | None, plan: Tiling, wants: bool
) -> Tensor:
    n, whole = len(target), plan.columns >= len(weight)
    logp = torch.empty(n, dtype=wide(hidden.dtype), device=hidden.device)
    normaliser = torch.empty_like(logp)
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    unit = torch.empty_like(hidden) if wants and frozen and whole else None
    kept: dict[int, Tensor] = {}
    for start in range(0, n, plan.rows):
        part = slice(start, min(start + plan.rows, n))
        h, y = hidden[part], target[part, None]
        if not whole:
            normaliser[part], logp[part] = _scan(h, weight, bias, y, softcap, plan.columns)
            continue
        x = tile_logits(h, weight, bias, softcap)
        log_p = torch.log_softmax(x, dim=-1)
        chosen = log_p.gather(1, y)
        logp[part] = chosen[:, 0]
        normaliser[part] = (x.gather(1, y) - chosen)[:, 0]
        if unit is not None:
            slope = log_p.exp_().neg_().scatter_add_(1, y, torch.ones_like(chosen))
            unit[part] = _through_cap(slope, x, softcap).to(h.dtype) @ weight.to(h.dtype)
        elif softcap is None and part.stop <= plan.keep:
            kept[start] = log_p
        del x, log_p
    ctx.plan, ctx.softcap, ctx.kept, ctx.has_unit, ctx.has_bias = plan, softcap, kept, unit is not None, bias is not None
    if unit is not None:
        ctx.save_for_backward(unit)
    elif wants:
        ctx.save_for_backward(hidden, weight, target, normaliser, *([] if bias is None else [bias]))
    return logp


def _scan(h: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, softcap: float | None, columns: int) -> tuple[Tensor, Tensor]:
    """Log-normaliser and log-probability of the targets, over tiles of the vocabulary."""
    top = torch.full((len(h),), -torch.inf, dtype=wide(h.dtype), device=h.device)
    total, chosen = torch.zeros_like(top), torch.zeros_like(top)
    for low in range(0, len(weight), columns):
        high = min(low + columns, len(weight))
        x = tile_logits(h, weight[low:high], None if bias is None else bias[low:high], softcap)
        here = (y[:, 0] >= low) & (y[:, 0] < high)
        chosen = torch.where(here, x.gather(1, (y - low).clamp(0, high - low - 1))[:, 0], chosen)
        higher = torch.maximum(top, x.amax(dim=1))
        total = total * (top - higher).exp() + x.sub_(higher[:, None]).exp_().sum(dim=1)
        top = higher
    normaliser = top + total.log()
    return normaliser, chosen - normaliser


def _through_cap(slope: Tensor, x: Tensor, softcap: float | None) -> Tensor:
    return slope if softcap is None else slope.mul_(1 - (x / softcap) ** 2)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if ctx.has_unit:
        (unit,) = ctx.saved_tensors
        return (unit * gradient[:, None]).to(unit.dtype), None, None
    hidden, weight, target, normaliser, *rest = ctx.saved_tensors
    bias = rest[0] if ctx.has_bias else None
    kept, ctx.kept = ctx.kept, {}  # a second backward through a retained graph computes its tiles again
    for_hidden, for_weight = ctx.needs_input_grad[:2]
    for_bias = bias is not None and ctx.needs_input_grad[2]
    grad_hidden = torch.empty_like(hidden) if for_hidden else None
    grad_weight = torch.zeros(weight.shape, dtype=wide(hidden.dtype), device=weight.device) if for_weight else None
    grad_bias = torch.zeros(len(weight), dtype=wide(hidden.dtype), device=weight.device) if for_bias else None
    n, columns = len(target), ctx.plan.columns
    for start in range(0, n, ctx.plan.rows):
        part = slice(start, min(start + ctx.plan.rows, n))
        h, y, g = hidden[part], target[part, None], gradient[part, None]
        pulled = None
        for low in range(0, len(weight), columns):
            high = min(low + columns, len(weight))
            w = weight[low:high].to(h.dtype)
            x = None
            if start in kept:
                slope = kept.pop(start).exp_()
            else:
                x = tile_logits(h, w, None if bias is None else bias[low:high], ctx.softcap)
                shifted = x - normaliser[part, None] if ctx.softcap is not None else x.sub_(normaliser[part, None])
                slope = shifted.exp_()
            slope.mul_(-g)
            here = (y >= low) & (y < high)
            slope.scatter_add_(1, (y - low).clamp(0, high - low - 1), torch.where(here, g, torch.zeros_like(g)))
            if ctx.softcap is not None:
                assert x is not None
                slope = _through_cap(slope, x, ctx.softcap)
            if grad_bias is not None:
                grad_bias[low:high] += slope.sum(dim=0)
            slope = slope.to(h.dtype)
            if grad_weight is not None:
                _add_product(grad_weight[low:high], slope, h)
            if grad_hidden is not None:
                pulled = slope @ w if pulled is None else pulled + slope @ w
        if grad_hidden is not None and pulled is not None:
            grad_hidden[part] = pulled
    return (
        grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )  # fmt: skip


def _add_product(total: Tensor, slope: Tensor, h: Tensor) -> None:
    if h.dtype == total.dtype:
        total.addmm_(slope.t(), h)
    else:
        total += slope.t() @ h
