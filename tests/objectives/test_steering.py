"""SteerLM 2.0: probabilities of ratings, weights, gradients by hand and by autograd, and what the policy converges to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.objectives import (
    RankedList,
    attribute_log_probability,
    effective_size,
    list_by_name,
    rating_probabilities,
    steer_list,
    steer_weights,
)  # fmt: skip

A, Y, Q0 = (torch.tensor([row], dtype=torch.float64) for row in ((-1.2, -3.0, -0.5), (-20.0, -18.5, -22.0), (-19.0, -18.0, -21.5)))
Q = torch.tensor([[-18.6, -18.4, -21.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("predicted", "bins", "expected"),
    [
        (2.0, "equal", (0.000597, 0.163046, 0.672713, 0.163046, 0.000597)),
        (2.0, "rounding", (0.000005, 0.109019, 0.781952, 0.109019, 0.000005)),
        (3.2, "equal", (0.0, 0.000025, 0.014928, 0.444089, 0.540958)),
        (3.2, "rounding", (0.0, 0.000008, 0.026512, 0.794460, 0.179020)),
        (0.4, "equal", (0.931363, 0.068322, 0.000314, 0.0, 0.0)),
    ],
)
def test_probabilities_of_ratings(predicted: float, bins: str, expected: tuple[float, ...]) -> None:
    found = rating_probabilities(torch.tensor(predicted, dtype=torch.float64), bins=bins)
    assert found.tolist() == pytest.approx(expected, abs=6e-7)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)


def test_the_two_conventions_disagree_on_the_mode() -> None:
    found = [int(rating_probabilities(torch.tensor(3.2), bins=bins).argmax()) for bins in ("equal", "rounding")]
    assert found == [4, 3]


@pytest.mark.parametrize("bins", ["equal", "rounding"])
@pytest.mark.parametrize("levels", [2, 5, 7])
def test_masses_are_integrals_of_the_density(bins: str, levels: int) -> None:
    """Twin: the Beta density summed on a fine grid, for predictions inside and outside the scale."""
    from scipy.stats import beta

    for said in (-1.0, 0.0, 0.3, 0.5 * (levels - 1), levels - 1.2, levels + 3.0):
        z = min(max(said / (levels - 1), 1e-3), 1 - 1e-3)
        grid = (np.arange(100_000) + 0.5) / 100_000
        mass = beta.pdf(grid, 24 * z, 24 - 24 * z) / 100_000
        # the singular ends carry what a sum of midpoints misses: compare inner bins, and the whole
        place = np.minimum((grid * levels).astype(int), levels - 1) if bins == "equal" else np.rint(grid * (levels - 1)).astype(int)
        twin = np.bincount(place, weights=mass, minlength=levels)
        found = rating_probabilities(torch.tensor(said, dtype=torch.float64), levels=levels, bins=bins).numpy()
        assert found.sum() == pytest.approx(1, abs=1e-12)
        inner = slice(1, levels - 1)
        assert found[inner] == pytest.approx(twin[inner], abs=2e-5)


def test_log_probability_of_attributes() -> None:
    said = torch.tensor([3.5, 3.6, 3.9, 1.8, 2.2], dtype=torch.float64)
    wanted = torch.tensor([4.0, 4.0, 4.0, 2.0, 2.0])
    parts = [attribute_log_probability(said[k : k + 1], wanted[k : k + 1]).item() for k in range(5)]
    assert parts == pytest.approx([-0.142930, -0.071106, -0.001841, -0.487460, -0.487460], abs=6e-7)
    assert attribute_log_probability(said, wanted).item() == pytest.approx(-1.190798, abs=1e-6)


def test_far_tails_are_bounded() -> None:
    low = attribute_log_probability(torch.tensor([0.0]), torch.tensor([4.0])).item()
    assert np.log(1e-30) < low < -40  # 1 - F would have no digits left from -37 on
    assert attribute_log_probability(torch.tensor([0.0]), torch.tensor([40.0]), levels=41).item() == pytest.approx(np.log(1e-30))


def test_weights_distance_and_gradient() -> None:
    policy = Q.clone().requires_grad_()
    lists = steer_list(policy, A, Y, Q0)
    wanted, have = steer_weights(lists)
    assert wanted.tolist()[0] == pytest.approx([0.217739, 0.059341, 0.722920], abs=6e-7)
    assert have.tolist()[0] == pytest.approx([0.391466, 0.175897, 0.432637], abs=6e-7)
    assert (wanted - have).tolist()[0] == pytest.approx([-0.173727, -0.116556, 0.290283], abs=6e-7)
    loss = list_by_name("steer").loss(lists)
    assert loss.item() == pytest.approx(0.178941, abs=6e-7)
    (grad,) = torch.autograd.grad(loss.sum(), policy)
    assert grad.tolist()[0] == pytest.approx([0.173727, 0.116556, -0.290283], abs=6e-7)
    assert torch.allclose(grad, have - wanted, atol=1e-14)


def groups(seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, 6, generator=draw, dtype=torch.float64) * scale - 20 for scale in (2.0, 2.0, 1.0, 1.0))


def test_coefficients_sum_to_zero_and_shifts_do_nothing() -> None:
    q, a, y, q0 = groups()
    wanted, have = steer_weights(steer_list(q, a, y, q0))
    assert torch.allclose((wanted - have).sum(dim=1), torch.zeros(4, dtype=torch.float64), atol=1e-14)
    for moved in (steer_list(q, a, y + 3, q0), steer_list(q + 5, a, y, q0 + 5)):
        for one, two in zip(steer_weights(moved), (wanted, have), strict=True):
            assert torch.allclose(one, two, atol=1e-12)


def test_no_gradient_at_the_target() -> None:
    _, a, y, q0 = groups(1)
    policy = (a + y).requires_grad_()  # w' = b'
    loss = list_by_name("steer").loss(steer_list(policy, a, y, q0))
    (grad,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.abs().max().item() < 1e-12
    assert grad.abs().max().item() < 1e-12


def test_it_is_info_nca_minus_the_entropy_of_the_target() -> None:
    lists = steer_list(*groups(2))
    wanted, _ = steer_weights(lists)
    entropy = -(wanted * wanted.log()).sum(dim=1)
    assert torch.allclose(list_by_name("steer").loss(lists), list_by_name("info_nca").loss(lists) - entropy, atol=1e-12)


def test_without_the_baseline_the_gradient_is_the_target() -> None:
    q, a, y, q0 = groups(3)
    policy = q.requires_grad_()
    lists = steer_list(policy, a, y, q0)
    (grad,) = torch.autograd.grad(list_by_name("steer", baseline=False).loss(lists).sum(), policy)
    assert torch.allclose(grad, -steer_weights(lists)[0], atol=1e-14)


def test_tokens_divide_by_the_mean_length_of_the_group() -> None:
    q, a, y, q0 = groups(4)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 3, 2, 4])[:, None]
    n = torch.randint(1, 30, (4, 6), generator=torch.Generator().manual_seed(0))
    lists = steer_list(q, a, y, q0, mask=mask, n_tokens=n)
    mean = torch.stack([row[keep].double().mean() for row, keep in zip(n, mask, strict=True)])
    whole = list_by_name("steer").loss(lists)
    assert torch.allclose(list_by_name("steer", reduction="token").loss(lists), whole / mean, atol=1e-12)
    with pytest.raises(ValueError, match="n_tokens"):
        list_by_name("steer", reduction="token").loss(steer_list(q, a, y, q0))


def test_padding_changes_nothing() -> None:
    q, a, y, q0 = groups(5)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 4)
    broken = [torch.where(mask, x, torch.full_like(x, float("nan"))) for x in (a, y)]
    lists = steer_list(q, *broken, q0, mask=mask)
    short = steer_list(q[:, :4], a[:, :4], y[:, :4], q0[:, :4])
    assert torch.allclose(list_by_name("steer").loss(lists), list_by_name("steer").loss(short))
    assert torch.allclose(effective_size(lists), effective_size(short))


def test_effective_size_between_one_and_all() -> None:
    zero = torch.zeros(2, 5)
    lists = steer_list(zero, torch.tensor([[0.0] * 5, [200.0, 0, 0, 0, 0]]), zero, zero)
    assert effective_size(lists).tolist() == pytest.approx([5.0, 1.0])


def tabular(n: int, baseline: bool, seeds: int = 5, steps: int = 75, rate: float = 0.05, at_once: int = 40) -> float:
    """KL(target || policy) after SGD on logits over 12 responses, Q' = P(y), mean over seeds; each step sums the gradients of 40 groups.

    All groups of all seeds are the rows of one `RankedList`, whose loss is a sum over rows.
    """
    draw = torch.Generator().manual_seed(7)
    prior = torch.log_softmax(torch.randn(seeds, 12, generator=draw, dtype=torch.float64), dim=1)
    said = torch.randn(seeds, 12, generator=draw, dtype=torch.float64) * 0.6
    target = torch.log_softmax(prior + said, dim=1)
    logits = prior.clone().requires_grad_()
    objective = list_by_name("steer", baseline=baseline)
    for _ in range(steps):
        drawn = torch.multinomial(prior.exp(), n * at_once, replacement=True, generator=draw)
        policy = torch.log_softmax(logits, dim=1)
        lists = steer_list(*(x.gather(1, drawn).view(-1, n) for x in (policy, said, prior, prior)))
        (grad,) = torch.autograd.grad(objective.loss(lists).sum(), logits)
        with torch.no_grad():
            logits -= rate * grad
    return float((target.exp() * (target - torch.log_softmax(logits.detach(), dim=1))).sum(dim=1).mean())


def test_the_policy_reaches_the_target_and_the_baseline_matters_for_small_groups() -> None:
    """The card's table: with b' a group of two is nearly enough, without it the policy stops far off and more responses help."""
    start = tabular(2, True, steps=0)
    assert start > 0.08
    with_, without = {n: tabular(n, True) for n in (2, 10)}, {n: tabular(n, False) for n in (2, 10)}
    assert with_[2] < 0.005
    assert with_[10] < 0.005
    assert without[2] > 5 * with_[2]
    assert without[2] > 3 * without[10]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="bins is one of equal, rounding"):
        rating_probabilities(torch.tensor(2.0), bins="thirds")
    with pytest.raises(ValueError, match="1 of 2 predicted ratings are not finite"):
        rating_probabilities(torch.tensor([2.0, float("nan")]))
    with pytest.raises(ValueError, match="at least two levels"):
        rating_probabilities(torch.tensor(2.0), levels=1)
    for wrong in (5.0, -1.0, 2.5):
        with pytest.raises(ValueError, match="1 of 1 wanted ratings"):
            attribute_log_probability(torch.tensor([2.0]), torch.tensor([wrong]))
    with pytest.raises(ValueError, match="reduction is one of"):
        list_by_name("steer", reduction="mean")
    with pytest.raises(ValueError, match="relevance"):
        list_by_name("steer").loss(RankedList(torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="relevance"):
        steer_weights(RankedList(torch.zeros(1, 2)))
    one = torch.zeros(2, 2)
    with pytest.warns(UserWarning, match="1 of 2 groups have one response"):
        lists = steer_list(one, one, one, one, mask=torch.tensor([[True, False], [True, True]]))
    assert steer_weights(lists)[0][0].tolist() == [1.0, 0.0]
    policy = torch.zeros(1, 1, requires_grad=True)
    with pytest.warns(UserWarning, match="teach nothing"):
        alone = steer_list(policy, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
    (grad,) = torch.autograd.grad(list_by_name("steer").loss(alone).sum(), policy)
    assert grad.item() == 0.0
