"""InfoNCE and masked reconstruction (card 34-rlmrec, oracles 1 to 3)."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from cupel.objectives.contrastive import info_nce, masked_info_nce

double = torch.float64
A = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=double)
B = torch.tensor([[1.0, 0.2], [0.1, 1.0], [-1.0, 1.0]], dtype=double)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=double)


def by_hand(x, y, pool, t, use, pool_use):
    """The same with loops and no array: norms, cosines, a plain sum of exponentials."""

    def cosine(a, b):
        norm = math.sqrt(1e-8 + sum(v * v for v in a)) * math.sqrt(1e-8 + sum(v * v for v in b))
        return sum(v * w for v, w in zip(a, b, strict=True)) / norm

    out = []
    for i in range(len(x)):
        total = sum(math.exp(cosine(x[i], q) / t) for j, q in enumerate(pool) if pool_use[j])
        out.append(math.log(total) - cosine(x[i], y[i]) / t if use[i] else 0.0)
    return out


def test_worked_example() -> None:
    """Oracle 1."""
    loss = info_nce(A, B, B, 0.2)
    torch.testing.assert_close(loss, torch.tensor([0.012351204, 0.227474102, 4.727562919], dtype=double), atol=2e-7, rtol=0)
    assert loss.mean().item() == pytest.approx(1.655796075, abs=2e-7)
    torch.testing.assert_close(masked_info_nce(A, B, 0.2), loss, atol=2e-6, rtol=0)


def test_limits() -> None:
    """Oracle 2: orthonormal and aligned, all equal, and at an infinite temperature."""
    eye = torch.eye(4, dtype=double)
    wanted = math.log(1 + 3 * math.exp(-5))
    assert wanted == pytest.approx(0.020012253, abs=1e-9)
    torch.testing.assert_close(info_nce(eye, eye, eye, 0.2), torch.full((4,), wanted, dtype=double), atol=2e-8, rtol=0)
    torch.testing.assert_close(masked_info_nce(eye, eye, 0.2), torch.full((4,), wanted, dtype=double), atol=2e-8, rtol=0)
    same = torch.ones(3, 5, dtype=double)
    assert info_nce(same, same, same, 0.2).tolist() == pytest.approx([1.098612289] * 3, abs=1e-9)
    assert info_nce(A, B, B, 1e9).tolist() == pytest.approx([math.log(3)] * 3, abs=1e-8)


def test_invariances() -> None:
    """Oracle 3: positive rescaling of any vector, and one rotation of both views. (The 1e-8 under the root is all that differs.)"""
    x, y, pool = rand(5, 4), rand(5, 4, seed=1), rand(9, 4, seed=2)
    wanted = info_nce(x, y, pool, 0.3)
    scale = [rand(n, 1, seed=n).exp() for n in (5, 5, 9)]
    torch.testing.assert_close(info_nce(x * scale[0], y * scale[1], pool * scale[2], 0.3), wanted, atol=1e-6, rtol=0)
    turn = torch.linalg.qr(rand(4, 4, seed=7)).Q
    torch.testing.assert_close(info_nce(x @ turn, y @ turn, pool @ turn, 0.3), wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(masked_info_nce(x * 7, y / 3, 0.3), masked_info_nce(x, y, 0.3), atol=1e-12, rtol=0)


@pytest.mark.parametrize("t", [0.05, 0.2, 3.0])
def test_the_slow_twin_with_masks(t: float) -> None:
    x, y, pool = rand(6, 3), rand(6, 3, seed=1), rand(8, 3, seed=2)
    use = torch.tensor([True, False, True, True, False, True])
    pool_use = torch.tensor([True, True, False, True, False, True, True, True])
    found = info_nce(x, y, pool, t, use=use, pool_use=pool_use)
    assert found.tolist() == pytest.approx(by_hand(x.tolist(), y.tolist(), pool.tolist(), t, use, pool_use), abs=1e-12)


def test_rows_without_a_text_take_no_part() -> None:
    """NaN in a row that is masked reaches neither loss nor gradient; the rest is as if the row were not there."""
    x, y = rand(4, 3).requires_grad_(), rand(4, 3, seed=1)
    y[2] = math.nan
    there = torch.tensor([True, True, False, True])
    loss = info_nce(x, y, y, 0.2, use=there, pool_use=there)
    assert loss[2] == 0
    torch.testing.assert_close(loss[there], info_nce(x[there], y[there], y[there], 0.2))
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert slope.isfinite().all()
    assert slope[2].abs().sum() == 0
    assert (slope[there].abs().sum(1) > 0).all()


def test_a_zero_vector_is_finite() -> None:
    x = torch.zeros(2, 3, dtype=double, requires_grad=True)
    for loss in (info_nce(x, B[:2, [0, 1, 1]], B[:, [0, 1, 1]], 0.2), masked_info_nce(x, B[:2, [0, 1, 1]], 0.2)):
        (slope,) = torch.autograd.grad(loss.sum(), x)
        assert slope.isfinite().all()
        assert loss.isfinite().all()


def test_a_batch_of_one_says_nothing() -> None:
    assert info_nce(A[:1], B[:1], B[:1], 0.2).abs().item() < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: info_nce(A, B, B, 0.0), "temperature is a positive number"),
        (lambda: info_nce(A, B[:2], B, 0.2), "different numbers of rows"),
        (lambda: info_nce(A, B, B[:, :1], 0.2), "matrices of one width"),
        (lambda: info_nce(A, B, B[:0], 0.2), "no entry of the pool counts"),
        (lambda: info_nce(A, B, B, 0.2, pool_use=torch.zeros(3, dtype=torch.bool)), "no entry of the pool counts"),
        (lambda: info_nce(A, B * math.nan, B, 0.2), r"3 of 3 rows of y are not finite \(first: row 0\)"),
        (lambda: info_nce(A, B, B, 0.2, use=torch.ones(2, dtype=torch.bool)), "use says for each of 3 rows"),
        (lambda: masked_info_nce(A.float(), B.float(), 0.005), "exp\\(1 / temperature\\) has no value"),
    ],
)
def test_bad_input(make, message, monkeypatch) -> None:
    """Without the shape checks that the tests put on every signature, the function's own say what is wrong."""
    for name in ("info_nce", "masked_info_nce"):
        monkeypatch.setitem(globals(), name, inspect.unwrap(globals()[name]))
    with pytest.raises(ValueError, match=message):
        make()
