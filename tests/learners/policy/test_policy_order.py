from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.learners.policy.order import epoch_order, parts_of


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_with_prompts_together(prompts: list[int], seed: int, epoch: int) -> None:
    prompt = np.array(prompts)
    rows = epoch_order(prompt, np.zeros(len(prompt), int), [1.0], seed, epoch)
    assert sorted(rows.tolist()) == list(range(len(prompt)))
    changes = int((np.diff(prompt[rows]) != 0).sum()) + 1
    assert changes == len(np.unique(prompt))
    assert (rows == epoch_order(prompt, np.zeros(len(prompt), int), [1.0], seed, epoch)).all()


def test_epochs_and_seeds_differ() -> None:
    prompt = np.arange(100)
    orders = {tuple(epoch_order(prompt, np.zeros(100, int), [1.0], seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_shares_of_data_sets() -> None:
    source = np.repeat([0, 1], 100)
    rows = epoch_order(np.arange(200), source, [1.0, 0.25], 0, 0)
    assert np.bincount(source[rows]).tolist() == [100, 25]
    again = epoch_order(np.arange(200), source, [1.0, 0.25], 0, 1)
    assert set(rows[source[rows] == 1]) != set(again[source[again] == 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50)), min_size=1, max_size=40), st.integers(20, 200), st.integers(1, 4))
def test_parts_hold_every_row_once_within_the_budget(rows: list[tuple[int, int]], budget: int, ranks: int) -> None:
    prompt, cost = np.array([p for p, _ in rows]), np.array([c for _, c in rows])
    prompt_cost = np.full(5, 7)
    parts = parts_of(np.arange(len(rows)), prompt, cost, prompt_cost, budget, ranks)
    assert len({len(mine) for mine in parts}) == 1
    seen = [row for mine in parts for part in mine if part.counts for row in part.rows.tolist()]
    assert sorted(seen) == list(range(len(rows)))
    for part in (part for mine in parts for part in mine):
        size = int(cost[part.rows].sum()) + 7 * len(np.unique(prompt[part.rows]))
        assert size <= budget or len(part.rows) == 1
