"""Large data: heads fitted on a part, all rows scored; parts hold whole units and components; progress; chunks change nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cupel.audit.heldout import heldout_margin
from cupel.audit.label_error import from_single, joined_groups
from cupel.audit.power import measure_power
from cupel.audit.problem import prepare
from cupel.audit.suspicion import suspicion


@pytest.fixture(scope="module")
def large(world):
    return world(n_prompts=150, per_prompt=8, pairs_per_prompt=20, error=0.15, seed=4)


@pytest.fixture(scope="module")
def features(large):
    return large.features


def flip(votes, rows):
    outcome = votes.outcome.copy()
    outcome[rows] = 1 - outcome[rows]
    return votes.with_(outcome=outcome)


def test_a_part_holds_whole_units_and_components(large, features, monkeypatch):
    problem = prepare(large.votes, features, seed=0)
    assert problem.to_fit(0) is problem
    monkeypatch.setattr("cupel.audit.problem.MAX_FIT", 1000)
    part = problem.to_fit(0)
    assert 500 <= len(part.pairs) <= 1000
    chosen = np.isin(problem.pairs.key, part.pairs.key)
    assert not set(problem.pairs.unit[chosen]) & set(problem.pairs.unit[~chosen])
    assert not set(problem.pairs.vertex[0][chosen]) & set(problem.pairs.vertex[1][~chosen])
    order = np.searchsorted(np.sort(problem.pairs.key), part.pairs.key)
    assert np.array_equal(problem.fold[np.argsort(problem.pairs.key)[order]], part.fold)
    t = problem.pairs.labels(problem.votes)[0]
    assert np.array_equal(part.pairs.labels(part.votes)[0], t[chosen])
    assert part.graph.left_out(t[chosen], 3.0) == pytest.approx(problem.graph.left_out(t, 3.0)[chosen], abs=1e-12)
    assert np.array_equal(part.x, problem.x[chosen])
    assert not np.array_equal(part.pairs.key, problem.to_fit(1).pairs.key)


def test_one_component_that_holds_everything_is_fitted_whole(world, monkeypatch):
    w = world(n_prompts=1, per_prompt=40, pairs_per_prompt=600)
    problem = prepare(w.votes, w.features, seed=0)
    monkeypatch.setattr("cupel.audit.problem.MAX_FIT", 100)
    assert problem.to_fit(0) is problem


def test_fitted_on_a_part_all_rows_are_scored_nearly_as_well(large, features, monkeypatch):
    whole = suspicion(large.votes, features, seed=0)
    monkeypatch.setattr("cupel.audit.problem.MAX_FIT", 1000)
    part = suspicion(large.votes, features, seed=0)
    assert whole.diagnostics["fitted_on"] == len(large.votes)
    assert part.diagnostics["fitted_on"] <= 1000 < part.diagnostics["pairs"]
    assert np.corrcoef(whole.margin, part.margin)[0, 1] > 0.97
    assert roc_auc_score(large.wrong, part.suspicion) > roc_auc_score(large.wrong, whole.suspicion) - 0.02


def test_fitted_on_a_part_a_row_still_never_hears_of_its_own_label(large, features, monkeypatch):
    monkeypatch.setattr("cupel.audit.problem.MAX_FIT", 1000)
    before = suspicion(large.votes, features, seed=0)
    for row in (0, 7, 511, 2000):
        after = suspicion(flip(large.votes, [row]), features, seed=0)
        assert after.margin[row] == pytest.approx(-before.margin[row], rel=1e-6, abs=1e-9)


def test_chunks_change_nothing(large, features, monkeypatch):
    before = suspicion(large.votes, features, seed=0)
    for name in ("cupel.audit.problem._CHUNK", "cupel.audit.features.CHUNK", "cupel.audit.pairs._PART"):
        monkeypatch.setattr(name, 97)
    after = suspicion(large.votes, large.features, seed=0)
    assert after.margin == pytest.approx(before.margin, rel=1e-4, abs=1e-6)
    assert features.table == pytest.approx(large.features.table, abs=1e-6)


def test_weights_of_the_parts_from_some_rows_are_nearly_those_from_all(large, features, monkeypatch):
    whole = suspicion(large.votes, features, seed=0)
    monkeypatch.setattr("cupel.audit.suspicion.MAX_WEIGHED", 1000)
    part = suspicion(large.votes, features, seed=0)
    assert np.corrcoef(whole.margin, part.margin)[0, 1] > 0.99


def test_held_out_rows_by_a_head_from_a_part(large, features, monkeypatch):
    heldout = large.votes.group % 5 == 0
    sets = [(large.votes.take(rows), features.take(rows)) for rows in (~heldout, heldout)]
    whole = heldout_margin(*sets[0], *sets[1], seed=0)
    monkeypatch.setattr("cupel.audit.heldout.MAX_FIT", 900)
    part = heldout_margin(*sets[0], *sets[1], seed=0)
    assert np.corrcoef(whole, part)[0, 1] > 0.9
    assert np.array_equal(part, heldout_margin(*sets[0], *sets[1], seed=0))


def test_joined_groups_give_nearly_the_same_bounds(world, monkeypatch):
    w = world(n_prompts=600, recurring=False, error=0.2)
    margin = suspicion(w.votes, w.features, seed=0).pair_excluded
    whole = from_single(w.votes, margin, 0)
    assert np.array_equal(joined_groups(w.votes.group, 0), w.votes.group)
    monkeypatch.setattr("cupel.audit.label_error.MOST_GROUPS", 500)
    monkeypatch.setattr("cupel.audit.label_error.JOINED", 200)
    assert len(np.unique(joined_groups(w.votes.group, 0))) == 200
    joined = from_single(w.votes, margin, 0)
    assert joined.n == whole.n
    assert joined.high == pytest.approx(whole.high, abs=0.01)


def test_progress_rises_to_its_end(large, features):
    told = {}
    suspicion(large.votes, features, seed=0, progress=lambda done, total: told.setdefault("suspicion", []).append((done, total)))
    measure_power(large.votes, features, seed=0, draws=2, progress=lambda done, total: told.setdefault("power", []).append((done, total)))
    for name, steps in told.items():
        done = [step[0] for step in steps]
        assert done == sorted(done), name
        assert len(set(done)) > 2
        assert steps[-1][0] == steps[-1][1]
        assert len({step[1] for step in steps}) == 1
