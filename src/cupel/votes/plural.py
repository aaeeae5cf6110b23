"""Do people differ, or do people err? One margin for all, reliability per person, and taste per person, compared on held-out votes.

The three models of `cupel.votes.tastes` are fitted on part of the pairs and judged by the log loss of the votes on the rest, in folds of
pairs: all votes on a pair are held out together, so no repeated pair leaks, while every person has votes in the other folds. Gains are
paired differences in nats per vote, with an interval that allows for votes of one person and votes on one prompt (or pair) to go together.

What a verdict needs:

    people_differ   taste beats reliability by an interval above 0, with people exchanged among the votes on a pair it does not, and the
                    fit on all votes has a taste
    people_err      reliability beats one margin by an interval above 0, and the interval of what taste adds is not above 0 and ends
                    below what reliability adds
    no_sign         neither adds anything, and a spread of taste of 1 (in log-odds) would have been seen with 80 % power
    cannot_tell     anything else; `reason` says which
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.ballots import Ballots
from cupel.votes.folds import group_folds
from cupel.votes.intervals import Interval, normal_quantile
from cupel.votes.tastes import MODELS, Model, TasteFit, fit_tastes

Verdict = Literal["people_differ", "people_err", "no_sign", "cannot_tell"]
#: votes of a person from which held-out ones are judged; votes of others still teach the common margin
MIN_VOTES = 10
#: people and judged votes below which nothing is tried
MIN_PEOPLE, MIN_JUDGED = 5, 200
#: share of sides that must come again for tastes of single items; below it only traits can carry a taste
_SHARED = 0.5
#: what counts as a taste worth seeing: as a standard deviation over votes, in log-odds (1: odds of 1 become odds of 2.7)
NOTABLE = 1.0
_POWER = 0.80
#: spreads that are planted for power
_GRID = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Disagreement:
    """What three models say of the same held-out votes.

    verdict and reason (words); loss: mean held-out log loss of each model, nats per vote; noise_gain = loss of `scalar` - loss of
    `noise`, taste_gain = loss of `noise` - loss of `plural`, control_gain: the same with people exchanged (None: not needed);
    spread: standard deviation over votes of the log-odds that taste adds, as far as the votes show it (shrunk: at least so much where
    the verdict is people_differ), margin: that of the common margin; turned: share of votes in which taste turns the common
    answer; largest: the largest share of the gain of taste that is one person's (above 1 where others lose; 0 without a gain);
    detectable: smallest planted spread seen with 80 % power on the same votes by the same people (infinite: none tried was; None: not
    asked); judged: held-out votes, by `people` people; exchanged_within: where the control exchanged people; per_vote: losses [judged]
    of each model at the positions `rows`; fit: the plural model on all votes (None where nothing was fitted).
    """

    verdict: Verdict
    reason: str
    loss: Mapping[str, float]
    noise_gain: Interval | None
    taste_gain: Interval | None
    control_gain: Interval | None
    spread: float
    margin: float
    turned: float
    largest: float
    detectable: float | None
    judged: int
    people: int
    exchanged_within: str
    rows: np.ndarray
    per_vote: Mapping[str, np.ndarray]
    fit: TasteFit | None


def plural_or_noise(
    votes: Ballots,
    prompt: np.ndarray | None = None,
    *,
    rank: int = 2,
    folds: int = 5,
    seed: int = 0,
    power: int = 2,
    level: float = 0.95,
) -> Disagreement:
    """Whether the disagreement among people is one of taste or of reliability, or cannot be told.

    prompt int [n]: what votes belong to (a prompt, a debate), for the intervals and the control; None: pairs alone. power: simulated
    copies per planted spread, 0 leaves `detectable` out (and `no_sign` cannot be said). The same seed gives the same result.

    >>> rng = np.random.default_rng(0)
    >>> who, (i, j) = rng.integers(0, 40, 6000), rng.permuted(np.tile(np.arange(20), (6000, 1)), axis=1)[:, :2].T
    >>> side = np.where(np.arange(40) % 2, 1.5, -1.5)
    >>> like = side[who] * ((i % 2) - (j % 2))
    >>> from cupel.votes.ballots import ballots
    >>> found = plural_or_noise(ballots(i, j, rng.random(6000) < 1 / (1 + np.exp(-like)), who), rank=1, folds=2, power=0)
    >>> found.verdict, found.taste_gain.low > 0.01, found.control_gain.low <= 0
    ('people_differ', True, True)
    """
    pair = pair_of(votes)
    prompt = np.zeros(len(votes), dtype=np.int64) if prompt is None else np.asarray(prompt)
    if prompt.shape != (len(votes),):
        raise InputError(f"{len(votes):,} votes need as many prompts, not the shape {prompt.shape}")
    judged = np.bincount(votes.person, minlength=votes.people)[votes.person] >= MIN_VOTES
    people = len(np.unique(votes.person[judged]))
    why = _hopeless(votes, pair, judged, people)
    if why:
        return _nothing(why, int(judged.sum()), people)
    fold = group_folds(pair, folds, seed)
    losses = held_out(votes, fold, MODELS, rank=rank, seed=seed)
    rows = np.flatnonzero(judged)
    unit = clusters(prompt, pair)
    who, unit_rows = votes.person[rows], unit[rows]

    def gain(worse: np.ndarray, better: np.ndarray) -> Interval:
        return two_way_interval((worse - better)[rows], who, unit_rows, level)

    noise_gain = gain(losses["scalar"], losses["noise"])
    taste_gain = gain(losses["noise"], losses["plural"])
    control, within = None, ""
    if taste_gain.low > 0:
        mixed, within = exchange(votes, pair, prompt, seed)
        again = held_out(mixed, fold, ("noise", "plural"), rank=rank, seed=seed)
        mask = np.flatnonzero(np.bincount(mixed.person, minlength=mixed.people)[mixed.person] >= MIN_VOTES)
        control = two_way_interval((again["noise"] - again["plural"])[mask], mixed.person[mask], unit[mask], level)
    fit = fit_tastes(votes, "plural", rank=rank, seed=seed)
    detectable = None
    if power and not taste_gain.low > 0:
        detectable = smallest_spread(votes, fold, rows, unit, rank=rank, seed=seed, copies=power, level=level)
    own = np.bincount(who, weights=(losses["noise"] - losses["plural"])[rows])
    largest = float(own.max() / own.sum()) if own.sum() > 0 else 0.0
    verdict, reason = _judge(noise_gain, taste_gain, control, detectable, largest, fit.spread)
    common = _apart(fit.scores, votes) * fit.slope[votes.person]
    apart = fit.factors[votes.first] - fit.factors[votes.second]
    mine = common + np.einsum("nr,nr->n", fit.taste[votes.person], apart)
    return Disagreement(
        verdict=verdict, reason=reason, loss={name: float(value[rows].mean()) for name, value in losses.items()}, noise_gain=noise_gain,
        taste_gain=taste_gain, control_gain=control, spread=fit.spread, margin=fit.mean_spread, turned=float(np.mean(common * mine < 0)),
        largest=largest, detectable=detectable, judged=len(rows), people=people, exchanged_within=within,
        rows=rows, per_vote={name: value[rows] for name, value in losses.items()}, fit=fit,
    )  # fmt: skip


def held_out(votes: Ballots, fold: np.ndarray, models: tuple[Model, ...], *, rank: int, seed: int) -> dict[str, np.ndarray]:
    """Log loss [n] of every vote by each model fitted without the vote's fold."""
    out = {name: np.empty(len(votes)) for name in models}
    for k in range(int(fold.max()) + 1):
        train, test = votes.take(fold != k), votes.take(fold == k)
        for name in models:
            out[name][fold == k] = fit_tastes(train, name, rank=rank, seed=seed).log_loss(test)
    return out


def pair_of(votes: Ballots) -> np.ndarray:
    """int64 [n]: dense number of the unordered pair of items."""
    low, high = np.minimum(votes.first, votes.second), np.maximum(votes.first, votes.second)
    return np.unique(low * votes.items + high, return_inverse=True)[1].reshape(-1)


def clusters(prompt: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """What intervals treat as independent beside people: prompts where they are worth 10 equal ones or more, else pairs."""
    return prompt if _effective(prompt) >= 10 else pair


def _effective(group: np.ndarray) -> float:
    """1 / sum of squared shares."""
    size = np.unique(group, return_counts=True)[1]
    return float(size.sum() ** 2 / (size.astype(np.float64) ** 2).sum())


def two_way_interval(value: np.ndarray, one: np.ndarray, other: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the mean of value [n] when rows that share `one` go together, and rows that share `other` do.

    Variance V_one + V_other - V_both, each the sum of squared sums of deviations within a cluster over n^2 times G/(G-1) (Cameron,
    Gelbach & Miller 2011, JBES 29); at least the larger of the first two. Student's quantile at the smaller effective number of
    clusters, 1 / sum of squared shares, less one: few people who cast most votes are few clusters. `groups` is that number.

    >>> found = two_way_interval(np.array([1.0, 0, 1, 0, 1, 0]), np.arange(6), np.arange(6))
    >>> round(found.estimate, 2), found.groups, round(found.low, 2)
    (0.5, 6, -0.07)
    """
    from scipy.special import stdtrit

    value = np.asarray(value, dtype=np.float64)
    n = len(value)
    if n < 2:
        raise InputError(f"an interval needs two values or more, not {n}")
    mean = float(value.mean())
    rest = value - mean
    one, other = (np.unique(x, return_inverse=True)[1].reshape(-1) for x in (one, other))
    both = one * (int(other.max()) + 1) + other

    def part(group: np.ndarray) -> float:
        index = np.unique(group, return_inverse=True)[1].reshape(-1)
        sums = np.bincount(index, weights=rest)
        return float((sums**2).sum()) / n**2 * len(sums) / max(len(sums) - 1, 1)

    first, second, cells = part(one), part(other), part(both)
    variance = max(first, second, first + second - cells)
    effective = min(_effective(one), _effective(other))
    if effective < 2:
        return Interval(mean, float("nan"), float("nan"), int(effective))
    normal_quantile(level)  # refuses a level outside (0, 1)
    half = float(stdtrit(effective - 1, 0.5 + level / 2) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half, int(effective))


def exchange(votes: Ballots, pair: np.ndarray, prompt: np.ndarray, seed: int) -> tuple[Ballots, str]:
    """(the votes with people exchanged, where): within pairs, or prompts, or everywhere.

    The finest of the three in which at least half of the votes stand beside another person's. What is said about an item stays, and so
    does how often each person voted; who said it is lost.
    """
    within, group = "pairs", pair
    for within, group in (("pairs", pair), ("prompts", prompt), ("everything", np.zeros(len(votes), dtype=np.int64))):  # noqa: B007
        index = np.unique(group, return_inverse=True)[1].reshape(-1)
        own = np.unique(index * votes.people + votes.person, return_inverse=True)[1].reshape(-1)
        if np.mean(np.bincount(own)[own] < np.bincount(index)[index]) >= 0.5:
            break
    rng = np.random.default_rng([seed, 17])
    person = np.empty_like(votes.person)
    person[np.argsort(group, kind="stable")] = votes.person[np.lexsort((rng.random(len(votes)), group))]
    return replace(votes, person=person), within


def planted(votes: Ballots, base: TasteFit, spread: float, seed: int) -> Ballots:
    """A copy of the votes drawn from a fitted noise model plus a planted taste of rank 1.

    u and v are normal (where items do not come again, v is a random direction of traits), scaled so that the standard deviation of
    u_a (v_i - v_j) over the votes is `spread`, in log-odds. Noise between people is what the fit found, no more.
    """
    rng = np.random.default_rng(seed)
    k = votes.traits.shape[1]
    v = votes.traits @ rng.normal(size=k) if k and shared_sides(votes) < _SHARED else rng.normal(size=votes.items)
    added = rng.normal(size=votes.people)[votes.person] * _apart(v, votes)
    added *= spread / max(float(np.sqrt(np.mean(added**2))), 1e-12)
    who = votes.person
    odds = base.slope[who] * _apart(base.scores, votes) + base.place[who] + added
    p = base.coin[who] / 2 + (1 - base.coin[who]) / (1 + np.exp(-odds))
    return replace(votes, won=rng.random(len(votes)) < p)


def _apart(score: np.ndarray, votes: Ballots) -> np.ndarray:
    return score[votes.first] - score[votes.second]


def smallest_spread(
    votes: Ballots, fold: np.ndarray, rows: np.ndarray, unit: np.ndarray, *, rank: int, seed: int, copies: int, level: float = 0.95
) -> float:
    """Smallest planted spread of taste (`planted`) that the comparison would see with 80 % power; infinite where 4 is too small.

    At each spread tried the gain of taste is measured in `copies` simulated sets by the same folds; power is that of a normal with the
    mean of gain / standard error. The spread is interpolated (both in logarithms) between the two neighbours of a grid of doublings.
    """
    base = fit_tastes(votes, "noise", seed=seed)
    wanted = normal_quantile(level) + normal_quantile(2 * _POWER - 1)
    known: dict[int, float] = {}

    def strength(at: int) -> float:
        if at not in known:
            found = []
            for copy in range(copies):
                drawn = planted(votes, base, _GRID[at], seed=(seed + 1) * 1009 + 31 * at + copy)
                loss = held_out(drawn, fold, ("noise", "plural"), rank=rank, seed=seed)
                gain = two_way_interval((loss["noise"] - loss["plural"])[rows], votes.person[rows], unit[rows], level)
                found.append(gain.estimate / max((gain.estimate - gain.low) / normal_quantile(level), 1e-12))
            known[at] = float(np.mean(found))
        return known[at]

    at = _GRID.index(NOTABLE)
    if strength(at) >= wanted:
        while at > 0 and strength(at - 1) >= wanted:
            at -= 1
        if at == 0:
            return _GRID[0]
    else:
        while strength(at) < wanted:
            at += 1
            if at == len(_GRID):
                return float("inf")
    below, above = max(strength(at - 1), 0.1), strength(at)
    share = np.log(wanted / below) / np.log(max(above / below, wanted / below))
    return float(_GRID[at - 1] * (_GRID[at] / _GRID[at - 1]) ** np.clip(share, 0.0, 1.0))


def shared_sides(votes: Ballots) -> float:
    """Share of compared sides whose item was judged by two people or more, and more than twice.

    >>> from cupel.votes.ballots import ballots
    >>> shared_sides(ballots(np.array([0, 0, 0, 4]), np.array([1, 2, 3, 5]), np.ones(4), np.array([0, 1, 1, 0])))
    0.375
    """
    item = np.concatenate([votes.first, votes.second])
    own = np.unique(item * votes.people + np.tile(votes.person, 2))
    several = np.bincount(own // votes.people, minlength=votes.items) > 1
    again = np.bincount(item, minlength=votes.items) > 2  # still there when one pair is held out
    return float(np.mean((several & again)[item]))


def _hopeless(votes: Ballots, pair: np.ndarray, judged: np.ndarray, people: int) -> str:
    """Why nothing can be fitted, or nothing."""
    if people < MIN_PEOPLE:
        return f"{people:,} people cast {MIN_VOTES} votes or more, and {MIN_PEOPLE} are needed"
    if judged.sum() < MIN_JUDGED:
        return f"people with {MIN_VOTES} votes or more cast {int(judged.sum()):,} votes, and {MIN_JUDGED} are needed"
    if pair.max() < 9:
        return f"the votes are on {int(pair.max()) + 1:,} pairs, and 10 are needed to hold some out"
    if not votes.traits.shape[1]:
        share = shared_sides(votes)
        if share < _SHARED:
            return f"only {share:.0%} of the sides that were compared were also judged by another person in another pair"
    return ""


def _judge(
    noise: Interval, taste: Interval, control: Interval | None, detectable: float | None, largest: float, spread: float
) -> tuple[Verdict, str]:
    if not np.isfinite(taste.low):
        return "cannot_tell", "the votes come from too few people or prompts for an interval"
    if taste.low > 0:
        if control is not None and not control.low <= 0:
            return "cannot_tell", "taste gains as well when people are exchanged, so what it gains is not theirs"
        if not spread > 0:
            return "cannot_tell", "a taste is found when some votes are held out, and none in all of them"
        return "people_differ", "who votes tells which side wins, beyond how reliable each person is"
    power = "" if detectable is None else (
        "; no spread of taste that was tried would have been seen on these votes" if np.isinf(detectable)
        else f"; a spread of taste of {detectable:.2g} in log-odds would have been seen with 80 % power"
    )  # fmt: skip
    if noise.low > 0 and taste.high < noise.estimate:
        return "people_err", f"people differ in how reliable they are, and taste adds nothing that these votes show{power}"
    if not noise.low > 0 and taste.high <= 0 and detectable is not None and detectable <= NOTABLE:
        return "no_sign", f"neither reliability nor taste of single people tells anything{power}"
    one = f", and {min(largest, 1.0):.0%} of it is one person's" if largest > 0.25 else ""
    also = "people differ in how reliable they are; whether in taste too is open: " if noise.low > 0 else ""
    return "cannot_tell", f"{also}the interval of what taste adds holds 0{one}{power}"


def _nothing(reason: str, judged: int, people: int) -> Disagreement:
    return Disagreement(
        verdict="cannot_tell", reason=reason, loss={}, noise_gain=None, taste_gain=None, control_gain=None, spread=float("nan"),
        margin=float("nan"), turned=float("nan"), largest=float("nan"), detectable=None, judged=judged, people=people, exchanged_within="",
        rows=np.zeros(0, dtype=np.int64), per_vote={}, fit=None,
    )  # fmt: skip
