"""Every kind of planted error on data whose truth is known; a new kind takes part by being in the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cupel.compare.corruptions import KINDS, plant
from cupel.compare.data import Data, prepare
from cupel.compare.spec import Case, cases_of
from cupel.errors import InputError
from cupel.learners.sides import RawSides
from cupel.records import read

N = 900
HARD = -np.random.default_rng(1).random(N)  # minus the size of a margin, as `difficulties` gives it


def small() -> Data:
    """Recorded labels are right nine times in ten, but those of "judge": 60 % right where the first is better, 95 % otherwise."""
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 1], N)
    who = rng.random(N) < 0.5
    right = rng.random(N) < np.where(who, np.where(truth > 0, 0.6, 0.95), 0.9)
    rows = [
        {"prompt": f"question {i // 3}", "response_a": f"answer {i} " + "x" * int(rng.integers(1, 30)), "response_b": f"reply {i}",
         "vote": "a" if (truth[i] > 0) == right[i] else "b", "annotator": "judge" if who[i] else f"human {i % 4}"} for i in range(N)
    ]  # fmt: skip
    votes = read(rows, heldout=0)
    first, second = votes.node
    m = int(max(first.max(), second.max())) + 1
    sizes = np.array([len(text) for text in votes.response_texts()], dtype=float)
    length = np.zeros(m)
    length[first], length[second] = sizes[votes.first], sizes[votes.second]
    sides = RawSides(rng.normal(size=(m, 4)).astype(np.float32), rng.normal(size=(m, 2)).astype(np.float32), length, first, second)
    return prepare("small", votes, sides, truth)


DATA = small()
SPECIAL = {"judge": ":annotator=judge"}


def exchanged(text: str, rate: float, seed: int = 0) -> np.ndarray:
    (case,) = cases_of([text], [rate])
    return plant(DATA, case, seed, HARD).sign != DATA.votes.sign


@pytest.mark.parametrize("name", KINDS)
def test_rate_share_seed_and_label(name: str) -> None:
    for case in cases_of([name + SPECIAL.get(name, "")], [0.0, 0.3]):
        planted = plant(DATA, case, 0, HARD)
        before = DATA.reference if name == "judge" else DATA.votes.sign
        assert set(planted.sign.tolist()) == {-1, 1}
        assert planted.sign.dtype == np.int8
        assert planted.share == pytest.approx((planted.sign != before).mean())
        if KINDS[name].rated:
            assert abs(planted.share - (case.rate or 0)) < 0.06
        assert np.array_equal(planted.sign, plant(DATA, case, 0, HARD).sign)
        if planted.share > 0:
            assert not np.array_equal(planted.sign, plant(DATA, case, 1, HARD).sign)
        assert len(planted.annotator) == N
        assert planted.annotator.max() < len(planted.annotators)


def test_every_kind_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")
    assert [name for name in KINDS if f"| `{name}` |" not in text] == []
    assert [key for kind in KINDS.values() for key in kind.settings if f"`{key}" not in text] == []


def test_errors_lie_where_the_kind_says() -> None:
    sign = DATA.votes.sign
    assert (sign[exchanged("position", 0.2)] < 0).all()
    assert (sign[exchanged("position:side=second", 0.2)] > 0).all()
    longer = np.sign(DATA.sides.length[DATA.sides.first] - DATA.sides.length[DATA.sides.second])
    assert (longer[exchanged("length", 0.2)] == -sign[exchanged("length", 0.2)]).all()
    topics = np.unique(DATA.group[exchanged("topics:share=0.3", 0.2)])
    assert 0.2 < len(topics) / len(np.unique(DATA.group)) < 0.35
    for name in ("difficulty", "close_calls"):
        mask = exchanged(name, 0.2)
        assert mask[HARD > -0.3].mean() > 1.5 * mask[HARD < -0.7].mean()


@pytest.mark.parametrize(("name", "rates"), [("spammers", {0.0, 0.5}), ("adversaries", {0.0, 1.0})])
def test_pools_have_the_rates_of_their_kind(name: str, rates: set[float]) -> None:
    (case,) = cases_of([name + ":n=10"], [0.2])
    planted = plant(DATA, case, 3, HARD)
    wrong = planted.sign != DATA.votes.sign
    found = np.array([wrong[planted.annotator == k].mean() for k in range(10)])
    near = np.array(sorted(rates))[np.abs(found[:, None] - sorted(rates)).argmin(axis=1)]
    assert np.abs(found - near).max() < 0.2
    assert near.mean() == pytest.approx(0.2)


def test_shuffled_names_keep_the_labels() -> None:
    one, other = (plant(DATA, case, 2) for case in cases_of(["few_bad", "few_bad:shuffled=true"], [0.2]))
    assert np.array_equal(one.sign, other.sign)
    assert not np.array_equal(one.annotator, other.annotator)


def test_a_judge_answers_with_the_confusion_of_the_votes_of_that_name() -> None:
    (case,) = cases_of(["judge:annotator=judge"], [0.2])
    planted, truth = plant(DATA, case, 0), DATA.truth
    assert truth is not None
    for side, share in ((1, 0.6), (-1, 0.95)):
        assert (planted.sign[truth == side] == side).mean() == pytest.approx(share, abs=0.07)
    unordered = replace(DATA, votes=DATA.votes.with_(order_known=False))
    planted = plant(unordered, case, 0)
    for side in (1, -1):  # no habit of naming a side can be told: right as often on both
        assert (planted.sign[truth == side] == side).mean() == pytest.approx(0.775, abs=0.07)


@pytest.mark.parametrize(
    ("data", "text", "message"),
    [
        (replace(DATA, truth=None), "judge:annotator=judge", "no truth"),
        (DATA, "judge:annotator=nobody", "nobody is called 'nobody'.*human 0"),
        (replace(DATA, votes=DATA.votes.take(np.arange(40)), truth=DATA.truth[:40]), "judge:annotator=human 1", "30 say"),  # type: ignore[index]
        (replace(DATA, votes=DATA.votes.with_(order_known=False)), "position", "does not say which side"),
        (DATA, "position:side=left", "first or second"),
        (DATA, "topics:share=2", "share in"),
    ],
)
def test_what_the_data_cannot_give_is_refused(data: Data, text: str, message: str) -> None:
    (case,) = cases_of([text], [0.2])
    with pytest.raises(InputError, match=message):
        plant(data, case, 0)


def test_a_kind_that_reads_difficulty_says_so() -> None:
    with pytest.raises(ValueError, match="needs difficulties"):
        plant(DATA, Case("close_calls", 0.2), 0)
