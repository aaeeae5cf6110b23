"""Contrastive losses of embeddings: the same thing seen twice against others, and masked things against their descriptions.

No label is in them, so they are functions, not objectives. Exact forms of RLMRec, Ren et al. 2024, arXiv:2310.15950 (card 34-rlmrec),
which graph recommenders with two views (SGL, SimGCL) share.
"""

# pyright: strict
from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cupel.objectives.build import positive

#: added to the sum of squares before its root, and to both sides of the masked form's ratio, as the official code does
NORM_EPSILON, RATIO_EPSILON = 1e-8, 1e-8


def info_nce(
    x: Float[Tensor, "B D"], y: Float[Tensor, "B D"], pool: Float[Tensor, "N D"], temperature: float, *,
    use: Bool[Tensor, " B"] | None = None, pool_use: Bool[Tensor, " N"] | None = None,
) -> Float[Tensor, " B"]:  # fmt: skip
    """InfoNCE per row: -cos(x_b, y_b) / t + log sum over the pool of exp(cos(x_b, q) / t), [B].

    x and y are two views of one thing, pool what y is told apart from, `y` included by the caller (all users, or the batch with its
    duplicates: the card has both). Norms are sqrt(1e-8 + sum of squares). The lower bound of the mutual information is log N minus the
    mean. Memory is B x N: for a large N give a sample of the pool, and say so.

    use       rows without a second view (no text): 0 there, exactly, and no gradient; None: all
    pool_use  entries of the pool that count; None: all

    ValueError unless temperature > 0, shapes agree, values are finite (on the CPU, where looking costs no synchronisation), and the pool
    has an entry that counts. A pool of the row's own `y` alone is always 0.

    >>> a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> b = torch.tensor([[1.0, 0.2], [0.1, 1.0], [-1.0, 1.0]])
    >>> info_nce(a, b, b, 0.2).round(decimals=4)
    tensor([0.0124, 0.2275, 4.7276])
    """
    positive(temperature=temperature)
    _check({"x": x, "y": y}, {"pool": pool}, use, pool_use)
    if use is not None:  # what lies in unused rows must not reach the gradient, 0 times it included
        x, y = (torch.where(use[:, None], value, torch.ones_like(value)) for value in (x, y))
    if pool_use is not None:
        pool = torch.where(pool_use[:, None], pool, torch.ones_like(pool))
    a, b, q = (value / (NORM_EPSILON + value.square().sum(1, keepdim=True)).sqrt() for value in (x, y, pool))
    against = a @ q.T / temperature
    if pool_use is not None:
        against = against.masked_fill(~pool_use, float("-inf"))
    loss = against.logsumexp(1) - (a * b).sum(1) / temperature
    return loss if use is None else torch.where(use, loss, torch.zeros_like(loss))


def masked_info_nce(z: Float[Tensor, "B D"], y: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, " B"]:
    """Masked reconstruction: -log(e^(z_b.y_b / t) / (sum over c of e^(z_b.y_c / t) + 1e-8) + 1e-8), z and y normalised, [B].

    z [B, D]: what the model makes of things whose own embedding was masked; y [B, D]: their descriptions, which are also each other's
    negatives (RLMRec-Gen). A constant 1e-8 keeps rows whose ratio vanishes at 18.4 instead of infinity. A row of zeros stays zeros.
    ValueError as `info_nce`, and where e^(1 / t) overflows the number type (t below .012 in float32).

    >>> masked_info_nce(torch.eye(4), torch.eye(4), 0.2).round(decimals=4)
    tensor([0.0200, 0.0200, 0.0200, 0.0200])
    """
    positive(temperature=temperature)
    _check({"z": z, "y": y}, {}, None, None)
    if 1 / temperature + 1 > torch.log(torch.tensor(torch.finfo(z.dtype).max, dtype=torch.float64)).item():
        raise ValueError(f"temperature is {temperature!r}: exp(1 / temperature) has no value in {z.dtype}")
    a, b = torch.nn.functional.normalize(z, dim=1), torch.nn.functional.normalize(y, dim=1)
    against = (a @ b.T / temperature).exp().sum(1)
    ratio = ((a * b).sum(1) / temperature).exp() / (against + RATIO_EPSILON)
    return -(ratio + RATIO_EPSILON).log()


def _check(rows: dict[str, Tensor], pool: dict[str, Tensor], use: Tensor | None, pool_use: Tensor | None) -> None:
    shapes = {name: tuple(value.shape) for name, value in (rows | pool).items()}
    first = next(iter(rows.values()))
    if any(len(shape) != 2 for shape in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        raise ValueError(f"embeddings are matrices of one width, not {shapes}")
    if any(value.shape != first.shape for value in rows.values()):
        raise ValueError(f"the two views have different numbers of rows: {shapes}")
    for name, mask, n in (("use", use, len(first)), ("pool_use", pool_use, shapes.get("pool", (0,))[0])):
        if mask is not None and tuple(mask.shape) != (n,):
            raise ValueError(f"{name} says for each of {n:,} rows whether it counts, and has the shape {tuple(mask.shape)}")
    if pool and (shapes["pool"][0] == 0 or (pool_use is not None and pool_use.device.type == "cpu" and not bool(pool_use.any()))):
        raise ValueError("no entry of the pool counts: there is nothing to tell a row apart from")
    masks = {"x": use, "y": use, "pool": pool_use}
    for name, value in (rows | pool).items():
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            continue
        bad = ~value.detach().isfinite().all(1)
        mask = masks.get(name)
        bad = bad if mask is None else bad & mask
        if bool(bad.any()):
            raise ValueError(f"{int(bad.sum()):,} of {len(value):,} rows of {name} are not finite (first: row {int(bad.int().argmax())})")
