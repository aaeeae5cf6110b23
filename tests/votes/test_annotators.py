"""Worked examples: three annotators, six items; figures computed apart from this code."""

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.votes.annotators import (
    crowd_bt,
    dawid_skene,
    glad,
    mace,
    majority,
    one_coin,
    one_coin_rate,
    spammer_score,
    temperature_bt,
    vote_table,
)  # fmt: skip
from cupel.votes.bradley_terry import fit_bradley_terry
from cupel.votes.confident_learning import confident_joint
from cupel.votes.crowd_bt import crowd_bt_objective

GOLDEN = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
ITEM, WHO = np.tile(np.arange(6), 3), np.repeat(np.arange(3), 6)
FLAT = {"diagonal": 1.0, "off_diagonal": 1.0, "classes": 1.0}


def golden(**options):
    return vote_table(ITEM, WHO, GOLDEN.reshape(-1), **options)


def one(fit):
    return fit.posterior[:, 1]


def close(actual, expected, tolerance=1.1e-6):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)


def test_majority():
    close(one(majority(golden())), [1, 0.666667, 0, 0.333333, 0.666667, 0.333333])


def test_dawid_skene_maximum_likelihood_step_by_step():
    first = dawid_skene(golden(), max_iterations=1, **FLAT)
    close(one(first), [0.933333, 0.833333, 0.039216, 0.289855, 0.833333, 0.102564])
    close(first.trace[0], -11.075691)
    close(first.confusion[0], [[0.777778, 0.222222], [0.222222, 0.777778]])
    close(first.confusion[1], [[0.555556, 0.444444], [0.111111, 0.888889]])
    close(first.confusion[2], [[0.777778, 0.222222], [0.555556, 0.444444]])
    second = dawid_skene(golden(), max_iterations=2, tolerance=0, **FLAT)
    close(one(second), [0.945739, 0.941699, 0.012093, 0.294594, 0.941699, 0.013036])
    close(second.trace[1], -10.388058)
    assert not second.converged
    assert any("before it converged" in w for w in second.warnings)


def test_dawid_skene_with_its_prior():
    fit = dawid_skene(golden(), tolerance=1e-12)
    close(one(fit), [0.928364, 0.877319, 0.084483, 0.435436, 0.877319, 0.143269], 3e-6)
    close(fit.prior, [0.456726, 0.543274], 3e-6)
    close(fit.confusion[:, 0, 0], [0.767060, 0.667205, 0.658926], 3e-6)
    close(fit.confusion[:, 1, 1], [0.737923, 0.806537, 0.484012], 3e-6)
    close(fit.spammer, [0.255008, 0.224431, 0.020431], 3e-6)


def test_dawid_skene_likelihood_never_falls_without_a_prior():
    trace = np.array(dawid_skene(golden(), max_iterations=60, tolerance=0, **FLAT).trace)
    assert (np.diff(trace) >= -1e-9).all()


def test_one_coin():
    fit = one_coin(golden(), beta=(1, 1), max_iterations=1)
    close(one(fit), [0.934641, 0.852744, 0.065359, 0.320988, 0.852744, 0.147256])
    close(fit.accuracy, [0.777778, 0.722222, 0.611111])
    close(fit.trace[0], -11.885441)
    close(fit.flip_rate(np.array([2])), [1 - 0.611111])
    close(fit.clean_probability(np.array([0, 2]), np.array([0, 0])), [1 - 0.934641, 1 - 0.065359])


def test_mace():
    options = {"smoothing": 0.1, "learn_prior": False, "tolerance": 0}
    first = mace(golden(), max_iterations=1, **options)
    close(one(first), [0.959077, 0.807124, 0.034189, 0.265086, 0.807124, 0.165453])
    close(first.trace[0], -11.461291)
    fit = mace(golden(), max_iterations=50, **options)
    close(one(fit), [0.992534, 0.988363, 0.001955, 0.132598, 0.988363, 0.003056])
    close(fit.parameters["know"], [0.915589, 0.669539, 0.100371])
    bayes = mace(golden(), method="vb", max_iterations=50, **options)
    close(one(bayes), [0.992860, 0.990161, 0.006858, 0.216933, 0.990161, 0.009451])
    close(bayes.parameters["know"], [0.837069, 0.669812, 0.073600])


def test_glad():
    fit = glad(golden(), tolerance=1e-10)
    close(one(fit), [0.997279, 0.999760, 0.002721, 0.547913, 0.999760, 0.000240], 2e-5)
    close(fit.parameters["ability"], [1.0498, 1.0942, -0.1096], 1e-4)
    close(fit.parameters["log_ease"], [1.0654, 1.3080, 1.0654, 0.2221, 1.3080, 1.3080], 1e-4)


LISTED = "01 02 03 12 13 23 / 01 12 23 03 31 02 / 30 20 31 10 21 23"  # "ij": i beats j; one line per annotator
PAIRS = np.array([[int(i), int(j)] for i, j in LISTED.replace("/", "").split()])
CROWD = np.repeat([0, 1, 2], 6)


def test_crowd_bt():
    fit = crowd_bt(*PAIRS.T, CROWD, 4, strength=0.5)
    close(fit.scores, [2.213998, 0.346194, -0.718136, -1.482816], 2e-6)
    close(fit.reliability, [0.884983, 0.821371, 0.402213], 2e-6)
    close(fit.objective, -19.862580)
    assert fit.posterior[0] > 0.5 > fit.posterior[12]  # 0 beats 1 by a reliable annotator; 3 beats 0 by an unreliable one
    assert any("mirrored" in w for w in crowd_bt(*PAIRS[:, ::-1][12:].T, CROWD[12:] - 2, 4, beta=(1.1, 9.0)).warnings)
    plain = fit_bradley_terry(*PAIRS.T, 4, ridge=0.2)
    close(plain.scores, [0.491589, -0.161421, 0.161421, -0.491589], 2e-6)


def test_crowd_bt_objective_and_gradient():
    eta = np.array([0.9, 0.8, 0.3])
    z = np.concatenate([[0.8, 0.3, -0.2, -0.9], np.log(eta / (1 - eta))])

    def at(x):
        return crowd_bt_objective(x, *PAIRS.T, CROWD, 4, strength=0.5, beta=(4, 2))

    value, gradient = at(z)
    close(value, -21.287856)
    close(gradient, [1.415887, -0.073164, -0.932859, -0.413497, -0.270113, 0.044768, 1.198991])
    close(gradient, [(at(z + h)[0] - at(z - h)[0]) / 2e-6 for h in np.eye(7) * 1e-6], 1e-6)


def test_unconnected_comparisons_are_reported():
    fit = crowd_bt(np.array([0, 2]), np.array([1, 3]), np.array([0, 0]), 4)
    assert fit.components == 2
    assert any("never compared" in w for w in fit.warnings)
    assert any("fewer than 5" in w for w in fit.warnings)


def test_bad_annotators_hurt_crowd_bt_less_than_plain_scores():
    """Mean Kendall tau over 6 crowds of 20 with nearly half of them bad: the gain is far above noise."""
    from scipy.stats import kendalltau

    gain = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth, honest = rng.normal(size=30) * 1.5, rng.uniform(0.85, 0.98, 20)
        honest[:9] = rng.uniform(0.05, 0.55, 9)
        i, j, who = rng.integers(0, 30, 600), rng.integers(0, 29, 600), rng.integers(0, 20, 600)
        j = np.where(j >= i, j + 1, j)
        wins = (rng.random(600) < 1 / (1 + np.exp(truth[j] - truth[i]))) ^ (rng.random(600) > honest[who])
        winner, loser = np.where(wins, i, j), np.where(wins, j, i)
        known = kendalltau(crowd_bt(winner, loser, who, 30).scores, truth).statistic
        gain.append(known - kendalltau(fit_bradley_terry(winner, loser, 30, ridge=0.2).scores, truth).statistic)
    assert np.mean(gain) > 0.1


def test_temperature_is_centred_and_orders_annotators():
    rng = np.random.default_rng(1)
    truth, gamma = np.linspace(-1, 1, 10), np.array([4.0, 1.0, 0.25])
    i, j, who = rng.integers(0, 10, 3000), rng.integers(0, 9, 3000), rng.integers(0, 3, 3000)
    j = np.where(j >= i, j + 1, j)
    wins = rng.random(3000) < 1 / (1 + np.exp(-gamma[who] * (truth[i] - truth[j])))
    fit = temperature_bt(np.where(wins, i, j), np.where(wins, j, i), who, 10)
    assert np.log(fit.reliability).mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.log(fit.reliability), np.log(gamma), atol=0.4)


def crowd(rng, first_bias):
    """400 items, 20 annotators, 5 votes each; 6 annotators are careless, and with `first_bias` 8 others mostly say label 1."""
    truth = rng.integers(0, 2, 400)
    right = rng.uniform(0.75, 0.95, 20)
    right[:6] = rng.uniform(0.3, 0.55, 6)
    who = np.argsort(rng.random((400, 20)), axis=1)[:, :5]
    label = np.where(rng.random((400, 5)) < right[who], truth[:, None], 1 - truth[:, None])
    if first_bias:
        lean = (who >= 12) & (rng.random((400, 5)) < 0.7)
        label = np.where(lean, 1, label)
    return truth, vote_table(np.repeat(np.arange(400), 5), who.reshape(-1), label.reshape(-1))


def accuracy(fit, truth):
    return np.mean((one(fit) > 0.5) == truth)


def test_careless_annotators_are_weighed_down():
    runs = [crowd(np.random.default_rng(seed), False) for seed in range(4)]
    gain = [accuracy(one_coin(votes), truth) - accuracy(majority(votes), truth) for truth, votes in runs]
    assert np.mean(gain) >= 0.05


def test_habits_need_confusion_matrices():
    runs = [crowd(np.random.default_rng(seed), True) for seed in range(6)]
    gain = [accuracy(dawid_skene(votes), truth) - accuracy(one_coin(votes), truth) for truth, votes in runs]
    assert np.mean(gain) >= 0.03


@pytest.mark.parametrize("model", [majority, dawid_skene, one_coin, mace, glad])
def test_relabelling_permutes_and_order_does_not_matter(model):
    votes = golden()
    swapped = vote_table(ITEM, WHO, 1 - GOLDEN.reshape(-1))
    shuffled = np.random.default_rng(0).permutation(18)
    moved = vote_table(ITEM[shuffled], WHO[shuffled], GOLDEN.reshape(-1)[shuffled])
    close(model(swapped).posterior[:, ::-1], model(votes).posterior, 1e-5)
    close(model(moved).posterior, model(votes).posterior, 1e-5)


def test_duplicated_votes_sharpen():
    twice = vote_table(np.tile(ITEM, 2), np.tile(WHO, 2), np.tile(GOLDEN.reshape(-1), 2), keep="all")
    close(majority(twice).posterior, majority(golden()).posterior)
    assert np.abs(one(dawid_skene(twice)) - 0.5).min() > np.abs(one(dawid_skene(golden())) - 0.5).min()


def test_a_constant_annotator_changes_no_decision():
    more = vote_table(np.append(ITEM, np.arange(6)), np.append(WHO, np.full(6, 3)), np.append(GOLDEN.reshape(-1), np.ones(6, int)))
    assert (np.argsort(one(dawid_skene(more))) == np.argsort(one(dawid_skene(golden())))).all()


def test_flags_and_warnings():
    votes = vote_table(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([1, 1, 0]))
    fit = one_coin(votes)
    assert fit.alone.tolist() == [False, True]
    assert fit.few.all()
    assert any("1 of 2 items have one vote" in w for w in fit.warnings)
    assert any("mirrored" in w for w in one_coin(golden(), beta=(2, 9)).warnings)


def test_conflicting_votes_of_one_person():
    item, who, label = np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([1, 0, 1])
    with pytest.raises(InputError, match=r"1 votes differ .* \(first: row 0\)"):
        vote_table(item, who, label)
    assert vote_table(item, who, label, keep="last").label.tolist() == [0, 1]
    assert len(vote_table(item, who, label, keep="all").item) == 3
    assert len(vote_table(item[:2], who[:2], np.array([1, 1])).item) == 1


@pytest.mark.parametrize(
    ("item", "who", "label", "words"),
    [
        ([0, 1], [0, -1], [0, 1], "1 of 2 votes have an unknown annotator"),
        ([0.5, 1], [0, 1], [0, 1], "integers"),
        ([0], [0, 1], [0, 1], "one item, annotator and label"),
    ],
)
def test_unusable_votes_are_named(item, who, label, words):
    with pytest.raises(InputError, match=words):
        vote_table(np.array(item), np.array(who), np.array(label))


def test_half_votes_weigh_half():
    half = vote_table(np.array([0, 0, 0]), np.array([0, 1, 1]), np.array([1, 1, 0]), weight=np.array([1, 0.5, 0.5]), keep="all")
    close(one(majority(half)), [0.75])


def test_one_coin_rate_needs_a_preference():
    with pytest.raises(InputError, match="no vote prefers"):
        one_coin_rate(np.zeros(3), np.zeros(3), np.arange(3), np.zeros(3))


def test_spammer_score_of_many_classes():
    assert spammer_score(np.eye(3)[None])[0] == pytest.approx(1.0)
    assert spammer_score(np.full((1, 3, 3), 1 / 3))[0] == pytest.approx(0.0)


def test_confident_learning():
    given = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1])
    found = confident_joint(given, np.array([0.05, 0.20, 0.10, 0.90, 0.95, 0.85, 0.30, 0.70, 0.55, 0.60]))
    close(found.thresholds, [0.64, 0.68])
    assert found.joint.tolist() == [[3, 1], [1, 3]]
    close(found.calibrated, [[0.375, 0.125], [0.125, 0.375]])
    close(found.noise, 0.25)
    for mask in (found.by_class, found.by_noise_rate, found.by_both, found.by_joint):
        assert np.flatnonzero(mask).tolist() == [3, 6]
    assert np.flatnonzero(found.by_argmax).tolist() == [3, 6, 8]
    with pytest.raises(InputError, match="swap the sides"):
        confident_joint(np.zeros(3), np.full(3, 0.5))
