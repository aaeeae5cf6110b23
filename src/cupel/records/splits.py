"""The held-out split: frozen before anything looks at labels, by group, never leaking."""

from __future__ import annotations

import hashlib

import numpy as np

from cupel.errors import RecordError
from cupel.records.groups import connected
from cupel.records.schema import HELDOUT, TRAIN, Votes

#: fewer groups than this cannot give a held-out share worth the name
MIN_GROUPS = 5
#: a component with more than this share of the rows leaves nothing to hold out
GIANT = 0.8


def assign(votes: Votes, *, heldout: float = 0.2, seed: int = 0) -> Votes:
    """Votes with `split` assigned: whole groups are held out until they hold the share `heldout` of the rows.

    Groups are the connected components of the given groups, shared prompts and shared responses (of at least 40 characters),
    so none of these is on both sides. They are taken in the order of SHA-256(seed, texts of the group): it depends on their
    content and the seed, not on the order of rows, and never on a label. Where that leaves fewer than 5 groups or one group with
    more than 80 % of the rows, prompts are split instead, and failing that unordered pairs; `meta["split"]` says what was done
    and what may leak.

    heldout: share in (0, 1), else RecordError.

    >>> from cupel.records import read
    >>> rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(10)]
    >>> votes = assign(read(rows, heldout=0), heldout=0.2, seed=1)
    >>> int(votes.split.sum()), votes.meta["split"]["by"]
    (2, 'group')
    """
    if not 0 < heldout < 1:
        raise RecordError(f"heldout is {heldout}; it is a share of rows between 0 and 1. Write 0.2 for a fifth.")
    n = len(votes)
    texts = _row_digests(votes)
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
    taken = _choose(label, texts, heldout, seed)
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
        "groups": len(np.unique(label)),
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


def _row_digests(votes: Votes) -> list[bytes]:
    """Per row, a digest of its three texts, the same whichever side comes first."""
    prompts = [hashlib.sha256(text.encode()).digest() for text in votes.prompt_texts()]
    responses = [hashlib.sha256(text.encode()).digest() for text in votes.response_texts()]
    out = []
    for p, a, b in zip(votes.prompt.tolist(), votes.first.tolist(), votes.second.tolist(), strict=True):
        x, y = sorted((responses[a], responses[b]))
        out.append(prompts[p] + x + y)
    return out


def _choose(label: np.ndarray, texts: list[bytes], heldout: float, seed: int) -> np.ndarray:
    """Mask of the held-out rows: groups in seeded hash order; a group that would overshoot by more than it fills is passed over."""
    n = len(label)
    smallest: dict[int, bytes] = {}
    for group, text in zip(label.tolist(), texts, strict=True):
        if group not in smallest or text < smallest[group]:
            smallest[group] = text
    counts = dict(zip(*(values.tolist() for values in np.unique(label, return_counts=True)), strict=True))
    order = sorted(smallest, key=lambda group: (hashlib.sha256(f"{seed}:".encode() + smallest[group]).digest(), smallest[group]))
    target, filled, chosen = heldout * n, 0, []
    for group in order:
        size = counts[group]
        if abs(filled + size - target) < abs(filled - target) and filled + size < n:
            chosen.append(group)
            filled += size
    return np.isin(label, chosen)
