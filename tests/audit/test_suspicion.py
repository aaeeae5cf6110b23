import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from cupel.audit.combine import fit_logits
from cupel.audit.content import Content
from cupel.audit.features import side_features
from cupel.audit.graph import Graph
from cupel.audit.pairs import balanced_folds, gather
from cupel.audit.suspicion import suspicion
from cupel.errors import InputError


def flip(votes, rows):
    outcome = votes.outcome.copy()
    outcome[rows] = 1 - outcome[rows]
    return votes.with_(outcome=outcome)


# ---- the parts, against slow twins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.3, 3.0, 40.0])
def test_leaving_one_pair_out_equals_refitting_without_it(ridge):
    rng = np.random.default_rng(3)
    ends = np.array([(a, b) for a in range(9) for b in range(a) if rng.random() < 0.5] + [(20, 21), (21, 22), (30, 31)])
    low, high = ends.T
    w = rng.integers(1, 4, size=len(low)).astype(float)
    t = rng.choice([-1.0, 0.0, 1.0], size=len(low))
    found = Graph(low, high, w).left_out(t, ridge)
    design = np.zeros((len(low), 32))
    design[np.arange(len(low)), low] += 1
    design[np.arange(len(low)), high] -= 1
    for q in range(len(low)):
        rest = np.arange(len(low)) != q
        u = Ridge(alpha=ridge, fit_intercept=False).fit(design[rest], t[rest], sample_weight=w[rest]).coef_
        assert found[q] == pytest.approx(u[low[q]] - u[high[q]], abs=1e-9)


def test_a_large_component_is_solved_iteratively_to_much_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    ends = np.array([(a, b) for a in range(40) for b in range(a)])
    strength = rng.normal(size=40)
    t = np.sign(strength[ends[:, 0]] - strength[ends[:, 1]])
    dense = Graph(*ends.T, np.ones(len(ends)))
    monkeypatch.setattr("cupel.audit.graph.DENSE_NODES", 10)
    sparse = Graph(*ends.T, np.ones(len(ends)))
    a, b = dense.left_out(t, 3.0), sparse.left_out(t, 3.0)
    assert np.corrcoef(a, b)[0, 1] > 0.99
    flipped = t.copy()
    flipped[11] *= -1
    assert sparse.left_out(flipped, 3.0)[11] == pytest.approx(b[11], abs=1e-7)


def test_a_pair_whose_responses_occur_nowhere_else_has_no_graph():
    graph = Graph(np.array([0, 2, 3]), np.array([1, 3, 4]), np.ones(3))
    assert graph.used.tolist() == [False, True, True]
    assert graph.left_out(np.ones(3), 1.0)[0] == 0


def test_a_pair_with_identical_sides_has_no_graph_and_disturbs_none():
    graph = Graph(np.array([0, 0, 1]), np.array([0, 1, 2]), np.ones(3))
    assert graph.used.tolist() == [False, True, True]
    without = Graph(np.array([0, 1]), np.array([1, 2]), np.ones(2))
    assert np.allclose(graph.left_out(np.ones(3), 1.0)[1:], without.left_out(np.ones(2), 1.0))


def test_heads_without_folds_equal_ridge_regression_on_the_rest():
    rng = np.random.default_rng(1)
    x, t, w = rng.normal(size=(90, 5)).astype(np.float32), rng.choice([-1.0, 1.0], 90), rng.integers(1, 3, 90).astype(float)
    fold = np.arange(90) % 3
    content = Content(x, w, fold)
    theta = content.without((1,), content.moments(t), (0.5,))[:, 0]
    rest = fold != 1
    gram = (x[rest] * w[rest, None]).T @ x[rest]
    twin = Ridge(alpha=0.5 * np.trace(gram) / 5, fit_intercept=False).fit(x[rest], t[rest], sample_weight=w[rest])
    assert theta == pytest.approx(twin.coef_, abs=1e-5)
    nested = content.nested(t)
    again = Content(x, w, fold).solver(nested.ridges)
    moments = content.moments(t)
    for k in range(3):
        assert nested.outer[k] == pytest.approx(again[k] @ (np.sum(moments, axis=0) - moments[k]), abs=1e-8)


def test_logits_reach_a_stationary_point():
    rng = np.random.default_rng(2)
    x, p, w = rng.normal(size=(200, 3)) * [1, 50, 0.01], rng.random(200), rng.random(200)
    b, loss = fit_logits(x, p, w, ridge=1e-9)
    gradient = x.T @ (w * (1 / (1 + np.exp(-x @ b)) - p))
    assert np.abs(gradient / np.sqrt(w @ x**2)).max() < 1e-4
    assert loss <= np.log(2)


def test_folds_keep_units_whole_and_even(world):
    pairs = gather(world().votes)
    assert pairs.unit_is == "group"
    fold = balanced_folds(pairs, 5, seed=0)
    for unit in np.unique(pairs.unit):
        assert len(np.unique(fold[pairs.unit == unit])) == 1
    assert np.ptp(np.bincount(fold)) <= 20
    assert not np.array_equal(fold, balanced_folds(pairs, 5, seed=1))


def test_one_large_group_is_held_out_by_pairs(world):
    votes = world().votes
    assert gather(votes.with_(group=np.zeros(len(votes), dtype=np.int32))).unit_is == "pair"


# ---- the promise: nothing of a row's own label is in its margin ---------------------------------------------------------------------


@pytest.mark.parametrize("voters", [1, 3])
def test_own_label_never_moves_the_size_of_a_margin(world, voters):
    w = world(voters=voters, n_prompts=12, pairs_per_prompt=10)
    features = w.features
    before = suspicion(w.votes, features, seed=0)
    for row in (0, 17, 60, 101):
        after = suspicion(flip(w.votes, [row]), features, seed=0)
        assert after.margin[row] == pytest.approx(-before.margin[row], rel=1e-7, abs=1e-9)
        assert after.content[row] == pytest.approx(-before.content[row], rel=1e-7, abs=1e-9)
        assert after.graph[row] == pytest.approx(-before.graph[row], rel=1e-7, abs=1e-9)
        others = (w.votes.pair != w.votes.pair[row]) & (w.votes.group == w.votes.group[row])
        assert np.abs(after.margin - before.margin)[others].max() > 1e-6  # the graph did hear of the flip


def test_own_duplicates_never_move_a_margin_either(world):
    w = world(n_prompts=12, pairs_per_prompt=10)
    rows = np.append(np.arange(len(w.votes)), [5, 5])
    votes = w.votes.take(rows)
    features = side_features(votes, w.prompt_vectors, w.vectors)
    before = suspicion(votes, features, seed=0)
    after = suspicion(flip(votes, [5, len(votes) - 2, len(votes) - 1]), features, seed=0)
    assert after.margin[5] == pytest.approx(-before.margin[5], rel=1e-7)


def test_content_sees_no_label_of_its_group(world):
    w = world(n_prompts=15)
    features = w.features
    before = suspicion(w.votes, features, seed=0)
    rows = np.flatnonzero(w.votes.group == 4)
    after = suspicion(flip(w.votes, rows), features, seed=0)
    assert after.content[rows] == pytest.approx(-before.content[rows], rel=1e-6, abs=1e-9)


def test_swapping_sides_with_the_label_changes_nothing(world):
    w = world(voters=2)
    rng = np.random.default_rng(0)
    swap = rng.random(len(w.votes)) < 0.5
    v = w.votes
    swapped = v.with_(
        first=np.where(swap, v.second, v.first),
        second=np.where(swap, v.first, v.second),
        outcome=np.where(swap, 1 - v.outcome, v.outcome).astype(np.int8),
    )
    a = suspicion(v, w.features, seed=0)
    b = suspicion(swapped, side_features(swapped, w.prompt_vectors, w.vectors), seed=0)
    assert np.array_equal(a.margin, b.margin)


def test_swapping_sides_alone_flips_nothing_but_the_sign(world):
    w = world(n_prompts=12, pairs_per_prompt=10)
    v = w.votes
    swapped = v.with_(first=v.second, second=v.first)  # the outcomes now say the opposite, everywhere
    a = suspicion(v, w.features, seed=0)
    b = suspicion(swapped, side_features(swapped, w.prompt_vectors, w.vectors), seed=0)
    assert b.margin == pytest.approx(a.margin, rel=1e-9)  # a model of the opposite agrees with the opposite


def test_the_order_of_rows_does_not_matter(world):
    w = world(voters=2)
    order = np.random.default_rng(7).permutation(len(w.votes))
    shuffled = w.votes.take(order)
    a = suspicion(w.votes, w.features, seed=3)
    b = suspicion(shuffled, side_features(shuffled, w.prompt_vectors, w.vectors), seed=3)
    assert b.margin == pytest.approx(a.margin[order], rel=1e-5, abs=1e-7)


def test_same_seed_same_bytes(world):
    w = world()
    assert suspicion(w.votes, w.features, seed=1).margin.tobytes() == suspicion(w.votes, w.features, seed=1).margin.tobytes()


# ---- does it find errors ------------------------------------------------------------------------------------------------------------


def test_graph_and_content_find_more_than_content(world):
    w = world(seed=5, n_prompts=40, per_prompt=12, pairs_per_prompt=50, seen=0.7)
    found = suspicion(w.votes, w.features, seed=0)
    both = roc_auc_score(w.wrong, found.suspicion)
    content = roc_auc_score(w.wrong, -found.content)
    assert 0.65 < content < both - 0.05
    assert both > 0.85
    assert found.used_graph.all()


def test_votes_of_others_on_the_same_pair_count_but_not_in_the_pair_excluded_margin(world):
    w = world(seed=2, voters=5, error=0.25, recurring=False, n_prompts=150)
    found = suspicion(w.votes, w.features, seed=0)
    assert roc_auc_score(w.wrong, found.suspicion) > roc_auc_score(w.wrong, -found.pair_excluded) + 0.05
    unknown = w.votes.with_(annotator=np.full(len(w.votes), -1, dtype=np.int32))
    anonymous = suspicion(unknown, w.features, seed=0)
    assert anonymous.margin == pytest.approx(anonymous.pair_excluded)  # rows by nobody known may be duplicates of each other
    assert anonymous.pair_excluded == pytest.approx(found.pair_excluded)


def test_one_pair_per_prompt_rests_on_content_alone(world):
    w = world(recurring=False, n_prompts=300, error=0.1)
    found = suspicion(w.votes, w.features, seed=0)
    assert found.graph is None
    assert not found.used_graph.any()
    assert found.margin == pytest.approx(found.content, rel=1e-9)
    assert roc_auc_score(w.wrong, found.suspicion) > 0.7


@pytest.mark.parametrize("kind", [{}, {"recurring": False, "n_prompts": 400}, {"voters": 3}])
def test_coin_flips_are_told_from_nothing(world, kind):
    areas = []
    for seed in range(4):
        w = world(coin=True, seed=seed, **kind)
        # on coin tosses a label is "wrong" by another coin
        wrong = np.random.default_rng(seed + 100).random(len(w.votes)) < 0.5
        votes = flip(w.votes, wrong)
        areas.append(roc_auc_score(wrong, suspicion(votes, w.features, seed=0).suspicion))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.03)


# ---- odd data -------------------------------------------------------------------------------------------------------------------------


def test_ties_and_skips_have_no_suspicion(world):
    w = world()
    outcome = w.votes.outcome.copy()
    outcome[[3, 40]], outcome[9], outcome[10] = 2, 3, 4
    found = suspicion(w.votes.with_(outcome=outcome), w.features, seed=0)
    assert found.suspicion[[3, 40, 9, 10]].tolist() == [0, 0, 0, 0]
    assert np.isfinite(found.suspicion).all()
    assert (found.suspicion[[4, 41]] != 0).all()


def test_too_little_data_says_so(world):
    w = world(n_prompts=2, pairs_per_prompt=4)
    found = suspicion(w.votes, w.features, seed=0)
    assert not found.margin.any()
    assert "fewer than 20 pairs" in found.diagnostics["note"]


def test_no_votes_at_all(world):
    w = world()
    nothing = w.votes.take(np.zeros(0, dtype=np.int64))
    assert len(suspicion(nothing, w.features.take(np.zeros(0, dtype=np.int64)), seed=0).margin) == 0


def test_identical_sides_have_no_margin(world):
    w = world()
    second = w.votes.second.copy()
    second[12] = w.votes.first[12]
    votes = w.votes.with_(second=second)
    assert suspicion(votes, side_features(votes, w.prompt_vectors, w.vectors), seed=0).margin[12] == 0


def test_features_of_other_votes_are_refused(world):
    w = world()
    with pytest.raises(InputError, match="600 votes need as many rows"):
        suspicion(w.votes, w.features.take(np.arange(10)), seed=0)
