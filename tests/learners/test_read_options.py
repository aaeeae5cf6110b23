"""Options by name: every kind of value as texts say it, unknown names with the nearest known one, and one reader for all learners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from cupel.errors import InputError
from cupel.learners.heads.options import HeadOptions
from cupel.learners.options import fitting, options_from
from cupel.learners.recommenders.options import RecommenderOptions


@dataclass(frozen=True)
class Kite:
    length: float = 1.0
    tails: int = 2
    colour: Literal["red", "no"] = "red"
    line: float | None = 3.0
    names: tuple[str, ...] = ()
    old: bool = False


def test_texts_and_values_are_read_alike() -> None:
    texts = {"length": "2.5", "tails": "3", "colour": "no", "line": "none", "names": "a, b", "old": "yes"}
    values = {"length": 2.5, "tails": 3.0, "colour": False, "line": None, "names": ["a", "b"], "old": True}
    assert options_from(Kite, texts, "a kite") == Kite(2.5, 3, "no", None, ("a", "b"), True)
    assert options_from(Kite, values, "a kite") == Kite(2.5, 3, "no", 3.0, ("a", "b"), True)  # None is not given
    assert options_from(Kite, {}, "a kite") == Kite()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("length", "long", "length is a number, not 'long'"),
        ("length", float("nan"), "length is a number"),
        ("tails", "1.5", "tails is a whole number"),
        ("tails", True, "tails is a whole number"),
        ("colour", "blue", "colour is one of red, no, not 'blue'"),
        ("old", "perhaps", "old is true or false"),
        ("names", 3, "names is a list of texts or a mapping"),
        ("tail", 3, "a kite has no option 'tail'; did you mean tails?"),
        ("xyz", 3, "a kite has no option 'xyz'; there are length, tails, colour, line, names, old"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        options_from(Kite, {name: value}, "a kite")
    assert said in str(caught.value)


def test_a_mapping_and_a_text() -> None:
    assert fitting("map", {"a": "b"}, dict[str, str]) == {"a": "b"}
    assert fitting("name", 7, str) == "7"


@pytest.mark.parametrize("kind", [HeadOptions, RecommenderOptions])
def test_recorded_options_are_read_back(kind: type) -> None:
    """What run.json holds of a run, as text, is the run's options again."""
    recorded = {name: str(value) for name, value in kind().recorded().items() if value is not None}
    assert options_from(kind, recorded, "a run") == kind()
