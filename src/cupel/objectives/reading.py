"""What an objective reads from a side: fields by need, checked once, in float32 or better.

Values that are not finite, lengths below 1 and missing fields are errors that name the field. Looking at values costs a reduction on the
CPU and a synchronisation on any other device, so values are looked at on the CPU only, and not while compiling or under `vmap`; there a
learner calls `check_values` when it logs. Missing fields are an error everywhere.
"""

# pyright: strict
from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from cupel.objectives.types import Context, Need, Side

#: the fields of a side that a need stands for
FIELDS: dict[Need, tuple[str, ...]] = {
    "logp": ("logp",),
    "length": ("n_tokens",),
    "reference": ("reference_logp",),
    "tokens": ("token_logp", "mask"),
    "reference_tokens": ("reference_token_logp", "mask"),
    "score": ("score",),
    "rating": ("rating",),
    "divergence": ("divergence", "mask"),
    "collision": ("collision", "mask"),
    "tilt": ("tilt_up", "tilt_down"),
    "masks": ("mask_reward", "mask_divergence", "mask"),
    "prompt": ("prompt_logp", "reference_prompt_logp"),
    "target": ("target_logp", "target_n_tokens"),
    "online": ("online_logp", "online_reference_logp"),
    "mismatch": ("mismatch_log_ratio",),
    "embedding": ("embedding",),
    "error": ("error",),
    "reference_error": ("reference_error",),
}
#: fields whose entries outside `mask` mean nothing
_MASKED = {"token_logp", "reference_token_logp", "divergence", "collision", "mask_reward", "mask_divergence"}
_AT_LEAST_ONE = {"n_tokens", "target_n_tokens"}
_AT_LEAST_ZERO = {"error", "reference_error", "mask_reward", "mask_divergence"}


def check_sides(name: str, needs: Iterable[Need], first: Side, second: Side, *, either_empty: bool = False) -> None:
    """ValueError unless both sides carry what objective `name` needs, for the same number of responses, in finite values.

    With `either_empty` one of the sides may carry nothing at all: a response judged alone.
    """
    sides = [("first", first), ("second", second)]
    if either_empty and (len(first) == 0) != (len(second) == 0):
        sides = [(which, side) for which, side in sides if len(side)]
    elif len(first) != len(second):
        raise ValueError(f"{name}: the first side has {len(first)} responses, the second {len(second)}")
    for need in sorted(needs):
        for which, side in sides:
            missing = [field for field in FIELDS[need] if getattr(side, field) is None]
            if missing:
                raise ValueError(f"{name} needs {need!r}: {', '.join(missing)} of the {which} side is missing")
    check_values(name, needs, *(side for _, side in sides), devices=("cpu",))


def check_values(name: str, needs: Iterable[Need], *sides: Side, devices: tuple[str, ...] | None = None) -> None:
    """ValueError naming the field, how many and the first row, where a needed value is not finite, or a length is below 1.

    devices: only tensors on these are looked at; all if None (a synchronisation for each field on an accelerator).

    >>> check_values("ipo", {"length"}, Side(n_tokens=torch.tensor([3, 0])))
    Traceback (most recent call last):
    ValueError: ipo: n_tokens is below 1 for 1 of 2 responses (first: row 1)
    """
    if torch.compiler.is_compiling():
        return
    for field in sorted({field for need in needs for field in FIELDS[need]} - {"mask"}):
        for side in sides:
            value = getattr(side, field)
            if value is None or (devices is not None and value.device.type not in devices):
                continue
            value = value.detach()
            if field in _MASKED and side.mask is not None:
                value = torch.where(side.mask, value, torch.zeros_like(value))
            _check_value(name, field, value)


def _check_value(name: str, field: str, value: Tensor) -> None:
    if value.numel() == 0:
        return
    if value.is_floating_point() and not _surely_finite(value):
        _refuse(name, field, ~value.isfinite(), "not finite")
    if field in _AT_LEAST_ONE or field in _AT_LEAST_ZERO:
        least = 1 if field in _AT_LEAST_ONE else 0
        if _number(value.amin()) < least:
            _refuse(name, field, value < least, f"below {least}")


def _surely_finite(value: Tensor) -> bool:
    """One reduction: a finite sum has finite terms. False where the sum is not finite, which large finite terms may also cause."""
    return math.isfinite(_number(value.sum(dtype=torch.float64 if value.dtype == torch.float64 else torch.float32)))


def _number(value: Tensor) -> float:
    """The value as a float; 1.0, which passes all checks, under a transformation such as vmap that has no single value."""
    try:
        return float(value.item())
    except RuntimeError:
        return 1.0


def _refuse(name: str, field: str, bad: Tensor, what: str) -> None:
    rows = bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten()
    if len(rows):
        raise ValueError(f"{name}: {field} is {what} for {len(rows)} of {len(bad)} responses (first: row {int(rows[0])})")


def there(value: Tensor | None, field: str) -> Tensor:
    """The tensor, in float32 if it was in half precision; ValueError naming the field if it is missing.

    >>> there(torch.tensor([1.0], dtype=torch.bfloat16), "logp").dtype
    torch.float32
    """
    if value is None:
        raise ValueError(f"{field} of a side is missing")
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def logp(side: Side) -> Tensor:
    """[B] log-probability of the response under the policy."""
    return there(side.logp, "logp")


def log_ratio(side: Side) -> Tensor:
    """[B] log policy(response) - log reference(response)."""
    return logp(side) - there(side.reference_logp, "reference_logp")


def n_tokens(side: Side) -> Tensor:
    """[B] number of tokens of the response."""
    return there(side.n_tokens, "n_tokens")


def mean_logp(side: Side) -> Tensor:
    """[B] log-probability per token under the policy."""
    return logp(side) / n_tokens(side)


def score(side: Side) -> Tensor:
    """[B] reward or score of the response."""
    return there(side.score, "score")


def mask(side: Side) -> Tensor:
    """[B, T] bool: the positions that are tokens of the response."""
    if side.mask is None:
        raise ValueError("mask of a side is missing")
    return side.mask


def per_token(side: Side, value: Tensor | None, field: str) -> Tensor:
    """[B, T] `value` with 0 outside the mask, whatever stands there."""
    value = there(value, field)
    return torch.where(mask(side), value, torch.zeros_like(value))


def rating_gap(first: Side, second: Side) -> Tensor:
    """[B] how far the stated qualities of the two responses are apart, at least 0."""
    return (there(first.rating, "rating") - there(second.rating, "rating")).abs()


def statistic(context: Context, key: str, name: str) -> Tensor:
    """A statistic of the step; ValueError that says where it comes from if the context lacks it."""
    if key not in context:
        raise ValueError(
            f"{name} depends on {key!r}, a statistic of the whole step: pass the result of objective.context(first, second, previous)"
        )
    return context[key].detach()
