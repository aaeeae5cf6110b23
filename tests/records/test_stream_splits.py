"""Splits on arrays are those of the obvious algorithm on rows of bytes; components of long chains are found."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from cupel.records import read
from cupel.records.digests import digests, ranks
from cupel.records.groups import by_appearance, connected, join, roots
from cupel.records.splits import assign


def _slow_split(votes, label, heldout, seed):
    """Twin of the choice of groups: digests of the texts of every row, the smallest of each group, greedily in seeded order."""
    texts = [hashlib.sha256(text.encode()).digest() for text in votes.prompt_texts()]
    answers = [hashlib.sha256(text.encode()).digest() for text in votes.response_texts()]
    smallest = {}
    for i, group in enumerate(label.tolist()):
        row = texts[votes.prompt[i]] + b"".join(sorted((answers[votes.first[i]], answers[votes.second[i]])))
        smallest[group] = min(row, smallest.get(group, row))
    size = {group: int((label == group).sum()) for group in smallest}
    target, filled, chosen = heldout * len(votes), 0, []
    for group in sorted(smallest, key=lambda group: hashlib.sha256(f"{seed}:".encode() + smallest[group]).digest()):
        if abs(filled + size[group] - target) < abs(filled - target) and filled + size[group] < len(votes):
            chosen.append(group)
            filled += size[group]
    return np.isin(label, chosen)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", ["group", "prompt", "pair"])
def test_the_split_is_that_of_the_slow_twin(seed, by):
    rng = np.random.default_rng(seed)
    asked = {"group": 60, "prompt": 12, "pair": 1}[by]
    shared = "an answer that is long enough to connect the rows in which it recurs"
    rows = []
    for _ in range(200):
        chosen = shared if by == "prompt" else f"x{rng.integers(30)}"
        rows.append({"prompt": f"p{rng.integers(asked)}", "chosen": chosen, "rejected": f"y{rng.integers(40)}"})
    votes = read(rows, heldout=0)
    split = assign(votes, heldout=0.3, seed=seed)
    assert split.meta["split"]["by"] == by
    label = {"group": votes.group, "prompt": votes.prompt, "pair": votes.pair}[by]
    np.testing.assert_array_equal(split.split == 1, _slow_split(votes, label, 0.3, seed))
    part = votes.take(rng.permutation(len(votes))[:150])
    again = assign(part, heldout=0.3, seed=seed)
    label = {"group": part.group, "prompt": part.prompt, "pair": part.pair}[again.meta["split"]["by"]]
    np.testing.assert_array_equal(again.split == 1, _slow_split(part, label, 0.3, seed))


def test_ranks_are_the_order_of_the_bytes():
    found = digests(pa.array([str(i) for i in range(500)], pa.large_string()))
    tied = found.copy()
    tied[:, :2] = tied[0, :2]  # equal beginnings
    for some in (found, tied):
        raw = [row.tobytes() for row in some]
        assert ranks(some).tolist() == [sorted(raw).index(row) for row in raw]


def test_a_chain_of_rows_is_one_component():
    n = 20_000
    order = np.random.default_rng(0).permutation(n)
    responses = pa.array([f"{i} " * 20 for i in range(n + 1)])
    label = connected(pa.array([str(i) for i in range(n)]), responses, np.arange(n), order, order + 1)
    assert label.max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_joining_is_what_scipy_finds(seed):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    n, m = 500, int(rng.integers(50, 700))
    a, b = rng.integers(n, size=(2, m))
    parent = np.arange(n, dtype=np.int32)
    for low in range(0, m, 37):
        join(parent, a[low : low + 37], b[low : low + 37])
    want = connected_components(coo_matrix((np.ones(m), (a, b)), shape=(n, n)), directed=False)[1]
    found = by_appearance(roots(parent, np.arange(n)), n)
    assert found.tolist() == by_appearance(want, n).tolist()
