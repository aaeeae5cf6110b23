"""The rating protocol: the rules by hand, what is asked for, what is kept and why, and that selection inflates kappa."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cupel.curate.rating_protocol import agreeing, rating_protocol
from cupel.errors import InputError
from cupel.votes.ratings import qwk


def long(items: dict[str, list[int]], attribute="helpfulness"):
    rows = [(name, f"r{k}", attribute, value) for name, values in items.items() for k, value in enumerate(values)]
    return tuple(list(column) for column in zip(*rows, strict=True))


def test_the_rules_by_hand():
    """(0, 3, 1): two more; (4, 2, 3): not; of (0, 4, 4, 3, 0) the three with least variance."""
    found = rating_protocol(*long({"x": [0, 3, 1], "y": [4, 2, 3], "z": [0, 4, 4, 3, 0]}))
    assert found.requests == {"x": 2}
    assert found.contested == ("x",)
    assert found.kept.tolist() == [False] * 3 + [True] * 3 + [False, True, True, True, False]
    assert found.reason == ("contested",) * 3 + ("",) * 3 + ("not among those who agree most", "", "", "", "not among those who agree most")
    scores = {
        name: (mean, score, n)
        for name, mean, score, n in zip(*(found.scores[k] for k in ("item", "mean", "score", "ratings")), strict=True)
    }
    assert scores["z"] == (pytest.approx(11 / 3), 4, 3)
    assert scores["y"] == (3, 3, 3)
    assert "x" not in scores


@pytest.mark.parametrize("seed", range(3))
def test_the_best_three_against_a_sorted_list(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        values = rng.integers(0, 5, rng.integers(3, 6))
        listed = sorted((np.var(values[list(at)]).round(9), np.ptp(values[list(at)]), at) for at in combinations(range(len(values)), 3))
        assert tuple(agreeing(values)) == listed[0][2]


def test_ties_go_to_the_earlier_rows():
    assert agreeing(np.array([2, 2, 2, 2, 2])).tolist() == [0, 1, 2]
    assert agreeing(np.array([1, 2, 3, 2, 1])).tolist() == [0, 1, 3]


def test_requests():
    found = rating_protocol(*long({"none": [2], "two": [4, 4], "four": [0, 4, 4, 4], "five": [0, 4, 0, 4, 2], "fine": [3, 3, 3]}))
    assert found.requests == {"none": 2, "two": 1, "four": 1}
    assert found.reason[:3] == ("too few ratings",) * 3
    assert found.contested == ()  # of four, the three 4s; of five, 0 0 2
    assert found.kept.sum() == 9


def test_a_contested_item_takes_its_prompt_along_or_is_only_marked():
    columns = long({"a": [0, 4, 0, 4], "b": [3, 3, 3], "c": [1, 1, 1]})
    prompt = ["p"] * 7 + ["q"] * 3
    three = long({"a": [0, 2, 4], "b": [3, 3, 3], "c": [1, 1, 1]})
    found = rating_protocol(*three, prompt=["p"] * 6 + ["q"] * 3)
    assert found.contested == ("a", "b")
    assert found.kept.tolist() == [False] * 6 + [True] * 3
    marked = rating_protocol(*three, prompt=["p"] * 6 + ["q"] * 3, contested="mark")
    assert marked.kept.all()
    assert marked.scores["contested"] == [True, True, False]
    assert rating_protocol(*three).contested == ("a",)
    assert rating_protocol(*columns, prompt=prompt).contested == ("a", "b")  # whichever three: 0 0 4 lie 4 apart


def test_all_attributes_of_a_rater_go_together():
    """Helpfulness decides; the others follow the people who are kept."""
    help_, tone = long({"x": [0, 4, 4, 4]}), long({"x": [1, 2, 3, 4]}, "tone")
    both = tuple(a + b for a, b in zip(help_, tone, strict=True))
    found = rating_protocol(*both)
    assert found.kept.tolist() == [False, True, True, True] * 2
    assert found.scores["mean"] == [4, 3]
    assert set(found.agreement) == {"helpfulness", "tone"}
    assert rating_protocol(*both, decide="tone").kept.tolist() == [True, True, True, False] * 2


def test_untrusted_people_are_left_out_first():
    found = rating_protocol(*long({"x": [0, 4, 4, 4], "y": [0, 2, 2]}), untrusted={"r0"})
    assert found.kept.tolist() == [False, True, True, True, False, False, False]
    assert found.reason == ("untrusted annotator", "", "", "", "untrusted annotator", "too few ratings", "too few ratings")
    assert found.requests == {"y": 1}


def simulated(seed=0, prompts=400, noise=0.75, careless=0.2):
    """Ratings under the protocol's own rules, the true rating of each item, and a further rating that nobody looked at."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(5, 2 * prompts, p=(0.08, 0.12, 0.17, 0.28, 0.35))

    def rate(k: int) -> np.ndarray:
        drawn = np.clip(np.rint(truth[:, None] + rng.normal(0, noise, (len(truth), k))), 0, 4)
        return np.where(rng.random(drawn.shape) < careless, rng.integers(0, 5, drawn.shape), drawn).astype(int)

    all_, fresh = rate(5), rate(1)[:, 0]
    number = np.where(np.ptp(all_[:, :3], axis=1) > 2, 5, 3)
    item = np.repeat(np.arange(len(truth)), number)
    return (
        item,
        np.concatenate([np.arange(m) for m in number]),
        np.concatenate([r[:m] for r, m in zip(all_, number, strict=True)]),
        truth,
        fresh,
    )


def test_kappa_doubles_by_selection_and_scores_gain_little():
    item, annotator, value, truth, fresh = simulated()
    found = rating_protocol(item, annotator, ["helpfulness"] * len(item), value, prompt=item // 2, draws=20, seed=1)
    stages = found.agreement["helpfulness"]
    gain = stages["selected"].kappa - stages["first"].kappa
    assert gain > 0.2
    before = np.bincount(item, value) / np.bincount(item)
    after = dict(zip(found.scores["item"], found.scores["mean"], strict=True))
    rows = np.array(list(after))
    rmse = [np.sqrt(np.mean((x - truth[rows]) ** 2)) for x in (before[rows], np.array(list(after.values())))]
    assert 0.6 < rmse[1] / rmse[0] < 0.97
    outside = [qwk(fresh[item[mask]], value[mask]) for mask in (annotator < 3, found.kept)]  # a rater who had no part in anything
    assert 0 < outside[1] - outside[0] < gain / 2
    assert found.held_out.items == (np.bincount(item) == 5).sum()
    assert found.held_out.selected > found.held_out.all
    assert any("selected because they agree" in line for line in found.words)


def test_held_out_raters_by_hand():
    """The 4th and the 5th are left out in turn: against all others, and against the best three of them."""
    found = rating_protocol(*long({"x": [0, 4, 1, 3, 4], "y": [2, 2, 1, 0, 2]}))
    x = [(3, 0), (3, 4), (3, 1), (3, 4), (4, 0), (4, 4), (4, 1), (4, 3), (0, 2), (0, 2), (0, 1), (0, 2), (2, 2), (2, 2), (2, 1), (2, 0)]
    best = [(3, 4), (3, 1), (3, 4), (4, 0), (4, 1), (4, 3), (0, 2), (0, 2), (0, 2), (2, 2), (2, 2), (2, 1)]
    assert found.held_out.items == 2
    assert found.held_out.all == pytest.approx(qwk(*np.array(x).T))
    assert found.held_out.selected == pytest.approx(qwk(*np.array(best).T))


def test_nobody_to_spare():
    found = rating_protocol(*long({"x": [1, 2, 3], "y": [4, 4, 3]}))
    assert np.isnan(found.held_out.all)
    assert any("cannot be measured" in line for line in found.words)


def test_refusals():
    with pytest.raises(InputError, match="no whole number from 0 to 4"):
        rating_protocol(*long({"x": [1, 2, 5]}))
    with pytest.raises(InputError, match="second of the same item"):
        rating_protocol(["x", "x"], ["a", "a"], ["helpfulness"] * 2, [1, 2])
    with pytest.raises(InputError, match="no rating is of 'helpfulness': the attributes are tone"):
        rating_protocol(*long({"x": [1, 2, 3]}, "tone"))
    with pytest.raises(InputError, match=r"1 of 4 ratings come without a rating of helpfulness .* row 3, item x"):
        rating_protocol(["x"] * 4, ["a", "b", "c", "d"], ["helpfulness"] * 3 + ["tone"], [1, 2, 3, 4])
    with pytest.raises(InputError, match="one response to one prompt"):
        rating_protocol(*long({"x": [1, 2, 3]}), prompt=["p", "p", "q"])
    with pytest.raises(InputError, match="2 prompts for 3 ratings"):
        rating_protocol(*long({"x": [1, 2, 3]}), prompt=["p", "p"])
    with pytest.raises(InputError, match="keep is at least 2"):
        rating_protocol(*long({"x": [1, 2, 3]}), keep=1)
    with pytest.raises(InputError, match="drop"):
        rating_protocol(*long({"x": [1, 2, 3]}), contested="keep")
    with pytest.raises(InputError, match="each row"):
        rating_protocol(["x"], ["a", "b"], ["helpfulness"], [1])
