"""The held-out split: frozen before anything looks at labels, by group, never leaking."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from cupel.errors import RecordError
from cupel.records.digests import digests as digests_of
from cupel.records.digests import ranks
from cupel.records.groups import connected
from cupel.records.schema import HELDOUT, TRAIN, Votes

#: fewer groups than this cannot give a held-out share worth the name
MIN_GROUPS = 5
#: a component with more than this share of the rows leaves nothing to hold out
GIANT = 0.8
#: rows or groups taken at a time
_STEP = 1 << 18


def assign(
    votes: Votes, *, heldout: float = 0.2, seed: int = 0, digests: tuple[np.ndarray, np.ndarray] | None = None
) -> Votes:
    """Votes with `split` assigned: whole groups are held out until they hold the share `heldout` of the rows.

    Groups are the connected components of the given groups, shared prompts and shared responses (of at least 40 characters),
    so none of these is on both sides. They are taken in the order of SHA-256(seed, texts of the group): it depends on their
    content and the seed, not on the order of rows, and never on a label. Where that leaves fewer than 5 groups or one group with
    more than 80 % of the rows, prompts are split instead, and failing that unordered pairs; `meta["split"]` says what was done
    and what may leak.

    heldout: share in (0, 1), else RecordError. digests: those of prompts and responses (`records.digests`), where they are known.

    >>> from cupel.records import read
    >>> rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(10)]
    >>> votes = assign(read(rows, heldout=0), heldout=0.2, seed=1)
    >>> int(votes.split.sum()), votes.meta["split"]["by"]
    (2, 'group')
    """
    if not 0 < heldout < 1:
        raise RecordError(f"heldout is {heldout}; it is a share of rows between 0 and 1. Write 0.2 for a fifth.")
    n = len(votes)
    label = connected(votes.prompts, votes.responses, votes.prompt, votes.first, votes.second, votes.group)
    by, note = "group", "no prompt, response of 40 characters or more, or group is on both sides"
    if not _usable(label):
        whole = f"rows are too connected to split by group ({_shape(label)})"
        label = votes.prompt.astype(np.int64)
        by, note = "prompt", f"{whole}: responses or groups may be on both sides, prompts are not"
        if not _usable(label):
            label = votes.pair
            by, note = "pair", f"{whole} or by prompt ({_shape(votes.prompt)}): prompts and responses are on both sides"
    split = np.full(n, TRAIN, dtype=np.int8)
    label = np.unique(label, return_inverse=True)[1].reshape(-1) if by != "group" else label
    taken = _choose(label, _smallest(votes, label, digests), heldout, seed)
    split[taken] = HELDOUT
    if not taken.any():
        by, note = "none", f"too few groups to hold any out ({_shape(label)})"
    facts = {
        "by": by,
        "note": note,
        "seed": int(seed),
        "asked": float(heldout),
        "heldout_rows": int(taken.sum()),
        "train_rows": int(n - taken.sum()),
        "groups": int(label.max(initial=-1)) + 1,
    }
    return votes.with_(split=split, meta={**votes.meta, "split": facts})


def given(votes: Votes, column: str) -> Votes:
    """Votes whose split came with the data: kept as it is, with what leaks between its sides counted in `meta["split"]`.

    >>> from cupel.records import read
    >>> rows = [{"prompt": "p", "chosen": f"x{i}", "rejected": "y", "part": part} for i, part in enumerate(["train", "test"])]
    >>> read(rows, map={"split": "part"}).meta["split"]["leaking_rows"]
    2
    """
    label = connected(votes.prompts, votes.responses, votes.prompt, votes.first, votes.second, votes.group)
    held, train = votes.split == HELDOUT, votes.split == TRAIN
    both = np.intersect1d(label[held], label[train])
    leaking = int((np.isin(label, both) & (held | train)).sum())
    unassigned = int((~held & ~train).sum())
    facts = {
        "by": f"column {column}",
        "note": f"{leaking:,} rows share a prompt, response or group across the split; {unassigned:,} rows are in neither part",
        "heldout_rows": int(held.sum()),
        "train_rows": int(train.sum()),
        "leaking_rows": leaking,
        "groups": len(np.unique(label)),
    }
    return votes.with_(meta={**votes.meta, "split": facts})


def _usable(label: np.ndarray) -> bool:
    counts = np.unique(label, return_counts=True)[1]
    return len(counts) >= MIN_GROUPS and counts.max() <= GIANT * len(label)


def _shape(label: np.ndarray) -> str:
    counts = np.unique(label, return_counts=True)[1]
    if not len(counts):
        return "no rows"
    return f"{len(counts)} in all, the largest with {counts.max() / len(label):.0%} of the rows"


def _smallest(votes: Votes, label: np.ndarray, digests: tuple[np.ndarray, np.ndarray] | None) -> Iterator[bytes]:
    """Of each label 0, 1, ..., the smallest row: digests of its prompt and its two responses, the same whichever comes first."""
    asked, answered = digests if digests is not None else (digests_of(votes.prompts), digests_of(votes.responses))
    prompt_rank, response_rank = ranks(asked), ranks(answered)
    count = int(label.max(initial=-1)) + 1
    best = np.full((3, count), np.iinfo(np.int32).max, dtype=np.int32)
    for low in range(0, len(label), _STEP):
        rows = slice(low, low + _STEP)
        a, b = response_rank[votes.first[rows]], response_rank[votes.second[rows]]
        keys = np.stack([prompt_rank[votes.prompt[rows]], np.minimum(a, b), np.maximum(a, b)])
        order = np.lexsort((keys[2], keys[1], keys[0], label[rows]))
        group = label[rows][order]
        head = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        group, keys = group[head], keys[:, order[head]]
        old = best[:, group]
        less = (keys[0] < old[0]) | ((keys[0] == old[0]) & ((keys[1] < old[1]) | ((keys[1] == old[1]) & (keys[2] < old[2]))))
        best[:, group[less]] = keys[:, less]
    by_prompt, by_response = np.argsort(prompt_rank), np.argsort(response_rank)
    for low in range(0, count, _STEP):
        p, x, y = best[:, low : low + _STEP]
        joined = np.concatenate([asked[by_prompt[p]], answered[by_response[x]], answered[by_response[y]]], axis=1).tobytes()
        yield from (joined[at : at + 96] for at in range(0, len(joined), 96))


def _choose(label: np.ndarray, smallest: Iterable[bytes], heldout: float, seed: int) -> np.ndarray:
    """Mask of the held-out rows: groups in seeded hash order; a group that would overshoot by more than it fills is passed over."""
    n, start, sha = len(label), f"{seed}:".encode(), hashlib.sha256
    counts = np.bincount(label)
    keys = np.empty((len(counts), 2), dtype=">u8")
    for group, text in enumerate(smallest):
        keys[group] = np.frombuffer(sha(start + text).digest(), dtype=">u8", count=2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    target, filled = heldout * n, 0
    chosen = np.zeros(len(counts), dtype=bool)
    for low in range(0, len(order), _STEP):
        if filled + 0.5 >= target:  # no group, not even of one row, comes closer
            break
        part = order[low : low + _STEP]
        for group, size in zip(part.tolist(), counts[part].tolist(), strict=True):
            if abs(filled + size - target) < abs(filled - target) and filled + size < n:
                chosen[group] = True
                filled += size
    return chosen[label]
