"""Oracles of method card 20-usersim on selection and pairs: brute force, allocation, the Dirichlet world, controls, rows."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from cupel.curate.rationale_pairs import By, Pairs, Reject, chosen_rejected, pair_rows, select, stratified_top
from cupel.curate.rationales import entropy, padded, sample_behaviours, uncertainty
from cupel.errors import InputError


def world(seed: int, scenes: int, k: int, n: int, alpha: float) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(n, alpha), size=(scenes, k))


def test_pairs_against_brute_force() -> None:
    """Chosen entropy is the minimum over matching strong rationales, rejected over all others; no weak rationale is ever chosen."""
    strong, weak, a = world(0, 50, 5, 4, 0.6), world(1, 50, 4, 4, 1.5), np.random.default_rng(2).integers(0, 4, 50)
    did, also = sample_behaviours(strong, seed=0), sample_behaviours(weak, seed=1)
    found = chosen_rejected(strong, weak, a, did, also)
    at = {s: i for i, s in enumerate(found.scene.tolist())}
    h, g = entropy(padded(strong).p), entropy(padded(weak).p)
    for s in range(50):
        matching = [h[s, k] for k in range(5) if did[s, k] == a[s]]
        other = [(h[s, k], did[s, k]) for k in range(5) if did[s, k] != a[s]]
        other += [(g[s, k], also[s, k]) for k in range(4) if also[s, k] != a[s]]
        assert (s in at) == bool(matching and other)
        if s not in at:
            continue
        i = at[s]
        assert did[s, found.chosen[i]] == a[s]
        assert h[s, found.chosen[i]] == min(matching)
        source = g if found.weak[i] else h
        assert (source[s, found.rejected[i]], found.behaviour[i]) == min(other)
        assert found.behaviour[i] != a[s]
    assert 25 < len(at) < 50
    assert found.weak.any()
    assert not found.weak.all()


@pytest.mark.parametrize("budget", [1, 7, 50, 99, 100, 1000])
def test_allocation(budget: int) -> None:
    rng = np.random.default_rng(budget)
    strata, score = rng.choice([2, 3, 5, 9], size=100, p=[0.5, 0.3, 0.15, 0.05]), rng.random(100)
    kept = stratified_top(score, strata, budget)
    size, got = Counter(strata.tolist()), Counter(strata[kept].tolist())
    assert len(kept) == len(set(kept.tolist())) == min(budget, 100)
    assert (np.diff(kept) > 0).all()
    left = budget
    for g in sorted(size):
        share = size[g] * budget / 100
        assert abs(got[g] - min(share, size[g])) < 1 or got[g] == left  # the last ones are cut by what remains
        left -= got[g]
        inside = score[(strata == g)]
        assert sorted(score[kept][strata[kept] == g]) == sorted(inside)[len(inside) - got[g] :]


def test_dirichlet_world_ranks_by_difficulty() -> None:
    """Reproduction B: strong rows of Dir(.2) against weak ones of Dir(2) rank above scenes where both are Dir(2)."""
    easy, hard = uncertainty(world(0, 500, 10, 5, 0.2)).epistemic, uncertainty(world(1, 500, 10, 5, 2.0)).epistemic
    same = uncertainty(world(2, 500, 10, 5, 2.0)).epistemic - uncertainty(world(3, 500, 10, 5, 2.0)).epistemic
    gain = hard - easy
    auc = np.mean([x > y for x, y in itertools.product(gain.tolist(), same.tolist())])
    assert auc > 0.99
    assert gain.mean() == pytest.approx(1.036, abs=0.03)
    assert same.mean() == pytest.approx(-0.002, abs=0.03)


def planted(seed: int, scenes: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Strong and weak sources, records of which 30 % are wrong, which are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, scenes)
    strong, weak = (rng.dirichlet(np.full(5, 0.3), size=(scenes, 10)) * (1 - lean) for lean in (0.5, 0.1))
    for source, lean in ((strong, 0.5), (weak, 0.1)):
        source[np.arange(scenes), :, truth] += lean
    wrong = rng.random(scenes) < 0.3
    return strong, weak, np.where(wrong, (truth + rng.integers(1, 5, scenes)) % 5, truth), wrong


def test_rejection_and_hit_rates_lower_the_noise_kept_and_the_estimate_says_so() -> None:
    strong, weak, chosen, wrong = planted(0)
    kept: dict[tuple[str, str], float] = {}
    cases: list[tuple[By, Reject]] = [("random", "none"), ("random", "either"), ("epistemic", "strong"), ("strong_hit_rate", "none")]
    for by, reject in cases:
        found = select(strong, weak, chosen, by=by, reject=reject, budget=200, seed=3)
        kept[by, reject] = float(wrong[found.scenes].mean())
        assert len(found.scenes) == 200
        assert found.explained[found.scenes].all() or reject == "none"
        assert found.noise_kept == pytest.approx(kept[by, reject], abs=0.08)
        assert found.noise.low <= 0.3 <= found.noise.high
    assert kept["strong_hit_rate", "none"] < kept["random", "none"] - 0.1


def test_a_source_that_knows_little_says_so() -> None:
    vague = np.full((100, 3, 4), 0.25)
    found = select(vague, vague, np.arange(100) % 4, reject="none")
    assert np.isnan(found.noise_kept)
    assert "cannot be told" in found.words[1]


def test_identical_sources_have_no_difficulty() -> None:
    strong, _, chosen, _ = planted(1, 50)
    measures: list[By] = ["epistemic", "total", "aleatoric", "log_loss"]
    for by in measures:
        assert select(strong, strong, chosen, by=by).score == pytest.approx(np.zeros(50), abs=1e-12)


def test_everything_without_a_budget_and_the_same_seed_the_same_selection() -> None:
    strong, weak, chosen, _ = planted(2, 80)
    found = select(strong, weak, chosen, reject="none")
    assert found.scenes.tolist() == list(range(80))
    assert set(found.pairs.scene.tolist()) <= set(range(80))
    again = select(strong, weak, chosen, by="random", budget=20, seed=4)
    assert again.scenes.tolist() == select(strong, weak, chosen, by="random", budget=20, seed=4).scenes.tolist()
    assert again.scenes.tolist() != select(strong, weak, chosen, by="random", budget=20, seed=5).scenes.tolist()
    assert "80 scenes" in again.words[0]
    assert "wrong" in again.words[1]


def test_the_strong_source_explains_less_than_both() -> None:
    strong, weak, chosen, wrong = planted(5)
    one, both = (select(strong, weak, chosen, by="random", reject=r, seed=1) for r in ("strong", "either"))
    assert set(one.scenes.tolist()) < set(both.scenes.tolist())
    assert set(one.pairs.scene.tolist()) == set(both.pairs.scene.tolist())  # the others have nothing to choose
    assert wrong[one.scenes].mean() < wrong[both.scenes].mean() < wrong.mean()


def test_rows_are_read_as_comparisons() -> None:
    from cupel.records.reading import read

    strong, weak, chosen, _ = planted(3, 40)
    found = select(strong, weak, chosen)
    prompts = [f"Scene {s}: A, B, C, D or E?" for s in range(40)]
    texts = [[f"strong reason {k} of {s}" for k in range(10)] for s in range(40)]
    other = [[f"weak reason {k} of {s}" for k in range(10)] for s in range(40)]
    rows = pair_rows(found.pairs, prompts, texts, other, chosen, groups=[f"u{s % 4}" for s in range(40)])
    for row, s in zip(rows, found.pairs.scene.tolist(), strict=True):
        assert row["chosen"].startswith("strong")
        assert row["chosen"].endswith(f"[{'ABCDE'[chosen[s]]}]")
    votes = read(rows, heldout=0.25)
    assert len(votes) == len(rows)
    assert votes.source_format.startswith("trl")


def test_bad_input() -> None:
    strong, weak, chosen, _ = planted(4, 10)
    with pytest.raises(InputError, match="same scenes"):
        select(strong, weak[:5], chosen)
    with pytest.raises(InputError, match="by is one of"):
        select(strong, weak, chosen, by="entropy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reject is one of"):
        select(strong, weak, chosen, reject=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="strata"):
        select(strong, weak, chosen, budget=2, strata=[1, 2])
    with pytest.raises(InputError, match="keeps nothing"):
        select(strong, weak, chosen, budget=0)
    with pytest.raises(InputError, match="not finite"):
        stratified_top(np.array([0.0, np.nan]), np.zeros(2), 1)
    sure = np.tile([[[1.0, 0.0]]], (3, 2, 1))
    with pytest.raises(InputError, match="no rationale explains any of the 3"):
        select(sure, sure, [1, 1, 1])
    one = np.array([0])
    pair = Pairs(one, one, one, one == 0, one + 1)
    with pytest.raises(InputError, match="one text on both sides"):
        pair_rows(pair, ["p"], [["x"]], [["x"]], [0], respond=lambda text, option: text)
