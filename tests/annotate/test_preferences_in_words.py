"""Wishes from what came before: templates, a language model, signs, inversion, the match that looks at the target."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.annotate.preferences import (
    Wishes,
    by_language_model,
    by_template,
    inverted,
    matched,
    over_represented,
    request,
    sign_of,
)
from cupel.errors import InputError

NAMES = ("action", "comedy", "war", "noir")


def has(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((40, 4)) < np.array([0.5, 0.4, 0.2, 0.1])


def test_over_represented_by_hand() -> None:
    table = np.zeros((10, 3), bool)
    table[:, 0] = True  # everywhere: a share of 1 is no preference beyond the catalogue
    table[:2, 1] = True
    assert over_represented(table, np.array([0, 1]), 3) == [1, 0]
    assert over_represented(table, np.array([5]), 3) == [0]
    assert over_represented(table, np.array([], int), 3) == []


def test_templates_use_only_what_is_given() -> None:
    table = has()
    liked, disliked = np.arange(5), np.arange(20, 30)
    made = by_template(NAMES, table, liked, disliked, likes=2)
    good = over_represented(table, liked, 2)
    rest = [a for a in np.argsort(-table[disliked].sum(0), kind="stable") if a not in good]
    assert made.texts == tuple([f"Find {NAMES[a]} movies" for a in good] + [f"Avoid {NAMES[rest[0]]} movies"])
    assert made.sign == (1, 1, -1)
    assert [sign_of(text) for text in made.texts] == [1, 1, -1]
    assert by_template(NAMES, table, liked, np.array([], int), likes=2).sign == (1, 1)
    with pytest.raises(InputError, match="one name per column"):
        by_template(NAMES[:2], table, liked, disliked)


def test_a_language_model_is_asked_about_the_last_items() -> None:
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return "1) Find quiet films\n\n- Avoid gore\n* Find quiet films\n3. No musicals\n4. Look for old films"

    made = by_language_model(ask, [f"T{i}" for i in range(7)], ["fine"] * 7, n=3)
    assert made.texts == ("Find quiet films", "Avoid gore", "No musicals")
    assert made.sign == (1, -1, -1)
    assert "T1:" not in asked[0]
    assert "T2: fine" in asked[0]
    with pytest.raises(InputError, match="5 wishes were asked for and 4 came"):
        by_language_model(ask, ["T"], ["fine"])
    with pytest.raises(InputError, match="one review to each"):
        request(["a"], [])
    assert by_language_model(ask, ["T"], ["r"], n=2, classify=lambda text: -0.5 if "quiet" in text else 0.5).sign == (-1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Avoid war films", "Find war films"), ("please avoid gore", "please find gore"), ("Exclude war", "Search for war"),
        ("No war films", "Search for war films"), ("Find noir", None), ("Find casino films", None),
    ],
)  # fmt: skip
def test_inversion_by_rule(text: str, expected: str | None) -> None:
    assert inverted(text) == expected


def test_the_match_is_the_closest_positive_wish() -> None:
    rng = np.random.default_rng(0)
    vectors, target = rng.normal(size=(5, 3)), rng.normal(size=3)
    wishes = Wishes(tuple("abcde"), (1, -1, 1, -1, 1))
    found = matched(wishes, vectors, target)
    close = [vectors[n] @ target / np.linalg.norm(vectors[n]) if wishes.sign[n] > 0 else -np.inf for n in range(5)]
    assert found.index == (int(np.argmax(close)),)
    assert found.uses_target
    assert not found.inverted
    negative = matched(Wishes(("Avoid a", "hate b"), (-1, -1)), vectors[:2], target)
    assert (negative.texts, negative.index, negative.inverted) == (("Find a",), (0,), True)
    rest = matched(Wishes(("hate a", "hate b"), (-1, -1)), vectors[:2], target)
    assert (rest.texts, rest.inverted) == (("hate a", "hate b"), False)
    with pytest.raises(InputError, match="at least one"):
        matched(Wishes((), ()), vectors[:0], target)
