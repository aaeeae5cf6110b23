import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from cupel.errors import InputError
from cupel.votes.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, pairwise_agreement

GOLDEN = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
CODERS = ["- - - - - 3 4 1 2 1 1 3 3 - 3", "1 - 2 1 3 3 4 3 - - - - - - -", "- - 2 1 3 4 4 - 2 1 1 3 3 - 4"]
LIKERT = ["2 1 0 -1 -2 1 -", "2 2 0 -2 -1 - -1", "1 1 1 -1 -2 2 -2"]


def long(rows):
    cells = [(u, float(v)) for row in rows for u, v in enumerate(row.split()) if v != "-"]
    return np.array([u for u, _ in cells]), np.array([v for _, v in cells])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(CODERS, {"nominal": 0.691358, "ordinal": 0.806721, "interval": 0.810845}),
     (LIKERT, {"nominal": 0.112676, "ordinal": 0.789474, "interval": 0.838046})],
)  # fmt: skip
def test_alpha_of_published_examples(rows, expected):
    unit, value = long(rows)
    for level, alpha in expected.items():
        found = krippendorff_alpha(unit, value, level=level, draws=200)
        assert found.alpha == pytest.approx(alpha, abs=1e-6)
        assert found.low <= found.alpha <= found.high
        assert sum(found.shares) == pytest.approx(1)


def test_alpha_equals_its_definition_pair_by_pair():
    rng = np.random.default_rng(0)
    unit, value = rng.integers(0, 15, 60), rng.integers(0, 4, 60)
    sizes = np.bincount(unit, minlength=15)
    kept = sizes[unit] >= 2
    unit, value = unit[kept], value[kept]
    observed = sum(
        (value[i] - value[j]) ** 2 / (sizes[unit[i]] - 1)
        for i in range(len(unit)) for j in range(len(unit)) if i != j and unit[i] == unit[j]
    ) / len(unit)  # fmt: skip
    expected = sum((a - b) ** 2 for a in value for b in value) / (len(unit) * (len(unit) - 1))
    assert krippendorff_alpha(unit, value, level="interval").alpha == pytest.approx(1 - observed / expected)


def test_alpha_without_variety_is_undefined_in_words():
    found = krippendorff_alpha(np.array([0, 0, 1, 1]), np.ones(4))
    assert np.isnan(found.alpha)
    assert "only one value" in found.note
    with pytest.raises(InputError, match="none of 2 units"):
        krippendorff_alpha(np.array([0, 1]), np.ones(2))


def test_kappas():
    assert cohen_kappa(GOLDEN[0], GOLDEN[1]) == pytest.approx(0.666667, abs=1e-6)
    assert cohen_kappa(GOLDEN[0], GOLDEN[2]) == pytest.approx(0, abs=1e-12)
    assert cohen_kappa(GOLDEN[1], GOLDEN[2]) == pytest.approx(-0.2, abs=1e-12)
    a, b = np.array([2, 1, 0, -1, -2, 1]), np.array([2, 2, 0, -2, -1, 2])
    assert cohen_kappa(a, b, weights="linear") == pytest.approx(0.612903, abs=1e-6)
    assert cohen_kappa(a, b, weights="quadratic") == pytest.approx(0.851852, abs=1e-6)
    for weights in ("linear", "quadratic"):
        assert cohen_kappa(a, b, weights=weights) == pytest.approx(cohen_kappa_score(a, b, weights=weights))
    counts = np.stack([(c == GOLDEN).sum(axis=0) for c in (0, 1)], axis=1)
    assert fleiss_kappa(counts) == pytest.approx(0.111111, abs=1e-6)
    with pytest.raises(InputError, match="same number"):
        fleiss_kappa(np.array([[1, 2], [1, 1]]))


def test_pairwise_agreement_by_hand():
    rng = np.random.default_rng(1)
    unit, sign = rng.integers(0, 8, 40), rng.choice([-1, 0, 1], 40)

    def slow(alike, use):
        agree, total = 0.0, 0.0
        for u in np.unique(unit):
            votes = [s for s, v in zip(sign, unit, strict=True) if v == u and use(s)]
            m = len(votes)
            if m >= 2:
                pairs = [alike(votes[i], votes[j]) for i in range(m) for j in range(i)]
                agree, total = agree + m * np.mean(pairs), total + m
        return agree / total

    assert pairwise_agreement(unit, sign).estimate == pytest.approx(slow(lambda a, b: a == b, lambda s: s != 0))
    assert pairwise_agreement(unit, sign, ties="category").estimate == pytest.approx(slow(lambda a, b: a == b, lambda s: True))
    half = slow(lambda a, b: 0.5 if 0 in (a, b) else a == b, lambda s: True)
    assert pairwise_agreement(unit, sign, ties="half").estimate == pytest.approx(half)
