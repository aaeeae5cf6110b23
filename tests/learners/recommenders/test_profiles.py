"""Profiles: from training alone, by template or by a callable, and their vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cupel.encode import load_encoder
from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.learners.recommenders.profiles import known_with, profile_vectors, remembered, template_profiles, written_profiles

TITLES = ["Heat (1995)", "Ronin (1998)", "Big (1988)", "Alien (1979)"]
KINDS = [["Crime", "Thriller"], ["Crime"], ["Comedy"], []]


def log() -> Log:
    return Log(np.array(["a", "b", "c"]), np.arange(4).astype(str), np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 2, 1], np.int32))


def test_template_says_what_the_user_took_and_nothing_else() -> None:
    found = template_profiles(log(), TITLES, KINDS)
    assert found.users[0] == "A viewer who enjoys Crime, Thriller films such as Heat (1995), Ronin (1998)."
    assert found.users[2] == ""
    assert found.items == ("Heat (1995). Crime, Thriller.", "Ronin (1998). Crime.", "Big (1988). Comedy.", "Alien (1979).")
    assert found.notes == ("profiles by template: 1 users without events have none",)
    less = template_profiles(log().take(np.array([0, 2, 3])), TITLES, KINDS)
    assert "Ronin" not in less.users[0]
    assert less.users[1] == found.users[1]


def test_titles_are_a_sample_of_the_seed() -> None:
    many = Log.of(np.zeros(30, int), np.arange(30))
    titles, kinds = [f"t{i}." for i in range(30)], [["k"]] * 30
    one, other = (template_profiles(many, titles, kinds, seed=s).users[0] for s in (0, 1))
    assert one != other
    assert one.count("t") == other.count("t")
    assert one == template_profiles(many, titles, kinds, seed=0).users[0]
    assert sum(f"{t}" in one.replace(",", "").split() for t in titles) >= 5


def test_a_generator_reads_training_items_and_written_item_profiles() -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        if "Big" in prompt and "person chose" not in prompt:
            return "I cannot say."
        return "Sure: " + json.dumps({"summarization": f"profile {len(prompts)}", "reasoning": "x"})

    found = written_profiles(log(), TITLES, answer)
    assert found.items == ("profile 1", "profile 2", "", "profile 4")
    assert found.users == ("profile 5", "profile 6", "")
    assert found.notes == ("profiles were not written for 1 users and 1 items",)
    assert "- Heat (1995) (profile 1)" in prompts[4]
    assert "Big" not in prompts[4]
    assert "- Big (1988)\n" in prompts[5]


@pytest.mark.parametrize("answer", ["", "no json", '{"summarization": 3}', "[1]", '{"summarization": ', '{"other": "x"}'])
def test_answers_that_hold_no_profile_are_missing(answer: str) -> None:
    assert written_profiles(log(), TITLES, lambda prompt: answer).users == ("", "", "")


def test_answers_are_kept_by_name_and_prompt(tmp_path: Path) -> None:
    asked: list[str] = []

    def generator(prompt: str) -> str:
        asked.append(prompt)
        return f"{{'{len(asked)}'}}"

    first = remembered(generator, tmp_path, "one")
    again = remembered(generator, tmp_path, "one")
    assert first("p") == again("p")
    assert remembered(generator, tmp_path, "two")("p") != first("p")
    assert len(asked) == 2


def test_vectors_of_profiles(tmp_path: Path) -> None:
    encoder = load_encoder("static")
    found = profile_vectors(["a film about crime", "", "comedy"], ["x", "y", "z"], encoder, cache=tmp_path)
    assert found.shape == (3, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1], atol=1e-5)
    known = known_with(template_profiles(log(), TITLES, KINDS), log(), cache=tmp_path)
    assert known.user_vectors is not None
    assert known.item_vectors is not None
    assert not known.user_vectors[2].any()
    assert known.item_vectors.any(axis=1).all()


class Broken:
    """An encoder whose vectors are not to be used."""

    name, hash, dim, shard = "broken", "0" * 64, 2, 100

    def __init__(self, value: float) -> None:
        self.value = value

    def encode(self, texts: object, progress: object = None) -> np.ndarray:
        return np.array([[self.value, 0.0] if "bad" in t else [1.0, 0.0] for t in texts], np.float32)  # pyright: ignore[reportGeneralTypeIssues]

    def token_counts(self, texts: object) -> np.ndarray:
        return np.ones(0, np.int64)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_profiles_without_a_vector_are_named(value: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 3 profiles have no vector.*first ids: u1, u3"):
        profile_vectors(["ok", "bad 1", "", "bad 2"], ["u0", "u1", "u2", "u3"], Broken(value), cache=tmp_path)


def test_counts_that_do_not_agree() -> None:
    with pytest.raises(InputError, match="4 items need a title and kinds each; given: 3 and 4"):
        template_profiles(log(), TITLES[:3], KINDS)
    with pytest.raises(InputError, match="need a text each"):
        written_profiles(log(), TITLES[:2], lambda prompt: "")
    with pytest.raises(InputError, match="2 ids need a profile each"):
        profile_vectors(["a"], ["x", "y"], load_encoder("static"))
