"""Which recorded choices to train on, and pairs of rationales for it: difficulty, rejection, controls, rows for imitation and preference.

Method card 20-usersim, as in the authors' code:

    behaviour_k ~ Categorical(p_k);  match_k = (behaviour_k = a)
    drop scenes that no rationale explains
    chosen   = the matching strong rationale of lowest H(p_k)
    rejected = the non-matching rationale of lowest H(p_k), of either source
    scenes by difficulty within strata, each stratum its share of the budget; scenes that lack a side give no pair

The authors' code first drops scenes that no rationale of either source matches, and then those without a matching strong one, since nothing
could be chosen there; the second filter is the sharper one, and by default scenes are selected after it.

Controls that stand beside every selection: `random` with and without rejection, hit rates, the other uncertainties, log loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from cupel.curate.choice_noise import ChoiceNoise, choice_noise
from cupel.curate.rationales import (
    Padded,
    Source,
    chosen_of,
    entropy,
    expected_match,
    explainable,
    padded,
    sample_behaviours,
    uncertainty,
)
from cupel.errors import InputError

Reject = Literal["strong", "either", "none"]
By = Literal["epistemic", "total", "aleatoric", "hit_rate", "strong_hit_rate", "log_loss", "random"]
#: an interval of the rate of wrong records that is wider than this says nothing
_VAGUE = 0.25
#: letters that label options; more than these have no single-letter label
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Pairs:
    """One pair of rationales per scene that has both sides; all arrays [pairs].

    scene      which scene
    chosen     rationale of the strong source
    rejected   rationale of the source that `weak` says: False strong, True weak
    behaviour  the option that the rejected rationale leads to
    """

    scene: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    weak: np.ndarray
    behaviour: np.ndarray

    def of(self, scenes: np.ndarray) -> Pairs:
        """The pairs of some scenes."""
        keep = np.isin(self.scene, scenes)
        return Pairs(self.scene[keep], self.chosen[keep], self.rejected[keep], self.weak[keep], self.behaviour[keep])


@dataclass(frozen=True)
class Selection:
    """What `select` keeps.

    scenes        int64, ascending: the scenes that are kept
    pairs         of kept scenes that have both a matching and a non-matching rationale
    score         float64 [all scenes] by which they were ranked (higher first); explained bool [all scenes], by the sources
                  that `reject` names
    noise         the rate of wrong records over all scenes; `noise_kept` its expected share among the kept ones, NaN where the interval
                  of the rate is wider than .25: the strong source knows too little to tell
    words         the same in sentences
    """

    scenes: np.ndarray
    pairs: Pairs
    score: np.ndarray
    explained: np.ndarray
    noise: ChoiceNoise
    noise_kept: float
    words: tuple[str, ...]


def select(
    strong: Source | Padded, weak: Source | Padded, chosen: np.ndarray | Sequence[int], *, by: By = "epistemic",
    reject: Reject = "strong", budget: int | None = None, strata: Sequence[Any] | np.ndarray | None = None, seed: int = 0,
) -> Selection:  # fmt: skip
    """The scenes to train on, by difficulty under the strong and the weak source's rationales (read by one predictor), and their pairs.

    by      what ranks scenes: a difference weak minus strong of `epistemic`, `total` or `aleatoric` bits or of `log_loss` (-log2 p_k[a]);
            `hit_rate` (drawn matches, strong minus weak), `strong_hit_rate`, or `random`: the control
    reject  leave out scenes that no rationale of the strong source explains, or none of either, or "none" at all
    budget  scenes to keep; None keeps all. strata: a value per scene, by default its number of options
    seed    of the drawn behaviours and of `random`
    InputError as `padded`, for sources of different scenes, and where nothing is left.

    >>> sharp, vague = np.array([[[0.98, 0.02]] * 2, [[0.5, 0.5]] * 2]), np.full((2, 2, 2), 0.5)
    >>> select(sharp, vague, [0, 0], budget=1, seed=1).scenes.tolist()
    [0]
    """
    if by not in get_args(By):
        raise InputError(f"by is one of {', '.join(get_args(By))}, not {by!r}")
    if reject not in get_args(Reject):
        raise InputError(f"reject is one of {', '.join(get_args(Reject))}, not {reject!r}")
    one, other = padded(strong, name="strong"), padded(weak, name="weak")
    if one.there.shape != other.there.shape or (one.there != other.there).any():
        raise InputError(
            f"the strong source has {len(one.p):,} scenes and the weak one {len(other.p):,}, or their options differ: both are to speak "
            "of the same scenes"
        )
    a = chosen_of(chosen, one)
    did_strong, did_weak = sample_behaviours(one, seed=seed), sample_behaviours(other, seed=seed + 1)
    hits, misses = did_strong == a[:, None], did_weak == a[:, None]
    explained = explainable(hits) if reject == "strong" else explainable(hits, misses)
    score = _score(by, one, other, a, hits, misses, seed)
    pool = np.arange(len(a)) if reject == "none" else np.flatnonzero(explained)
    if not len(pool):
        raise InputError(f"no rationale explains any of the {len(a):,} recorded choices: nothing is left (reject='none' keeps them all)")
    groups = one.sizes if strata is None else np.asarray(strata)
    if len(groups) != len(a):
        raise InputError(f"{len(groups):,} strata for {len(a):,} scenes: give one value per scene")
    kept = pool if budget is None else pool[stratified_top(score[pool], groups[pool], budget)]
    pairs = chosen_rejected(one, other, a, did_strong, did_weak).of(kept)
    noise = choice_noise(one, a)
    vague = noise.high - noise.low > _VAGUE
    share = float("nan") if vague else float(noise.wrong[kept].mean())
    left = "none was left out for being unexplained" if reject == "none" else f"{int((~explained).sum()):,} unexplained ones were left out"
    words = (
        f"{len(kept):,} of {len(a):,} scenes kept by {by}, {left}; {len(pairs.scene):,} of them have a pair of rationales.",
        f"How many recorded choices are wrong cannot be told: between {noise.low:.3f} and {noise.high:.3f} of all, the strong source knows "
        "too little." if vague else
        f"Recorded choices that are wrong: {noise.rate:.3f} of all [{noise.low:.3f}, {noise.high:.3f}], {share:.3f} of those kept, if the "
        "strong source is never sure of something wrong.",
    )  # fmt: skip
    return Selection(kept, pairs, score, explained, noise, share, words)


def stratified_top(score: np.ndarray, strata: np.ndarray, budget: int) -> np.ndarray:
    """Positions of the scenes with the highest scores within strata, ascending: int64, `budget` of them or fewer.

    A stratum g of |g| scenes among N gets min(ceil(|g| / N * budget), |g|, what remains of the budget), strata in sorted order, so the
    last ones may get less. Equal scores: the earlier scene. InputError for scores that are not finite and a budget below 1.

    >>> stratified_top(np.array([0.1, 0.9, 0.5, 0.2]), np.array([2, 2, 3, 3]), 2).tolist()
    [1, 2]
    """
    score, strata = np.asarray(score, np.float64), np.asarray(strata)
    if len(score) != len(strata):
        raise InputError(f"{len(score):,} scores and {len(strata):,} strata: one of each per scene")
    if budget < 1:
        raise InputError(f"a budget of {budget} scenes keeps nothing; give 1 at least")
    bad = np.flatnonzero(~np.isfinite(score))
    if len(bad):
        raise InputError(f"{len(bad):,} of {len(score):,} scores are not finite (first: scene {bad[0]}); aleatoric needs two rationales")
    _, of, size = np.unique(strata, return_inverse=True, return_counts=True)
    remaining, kept = int(budget), []
    for g, count in enumerate(size.tolist()):
        rows = np.flatnonzero(of.reshape(-1) == g)
        give = min(-(-count * budget // len(score)), count, remaining)  # the ceiling in whole numbers
        kept.append(rows[np.argsort(-score[rows], kind="stable")[:give]])
        remaining -= give
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def chosen_rejected(
    strong: Source | Padded, weak: Source | Padded, chosen: np.ndarray | Sequence[int], did_strong: np.ndarray, did_weak: np.ndarray
) -> Pairs:  # fmt: skip
    """Per scene the matching strong rationale and the non-matching one of either source, both of lowest entropy; scenes with both only.

    did_strong, did_weak: options that the rationales lead to, of `sample_behaviours`. Equal entropies: the strong source, then the earlier
    rationale. A weak rationale is never chosen.

    >>> strong = np.array([[[0.9, 0.1], [0.6, 0.4]]])
    >>> found = chosen_rejected(strong, np.array([[[0.5, 0.5]]]), [0], np.array([[0, 0]]), np.array([[1]]))
    >>> found.chosen.tolist(), found.rejected.tolist(), found.weak.tolist(), found.behaviour.tolist()
    ([0], [0], [True], [1])
    """
    one, other = padded(strong, name="strong"), padded(weak, name="weak")
    a = chosen_of(chosen, one)
    did = np.concatenate([did_strong, did_weak], axis=1)
    bits = np.concatenate([entropy(one.p), entropy(other.p)], axis=1)
    if did.shape != bits.shape:
        raise InputError(f"{did.shape} behaviours for {bits.shape} rationales: one per rationale of both sources")
    k = one.p.shape[1]
    match = did == a[:, None]
    best = np.where(match[:, :k], bits[:, :k], np.inf)
    worst = np.where(match, np.inf, bits)
    scene = np.flatnonzero(match[:, :k].any(axis=1) & ~match.all(axis=1))
    rejected = worst[scene].argmin(axis=1)
    is_weak = rejected >= k
    return Pairs(scene, best[scene].argmin(axis=1), np.where(is_weak, rejected - k, rejected), is_weak, did[scene, rejected])


def answer(rationale: str, option: int) -> str:
    """A response to train on: the rationale, if there is one, then the option's letter as the behaviour.

    >>> answer("Likes westerns.", 1), answer("", 0)
    ('Likes westerns.\\nBehavior: [B]', 'Behavior: [A]')
    """
    return f"{rationale}\nBehavior: [{LETTERS[option]}]" if rationale else f"Behavior: [{LETTERS[option]}]"


def pair_rows(
    pairs: Pairs, prompts: Sequence[str], strong_texts: Sequence[Sequence[str]], weak_texts: Sequence[Sequence[str]],
    chosen: np.ndarray | Sequence[int], *, groups: Sequence[Any] | None = None, respond: Callable[[str, int], str] = answer,
) -> list[dict[str, str]]:  # fmt: skip
    """Rows {prompt, chosen, rejected[, group]} in the columns of TRL, as `cupel train sft` and `cupel train policy` read them.

    prompts [scenes], texts [scenes][K]; groups: whom a scene belongs to, so that one user's scenes are held out together.
    InputError where the two responses of a pair are the same text (which says nothing), by number.

    >>> one = np.array([0])
    >>> pairs = Pairs(one, one + 1, one, one == 0, one + 2)
    >>> pair_rows(pairs, ["Which?"], [["x", "y"]], [["z"]], [0])
    [{'prompt': 'Which?', 'chosen': 'y\\nBehavior: [A]', 'rejected': 'z\\nBehavior: [C]'}]
    """
    rows = []
    texts: tuple[Sequence[Sequence[str]], ...] = (strong_texts, weak_texts)
    for n in range(len(pairs.scene)):
        s = int(pairs.scene[n])
        spoilt = texts[int(pairs.weak[n])][s][int(pairs.rejected[n])]
        row = {
            "prompt": prompts[s], "chosen": respond(strong_texts[s][int(pairs.chosen[n])], int(chosen[s])),
            "rejected": respond(spoilt, int(pairs.behaviour[n])),
        }  # fmt: skip
        rows.append(row if groups is None else {**row, "group": str(groups[s])})
    same = [n for n, row in enumerate(rows) if row["chosen"] == row["rejected"]]
    if same:
        raise InputError(
            f"{len(same):,} of {len(rows):,} pairs have one text on both sides (first: pair {same[0]}); `respond` must say which"
        )
    return rows


def _score(by: By, one: Padded, other: Padded, a: np.ndarray, hits: np.ndarray, misses: np.ndarray, seed: int) -> np.ndarray:
    if by == "random":
        return np.random.default_rng([seed, 21]).random(len(a))
    if by == "strong_hit_rate":
        return hits.mean(axis=1)
    if by == "hit_rate":
        return hits.mean(axis=1) - misses.mean(axis=1)
    if by == "log_loss":
        return np.log2(expected_match(one, a)).mean(axis=1) - np.log2(expected_match(other, a)).mean(axis=1)
    return getattr(uncertainty(other), by) - getattr(uncertainty(one), by)
