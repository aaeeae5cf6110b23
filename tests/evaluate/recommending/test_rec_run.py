"""The evaluation as a whole: known lists, checks of the test log, of lists, of what is asked; rare items; seeds; bytes."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.evaluate.recommending.catalogue import gini, shown
from cupel.evaluate.recommending.lists import from_scores
from cupel.evaluate.recommending.relevant import rare_items, relevant
from cupel.evaluate.recommending.run import evaluate_recommenders
from cupel.interactions.log import Log, by_user
from cupel.interactions.metrics import METRICS, best, ranked, tie_order
from cupel.records.files import to_json


def world(users: int = 60, items: int = 25, seed: int = 0) -> tuple[Log, Log, np.ndarray]:
    """(train, test, true scores): each user's 6 items are those with the highest noisy score, 2 of them the test."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(users, items)) + 1.5 * np.linspace(1, -1, items)
    taken = np.argsort(-(truth + 0.3 * rng.normal(size=truth.shape)), axis=1)[:, :6]
    user, item = np.repeat(np.arange(users), 6), taken.reshape(-1)
    names, kinds = np.array([f"u{k:02}" for k in range(users)]), np.array([f"i{k:02}" for k in range(items)])
    whole = Log(names, kinds, user.astype(np.int32), item.astype(np.int32))
    test = (np.arange(len(whole)) % 6 == 1) | (np.arange(len(whole)) % 6 == 4)
    return whole.take(~test), whole.take(test), truth


TRAIN, TEST, TRUTH = world()
NOISE = np.random.default_rng(9).normal(size=TRUTH.shape)


def test_values_are_means_over_users_of_full_rankings() -> None:
    found = evaluate_recommenders({"truth": from_scores(TRUTH)}, TEST, TRAIN, ks=[5, 3], metrics=METRICS, draws=50)
    masked = TRUTH.copy()
    masked[TRAIN.user, TRAIN.item] = -np.inf
    twin = ranked(best(masked, 5, tie_order(25)), by_user(TEST, order="item"), np.arange(60), [3, 5])
    assert set(found.parts[0].value) == set(twin)
    for metric, values in twin.items():
        assert found.parts[0].value[metric]["truth"].estimate == pytest.approx(values.mean())
    assert (found.headline, found.ks, found.parts[0].users, found.parts[0].events, found.left_out) == ("recall@5", (3, 5), 60, 120, 4.0)


def test_a_better_model_is_called_better_and_an_equal_one_is_not() -> None:
    models = {"noise": from_scores(NOISE), "truth": from_scores(TRUTH), "again": from_scores(NOISE + 0.0)}
    found = evaluate_recommenders(models, TEST, TRAIN, ks=[5], draws=400)
    assert found.ranking[0] == "truth"
    assert found.verdicts == {"truth": "better than noise", "again": "cannot be told apart from noise"}
    turned = evaluate_recommenders(models, TEST, TRAIN, ks=[5], draws=400, reference="truth")
    assert turned.verdicts["noise"] == "worse than truth"
    assert found.parts[0].difference["ndcg@5"]["again"].estimate == 0


def test_seeds_are_averaged_and_widen() -> None:
    rng = np.random.default_rng(4)
    several = [from_scores(TRUTH + 2 * rng.normal(size=TRUTH.shape) + 3 * rng.normal(size=25)) for _ in range(3)]
    found = evaluate_recommenders({"seeds": several, "one": several[0]}, TEST, TRAIN, ks=[5], draws=300)
    alone = [evaluate_recommenders({"x": one}, TEST, TRAIN, ks=[5], draws=300).parts[0].value["ndcg@5"]["x"] for one in several]
    assert found.parts[0].value["ndcg@5"]["seeds"].estimate == pytest.approx(np.mean([float(share.estimate or 0) for share in alone]))
    assert found.seeds == {"seeds": 3, "one": 1}


def test_rare_items_are_judged_by_themselves_among_all() -> None:
    found = evaluate_recommenders({"truth": from_scores(TRUTH)}, TEST, TRAIN, ks=[5], rare=8, propensity="popularity", draws=50)
    rare = found.parts[1]
    assert rare.name == "items with at most 8 training events"
    keep = TRAIN.counts()[TEST.item] <= 8
    assert rare.events == int(keep.sum()) < 120
    masked = TRUTH.copy()
    masked[TRAIN.user, TRAIN.item] = -np.inf
    twin = ranked(best(masked, 5, tie_order(25)), by_user(TEST.take(keep), order="item"), np.arange(60), [5])
    assert rare.value["recall@5"]["truth"].estimate == pytest.approx(np.nanmean(twin["recall@5"]))
    assert rare.value["recall@5"]["truth"].groups == rare.users == int((~np.isnan(twin["recall@5"])).sum())
    assert rare_items(TRAIN.counts())[0].mean() >= 0.8
    assert not evaluate_recommenders({"t": from_scores(TRUTH)}, TEST, TRAIN, ks=[5], rare=0, draws=50).parts[1:]
    with pytest.raises(InputError, match="at least 0"):
        rare_items(TRAIN.counts(), -1)


def test_propensities_planted_by_popularity_are_corrected() -> None:
    """Relevance that is level over items, seen the more the more popular: popularity looks good to the naive metric, level to SNIPS."""
    rng = np.random.default_rng(0)
    users, items = 3000, 20
    theta = np.linspace(1, 0.05, items)
    relevant_ = rng.random((users, items)) < 0.4
    seen = relevant_ & (rng.random((users, items)) < theta)
    user, item = (x.astype(np.int32) for x in np.nonzero(seen))
    test = Log(np.arange(users).astype(str), np.arange(items).astype(str), user, item, propensity=theta[item])
    train = test.take(np.zeros(len(test), bool))
    popular = from_scores(np.tile(theta, (users, 1)))
    found = evaluate_recommenders({"popular": popular}, test, train, ks=[5], propensity="log", clip=0.0, draws=200)
    true = float(np.mean(relevant_[:, :5].sum(axis=1)) / 8)  # relevant items shown, over the 8 there are on average
    value = found.parts[0].value
    assert value["recall@5"]["popular"].estimate > true + 0.1  # type: ignore[operator]
    pooled, ips = value["recall@5 pooled"]["popular"], value["recall@5 ips"]["popular"]
    assert pooled.low <= true <= pooled.high  # type: ignore[operator]
    assert ips.low <= 8 * true * users / found.parts[0].users <= ips.high  # type: ignore[operator]
    assert found.weighing is not None
    assert found.weighing.effective < 0.8 * len(test)


def test_checks_of_the_test_log() -> None:
    both = TEST.take(np.concatenate([np.arange(120), [0]]))
    assert "1 of 121 test events repeat" in relevant(both, TRAIN).notes[0]
    overlapping = Log(TEST.users, TEST.items, np.append(TEST.user, TRAIN.user[:2]), np.append(TEST.item, TRAIN.item[:2]))
    with pytest.raises(InputError, match=r"2 of 122 test events .* 2 of the training log \(first: user 'u00', item .*--drop-seen"):
        relevant(overlapping, TRAIN)
    dropped = relevant(overlapping, TRAIN, drop_seen=True)
    assert dropped.rows.counts.sum() == 120
    assert "were left out of the test" in dropped.notes[0]
    with pytest.raises(InputError, match="3 of what is masked"):
        relevant(TEST, TRAIN, [TEST.take(np.arange(3))])
    assert relevant(TEST.take(np.arange(3, 120)), TRAIN, [TEST.take(np.arange(3))]).seen.counts.sum() == 243
    with pytest.raises(InputError, match="none of the 120 test events"):
        relevant(TEST, TRAIN, [TEST], drop_seen=True)
    fewer = TRAIN.kept_ids(np.arange(60) > 0, np.ones(25, bool))
    with pytest.raises(InputError, match="60 users and the training log 59"):
        relevant(TEST, fewer)
    cold = relevant(TEST, TRAIN.take((TRAIN.user > 1) & (TRAIN.item != TEST.item[50])))
    assert cold.notes[0] == "2 of 60 users of the test have no training event."
    assert "without a training event" in cold.notes[1]


def test_values_decide_what_is_a_preference() -> None:
    rated = Log(TEST.users, TEST.items, TEST.user, TEST.item, value=np.tile(np.array([0.0, 3, 5], np.float32), 40))
    assert relevant(rated, TRAIN).rows.counts.sum() == 80
    assert relevant(rated, TRAIN, at_least=4).rows.counts.sum() == 40
    assert "below 4" in relevant(rated, TRAIN, at_least=4).notes[0]
    with pytest.raises(InputError, match="no values"):
        relevant(TEST, TRAIN, at_least=4)


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (lambda users, k, seen: np.zeros((len(users), k)), "whole numbers"),
        (lambda users, k, seen: np.zeros((len(users), k + 1), int), "whole numbers"),
        (lambda users, k, seen: np.full((len(users), k), 25), "outside the 25"),
        (lambda users, k, seen: np.zeros((len(users), k), int), "twice for 60 of 60 users"),
        (lambda users, k, seen: np.stack([seen.of(u)[:2] for u in users]), "left out of rankings"),
    ],
)
def test_checks_of_lists(top, words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate_recommenders({"bad": top}, TEST, TRAIN, ks=[3])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ks": [0]}, "at least 1"),
        ({"metrics": ["auc"]}, "not 'auc'"),
        ({"metrics": []}, "at least one metric"),
        ({"reference": "x"}, "none of"),
    ],
)
def test_checks_of_what_is_asked(changes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate_recommenders({"m": from_scores(TRUTH)}, TEST, TRAIN, **changes)
    with pytest.raises(InputError, match="at least one model"):
        evaluate_recommenders({}, TEST, TRAIN)
    broken = from_scores(np.full((60, 25), np.nan))
    with pytest.raises(InputError, match="1,500 scores are not a number"):
        evaluate_recommenders({"m": broken}, TEST, TRAIN)


def test_lists_may_end_early_and_the_catalogue_is_described() -> None:
    found = evaluate_recommenders({"t": from_scores(TRUTH)}, TEST, TRAIN, ks=[30], draws=20)
    assert found.shown["t"].coverage == 1.0
    assert found.shown["t"].short == pytest.approx(1 - 21 / 30)
    assert gini(np.array([0, 0, 5])) == pytest.approx(2 / 3)
    counts = np.array([4, 0, 0, 0])
    one = shown([counts], 4, np.array([9, 1, 1, 0]))
    assert (one.coverage, one.popularity, one.percentile, one.short) == (0.25, 9.0, 0.875, 0.0)


def test_same_seed_same_bytes() -> None:
    one, two = (
        to_json(evaluate_recommenders({"t": from_scores(TRUTH)}, TEST, TRAIN, ks=[5], propensity="popularity", draws=50, seed=3).to_json())
        for _ in range(2)
    )
    assert one == two
    said = str(evaluate_recommenders({"t": from_scores(TRUTH)}, TEST, TRAIN, ks=[5], propensity="popularity", draws=50))
    for words in ("events weigh as", "of the catalogue", "snips"):
        assert words in said
