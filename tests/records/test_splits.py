"""Splits never leak, follow content and seed, and never look at labels."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.records import read
from cupel.records.corrupt import flip
from cupel.records.groups import MIN_SHARED, connected
from cupel.records.schema import HELDOUT, TRAIN
from cupel.records.splits import assign


def _slow_components(prompts, responses, prompt, first, second):
    """Twin of `connected`: repeated relabelling until nothing changes."""
    n = len(prompt)
    keys = []
    for i in range(n):
        own = {("pair", prompt[i], *sorted((first[i], second[i])))}
        if prompts[prompt[i]]:
            own.add(("prompt", prompt[i]))
        own |= {("response", r) for r in (first[i], second[i]) if len(responses[r]) >= MIN_SHARED}
        keys.append(own)
    label = list(range(n))
    changed = True
    while changed:
        changed = False
        for i in range(n):
            for j in range(i):
                if label[i] != label[j] and keys[i] & keys[j]:
                    label[i] = label[j] = min(label[i], label[j])
                    changed = True
    names = {}
    return [names.setdefault(x, len(names)) for x in label]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=14))
def test_components_equal_the_slow_twin(rows):
    prompts = ["", "p1", "p2", "p3", "p4"]
    responses = [f"{i}" * (60 if i % 2 else 3) for i in range(8)]
    prompt, first, second = (np.array(x) for x in zip(*rows, strict=True))
    fast = connected(pa.array(prompts), pa.array(responses), prompt, first, second)
    assert fast.tolist() == _slow_components(prompts, responses, prompt, first, second)


def _random_rows(seed, n=200):
    rng = np.random.default_rng(seed)
    long = [f"response number {i} " * 4 for i in range(150)]
    rows = []
    for i in range(n):
        a, b = rng.choice(len(long), 2, replace=False)
        sides = (long[a], long[b]) if rng.random() < 0.3 else (f"short {i}", "Yes.")
        rows.append({"prompt": f"p{rng.integers(90)}", "response_a": sides[0], "response_b": sides[1], "vote": "ab"[rng.integers(2)]})
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_no_long_response_and_no_group_is_on_both_sides(seed):
    votes = assign(read(_random_rows(seed), heldout=0), heldout=0.3, seed=seed)
    assert votes.meta["split"]["by"] == "group"
    texts = votes.response_texts()
    sides = []
    for part in (votes.train, votes.heldout):
        used = np.unique(np.concatenate([part.first, part.second]))
        sides.append((set(part.prompt.tolist()), {i for i in used if len(texts[i]) >= MIN_SHARED}, set(part.group.tolist())))
    for one, two in zip(*sides, strict=True):
        assert not one & two
    assert abs((votes.split == HELDOUT).mean() - 0.3) < 0.15


def test_given_groups_are_not_separated():
    rows = [{"prompt": f"p{i}", "chosen": "x", "rejected": "y", "group": f"g{i % 20}"} for i in range(100)]
    votes = read(rows)
    assert len(np.unique(votes.group)) == 20
    assert not set(votes.train.group.tolist()) & set(votes.heldout.group.tolist())
    assert (votes.split == HELDOUT).sum() == 20
    assert votes.meta["groups"] == "column group"
    some = read([{**row, "group": None} if i < 2 else row for i, row in enumerate(rows)], heldout=0)
    assert len(set(some.group.tolist())) == 22


def test_the_split_follows_content_and_seed_and_not_order_or_labels():
    rows = _random_rows(1)
    votes = read(rows, seed=3)
    back = read(rows[::-1], seed=3)
    np.testing.assert_array_equal(votes.split, back.split[::-1])
    turned = [{**row, "vote": "b" if row["vote"] == "a" else "a"} for row in rows]
    np.testing.assert_array_equal(votes.split, read(turned, seed=3).split)
    swapped = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} for row in rows]
    np.testing.assert_array_equal(votes.split, read(swapped, seed=3).split)
    np.testing.assert_array_equal(votes.split, assign(flip(votes, np.ones(len(votes), bool)), seed=3).split)
    assert (votes.split != read(rows, seed=4).split).any()


def test_one_giant_component_is_split_by_prompt_and_says_so():
    shared = "the baseline's answer, the same under every prompt that there is"
    votes = read([{"prompt": f"p{i // 2}", "chosen": f"x{i}", "rejected": shared} for i in range(100)])
    assert votes.meta["split"]["by"] == "prompt"
    assert "may be on both sides" in votes.meta["split"]["note"]
    assert not set(votes.train.prompt.tolist()) & set(votes.heldout.prompt.tolist())
    assert (votes.split == HELDOUT).sum() == 20


def test_one_prompt_is_split_by_pair_and_says_so():
    rows = [{"prompt": "p", "response_a": f"x{i % 25}", "response_b": "y", "vote": "a"} for i in range(100)]
    votes = read(rows)
    assert votes.meta["split"]["by"] == "pair"
    assert not set(votes.train.first.tolist()) & set(votes.heldout.first.tolist())
    assert (votes.split == HELDOUT).sum() == 20


def test_too_few_rows_hold_nothing_out_and_say_so():
    votes = read([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    assert votes.meta["split"]["by"] == "none"
    assert (votes.split == TRAIN).all()
    for share in (0, 1, -0.1, 2):
        with pytest.raises(RecordError, match="share"):
            assign(votes, heldout=share)


def test_a_split_that_was_mapped_is_kept_and_its_leaks_are_counted():
    rows = [{"prompt": f"p{i // 2}", "chosen": f"x{i}", "rejected": "y", "part": ["train", "test", None][i % 3]} for i in range(12)]
    votes = read(rows, map={"split": "part"})
    assert votes.split.tolist() == [TRAIN, HELDOUT, -1] * 4
    facts = votes.meta["split"]
    assert facts["by"] == "column part"
    assert facts["leaking_rows"] == 4  # p0 and p3: one row of each on either side
    assert "4 rows are in neither part" in facts["note"]
