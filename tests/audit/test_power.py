import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cupel.audit.areas import area, areas
from cupel.audit.power import LEAST_AUC, WIDEST, _corrected, measure_power
from cupel.audit.suspicion import suspicion
from cupel.errors import InputError


def test_area_under_the_curve_with_weights_equals_its_slow_twin():
    rng = np.random.default_rng(0)
    for decimals in (1, 8):
        score = rng.normal(size=200).round(decimals)
        planted = rng.random(200) < 0.3
        code = rng.integers(0, 9, size=200)
        counts = rng.integers(0, 3, size=(4, 9)).astype(float)
        found = areas(score, planted, code, counts)
        for b in range(4):
            assert found[b] == pytest.approx(roc_auc_score(planted, score, sample_weight=counts[b][code]))
        assert area(score, planted) == pytest.approx(roc_auc_score(planted, score))
    assert np.isnan(area(score, np.zeros(200, dtype=bool)))


def test_the_correction_undoes_labels_that_were_wrong_before():
    rng = np.random.default_rng(1)
    n, e = 400_000, 0.3
    truth = rng.normal(1.0, 1.0, size=n)  # margin of the true label
    wrong = rng.random(n) < e
    planted = rng.random(n) < 0.2
    recorded = np.where(wrong ^ planted, -truth, truth)
    raw = roc_auc_score(planted, -recorded)
    clean = roc_auc_score(planted, np.where(planted, truth, -truth))
    assert raw < 0.68
    assert _corrected(raw, e) == pytest.approx(clean, abs=0.01)
    assert raw < _corrected(raw, 0.15) < clean  # with a lower bound of e it stays on the low side
    assert _corrected(0.49, 0.3) == 0.49


def test_recurring_responses_can_be_seen_and_the_figures_agree_with_each_other(world):
    w = world(n_prompts=40, per_prompt=10, pairs_per_prompt=30, error=0.1, seed=3)
    power = measure_power(w.votes, w.features, seed=0)
    assert power.verdict == "can_see"
    assert power.auc_low <= power.auc <= power.auc_high
    assert power.auc >= power.raw_auc > 0.75
    assert 0 < power.cyclic_errors < 0.12
    assert 0.05 < power.caught_at["0.05"] < power.caught_at["0.10"] <= 0.5
    for share in (0.05, 0.10):
        key = f"{share:.2f}"
        assert power.precision_at[key] * share == pytest.approx(power.caught_at[key] * power.planted_rate, rel=0.02)
    assert power.n == len(w.votes)
    assert set(power.length_biased) == {"auc", "planted_rate", "caught_0.05", "precision_0.05", "caught_0.10", "precision_0.10"}


def test_coin_flips_cannot_be_seen_in_any_run(world):
    for seed in range(8):
        w = world(coin=True, seed=seed, n_prompts=20)
        power = measure_power(w.votes, w.features, seed=seed, draws=3)
        assert power.verdict == "cannot_tell"
        assert power.auc == pytest.approx(0.5, abs=0.08)
        w = world(coin=True, seed=seed, recurring=False, n_prompts=200)
        assert measure_power(w.votes, w.features, seed=seed, draws=3).verdict == "cannot_tell"


def test_vectors_that_show_nothing_cannot_tell(world):
    w = world(seen=0.0, recurring=False, n_prompts=300, error=0.0)
    assert measure_power(w.votes, w.features, seed=0).verdict == "cannot_tell"


def test_the_rule_is_the_rule(world):
    for error in (0.0, 0.15, 0.3):
        for seen in (0.4, 1.0):
            w = world(seen=seen, error=error, recurring=False, n_prompts=200)
            power = measure_power(w.votes, w.features, seed=0, draws=2)
            blind = power.auc_low < LEAST_AUC or power.auc_high - power.auc_low > WIDEST
            assert (power.verdict == "cannot_tell") == blind


def test_fast_margins_agree_with_those_of_the_audit(world):
    from cupel.audit.power import _Scorer
    from cupel.audit.problem import prepare

    w = world(voters=2, n_prompts=40)
    problem = prepare(w.votes, w.features, seed=0)
    fast = _Scorer.fit(problem).margin(w.votes.sign)
    slow = suspicion(w.votes, w.features, seed=0).margin
    assert np.corrcoef(fast, slow)[0, 1] > 0.98


def test_length_biased_plants_go_toward_the_longer_side(world):
    w = world(n_prompts=40, error=0.1)
    power = measure_power(w.votes, w.features, seed=0, rate=0.4)
    shorter_wins = np.mean((w.features.length_first - w.features.length_second) * w.votes.sign < 0)
    assert power.length_biased["planted_rate"] == pytest.approx(min(0.4, shorter_wins), abs=0.005)


def test_large_data_are_measured_on_a_part(world, monkeypatch):
    monkeypatch.setattr("cupel.audit.power.MAX_ROWS", 300)
    w = world(n_prompts=60)
    power = measure_power(w.votes, w.features, seed=0, draws=2)
    assert 250 <= power.n <= 300
    one = w.votes.with_(group=np.zeros(len(w.votes), dtype=np.int32))
    assert 250 <= measure_power(one, w.features, seed=0, draws=2).n <= 300


def test_same_seed_same_figures(world):
    w = world()
    assert measure_power(w.votes, w.features, seed=4, draws=2) == measure_power(w.votes, w.features, seed=4, draws=2)


def test_too_little_data_cannot_tell(world):
    w = world(n_prompts=2, pairs_per_prompt=4)
    power = measure_power(w.votes, w.features, seed=0)
    assert power.verdict == "cannot_tell"
    assert power.n == len(w.votes)


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"rate": 0.5}, {"draws": 0}])
def test_options_outside_their_range_are_refused(world, bad):
    w = world()
    with pytest.raises(InputError):
        measure_power(w.votes, w.features, seed=0, **bad)
