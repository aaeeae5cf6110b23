"""Label errors planted on purpose; the mask says where. Who wins is exchanged and nothing else, unless a judge's answers are copied.

Errors can be the same everywhere, lean to a side (longer, shown first), sit in some topics, gather on hard pairs, or belong to annotators.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.arrow import pc
from cupel.records.schema import TIE, A, B, Votes


def flip(votes: Votes, rows: np.ndarray) -> Votes:
    """Votes with the preference of the given rows reversed: outcome a <-> b and p -> 1 - p. Ties, both bad and skipped stay.

    rows: boolean mask [n].

    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    >>> flipped = flip(votes, np.array([True]))
    >>> flipped.sign.tolist(), flipped.p.tolist()
    ([-1], [0.0])
    """
    rows = np.asarray(rows, dtype=bool) & (votes.sign != 0)
    outcome = votes.outcome.copy()
    outcome[rows] = np.where(votes.outcome[rows] == A, B, A)
    return votes.with_(outcome=outcome, p=np.where(rows, 1.0 - votes.p, votes.p))


def flip_symmetric(votes: Votes, rate: float, seed: int) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n] of what was flipped): each decided vote is reversed with probability `rate`, independently.

    rate: in [0, 1], else InputError.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "y"} for i in range(100)])
    >>> flip_symmetric(votes, 1.0, seed=0)[1].all()
    np.True_
    """
    _share("rate", rate)
    mask = (np.random.default_rng(seed).random(len(votes)) < rate) & (votes.sign != 0)
    return flip(votes, mask), mask


def flip_length_biased(votes: Votes, rate: float, seed: int) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n]): votes for the shorter side are reversed toward the longer one, until `rate` of the decided votes are.

    The rows are drawn at random among the votes for the shorter side; where there are fewer of these than asked for, all of them are
    reversed (the mask says how many), since a vote for the longer side cannot be reversed toward it.

    rate: in [0, 1], else InputError.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "longer"} for i in range(10)])
    >>> int(flip_length_biased(votes, 0.3, seed=0)[1].sum())
    3
    """
    _share("rate", rate)
    size = pc.utf8_length(votes.responses).to_numpy(zero_copy_only=False).astype(np.int64)
    return _flip_toward(votes, np.sign(size[votes.first] - size[votes.second]), rate, seed)


def flip_position_biased(votes: Votes, rate: float, seed: int, *, side: Literal["first", "second"] = "first") -> tuple[Votes, np.ndarray]:
    """(votes, mask [n]): votes for the other side are reversed toward the `side` shown there, until `rate` of the decided votes are.

    As `flip_length_biased`. InputError where the data does not say which side was shown first: `first` may then be "the chosen one".

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "response_a": "x", "response_b": "y", "vote": "ab"[i % 2]} for i in range(10)])
    >>> flip_position_biased(votes, 0.2, seed=0)[0].sign.sum()
    np.int64(4)
    """
    _share("rate", rate)
    if not votes.order_known:
        raise InputError("the data does not say which side was shown first, so no habit of naming one can be planted. Use flip_symmetric")
    return _flip_toward(votes, np.full(len(votes), 1 if side == "first" else -1), rate, seed)


def flip_some_groups(
    votes: Votes, rate: float, seed: int, *, groups: np.ndarray | None = None, share: float = 0.25
) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n]): all errors lie in some topics: `rate` of the decided votes, drawn among those of a random `share` of the groups.

    Groups (int [n]; `votes.group` where None) are added in random order until they hold `share` of the decided votes, and further ones if
    that is too few for every error; within them each vote is as likely as another. rate, share: in [0, 1], else InputError.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i // 10), "chosen": f"x{i}", "rejected": f"y{i}"} for i in range(100)])
    >>> mask = flip_some_groups(votes, 0.1, seed=0, share=0.2)[1]
    >>> int(mask.sum()), len(np.unique(votes.group[mask]))
    (10, 2)
    """
    _share("rate", rate)
    _share("share", share)
    topic = np.unique(votes.group if groups is None else np.asarray(groups), return_inverse=True)[1].reshape(-1)
    decided = votes.sign != 0
    count = round(rate * int(decided.sum()))
    rng = np.random.default_rng(seed)
    size = np.bincount(topic, weights=decided)
    order = rng.permutation(len(size))
    before = np.append(0.0, np.cumsum(size[order])[:-1])
    chosen = order[before < max(share * decided.sum(), count)] if count else order[:0]
    able = np.flatnonzero(decided & np.isin(topic, chosen))
    mask = np.zeros(len(votes), dtype=bool)
    mask[rng.choice(able, size=count, replace=False)] = True
    return flip(votes, mask), mask


def flip_hard_pairs(votes: Votes, strength: np.ndarray, rate: float, seed: int) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n]): harder pairs flip more: each decided vote is reversed with probability min(1/2, c e^(-|strength| / s)).

    strength float [n]: how clear the preference is (a margin, a difference of scores, log-odds), 0 the hardest; s its mean absolute
    value over decided votes; c is chosen so that the mean probability is `rate`. No pair is wrong more often than not.
    InputError for a rate outside [0, 1/2), strengths that are not finite, or a rate that needs clear pairs to flip as coins do.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "y"} for i in range(1000)])
    >>> strength = np.linspace(0, 3, 1000)
    >>> mask = flip_hard_pairs(votes, strength, 0.2, seed=0)[1]
    >>> bool(abs(mask.mean() - 0.2) < 0.04), bool(mask[:300].mean() > 3 * mask[700:].mean())
    (True, True)
    """
    decided = votes.sign != 0
    clear = np.abs(np.asarray(strength, dtype=np.float64))
    if clear.shape != (len(votes),) or not np.isfinite(clear).all():
        raise InputError(f"strength is one finite number for each of {len(votes):,} votes")
    if not 0 <= rate < 0.5:
        raise InputError(f"rate is {rate}; hard pairs are coins at worst, so it lies in [0, 1/2)")
    mean = float(clear[decided].mean()) if decided.any() else 0.0
    hard = np.exp(-clear / mean) if mean > 0 else np.ones(len(votes))
    low, high = 0.0, 1.0
    while np.minimum(0.5, high * hard[decided]).mean() < rate and high < 1e12 and decided.any():
        high *= 2
    if high >= 1e12:
        raise InputError(f"a rate of {rate} would need the clearest pairs to flip as often as the hardest; use flip_symmetric")
    for _ in range(100):
        middle = (low + high) / 2
        reached = bool(decided.any()) and float(np.minimum(0.5, middle * hard[decided]).mean()) >= rate
        low, high = (low, middle) if reached else (middle, high)
    chance = np.minimum(0.5, high * hard) if rate > 0 else np.zeros(len(votes))
    mask = (np.random.default_rng(seed).random(len(votes)) < chance) & decided
    return flip(votes, mask), mask


Pool = Literal["spammers", "adversaries", "few_bad", "many_mild", "equal"]


def annotator_rates(kind: Pool, rate: float, n_annotators: int, seed: int) -> np.ndarray:
    """Flip rates [n_annotators] of a pool whose mean is `rate`, in random order: the same error, differently spread.

    spammers     as many as it takes answer by coin (rate 1/2), one in part, the rest are right
    adversaries  as many as it takes reverse everything (rate 1), one in part, the rest are right
    few_bad      a tenth of the pool (at least one; more if the rate needs it) share all errors
    many_mild    rates drawn from Beta(10 rate, 10 (1 - rate)), moved to the mean exactly
    equal        everybody at `rate`

    InputError for a rate outside [0, 1], above 1/2 for spammers, or an empty pool.

    >>> sorted(annotator_rates("adversaries", 0.25, 4, seed=0).tolist()), sorted(annotator_rates("spammers", 0.25, 4, seed=0).tolist())
    ([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.5])
    """
    _share("rate", rate)
    if n_annotators < 1:
        raise InputError("a pool has at least one annotator")
    rng = np.random.default_rng(seed)
    if kind == "many_mild" and 0 < rate < 1:
        found = rng.beta(10 * rate, 10 * (1 - rate), n_annotators)
        for _ in range(200):  # clipping moves the mean, moving it clips
            found = np.clip(found + (rate - found.mean()), 0.0, 1.0)
        return found
    tenth = max(1, round(n_annotators / 10))
    worst = {"spammers": 0.5, "adversaries": 1.0, "few_bad": min(1.0, rate * n_annotators / tenth)}.get(kind, rate)
    if rate > worst:
        raise InputError(f"coins are wrong half of the time: spammers cannot reach a mean rate of {rate}. Use adversaries")
    if worst == 0:
        return np.zeros(n_annotators)
    full, part = divmod(round(rate * n_annotators / worst, 9), 1)
    found = np.zeros(n_annotators)
    found[: int(full)] = worst
    if part > 1e-12 and int(full) < n_annotators:
        found[int(full)] = part * worst
    return found[rng.permutation(n_annotators)]


def flip_by_annotator(
    votes: Votes, rates: np.ndarray, seed: int, *, deal: bool = True, prefix: str = "annotator"
) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n]): each decided vote is reversed with the flip rate of its annotator.

    rates float [K] in [0, 1]. deal: every vote gets one of K new ids at random; otherwise rates belong to `votes.annotators`, in their
    order, and votes of unknown annotators stay. `meta["planted_rates"]` holds the rates by id. InputError for other rates.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "y"} for i in range(100)])
    >>> bad, mask = flip_by_annotator(votes, np.array([0.0, 1.0]), seed=0)
    >>> bool((mask == (bad.annotator == 1)).all()), bad.meta["planted_rates"]
    (True, {'annotator-0': 0.0, 'annotator-1': 1.0})
    """
    rates = np.asarray(rates, dtype=np.float64)
    wanted = len(rates) if deal else len(votes.annotators)
    if rates.shape != (wanted,) or wanted == 0 or not ((rates >= 0) & (rates <= 1)).all():
        raise InputError(f"rates are {max(wanted, 1):,} numbers in [0, 1], one per annotator, not an array of shape {rates.shape}")
    rng = np.random.default_rng(seed)
    who = rng.integers(wanted, size=len(votes)).astype(np.int32) if deal else votes.annotator
    width = len(str(wanted - 1))
    names = tuple(f"{prefix}-{i:0{width}d}" for i in range(wanted)) if deal else votes.annotators
    chance = np.append(rates, 0.0)[who]  # index -1, unknown: the last
    mask = (rng.random(len(votes)) < chance) & (votes.sign != 0)
    meta = {**votes.meta, "planted_rates": {name: float(rate) for name, rate in zip(names, rates, strict=True)}}
    return flip(votes, mask).with_(annotator=who, annotators=names, meta=meta), mask


def judge_confusion(truth: np.ndarray, said: np.ndarray, *, smooth: float = 0.0) -> np.ndarray:
    """P(judge says k | truth c), float64 [3, 3], for c and k in (second, tie, first), from signs -1, 0, +1 of the same comparisons.

    smooth: votes added to each cell. A row without cases says nothing and is uniform. InputError for other values or lengths.

    >>> judge_confusion(np.array([1, 1, 1, 1, -1, -1]), np.array([1, 1, 0, -1, -1, -1])).tolist()[2]
    [0.25, 0.25, 0.5]
    """
    truth, said = np.asarray(truth), np.asarray(said)
    if truth.shape != said.shape or not (np.isin(truth, (-1, 0, 1)).all() and np.isin(said, (-1, 0, 1)).all()):
        raise InputError("truth and what the judge said are signs -1, 0 or +1, one each per comparison")
    count = np.full((3, 3), float(smooth))
    np.add.at(count, (truth.astype(np.int64) + 1, said.astype(np.int64) + 1), 1.0)
    total = count.sum(axis=1, keepdims=True)
    return np.where(total > 0, count / np.where(total > 0, total, 1.0), 1 / 3)


def answer_like_judge(votes: Votes, confusion: np.ndarray, seed: int) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n] of what changed): each vote and tie is answered again as a judge with this confusion would, taking it as the truth.

    confusion [3, 3] as of `judge_confusion`. Unlike the other ways it makes ties of votes and votes of ties (p follows: 1, 1/2, 0); both
    bad and skipped stay. Ties are told apart by place, so a judge's habit of naming one side is planted too; where `first` is "the chosen
    one" (order not known), rows for "first" are the judge's on chosen sides. InputError where it is no such matrix.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "response_a": "x", "response_b": "y", "vote": "ab"[i % 2]} for i in range(100)])
    >>> always_first = np.array([[0.0, 0.0, 1.0]] * 3)
    >>> bad, mask = answer_like_judge(votes, always_first, seed=0)
    >>> int(mask.sum()), int(bad.sign.sum())
    (50, 100)
    """
    table = np.asarray(confusion, dtype=np.float64)
    if table.shape != (3, 3) or (table < 0).any() or not np.allclose(table.sum(axis=1), 1):
        raise InputError("a judge's confusion is a 3 x 3 matrix of probabilities (second, tie, first) whose rows add up to 1")
    answered = (votes.sign != 0) | (votes.outcome == TIE)
    draw = np.random.default_rng(seed).random(len(votes))
    ends = np.cumsum(table, axis=1)[votes.sign.astype(np.int64) + 1]
    said = (draw[:, None] >= ends[:, :2]).sum(axis=1)  # 0 second, 1 tie, 2 first
    new = np.array([B, TIE, A], dtype=votes.outcome.dtype)[said]
    mask = answered & (new != votes.outcome)
    return votes.with_(outcome=np.where(mask, new, votes.outcome), p=np.where(mask, said / 2, votes.p)), mask


def corrupt_annotators(
    votes: Votes,
    n_annotators: int = 20,
    *,
    random: float = 0.25,
    adversarial: float = 0.0,
    seed: int = 0,
    prefix: str = "annotator",
) -> tuple[Votes, np.ndarray]:
    """(votes, mask [n] of what was flipped): votes are dealt to a pool of annotators, some of whom are bad at it.

    Every vote gets one of `n_annotators` ids at random. `round(random * n_annotators)` of them answer by coin: each of their
    decided votes is reversed with probability 1/2. `round(adversarial * n_annotators)` others reverse every decided vote. The rest leave
    votes as they are.
    Which annotator is which is in `meta["planted_annotators"]`: {"random": [...], "adversarial": [...]}.

    random, adversarial: shares of the pool, in [0, 1] and together at most 1, else InputError.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "y"} for i in range(100)])
    >>> bad, mask = corrupt_annotators(votes, 10, random=0.0, adversarial=0.3, seed=1)
    >>> [len(names) for names in bad.meta["planted_annotators"].values()], len(bad.annotators)
    ([0, 3], 10)
    """
    _share("random", random)
    _share("adversarial", adversarial)
    n_random, n_adversarial = round(random * n_annotators), round(adversarial * n_annotators)
    if n_annotators < 1 or n_random + n_adversarial > n_annotators:
        raise InputError(
            f"{n_random} random and {n_adversarial} adversarial annotators do not fit into a pool of {n_annotators}. Lower the shares."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_annotators)
    coin, liar = order[:n_random], order[n_random : n_random + n_adversarial]
    who = rng.integers(n_annotators, size=len(votes)).astype(np.int32)
    heads = rng.random(len(votes)) < 0.5
    mask = ((np.isin(who, coin) & heads) | np.isin(who, liar)) & (votes.sign != 0)
    width = len(str(n_annotators - 1))
    names = tuple(f"{prefix}-{i:0{width}d}" for i in range(n_annotators))
    planted = {"random": [names[i] for i in sorted(coin)], "adversarial": [names[i] for i in sorted(liar)]}
    out = flip(votes, mask).with_(annotator=who, annotators=names, meta={**votes.meta, "planted_annotators": planted})
    return out, mask


def one_vote_per_pair(votes: Votes, seed: int) -> Votes:
    """One random decided vote of every unordered pair, in the order of the rows: how most preference files look.

    >>> from cupel.records import read
    >>> rows = [{"prompt": "p", "response_a": "x", "response_b": "y", "vote": v} for v in ("a", "b", "tie", "a")]
    >>> len(one_vote_per_pair(read(rows), seed=0))
    1
    """
    rows = np.flatnonzero(votes.sign != 0)
    shuffled = np.random.default_rng(seed).permutation(rows)
    first = np.unique(votes.pair[shuffled], return_index=True)[1]
    return votes.take(np.sort(shuffled[first]))


def gold(votes: Votes) -> np.ndarray:
    """int8 [n]: the `gold` column of the source as a sign (+1 first side, -1 second, 0 tie or missing).

    Meant for benchmarks: gold is a reference label that came with the data; see its documentation for what it is.
    """
    name = votes.meta.get("columns", {}).get("gold")
    if votes.source is None or name is None or name not in votes.source.column_names:
        return np.zeros(len(votes), dtype=np.int8)
    values = pc.utf8_lower(votes.source[name].cast(pa.large_string())).to_pylist()
    signs = {"a": 1, "b": -1, "model_a": 1, "model_b": -1, "response_a": 1, "response_b": -1}
    return np.array([signs.get(value or "", 0) for value in values], dtype=np.int8)


def _flip_toward(votes: Votes, favoured: np.ndarray, rate: float, seed: int) -> tuple[Votes, np.ndarray]:
    """Votes against the favoured side (int [n]: +1 first, -1 second, 0 neither) reversed toward it, `rate` of the decided votes."""
    able = np.flatnonzero((votes.sign != 0) & (favoured == -votes.sign))
    count = min(round(rate * int((votes.sign != 0).sum())), len(able))
    mask = np.zeros(len(votes), dtype=bool)
    mask[np.random.default_rng(seed).choice(able, size=count, replace=False)] = True
    return flip(votes, mask), mask


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; it is a share in [0, 1]. Write 0.2 for a fifth.")
