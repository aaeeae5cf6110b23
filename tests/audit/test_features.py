import numpy as np
import pytest

from cupel.audit.features import CLIP, side_features
from cupel.encode.surface import SURFACE
from cupel.errors import InputError


def test_rows_are_gathered_from_unique_sides(world):
    w = world()
    f = w.features
    assert len(f.table) == len(np.unique(np.stack(w.votes.node))) < len(w.votes)
    assert f.first.dtype == np.float32
    lengths = np.array([len(text) for text in w.votes.response_texts()])
    assert np.array_equal(f.length_first, lengths[w.votes.first])
    assert np.array_equal(f.length_second, lengths[w.votes.second])
    same = w.votes.first == w.votes.first[0]
    assert (f.first[same] == f.first[0]).all()
    surface_block = f.table[:, w.vectors.shape[1] :]
    assert np.abs(surface_block).max() <= CLIP
    assert len(f.names) == f.table.shape[1]


def test_labels_do_not_enter(world):
    w = world()
    flipped = w.votes.with_(outcome=1 - w.votes.outcome)
    assert np.array_equal(w.features.table, side_features(flipped, w.prompt_vectors, w.vectors).table)


def test_a_part_is_the_same_as_the_whole_at_those_rows(world):
    f = world().features
    rows = np.array([5, 3, 8])
    assert np.array_equal(f.take(rows).second, f.second[rows])


def test_without_an_encoder_the_surface_is_left(world):
    w = world()
    f = side_features(w.votes, np.zeros((30, 0)), np.zeros((len(w.vectors), 0)))
    assert f.table.shape[1] == len(SURFACE) + 1


def test_vectors_that_do_not_fit_are_refused(world):
    w = world()
    with pytest.raises(InputError, match="240 responses need 240 vectors"):
        side_features(w.votes, w.prompt_vectors, w.vectors[:-1])
    broken = w.vectors.copy()
    broken[7, 0] = np.nan
    with pytest.raises(InputError, match=r"1 of 240 response vectors are not finite \(first: response 7\)"):
        side_features(w.votes, w.prompt_vectors, broken)


def test_scores_are_features_times_coefficients(world):
    w = world()
    sides = w.features.sides
    theta = np.random.default_rng(0).normal(size=(sides.shape[1], 3))
    table = w.features.table.astype(np.float64)
    score = sides.scores(theta)
    a, b = np.arange(len(sides) - 1), np.arange(1, len(sides))
    assert score[a] - score[b] == pytest.approx((table[a] - table[b]) @ theta, abs=1e-4)
