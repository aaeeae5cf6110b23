"""Several rewards under fixed weights: the baselines that prompt-aware weights are measured against, and what they are measured by.

Linear scalarisation, the best fixed weights, Rewarded Soups (theta(w) = sum w_k theta_k), the tabular optimum of MORLHF, MODPO's ratings
and RiC's texts, as the card "Preference Orchestrator" (arXiv:2511.10656) restates them. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, TypeVar

import numpy as np

from cupel.errors import InputError
from cupel.learners.models.simplex import fit_preferences, on_simplex

T = TypeVar("T")


def reward_matrix(
    rows: Sequence[tuple[str, str, str, float]], responses: Sequence[tuple[str, str]], objectives: Sequence[str]
) -> np.ndarray:  # fmt: skip
    """float32 [responses, K] from a long table of (record, response, objective, score), in the order of `responses` (record, response).

    InputError where a score is missing or stated twice, with the record and the objective.

    >>> table = [("q1", "a", "helpful", 1.0), ("q1", "a", "short", 0.5), ("q1", "b", "helpful", 0.0), ("q1", "b", "short", 2.0)]
    >>> reward_matrix(table, [("q1", "b"), ("q1", "a")], ("helpful", "short")).tolist()
    [[0.0, 2.0], [1.0, 0.5]]
    """
    at, place = {key: k for k, key in enumerate(objectives)}, {key: k for k, key in enumerate(responses)}
    out = np.full((len(responses), len(objectives)), np.nan)
    for record, response, objective, score in rows:
        if objective not in at or (record, response) not in place:
            continue
        where = place[record, response], at[objective]
        if not np.isnan(out[where]):
            raise InputError(f"record {record}, response {response}: {objective} has two scores, {out[where]:g} and {score!r}")
        out[where] = score
    missing = np.argwhere(~np.isfinite(out))
    if len(missing):
        (record, response), objective = responses[missing[0][0]], objectives[missing[0][1]]
        raise InputError(
            f"{len(missing):,} of {out.size:,} scores are missing (first: record {record}, response {response}, objective {objective}). "
            f"Score it, or leave out the record or the objective"
        )
    return out.astype(np.float32)


def scalarised(rewards: np.ndarray, weights: object) -> np.ndarray:
    """r_w = sum_k w_k r_k, [...] from rewards [..., K] and weights [K] or one row per prompt; of differences: the scalarised margin.

    >>> scalarised(np.array([[1.0, 3.0], [2.0, 2.0]]), [0.5, 0.5]).tolist()
    [2.0, 2.0]
    """
    rewards = np.asarray(rewards, np.float64)
    return (rewards * on_simplex(weights, rewards.shape[-1])).sum(axis=-1)


def best_fixed(differences: np.ndarray, p: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """The one weighting for all prompts under which the preferences are likeliest, [K]; differences [n, K], p that the first is better.

    >>> best_fixed(np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 2.0]]), np.array([1.0, 1.0, 0.2])).argmax().item()
    0
    """
    return fit_preferences(np.zeros((len(differences), 0)), differences, p, weight=weight)(np.zeros((1, 0)))[0]


def grid(k: int, steps: int = 10) -> np.ndarray:
    """Weightings of K objectives in multiples of 1 / steps, [n, K].

    >>> grid(2, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    found = [np.bincount(chosen, minlength=k) for chosen in combinations_with_replacement(range(k), steps)]
    return np.array(found, np.float64) / steps


def soup(parameters: Sequence[Mapping[str, T]], weights: object) -> dict[str, T]:
    """Rewarded Soups: sum_k w_k theta_k of K models with the same parameters (arrays or tensors by name).

    InputError where names or shapes differ. It interpolates parameters, so it means something for models tuned from one beginning.

    >>> soup([{"theta": np.array([1.0, 0.0])}, {"theta": np.array([0.0, 1.0])}], [0.3, 0.7])["theta"].tolist()
    [0.3, 0.7]
    """
    w = on_simplex(weights, len(parameters))
    for k, one in enumerate(parameters):
        if set(one) != set(parameters[0]):
            raise InputError(f"model {k} has other parameters than model 0: {sorted(set(one) ^ set(parameters[0]))}")
        other = [key for key, value in one.items() if getattr(value, "shape", ()) != getattr(parameters[0][key], "shape", ())]
        if other:
            raise InputError(f"model {k}: {other[0]} has another shape than in model 0")
    return {key: sum((one[key] * float(x) for one, x in zip(parameters, w, strict=True)), start=0.0) for key in parameters[0]}  # type: ignore[operator, misc]


def morlhf(reference: np.ndarray, rewards: np.ndarray, weights: object, beta: float) -> np.ndarray:
    """The optimum of MORLHF on finitely many responses: pi prop. to reference exp(sum_k w_k r_k / beta), [..., C].

    reference [..., C] probabilities, rewards [..., C, K], weights [K] or one row per prompt, beta > 0.

    >>> morlhf(np.full(2, 0.5), np.array([[1.0, 0.0], [0.0, 1.0]]), [1.0, 0.0], 1.0).round(6).tolist()
    [0.731059, 0.268941]
    """
    if not (beta > 0 and np.isfinite(beta)):
        raise InputError(f"beta is a positive number, not {beta!r}")
    w = on_simplex(weights, rewards.shape[-1])
    with np.errstate(divide="ignore"):
        logits = np.log(np.asarray(reference, np.float64)) + (rewards * w[..., None, :]).sum(axis=-1) / beta
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def modpo_rating(rewards: np.ndarray, weights: object, own: int = 0) -> tuple[np.ndarray, float]:
    """What the objective `modpo` reads when objective `own` is trained: the rating sum_(k != own) w_k r_k, and its argument weight = w_own.

    >>> rating, weight = modpo_rating(np.array([[9.0, 0.3], [9.0, 0.9]]), [0.6, 0.4])
    >>> rating.round(2).tolist(), weight
    ([0.12, 0.36], 0.6)
    """
    w = on_simplex(weights, rewards.shape[-1])
    if not w[own] > 0:
        raise InputError(f"MODPO divides by the weight of the objective it trains, and that of objective {own} is 0")
    rest = w.copy()
    rest[own] = 0
    return np.asarray(rewards, np.float64) @ rest, float(w[own])


def ric_text(prompt: str, scores: Sequence[float], response: str | None = None) -> str:
    """RiC's text: the prompt, each objective's normalised score to one decimal, and in training the response.

    >>> ric_text("Say hello.", [0.53, -1.27])
    'Say hello. <rm1_score> 0.5 <rm2_score> -1.3'
    """
    values = [float(x) for x in scores]
    if not values or not np.isfinite(values).all():
        raise InputError(f"scores are finite numbers, at least one, not {scores!r}")
    said = " ".join(f"<rm{k}_score> {round(x, 1) + 0.0}" for k, x in enumerate(values, start=1))
    return f"{prompt} {said}" if response is None else f"{prompt} {said} {response}"


# ---- what weights are worth -------------------------------------------------------------------------------------------------------


def utility_regret(utility: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Loss of the candidate with the best score: max utility minus its utility, [n] from [n, C] each. Ties to the first.

    >>> utility_regret(np.array([[1.0, 0.4]]), np.array([[0.0, 1.0]])).tolist()
    [0.6]
    """
    chosen = np.take_along_axis(utility, score.argmax(axis=1)[:, None], axis=1)[:, 0]
    return utility.max(axis=1) - chosen


def objective_wins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of prompts on which `first` scores higher on each objective, equal scores one half: [K] from [n, K] each.

    >>> objective_wins(np.array([[1.0, 0.0], [1.0, 1.0]]), np.zeros((2, 2))).tolist()
    [1.0, 0.75]
    """
    return ((np.sign(np.asarray(first) - np.asarray(second)) + 1) / 2).mean(axis=0)


def pareto(points: np.ndarray) -> np.ndarray:
    """Which points [n, K] no other point dominates (at least as good everywhere, better somewhere): bool [n].

    >>> pareto(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).tolist()
    [True, True, False]
    """
    x = np.asarray(points, np.float64)
    return np.array([not bool(((x >= one).all(axis=1) & (x > one).any(axis=1)).any()) for one in x], bool)


def hypervolume(points: np.ndarray, reference: object) -> float:
    """Volume that points [n, K] dominate above a reference [K]; larger is better in every objective. Exact, by slicing the last one.

    Points that do not exceed the reference add nothing. Time grows with n^(K-1): meant for fronts of tens of points.

    >>> hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), [0.0, 0.0])
    3.0
    """
    base = np.asarray(reference, np.float64)
    x = np.asarray(points, np.float64)
    if x.ndim != 2 or x.shape[1:] != base.shape:
        raise InputError(f"points are [n, K] and the reference [K], not {list(x.shape)} and {list(base.shape)}")
    if not (np.isfinite(x).all() and np.isfinite(base).all()):
        raise InputError("points and reference are finite numbers")
    return _volume(x[(x > base).all(axis=1)] - base)


def _volume(x: np.ndarray) -> float:
    if not len(x):
        return 0.0
    if x.shape[1] == 1:
        return float(x.max())
    heights = np.unique(x[:, -1])
    below = np.concatenate([[0.0], heights[:-1]])
    return float(sum((top - low) * _volume(x[x[:, -1] >= top][:, :-1]) for low, top in zip(below, heights, strict=True)))


def front(policies: Sequence[np.ndarray], rewards: np.ndarray) -> np.ndarray:
    """Mean rewards of policies over prompts: [number of policies, K] from probabilities [n, C] and rewards [n, C, K].

    >>> front([np.array([[1.0, 0.0]])], np.array([[[3.0, 1.0], [0.0, 0.0]]])).tolist()
    [[3.0, 1.0]]
    """
    made: list[Any] = [np.einsum("nc,nck->k", one, rewards) / len(rewards) for one in policies]
    return np.array(made)
