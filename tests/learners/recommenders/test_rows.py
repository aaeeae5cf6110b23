"""Rowwise steps against a loop over the records of a step."""

from __future__ import annotations

import pytest
import torch

from cupel.learners.recommenders.models.mf import MatrixFactorisation
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.rows import BLOCK, Rowwise

RATE, L2, DECAY = 0.3, 0.05, 0.01


@pytest.mark.parametrize("n", [7, BLOCK + 5])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_step_of_adagrad_is_that_of_a_loop_over_its_records(n: int, k: int) -> None:
    """Rows that a step names many times get every gradient, by the sums of the whole step; the second step reads what the first kept."""
    generator = torch.Generator().manual_seed(n + k)
    model = MatrixFactorisation(11, 17, dim=4, seed=3).double()
    o = RecommenderOptions(optimiser="rows_adagrad", learning_rate=RATE, l2=L2, weight_decay=DECAY)
    moved = Rowwise(model, o)
    tables = [x.detach().clone() for x in (model.user, model.item, model.bias)]  # pyright: ignore[reportOptionalMemberAccess]: it has one
    sums = [torch.zeros(len(x), dtype=torch.float64) for x in tables]
    for _ in range(2):
        user, items = torch.randint(11, (n,), generator=generator), torch.randint(17, (n, k), generator=generator)
        wish = torch.randn(n * k, generator=generator, dtype=torch.float64)
        scores = moved.sides(user, items).score
        assert scores is not None
        torch.testing.assert_close(scores.detach(), ((tables[0][user][:, None] * tables[1][items]).sum(2) + tables[2][items]).view(-1))
        (scores * wish).sum().backward()
        moved.step()
        gradients: list[list[tuple[int, torch.Tensor]]] = [[], [], []]
        hold = 2 * L2 / n + DECAY
        for b in range(n):
            u, c = int(user[b]), wish.view(n, k)[b]
            gradients[0].append((u, sum((c[j] * tables[1][items[b, j]] for j in range(k)), hold * tables[0][u])))
            for j in range(k):
                v = int(items[b, j])
                gradients[1].append((v, c[j] * tables[0][u] + hold * tables[1][v]))
                gradients[2].append((v, c[j] + DECAY * tables[2][v]))
        for s, found in zip(sums, gradients, strict=True):
            for row, g in found:
                s[row] += g.square().mean()
        new = [x.clone() for x in tables]
        for x, s, found in zip(new, sums, gradients, strict=True):
            for row, g in found:
                x[row] -= RATE * g / s[row].sqrt()
        tables = new
        for x, y in zip((model.user, model.item, model.bias), tables, strict=True):
            torch.testing.assert_close(x.detach(), y)
