"""Label errors planted on purpose: who wins is exchanged, nothing else; the mask says where."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.records.arrow import pc
from cupel.records.schema import A, B, Votes


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

    The rows are drawn at random among the votes for the shorter side; where there are fewer of these than asked for, all of them
    are
    reversed (the mask says how many), since a vote for the longer side cannot be reversed toward it.

    rate: in [0, 1], else InputError.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": str(i), "chosen": "x", "rejected": "longer"} for i in range(10)])
    >>> int(flip_length_biased(votes, 0.3, seed=0)[1].sum())
    3
    """
    _share("rate", rate)
    size = pc.utf8_length(votes.responses).to_numpy(zero_copy_only=False).astype(np.int64)
    longer = np.sign(size[votes.first] - size[votes.second])
    able = np.flatnonzero((votes.sign != 0) & (longer == -votes.sign))
    count = min(round(rate * int((votes.sign != 0).sum())), len(able))
    mask = np.zeros(len(votes), dtype=bool)
    mask[np.random.default_rng(seed).choice(able, size=count, replace=False)] = True
    return flip(votes, mask), mask


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
    decided votes is
    reversed with probability 1/2. `round(adversarial * n_annotators)` others reverse every decided vote. The rest leave votes as
    they are.
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


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; it is a share in [0, 1]. Write 0.2 for a fifth.")
