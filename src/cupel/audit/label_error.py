"""The label error of these votes, from whatever evidence they carry: the bridge from `Votes` to the estimators on arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cupel.audit.types import FlipRate
from cupel.records.keys import dense
from cupel.records.schema import Votes
from cupel.votes.label_error import p_correct, repeats, single

#: labels that are no error (an error rate of 0) and coins (1/2) would make odds infinite or empty
_TAU = (0.001, 0.499)
#: groups that intervals resample one by one; more are first joined at random into `JOINED` sets
MOST_GROUPS, JOINED = 20_000, 2_000


def repeated_pairs(votes: Votes) -> int:
    """Number of pairs on which at least two different known annotators state a preference."""
    stated = (votes.sign != 0) & (votes.annotator >= 0)
    if not stated.any():
        return 0
    pair = votes.pair[stated]
    person = dense(pair, votes.annotator[stated])
    of = np.zeros(int(person.max()) + 1, dtype=np.int64)
    of[person] = pair  # the pair of each (pair, annotator)
    return int((np.bincount(of) >= 2).sum())


def joined_groups(groups: np.ndarray, seed: int) -> np.ndarray:
    """Groups [n] as they are, or, of more than `MOST_GROUPS`, dealt at random into `JOINED` sets of groups: what is resampled.

    Sets of independent groups are independent, so the spread between them estimates the same variance (the method of random groups),
    known to 1/sqrt(2 JOINED) = 1.6 % from this many; resampling 10^6 groups a thousand times would cost more than the audit.
    """
    code = dense(groups)
    size = int(code.max(initial=-1)) + 1
    if size <= MOST_GROUPS:
        return groups
    dealt = np.random.default_rng([seed, 11]).permutation(size) % JOINED
    return dealt[code]


def from_single(votes: Votes, margin: np.ndarray, seed: int) -> FlipRate:
    """Bounds of the label error, from out-of-fold margins [n] oriented to the recorded label."""
    first, second = votes.node
    return single(first, second, votes.sign, margin, joined_groups(votes.group, seed), seed=seed)


def from_repeats(votes: Votes, seed: int) -> FlipRate:
    """Label error from pairs with votes of several people: estimate with its interval where a model gives one, else the bounds."""
    rate = repeats(votes.pair, votes.pair_sign, joined_groups(votes.group, seed), votes.annotator, seed=seed)
    share = rate.n / max(int((votes.sign != 0).sum()), 1)
    if share < 0.95:
        scope = f"measured on the {100 * share:.0f} % of votes whose pair has several; the other pairs are assumed to be like these"
        rate = replace(rate, assumptions=(*rate.assumptions, scope))
    return rate


def p_correct_from_repeats(votes: Votes, suspicion: np.ndarray, inside: np.ndarray, rate: FlipRate) -> np.ndarray:
    """P(recorded label is right), float64 [n]; NaN for rows outside `inside` (a mask) and for rows without a preference.

    On pairs with several votes the probability that a row is wrong is sigmoid(-net logit(1 - tau)), net being the votes for its
    side minus the votes against it, each taken to be wrong with the same rate tau. Isotonic regression carries these probabilities
    to every row by its suspicion, with mean tau.
    """
    tau = rate.estimate if rate.estimate is not None else (rate.low + rate.high) / 2
    tau = float(np.clip(tau, *_TAU))
    used = inside & (votes.sign != 0)
    pair, sign = votes.pair, votes.pair_sign.astype(np.float64)
    size = int(pair.max(initial=-1)) + 1
    net = np.bincount(pair[used], weights=sign[used], minlength=size)
    count = np.bincount(pair[used], minlength=size)
    wrong = 1.0 / (1.0 + np.exp(np.clip(net[pair] * sign * np.log((1 - tau) / tau), -50, 50)))
    index = np.flatnonzero(used)
    checked = np.flatnonzero(count[pair[index]] >= 2)
    result = np.full(len(votes), np.nan)
    result[index] = p_correct(suspicion[index], checked, wrong[index][checked], tau)
    return result
