"""How factories make an `Objective`: settings checked once, sides checked on every call, and the two forms that most objectives have."""

# pyright: strict
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cupel.objectives import reading
from cupel.objectives.types import Context, Need, Objective, Side, Swap

Function = Callable[[Side, Side, Context], Tensor]
Settings = Mapping[str, float | str | None]


def per_comparison(function: Function, first: Side, second: Side, context: Context) -> Float[Tensor, " B"] | Bool[Tensor, " B"]:
    """function(first, second, context): one value for each comparison, which tests check here for every objective."""
    return function(first, second, context)


def make(
    name: str, loss: Function, margin: Function, needs: Iterable[Need], settings: Settings, *, swap: Swap = "comparison",
    context: Callable[[Side, Side, Context], Context] | None = None, saturated: Function | None = None, either_empty: bool = False,
) -> Objective:  # fmt: skip
    """An `Objective` whose functions check their sides first."""
    wanted = frozenset(needs)

    def checked(function: Function) -> Function:
        def call(first: Side, second: Side, context: Context) -> Tensor:
            reading.check_sides(name, wanted, first, second, either_empty=either_empty)
            return per_comparison(function, first, second, context)

        return call

    def statistics(first: Side, second: Side, previous: Context) -> Context:
        assert context is not None
        reading.check_sides(name, wanted, first, second, either_empty=either_empty)
        with torch.no_grad():
            return context(first, second, previous)

    return Objective(
        name, checked(loss), checked(margin), wanted, swap, None if context is None else statistics, dict(settings),
        None if saturated is None else checked(saturated),
    )  # fmt: skip


def plus(needs: Iterable[Need], *more: Need) -> frozenset[Need]:
    """Needs with some more."""
    return frozenset(needs) | frozenset(more)


def of_log_ratios(
    name: str, shape: Callable[[Tensor], Tensor], beta: float, settings: Settings, *, exponent: Callable[[Tensor], Tensor] | None = None
) -> Objective:
    """shape(m) with m = beta (a - b), the difference of the two log-ratios to the reference.

    exponent: what `shape` exponentiates, if it does; margins where it is past the limit are counted as saturated.
    """

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return beta * (reading.log_ratio(first) - reading.log_ratio(second))

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return shape(margin(first, second, context))

    return make(name, loss, margin, ("logp", "reference"), settings, saturated=_counter(margin, exponent))


def of_scores(
    name: str, shape: Callable[[Tensor], Tensor], settings: Settings, *, exponent: Callable[[Tensor], Tensor] | None = None
) -> Objective:
    """shape(d) with d the difference of two scores."""

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return reading.score(first) - reading.score(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return shape(margin(first, second, context))

    return make(name, loss, margin, ("score",), settings, saturated=_counter(margin, exponent))


def _counter(margin: Function, exponent: Callable[[Tensor], Tensor] | None) -> Function | None:
    from cupel.objectives.numerics import past_limit

    if exponent is None:
        return None

    def saturated(first: Side, second: Side, context: Context) -> Tensor:
        return past_limit(exponent(margin(first, second, context)))

    return saturated


def of_each(
    name: str, good: Callable[[Side, Context], Tensor], bad: Callable[[Side, Context], Tensor], reward: Callable[[Side], Tensor],
    needs: Iterable[Need], settings: Settings, *, context: Callable[[Side, Side, Context], Context] | None = None,
) -> Objective:  # fmt: skip
    """good(first) + bad(second): each response is judged alone, so either side may be an empty `Side()`.

    A response that was called good is `loss(response, Side())`; swapping flips its label, as it does for pairs.
    margin: reward(first) - reward(second), an absent reward being 0.
    """

    def total(left: Callable[[Side], Tensor], right: Callable[[Side], Tensor], first: Side, second: Side) -> Tensor:
        if len(second) == 0:
            return left(first)
        if len(first) == 0:
            return right(second)
        return left(first) + right(second)

    def loss(first: Side, second: Side, context: Context) -> Tensor:
        return total(lambda side: good(side, context), lambda side: bad(side, context), first, second)

    def margin(first: Side, second: Side, context: Context) -> Tensor:
        return total(reward, lambda side: -reward(side), first, second)

    return make(name, loss, margin, needs, settings, context=context, either_empty=True)


def positive(**values: float) -> None:
    """ValueError naming the argument unless all values are positive and finite.

    >>> positive(beta=0.0)
    Traceback (most recent call last):
    ValueError: beta is a positive number, not 0.0
    """
    for key, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{key} is a positive number, not {value!r}")


def not_negative(**values: float) -> None:
    """ValueError naming the argument unless all values are finite and at least 0."""
    for key, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{key} is a number of at least 0, not {value!r}")


def finite(**values: float) -> None:
    """ValueError naming the argument unless all values are finite."""
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{key} is a finite number, not {value!r}")


def one_of(options: tuple[str, ...], **values: str) -> None:
    """ValueError naming the argument and the options unless all values are among them."""
    for key, value in values.items():
        if value not in options:
            raise ValueError(f"{key} is one of {', '.join(options)}, not {value!r}")
