"""The parts of a comparison against known truth and slow twins: units, heads, cross-fitting, selection, intervals, planted labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cupel.compare.corruptions import flip_chance, plant
from cupel.compare.data import Data, prepare, split
from cupel.compare.heads import Rows, Schedule, Space, crossfits, margins, train
from cupel.compare.intervals import differences
from cupel.compare.select import noisy_losses, recommended, row_losses, tuned
from cupel.compare.spec import BY_ANNOTATOR, CLEAN, OBJECTIVES, TREATMENTS, Case, cases_of, check, objective_of, split_text, treatment_of
from cupel.compare.spec import CompareOptions as Options
from cupel.compare.unit import refusal, unit
from cupel.errors import InputError
from cupel.learners.sides import RawSides
from cupel.noise.names import TREATMENTS as EVERY_TREATMENT
from cupel.objectives.names import available, by_name
from cupel.records import read
from cupel.votes.linear_head import LinearHead

FAST = Schedule(30, 9, 3)


@pytest.fixture(autouse=True)
def one_thread():
    """These tensors are small: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def world(n: int = 600, d: int = 6, flip: float = 0.0, seed: int = 0):
    """Pairs of sides whose better one is known; winner and loser as recorded with a share of flips, and as they are."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2 * n, d)).astype(np.float32)
    first, second = np.arange(n), np.arange(n, 2 * n)
    margin = (features[first] - features[second]) @ np.linspace(2, -2, d)
    right = rng.random(n) < 1 / (1 + np.exp(-margin))
    recorded = right ^ (rng.random(n) < flip)
    return features, np.where(recorded, first, second), np.where(recorded, second, first), np.where(right, first, second)


def rows_of(winner, loser, *, folds: int = 2, annotator=None, names=()) -> Rows:
    n = len(winner)
    who = np.full(n, -1) if annotator is None else annotator
    return Rows(winner[None], loser[None], np.ones(n), np.arange(n) % folds, who[None], (tuple(names),), np.arange(n))


def test_sigmoid_heads_are_the_linear_head_of_the_base() -> None:
    """The slow twin: the same problem solved by the numpy estimator of the base installation, at three ridges."""
    features, winner, loser, _ = world(flip=0.2)
    space = Space.of(features, np.ones(len(features)), winner, loser)
    objective = objective_of("sigmoid:beta=0.5")
    scale, gain = unit(objective)
    ridges = np.array([0.001, 0.05, 0.5])
    found = train(space, rows_of(winner, loser), objective, treatment_of("identity"), ridges, Schedule(60, 0, 1))
    got = margins(space, objective, found, winner, loser)[0]
    for r, ridge in enumerate(ridges):
        same = len(winner) * gain * ridge / scale**2
        head = LinearHead(ridge=same / 0.25).fit(features[winner], features[loser], np.ones(len(winner)))
        np.testing.assert_allclose(got[r], head.margin(features[winner], features[loser]), rtol=2e-4, atol=2e-4)


#: its loss rises around margin 0 (tau 0.05), which is where heads start: it learns the reverse, as its formula says
REVERSED = {"discopop"}


@pytest.mark.parametrize("name", available())
def test_every_objective_is_trained_or_refused_with_a_reason(name: str) -> None:
    objective = by_name(name)
    reason = refusal(objective)
    if reason:
        with pytest.raises(InputError, match=name):
            objective_of(name)
        return
    features, winner, loser, better = world(300)
    space = Space.of(features, np.full(len(features), 3.0), winner, loser)
    found = train(space, rows_of(winner, loser), objective, treatment_of("identity"), np.array([0.01]), FAST)
    margin = margins(space, objective, found, better, np.where(better == winner, loser, winner))[0, 0]
    assert np.isfinite(margin).all()
    assert ((margin > 0).mean() > 0.7) == (name not in REVERSED)


MORE = ("em:flip=0.2 + trimmed:share=0.1", "selfie:warmup=0,buffer=200", "bounded:ceiling=3")
KINDS = [(text, "sigmoid:beta=1") for text in (*TREATMENTS, BY_ANNOTATOR, *MORE)]
KINDS += [(text, "beta_dpo:beta=1") for text in (TREATMENTS[3], TREATMENTS[6])]


@pytest.mark.parametrize(("text", "name"), KINDS)
def test_every_treatment_trains_every_kind_of_objective(text: str, name: str) -> None:
    features, winner, loser, better = world(300, flip=0.1)
    rows = rows_of(winner, loser, annotator=np.arange(300) % 5, names="abcde")
    space = Space.of(features, np.ones(len(features)), winner, loser)
    found = train(space, rows, objective_of(name), treatment_of(text), np.array([0.01, 0.1]), FAST)
    margin = margins(space, objective_of(name), found, better, np.where(better == winner, loser, winner))
    assert (margin > 0).mean() > 0.75
    assert (found.evidence is not None) == crossfits(treatment_of(text))


def test_columns_do_not_depend_on_their_neighbours() -> None:
    features, winner, loser, _ = world(200, flip=0.2)
    other = (loser, winner)
    both = Rows(
        np.stack([winner, other[0]]), np.stack([loser, other[1]]), np.ones(200), np.arange(200) % 2, np.full((2, 200), -1), ((), ()),
        np.arange(200),
    )  # fmt: skip
    space = Space.of(features, np.ones(len(features)), winner, loser)
    objective = objective_of("sigmoid:beta=1")
    for text in ("em:flip=0.2,share=0.5,warmup=0", "distributionally_robust:temperature=1", "tempered:power=0.7"):
        alone = train(space, both.take(slice(0, 1)), objective, treatment_of(text), np.array([0.1]), FAST)
        together = train(space, both, objective, treatment_of(text), np.array([0.01, 0.1]), FAST)
        np.testing.assert_allclose(alone.theta[0, 0], together.theta[0, 1], rtol=1e-3, atol=1e-5)


def test_evidence_is_of_heads_that_did_not_see_the_label() -> None:
    """Flipping the label of one row leaves its own evidence as it was when nothing else is treated, and turns its sign."""
    features, winner, loser, _ = world(200)
    space = Space.of(features, np.ones(len(features)), winner, loser)
    objective, treatment = objective_of("sigmoid:beta=1"), treatment_of("peer_review:drop=0.0,ramp=0")
    before = train(space, rows_of(winner, loser), objective, treatment, np.array([0.01]), FAST).evidence
    turned, lost = winner.copy(), loser.copy()
    turned[7], lost[7] = loser[7], winner[7]
    after = train(space, rows_of(turned, lost), objective, treatment, np.array([0.01]), FAST).evidence
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after[0, 0, 7], -before[0, 0, 7], rtol=1e-5)
    assert abs(float(after[0, 0, 8] - before[0, 0, 8])) > 1e-6  # a row of the other fold: its heads did see the change


def test_em_finds_bad_annotators_and_wins_by_it() -> None:
    """Six adversaries of twenty: plain training loses, per-annotator EM does not; with the names shuffled there is nothing to find."""
    rng = np.random.default_rng(3)
    features, winner, loser, better = world(1500, seed=1)
    who = rng.integers(20, size=1500)
    bad = who < 6
    first, second = np.where(bad, loser, winner), np.where(bad, winner, loser)
    space = Space.of(features, np.ones(len(features)), winner, loser)
    objective, ridges = objective_of("sigmoid:beta=1"), np.array([0.001])
    names = [str(i) for i in range(20)]
    worse = np.where(better == winner, loser, winner)

    def accuracy(text: str, annotator: np.ndarray) -> float:
        rows = rows_of(first, second, annotator=annotator, names=names)
        return float((margins(space, objective, train(space, rows, objective, treatment_of(text), ridges, FAST), better, worse) > 0).mean())

    plain, robust = accuracy("identity", who), accuracy(BY_ANNOTATOR, who)
    assert robust > plain + 0.005
    assert robust > accuracy(BY_ANNOTATOR, rng.permutation(who))


def test_units() -> None:
    for beta in (0.1, 1.0):
        scale, gain = unit(by_name("sigmoid", beta=beta))
        assert scale == pytest.approx(np.log(4) / beta, rel=0.01)
        assert gain == pytest.approx(np.log(4) / 2, rel=0.01)
    assert unit(by_name("noise_tolerant", beta=1.0))[0] == pytest.approx(np.log(4), rel=0.02)
    assert unit(by_name("ipo_sum", beta=1.0))[0] == pytest.approx(0.3, rel=0.01)
    assert "imitates" in (refusal(by_name("cpo")) or "")


def test_row_losses_fit_one_slope() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(1, 2, (3, 400))
    grid = np.linspace(0, 5, 5001)
    best = np.logaddexp(0, -grid[:, None, None] * margin).mean(axis=-1).min(axis=0)
    np.testing.assert_allclose(row_losses(margin).mean(axis=-1), best, atol=1e-6)
    np.testing.assert_allclose(row_losses(40 * margin), row_losses(margin), atol=1e-9)
    assert row_losses(-np.abs(margin)).max() == pytest.approx(np.log(2))
    assert row_losses(np.zeros((2, 5))).min() == pytest.approx(np.log(2))


def test_losses_that_know_who_errs() -> None:
    rng = np.random.default_rng(2)
    margin, rate = rng.normal(0, 3, 5000), np.repeat([0.0, 0.5, 1.0], [2000, 1500, 1500])
    right = rng.random(5000) < 1 / (1 + np.exp(-margin))
    stated = np.where(rng.random(5000) < rate, ~right, right)
    toward = np.where(stated, margin, -margin)
    p = 1 / (1 + np.exp(-toward))
    best = -np.log(p * (1 - rate) + (1 - p) * rate)
    assert noisy_losses(toward, rate).mean() == pytest.approx(best.mean(), abs=2e-3)
    assert noisy_losses(toward, rate).mean() < row_losses(toward).mean() - 0.1
    np.testing.assert_allclose(noisy_losses(toward, np.zeros(5000)).mean(), row_losses(toward).mean(), atol=1e-3)


def test_tuning_and_recommendation() -> None:
    assert tuned(np.array([0.3, 0.2, 0.2]), np.array([1.0, 2.0, 3.0])) == 2
    rng = np.random.default_rng(0)
    plain = rng.random(300)
    assert recommended(np.stack([plain, plain + 0.01 * rng.normal(size=300) - 0.0001]), np.arange(300)) == 0
    assert recommended(np.stack([plain, plain - 0.05 + 0.01 * rng.normal(size=300)]), np.arange(300)) == 1


def test_intervals_cover_and_hold_together() -> None:
    """60 tables of 8 null differences with groups of 3 rows and five seeds that each add something of their own."""
    rng = np.random.default_rng(5)
    alone, together = [], []
    for k in range(60):
        group, seed_of = np.repeat(np.arange(90), 3), np.repeat(np.arange(5), 54)
        value = rng.normal(size=(8, 90))[:, group] * 0.5 + rng.normal(size=(8, 270)) + 0.05 * rng.normal(size=(8, 5))[:, seed_of]
        found = differences(value, group, seed_of, seed=k, draws=300)
        alone.append(((found.low < 0) & (found.high > 0)).mean())
        together.append(bool(((found.all_low < 0) & (found.all_high > 0)).all()))
    assert 0.9 < np.mean(alone) <= 1.0
    assert np.mean(together) > 0.88


def small(n: int = 300, gold: bool = True) -> Data:
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"question {i // 3}", "response_a": f"answer {i} " + "x" * int(rng.integers(1, 30)), "response_b": f"reply {i}",
         "vote": "a" if rng.random() < 0.5 else "b"} for i in range(n)
    ]  # fmt: skip
    votes = read(rows, heldout=0)
    node_first, node_second = votes.node
    m = int(max(node_first.max(), node_second.max())) + 1
    length = np.zeros(m)
    sizes = np.array([len(text) for text in votes.response_texts()])
    length[node_first], length[node_second] = sizes[votes.first], sizes[votes.second]
    embedding, facts = rng.normal(size=(m, 5)).astype(np.float32), rng.normal(size=(m, 3)).astype(np.float32)
    sides = RawSides(embedding, facts, length, node_first, node_second)
    truth = np.where(rng.random(n) < 0.9, votes.sign, -votes.sign) if gold else None
    return prepare("small", votes, sides, truth)


def test_splits_keep_groups_and_cover_all_rows() -> None:
    data = small()
    tested = []
    for seed in range(5):
        found = split(data, seed, 5, 0.25, 2)
        parts = [set(data.group[rows].tolist()) for rows in (found.train, found.validation, found.test)]
        assert not any(one & other for one, other in itertools.combinations(parts, 2))
        assert sum(map(len, (found.train, found.validation, found.test))) == len(data.votes)
        assert not set(data.group[found.train[found.fold == 0]].tolist()) & set(data.group[found.train[found.fold == 1]].tolist())
        tested.append(found.test)
    assert np.array_equal(np.sort(np.concatenate(tested)), np.arange(len(data.votes)))


def test_planted_labels() -> None:
    data = small(900)
    sign = data.votes.sign
    for case in cases_of(["symmetric", "length", "difficulty"], [0.0, 0.3]):
        hard = np.random.default_rng(1).random(len(sign))
        planted = plant(data, case, 0, hard)
        assert abs((planted.sign != sign).mean() - (case.rate or 0.0)) < 0.05
        assert planted.share == pytest.approx((planted.sign != sign).mean())
        assert np.array_equal(planted.sign, plant(data, case, 0, hard).sign)
    pool, shuffled = cases_of(["annotators:random=0.2,adversarial=0.1", "annotators:random=0.2,adversarial=0.1,shuffled=true"], [0.1])
    one, other = plant(data, pool, 2), plant(data, shuffled, 2)
    assert np.array_equal(one.sign, other.sign)
    assert not np.array_equal(one.annotator, other.annotator)
    assert np.array_equal(np.bincount(one.annotator), np.bincount(other.annotator))
    assert np.array_equal(plant(data, CLEAN, 0).sign, data.reference)
    assert np.array_equal(plant(data, Case("none", None), 0).sign, sign)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.35, 0.45])
def test_harder_pairs_flip_more(rate: float) -> None:
    chance = flip_chance(np.random.default_rng(0).random(1000), rate)
    assert chance.mean() == pytest.approx(rate, abs=1e-6)
    assert chance.max() <= 0.5
    hard = np.arange(1000.0)
    assert (np.diff(flip_chance(hard, rate)) >= 0).all()


def test_refusals() -> None:
    wrong = ["nonsense", "symmetric:rate=0.2", "annotators:bad=1", "symmetric:x"]
    for text in wrong:
        with pytest.raises(InputError):
            cases_of([text], [0.1])
    with pytest.raises(InputError, match="not in"):
        cases_of(["symmetric"], [0.5])
    with pytest.raises(InputError, match="tdpo needs"):
        objective_of("tdpo")
    with pytest.raises(InputError, match="no treatment is called"):
        treatment_of("emm")
    with pytest.raises(InputError, match="correct p for noise"):
        treatment_of("em + unbiased:flip=0.1")
    with pytest.raises(InputError, match="has to be identity"):
        check(Options(treatments=("em",)))
    with pytest.raises(InputError, match="stands twice"):
        check(Options(objectives=("sigmoid", "sigmoid")))
    found = check(Options(objectives=("aot",), treatments=("identity", "em", "trimmed:share=0.1")))
    assert [(r["objective"], r["treatment"]) for r in found] == [("aot", "em")]
    assert split_text("a:b=1,c=x,d=true") == ("a", {"b": 1, "c": "x", "d": True})
    assert check(Options(objectives=OBJECTIVES)) == []


def test_treatments_by_name_that_need_no_table_are_accepted() -> None:
    """Every treatment that a text can name makes a treatment of a comparison, or says why not."""
    for name, entry in EVERY_TREATMENT.items():
        if entry.by_record:
            with pytest.raises(InputError, match="table of records"):
                treatment_of(name)
        else:
            text = name + (":" + ",".join(f"{k}={v}" for k, v in entry.example.items()) if entry.example else "")
            assert treatment_of(text).name == name
