"""Ratings predicted from texts: the fit, its folder, and the folders that hold no ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cupel
from cupel.annotate.attribute_rater import AttributeRater
from cupel.encode import load_encoder
from cupel.errors import InputError
from cupel.learners.heads.model import scaled
from cupel.learners.heads.options import head_options
from cupel.learners.heads.train import train_head
from cupel.learners.models.ratings import ridge
from cupel.learners.reward import load_reward
from cupel.learners.sides import raw_texts

PROMPTS = [f"Tell me about the {subject}." for subject in ("harbour", "garden", "engine", "castle", "river", "market") for _ in range(8)]
KIND, LONG = ("A wonderful and kind", "A dreadful and rude"), ("in short", "at very great and tedious length")
RESPONSES = [f"{KIND[n % 2]} place, {LONG[n // 2 % 2]}, number {n}" for n in range(len(PROMPTS))]
RATINGS = np.array([[4.0 * (n % 2 == 0), 4.0 * (n // 2 % 2)] for n in range(len(PROMPTS))])


def fitted() -> AttributeRater:
    return AttributeRater.fit(PROMPTS, RESPONSES, RATINGS, names=["kindness", "verbosity"], l2=1.0)


def test_ratings_are_those_of_ridge_regressions() -> None:
    """Slow twin: the same features through `ridge`, by hand."""
    rater = fitted()
    x = scaled(rater.reward.scaling, *raw_texts(PROMPTS, RESPONSES, load_encoder("static"))).astype(np.float64)
    solved = ridge(x, RATINGS, np.ones(len(x)), 1.0)
    np.testing.assert_allclose(rater(PROMPTS, RESPONSES), x @ solved[:, :-1].T + solved[:, -1], atol=1e-4)
    assert min(rater.r2.values()) > 0.8
    found = rater(["Tell me about the moon."] * 2, ["A wonderful and kind place", "A dreadful and rude place"])
    assert found[0, 0] > found[1, 0] + 1


def test_a_folder_holds_the_rater(tmp_path: Path) -> None:
    rater = fitted()
    rater.save(tmp_path / "rater")
    again = AttributeRater.load(tmp_path / "rater")
    assert again.names == ("kindness", "verbosity")
    assert again.digest == rater.digest
    np.testing.assert_array_equal(again(PROMPTS[:5], RESPONSES[:5]), rater(PROMPTS[:5], RESPONSES[:5]))
    goodness = load_reward(tmp_path / "rater").score(PROMPTS[:5], RESPONSES[:5])  # the mean of the attributes: no goal was given
    np.testing.assert_allclose(goodness, rater(PROMPTS[:5], RESPONSES[:5]).mean(axis=1), atol=1e-6)
    other = AttributeRater.fit(PROMPTS, RESPONSES, 4 - RATINGS, names=["kindness", "verbosity"], l2=1.0)
    assert other.digest != rater.digest


def test_attributes_from_comparisons_are_no_ratings(tmp_path: Path) -> None:
    rows = [{"prompt": PROMPTS[n], "chosen": RESPONSES[n], "rejected": RESPONSES[n + 1]} for n in range(0, len(PROMPTS), 2)]
    for head in ("attributes", "scalar"):
        train_head(cupel.read(rows, heldout=0), head_options({"head": head, "epochs": 1})).save(tmp_path / head)
    with pytest.raises(InputError, match="were not fitted to ratings"):
        AttributeRater.load(tmp_path / "attributes")
    with pytest.raises(InputError, match="holds no attributes on frozen vectors"):
        AttributeRater.load(tmp_path / "scalar")
    with pytest.raises(InputError, match="no response has a rating of verbosity"):
        AttributeRater.fit(PROMPTS, RESPONSES, np.where([True, False], RATINGS, np.nan), names=["kindness", "verbosity"])
