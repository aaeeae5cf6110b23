"""How a margin becomes the probabilities of win, tie and loss: two tie models, and ties as half a win each way.

d = strength of the first item minus that of the second (plus controls), in log-odds; tau is the model's threshold, where it has one.

    half         P(win) = sigmoid(d); a tie counts as half a win and half a loss (there is no P(tie))
    Davidson     P(win) : P(loss) : P(tie) = e^(d/2) : e^(-d/2) : nu, tau = log nu          Davidson 1970, JASA 65
    Rao-Kupper   P(win) = sigmoid(d - eta), P(loss) = sigmoid(-d - eta), tau = eta > 0      Rao & Kupper 1967, JASA 62

All three negative log likelihoods are convex in (d, tau). Every function takes and returns arrays that broadcast: cells of any shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class TieModel(NamedTuple):
    """The likelihood of a cell as a function of its margin d and the threshold tau.

    value(d, tau, win, loss, tie): negative log likelihood of the cells; gradient: its derivatives by (d, tau); curvature: its second
    derivatives (dd, d tau, tau tau); slopes(d, tau): derivatives of one vote's negative log likelihood, ((by d), (by tau)), each for
    win, loss and tie; probabilities(d, tau): of win, tie and loss; start(share of ties): where tau begins; learned: tau is there.
    """

    name: str
    learned: bool
    start: Callable[[float], float]
    value: Callable[..., Array]
    gradient: Callable[..., tuple[Array, Array]]
    curvature: Callable[..., tuple[Array, Array, Array]]
    slopes: Callable[..., tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]]
    probabilities: Callable[..., tuple[Array, Array, Array]]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), as (1 + tanh(x / 2)) / 2, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def softplus(x: Array) -> Array:
    """log(1 + e^x) without overflow or loss of small values."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _half_value(d, tau, win, loss, tie):
    tail = np.log1p(np.exp(-np.abs(d)))
    return (win + tie / 2) * (np.maximum(-d, 0) + tail) + (loss + tie / 2) * (np.maximum(d, 0) + tail)


def _half_gradient(d, tau, win, loss, tie):
    p = sigmoid(d)
    return (loss + tie / 2) * p - (win + tie / 2) * (1 - p), np.zeros(())


def _half_curvature(d, tau, win, loss, tie):
    p = sigmoid(d)
    return (win + loss + tie) * (p * (1 - p)), np.zeros(()), np.zeros(())


def _half_slopes(d, tau):
    p, zero = sigmoid(d), np.zeros(np.shape(d))
    return (p - 1, p, p - 0.5), (zero, zero, zero)


def _half_probabilities(d, tau):
    p = sigmoid(np.asarray(d))
    return p, np.zeros_like(p), 1 - p


def _davidson(d, tau):
    """(log of the sum of the three weights, P(win), P(loss), P(tie))."""
    a = np.asarray(d) / 2
    top = np.maximum(np.abs(a), tau)
    win, loss, tie = np.exp(a - top), np.exp(-a - top), np.exp(tau - top)
    total = win + loss + tie
    return top + np.log(total), win / total, loss / total, tie / total


def _davidson_value(d, tau, win, loss, tie):
    log_total = _davidson(d, tau)[0]
    return win * (log_total - d / 2) + loss * (log_total + d / 2) + tie * (log_total - tau)


def _davidson_gradient(d, tau, win, loss, tie):
    _, p_win, p_loss, p_tie = _davidson(d, tau)
    n = win + loss + tie
    return (n * (p_win - p_loss) - (win - loss)) / 2, n * p_tie - tie


def _davidson_curvature(d, tau, win, loss, tie):
    _, p_win, p_loss, p_tie = _davidson(d, tau)
    n, lead = win + loss + tie, p_win - p_loss
    return n / 4 * (p_win + p_loss - lead**2), -n / 2 * lead * p_tie, n * p_tie * (1 - p_tie)


def _davidson_slopes(d, tau):
    _, p_win, p_loss, p_tie = _davidson(d, tau)
    lead = (p_win - p_loss) / 2
    return (lead - 0.5, lead + 0.5, lead), (p_tie, p_tie, p_tie - 1)


def _davidson_probabilities(d, tau):
    _, p_win, p_loss, p_tie = _davidson(d, tau)
    return p_win, p_tie, p_loss


def _rao_value(d, tau, win, loss, tie):
    if np.any(np.asarray(tau) <= 0):
        return np.full(np.shape(d), np.inf)
    u, v = d - tau, -d - tau
    # -log P(tie) = softplus(u) + softplus(v) - log(1 - e^(-2 eta))
    return win * softplus(-u) + loss * softplus(-v) + tie * (softplus(u) + softplus(v) - np.log(-np.expm1(-2 * tau)))


def _rao_gradient(d, tau, win, loss, tie):
    up, down = sigmoid(d - tau), sigmoid(-d - tau)
    by_u, by_v = (win + tie) * up - win, (loss + tie) * down - loss
    return by_u - by_v, -by_u - by_v - 2 * tie / np.expm1(2 * tau)


def _rao_curvature(d, tau, win, loss, tie):
    up, down = sigmoid(d - tau), sigmoid(-d - tau)
    by_u, by_v = (win + tie) * (up * (1 - up)), (loss + tie) * (down * (1 - down))
    return by_u + by_v, by_v - by_u, by_u + by_v + tie * np.exp(2 * tau) * (2 / np.expm1(2 * tau)) ** 2


def _rao_slopes(d, tau):
    up, down = sigmoid(d - tau), sigmoid(-d - tau)
    return (up - 1, 1 - down, up - down), (1 - up, 1 - down, -up - down - 2 / np.expm1(2 * tau))


def _rao_probabilities(d, tau):
    win, loss = sigmoid(np.asarray(d) - tau), sigmoid(-np.asarray(d) - tau)
    return win, 1 - win - loss, loss


HALF = TieModel("half", False, lambda share: 0.0, _half_value, _half_gradient, _half_curvature, _half_slopes, _half_probabilities)
DAVIDSON = TieModel(
    "davidson", True, lambda share: float(np.log(2 * share / (1 - share))),
    _davidson_value, _davidson_gradient, _davidson_curvature, _davidson_slopes, _davidson_probabilities,
)  # fmt: skip
RAO_KUPPER = TieModel(
    "rao_kupper", True, lambda share: float(np.log((1 + share) / (1 - share))),
    _rao_value, _rao_gradient, _rao_curvature, _rao_slopes, _rao_probabilities,
)  # fmt: skip

#: option -> model; "drop" leaves ties out of the counts and is then the first
TIE_MODELS = {"half": HALF, "drop": HALF, "davidson": DAVIDSON, "rao_kupper": RAO_KUPPER}
