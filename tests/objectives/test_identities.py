"""What the methods say of themselves: identities, limits, minimisers, and worked examples beside the golden tables."""

from __future__ import annotations

import itertools
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cupel.objectives import (
    Side,
    by_name,
    davidson_tie,
    general_score,
    joint,
    length_desensitised,
    likelihood,
    online_kl,
    policy_weighted,
    rao_kupper_tie,
    typicality,
    under_divergence,
    weighted_sum,
    with_online_kl,
    with_sft,
    with_target,
)

checks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("checks.py"))))
helpers = checks.helpers
M = torch.tensor([-5.0, -2.0, -0.3, 0.0, 0.25, 1.0, 4.0], dtype=torch.float64)


def of_margin(name: str, m: Tensor, **settings: float) -> Tensor:
    """Loss at margins m of an objective of the margin alone, at beta 1."""
    zero = torch.zeros_like(m)
    return by_name(name, beta=1.0, **settings).loss(Side(logp=m, reference_logp=zero), Side(logp=zero, reference_logp=zero), {})


def minimiser(name: str, low: float, high: float, **settings: float) -> float:
    m = torch.linspace(low, high, 200_001, dtype=torch.float64)
    return float(m[of_margin(name, m, **settings).argmin()])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def both(name: str, first: Side, second: Side, **settings: float) -> Tensor:
    return by_name(name, **settings).loss(first, second, {})


def test_conservative_and_unbiased_targets_move_dpo_by_a_line() -> None:
    keep, flip = of_margin("sigmoid", M), of_margin("sigmoid", -M)
    for e in (0.0, 0.1, 0.2, 0.4):
        assert close((1 - e) * keep + e * flip, keep + e * M)
        p = (1 - e) / (1 - 2 * e)
        unbiased, turned = p * keep + (1 - p) * flip, p * flip + (1 - p) * keep
        assert close(unbiased, keep - e / (1 - 2 * e) * M)
        assert close((1 - e) * unbiased + e * turned, keep)


def test_targets_move_the_target_of_ipo() -> None:
    c, h = 1 / (2 * 0.1), M
    zero = torch.zeros_like(h)
    first, second = Side(logp=h, reference_logp=zero), Side(logp=zero, reference_logp=zero)
    keep, flip = both("ipo_sum", first, second, beta=0.1), both("ipo_sum", second, first, beta=0.1)
    for e in (0.1, 0.3):
        p = (1 - e) / (1 - 2 * e)
        assert close(p * keep + (1 - p) * flip, (h - c / (1 - 2 * e)) ** 2 + c**2 - (c / (1 - 2 * e)) ** 2, 1e-9)
        assert close((1 - e) * keep + e * flip, (h - c * (1 - 2 * e)) ** 2 + c**2 - (c * (1 - 2 * e)) ** 2, 1e-9)


def test_minimisers() -> None:
    assert minimiser("exo", 2, 8, smoothing=0.01) == pytest.approx(math.log(99), abs=1e-4)
    a = torch.linspace(-2, 3, 100_001, dtype=torch.float64)
    zero = torch.zeros_like(a)
    assert float(a[both("nca", Side(logp=a, reference_logp=zero), Side(), beta=1.0).argmin()]) == pytest.approx(math.log(2), abs=1e-4)
    ten = torch.linspace(-10, 10, 100_001, dtype=torch.float64)
    good = both("sppo", Side(logp=ten, reference_logp=torch.zeros_like(ten)), Side(), beta=0.1)
    bad = both("sppo", Side(), Side(logp=ten, reference_logp=torch.zeros_like(ten)), beta=0.1)
    assert float(ten[good.argmin()]) == pytest.approx(5)
    assert float(ten[bad.argmin()]) == pytest.approx(-5)
    for name in ("apo_zero", "bco_pair"):
        far = Side(logp=torch.tensor([1.0, 10.0, 30.0]), reference_logp=torch.zeros(3))
        assert (both(name, far, far.map(lambda x: -x), beta=1.0).diff() < 0).all()


def test_ropo_has_a_gradient_of_at_most_one() -> None:
    for alpha, worst in ((2.0, -1.09861229), (14.0, -0.14310084)):
        m = torch.linspace(-6, 6, 120_001, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(of_margin("ropo", m, alpha=alpha).sum(), m)[0].abs()
        assert float(slope.max()) == pytest.approx(1, abs=1e-7)
        assert float(m.detach()[slope.argmax()]) == pytest.approx(worst, abs=1e-3)


def test_noise_tolerant_loss_and_its_flip_sum_to_one() -> None:
    assert close(of_margin("noise_tolerant", M) + of_margin("noise_tolerant", -M), torch.ones_like(M))


def test_discopop_is_not_monotone() -> None:
    m = torch.linspace(-0.3, 0.3, 600_001, dtype=torch.float64)
    loss = of_margin("discopop", m)
    rising = m[1:][loss.diff() > 0]
    assert float(rising.min()) == pytest.approx(-0.11857, abs=1e-4)
    assert float(rising.max()) == pytest.approx(0.07201, abs=1e-4)
    assert float(of_margin("discopop", torch.zeros(1, dtype=torch.float64))) == pytest.approx((math.log(2) + 1) / 2)


@pytest.mark.parametrize("name", checks.NAMES)
def test_only_objectives_with_a_reference_see_it(name: str) -> None:
    """Shifting policy and reference together changes nothing; without the need, a reference is not even read."""
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs | {"reference", "logp"})
    context = checks.context_of(objective, first, second)
    loss = objective.loss(first, second, context)
    if "reference" not in objective.needs:
        other = replace(first, reference_logp=first.reference_logp - 3)
        assert torch.equal(loss, objective.loss(other, second, context))
    elif "logp" in objective.needs and name not in ("rpo", "dpo_gamma"):
        moved = [replace(s, logp=s.logp - 2, reference_logp=s.reference_logp - 2) for s in (first, second)]
        assert close(loss, objective.loss(*moved, context), 1e-9)


def test_divergences_around_reverse_kl() -> None:
    first, second = helpers.fixture()
    dpo = by_name("sigmoid", beta=0.1)
    expected = dpo.loss(first, second, {})
    assert torch.equal(under_divergence(dpo, "reverse_kl").loss(first, second, {}), expected)
    assert close(both("alpha_divergence", first, second, beta=0.1, alpha=1.0), expected)
    assert close(both("alpha_divergence", first, second, beta=0.1, alpha=1 + 1e-9), expected, 1e-7)
    for name in ("hinge", "ipo", "exo", "nca"):  # the constants of f' cancel in a difference, and only there
        objective = by_name(name, beta=0.1)
        shifted = [replace(s, logp=s.logp + 1.0) for s in (first, second)]
        cancels = close(objective.loss(first, second, {}), objective.loss(*shifted, {}), 1e-9)
        assert cancels == (name in ("hinge", "exo"))
        assert under_divergence(objective, "js").loss(first, second, {}).isfinite().all()
    with pytest.raises(ValueError, match="divergence replaces log-ratios"):
        under_divergence(by_name("simpo"), "js")


def test_token_objectives_at_their_limits() -> None:
    first, second = helpers.token_sides()
    dpo = both("sigmoid", first, second, beta=0.5)
    assert close(both("ld_dpo", first, second, beta=0.5, alpha=1.0), dpo)
    level = replace(first, divergence=second.divergence, mask=second.mask), second
    equal = [replace(s, logp=h.logp, reference_logp=h.reference_logp) for s, h in zip(level, (first, second), strict=True)]
    assert close(both("tdpo", *equal, beta=0.5), dpo)
    ones = [
        replace(s, mask_reward=torch.ones_like(s.mask_reward), mask_divergence=torch.ones_like(s.mask_divergence)) for s in (first, second)
    ]
    assert close(both("sparse_po", *ones, beta=0.5), both("tdpo", first, second, beta=0.5))
    none = [replace(s, mask_divergence=torch.zeros_like(s.mask_divergence)) for s in ones]
    assert close(both("sparse_po", *none, beta=0.5), dpo)
    twice = [replace(s, mask_reward=2 * s.mask_reward) for s in none]
    assert close(both("sparse_po", *twice, beta=0.5), both("sigmoid", first, second, beta=1.0))
    empty = [replace(s, mask_reward=torch.zeros_like(s.mask_reward)) for s in none]
    assert close(both("sparse_po", *empty, beta=0.5), torch.full_like(dpo, math.log(2)))
    flat = [replace(s, token_logp=torch.full_like(s.token_logp, -math.log(4)), collision=torch.full_like(s.collision, -math.log(4)))
            for s in (first, second)]  # fmt: skip
    assert close(both("wpo", *flat, beta=0.5), dpo)
    weights = both("wpo", first, second, beta=0.5) / dpo
    assert close(weights, torch.tensor([0.35103355, 0.24555978], dtype=torch.float64), 1e-7)


def test_token_combinators_carry_any_objective() -> None:
    first, second = helpers.token_sides()
    hinge = by_name("hinge", beta=0.5)
    assert close(length_desensitised(hinge, 1.0).loss(first, second, {}), hinge.loss(first, second, {}))
    assert (policy_weighted(hinge).loss(first, second, {}) < hinge.loss(first, second, {})).all()
    with pytest.raises(ValueError, match="does not read"):
        length_desensitised(by_name("simpo"), 0.5)
    with pytest.raises(ValueError, match="alpha"):
        length_desensitised(hinge, 1.5)


def test_ties_are_targets_up_to_a_constant() -> None:
    first, second = helpers.rewards()
    d = first.score - second.score
    for theta in (1.5, 2.0, 7.0):
        keep, flip = both("rao_kupper", first, second, theta=theta), both("rao_kupper", second, first, theta=theta)
        assert close(2 * (keep + flip) / 2 - math.log(theta**2 - 1), rao_kupper_tie(d, theta))
        assert close((-keep).exp() + (-flip).exp() + (-rao_kupper_tie(d, theta)).exp(), torch.ones_like(d))
    for nu in (0.3, 1.0, 5.0):
        keep, flip = both("davidson", first, second, nu=nu), both("davidson", second, first, nu=nu)
        assert close((keep + flip) / 2 - math.log(nu), davidson_tie(d, nu))
        assert close((-keep).exp() + (-flip).exp() + (-davidson_tie(d, nu)).exp(), torch.ones_like(d))
    assert close(both("davidson", first, second, nu=0.0), both("bradley_terry", first, second))
    assert close(both("rao_kupper", first, second, theta=1.0), both("bradley_terry", first, second))


def test_margins_and_offsets_of_a_pair_stay_when_its_label_is_flipped() -> None:
    first, second = helpers.rewards()
    rated = [replace(s, rating=torch.tensor(r, dtype=torch.float64)) for s, r in ((first, [3.0, 1, 2, 5]), (second, [1.0, 4, 2, 2]))]
    margin = by_name("bradley_terry", rated=0.5)
    gap = torch.tensor([2.0, 3, 0, 3], dtype=torch.float64)
    d = first.score - second.score
    assert close(margin.loss(*rated, {}), torch.nn.functional.softplus(0.5 * gap - d), 1e-8)
    assert close(margin.loss(*rated[::-1], {}), torch.nn.functional.softplus(0.5 * gap + d), 1e-8)
    pair = helpers.fixture()
    with_ratings = [replace(s, rating=r.rating) for s, r in zip(pair, rated, strict=True)]
    h = 0.1 * by_name("sigmoid", beta=1.0).margin(*pair, {})
    assert close(both("odpo", *with_ratings, alpha=0.2), torch.nn.functional.softplus(0.2 * gap - h), 1e-8)
    assert close(both("odpo", *with_ratings, alpha=0.2, gap="log"), torch.nn.functional.softplus(0.2 * gap.clamp(min=1).log() - h), 1e-8)


def test_dove_is_dpo_where_prompts_are_equal_and_more_where_not() -> None:
    first, second = helpers.fixture()
    prompt = {"prompt_logp": torch.full((4,), -41.0).double(), "reference_prompt_logp": torch.full((4,), -40.0).double()}
    same = [replace(s, **prompt) for s in (first, second)]
    assert close(both("dove", *same, beta=0.1), both("sigmoid", first, second, beta=0.1))
    values = {"logp": (-20, -30), "reference_logp": (-22, -27), "prompt_logp": (-40, -55), "reference_prompt_logp": (-41, -53)}
    pair = [Side(**{k: torch.tensor([float(v[i])], dtype=torch.float64) for k, v in values.items()}) for i in (0, 1)]
    assert both("dove", *pair, beta=0.1).item() == pytest.approx(0.3711006659, abs=1e-10)
    assert by_name("dove", beta=0.1, prior="reference").loss(*pair, {}).item() == pytest.approx(0.4740769842, abs=1e-10)
    assert torch.sigmoid(-by_name("dove", beta=0.1).margin(*pair, {})).item() == pytest.approx(0.3100255189, abs=1e-10)
    assert joint(by_name("kto_pair")).context is not None
    with pytest.raises(ValueError, match="ipo needs length"):
        joint(by_name("ipo"))


def test_dove_sees_a_shift_of_a_prompt_and_dpo_does_not() -> None:
    """One constant for all prompts is free under DOVE; DPO leaves one free for each prompt."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = torch.tensor([-3.0], dtype=torch.float64)
    first = Side(logp=value, reference_logp=value, prompt_logp=value + shift, reference_prompt_logp=value)
    second = Side(logp=value, reference_logp=value, prompt_logp=value, reference_prompt_logp=value)
    assert torch.autograd.grad(both("dove", first, second).sum(), shift)[0].item() == pytest.approx(-0.05)
    assert not both("sigmoid", first, second).requires_grad


def test_general_preferences_are_antisymmetric_and_hold_cycles() -> None:
    vectors = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert close(general_score(vectors[0], vectors[1]), -general_score(vectors[1], vectors[0]))
    assert close(general_score(vectors[0], vectors[0]), torch.zeros(50, dtype=torch.float64))
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    turned = (vectors.unflatten(-1, (3, 2)) @ turn.T).flatten(-2)
    assert close(general_score(turned[0], turned[1]), general_score(vectors[0], vectors[1]))
    r = helpers.rewards()
    lifted = [Side(embedding=torch.stack([s.score, torch.ones_like(s.score)], 1)) for s in r]
    assert close(both("general_preference", *lifted, tau=1.0), both("bradley_terry", *r))
    assert close(both("general_preference_squared", *lifted, tau=1.0, target=2.0), (r[0].score - r[1].score - 2) ** 2 / 2)
    skew = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    skew = skew - skew.T
    embedding = torch.stack([torch.eye(5, dtype=torch.float64), -skew / 2], -1).flatten(-2)
    scores = torch.stack([general_score(embedding, embedding[j].expand(5, -1)) for j in range(5)], 1)
    assert close(scores, skew)
    gates = [replace(s, gate=torch.full((4, 1), 2.0, dtype=torch.float64)) for s in lifted]
    assert close(by_name("general_preference", tau=1.0).margin(*gates, {}), 2 * by_name("general_preference", tau=1.0).margin(*lifted, {}))
    with pytest.raises(ValueError, match="even number"):
        general_score(vectors[0, :, :5], vectors[1, :, :5])
    with pytest.raises(ValueError, match="3 planes"):
        general_score(vectors[0], vectors[1], vectors[0, :, :2])


def test_gpo_regresses_to_mean_scores() -> None:
    ratio, mean = torch.tensor([0.1, -0.3, 0.2]).double(), torch.tensor([0.8 / 3, -0.5 / 3, -0.1]).double()
    share = torch.tensor([0.556612, 0.466554, 0.476833]).double() - 0.5
    zero = torch.zeros(3).double()

    def half(rating: Tensor, **settings: float) -> Tensor:
        side = Side(logp=ratio, reference_logp=zero, rating=rating, n_tokens=torch.tensor([10, 20, 5]))
        return by_name("gpo", beta=0.5, **settings).loss(side, side, {}) / 2

    assert close(half(mean), torch.tensor([0.187778, 0.001111, 0.16]).double(), 1e-6)
    assert close(half(share), torch.tensor([0.000175, 0.054340, 0.060680]).double(), 1e-6)
    assert close(half(mean, gamma=1.0), torch.tensor([0.273878, 0.101336, 0.057600]).double(), 1e-6)


def test_recommender_losses() -> None:
    first, second = (Side(score=torch.tensor([x], dtype=torch.float64)) for x in (0.7, -0.3))
    assert both("bpr", first, second).item() == pytest.approx(0.313261688, abs=1e-9)
    assert both("bpo", first, second).item() == pytest.approx(0.957541293, abs=1e-9)
    assert both("bpo", first, Side()).item() + both("bpo", Side(), second).item() == pytest.approx(0.957541293, abs=1e-9)


def test_recommender_losses_on_probabilities_and_scores() -> None:
    """Card 32, oracle 3, squared, and card 05's s_i, s_j: each item is judged alone, a pair is the sum of both."""
    first, second = (Side(score=torch.tensor([x], dtype=torch.float64)) for x in (0.7, -0.3))
    s_i, s_j = 0.668187772, 0.425557483
    assert both("bpo_probability", first, second).item() == pytest.approx(-s_i - (1 - s_j), abs=1e-9)
    assert both("squared_probability", first, second).item() == pytest.approx((1 - s_i) ** 2 + s_j**2, abs=1e-9)
    assert both("squared_score", first, second).item() == pytest.approx(0.3**2 + 0.3**2, abs=1e-12)
    for name in ("bpo_probability", "squared_probability", "squared_score"):
        alone = both(name, first, Side()) + both(name, Side(), second)
        assert alone.item() == pytest.approx(both(name, first, second).item(), abs=1e-12)
    click = Side(score=torch.tensor([0.4], dtype=torch.float64))
    liked, not_liked = both("squared_probability", click, Side()).item(), both("squared_probability", Side(), click).item()
    assert 4 * liked - 3 * not_liked == pytest.approx(-0.431074367, abs=1e-9)


def test_the_reference_can_count_more_or_less() -> None:
    """gamma 1 is DPO; a pair is ranked right exactly where the loss is at most softplus(-beta gamma c), c the reference's preference."""
    first, second = helpers.random_sides(("logp", "reference"), n=20_000, scale=3.0)
    assert close(both("dpo_gamma", first, second, gamma=1.0), both("sigmoid", first, second))
    for gamma in (0.0, 0.5, 2.0):
        c = second.reference_logp - first.reference_logp
        bound = torch.nn.functional.softplus(-0.1 * gamma * c)
        clear = (first.logp - second.logp).abs() > 1e-6
        ranked, low = first.logp >= second.logp, both("dpo_gamma", first, second, gamma=gamma) <= bound
        assert torch.equal(ranked[clear], low[clear])


def test_modpo_at_weight_one_is_dpo() -> None:
    first, second = helpers.fixture()
    level = [replace(s, rating=torch.zeros(4, dtype=torch.float64)) for s in (first, second)]
    assert close(both("modpo", *level, beta=0.1, weight=1.0), both("sigmoid", first, second, beta=0.1))


def test_kto_baseline_is_the_clamped_mean_of_mismatched_ratios() -> None:
    objective = by_name("kto")
    for mismatch, expected in (([0.5, 0.1, -0.3, 0.5], 0.2), ([-1.0, -2, 0, 0.5], 0.0)):
        side = replace(helpers.fixture()[0], mismatch_log_ratio=torch.tensor(mismatch, dtype=torch.float64))
        assert objective.context(side, Side(), {})["baseline"].item() == pytest.approx(expected)
        assert objective.context(side, side, {})["baseline"].item() == pytest.approx(expected)


def test_bco_shift_is_the_mean_of_all_that_was_seen() -> None:
    objective = by_name("bco", beta=0.1)
    seen, context = [], {}
    for seed in range(4):
        first, second = helpers.random_sides(objective.needs, n=3 + seed, seed=seed)
        seen += (0.1 * torch.cat([s.logp - s.reference_logp for s in (first, second)])).tolist()
        context = objective.context(first, second, context)
        assert context["shift"].item() == pytest.approx(sum(seen) / len(seen))
    assert objective.context(first, Side(), context)["count"].item() == len(seen) + len(first)


def test_beta_dpo_follows_the_step() -> None:
    objective = by_name("beta_dpo", beta=0.1, alpha=0.6, decay=0.9)
    first, second = helpers.fixture()
    start = objective.context(first, second, {})
    assert start["beta"].item() == pytest.approx(0.1)
    moved = replace(first, logp=first.logp + 1)
    after = objective.context(moved, second, start)
    assert after["beta"].item() == pytest.approx(0.1 * 1.6)
    assert after["mean"].item() == pytest.approx(1.6875 + 0.1)
    low = objective.context(replace(first, logp=first.logp - 900), second, start)
    assert low["beta"].item() == pytest.approx(1e-3)
    h = torch.tensor([-1.0, 1.6875], dtype=torch.float64)
    assert typicality(h, start["mean"], start["sd"])[1].item() == 1


def test_aot_stands_at_the_owner_of_the_rank() -> None:
    first, second = helpers.fixture()
    order = torch.tensor([2, 0, 3, 1])
    for name in ("aot", "aot_unpaired"):
        objective = by_name(name, beta=0.1)
        loss = objective.loss(first, second, {})
        again = objective.loss(first.map(lambda x: x[order]), second.map(lambda x: x[order]), {})
        assert close(again, loss[order])
        smooth = by_name(name, beta=0.1, smoothing=0.2)
        e = smooth.loss(first, second, {})
        assert close(e, 0.8 * loss + 0.2 * (loss + torch.log(torch.expm1(loss)).neg()), 1e-6)


def test_sft_reductions() -> None:
    first, second = helpers.fixture()
    dpo = by_name("sigmoid")
    keep = dpo.loss(first, second, {})
    token = with_sft(dpo, 0.5, "token")
    context = token.context(first, second, {})
    assert (token.loss(first, second, context) - keep).mean().item() == pytest.approx(0.5 * 70.5 / 37)
    assert close(with_sft(dpo, 0.5, "sum").loss(second, first, {}), dpo.loss(second, first, {}) - 0.5 * second.logp)
    assert token.margin(first, second, context).equal(dpo.margin(first, second, {}))
    with pytest.raises(ValueError, match="reduction is one of token, sequence, sum"):
        with_sft(dpo, 1.0, "mean")


def test_targets_are_the_same_whichever_label_is_right() -> None:
    sides = [replace(s, target_logp=torch.full((4,), -6.0).double(), target_n_tokens=torch.full((4,), 3)) for s in helpers.fixture()]
    plain, tpo = by_name("simpo"), with_target(by_name("simpo"), 0.5)
    for order in (1, -1):
        assert close(tpo.loss(*sides[::order], {}), plain.loss(*sides[::order], {}) + 1.0)


def test_online_kl_has_the_exact_gradient_in_expectation() -> None:
    """Enumerated over all samples of a small policy: one sample each, and two with the leave-one-out baseline."""
    theta = torch.tensor([0.5, -0.3, 0.2, 1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    logp = theta.log_softmax(0)
    exact = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), theta, retain_graph=True)[0]
    assert close(exact, torch.tensor([-0.215176, -0.156650, -0.083537, 0.455363]).double(), 1e-6)
    p = logp.detach().exp()
    for samples in (1, 2):
        draws = torch.tensor(list(itertools.product(range(4), repeat=samples)))
        value = (p[draws].prod(1) * online_kl(logp[draws], reference[draws])).sum()
        assert close(torch.autograd.grad(value, theta, retain_graph=True)[0], exact)
    draws = torch.randint(4, (3, 4))
    shifted = online_kl(logp[draws], reference[draws] - 5.0)
    assert close(shifted, online_kl(logp[draws], reference[draws]))


def test_hypo_without_weight_is_dpo() -> None:
    first, second = helpers.random_sides(("logp", "reference", "online"))
    assert torch.equal(with_online_kl(by_name("sigmoid"), 0.0).loss(first, second, {}), both("sigmoid", first, second))
    term = by_name("hypo", weight=1.0).loss(first, second, {}) - both("sigmoid", first, second)
    assert close(term, online_kl(first.online_logp, first.online_reference_logp))


@pytest.mark.parametrize("name", checks.NAMES)
def test_likelihood_is_a_distribution_over_the_two_labels(name: str) -> None:
    objective = by_name(name)
    first, second = helpers.random_sides(objective.needs, seed=5)
    if objective.swap != "comparison":
        with pytest.raises(ValueError, match="no likelihood"):
            likelihood(objective)
        return
    context = checks.context_of(objective, first, second)
    made = likelihood(objective)
    keep, flip = made.loss(first, second, context), made.loss(second, first, context)
    assert close((-keep).exp() + (-flip).exp(), torch.ones_like(keep))
    odds = objective.loss(second, first, context) - objective.loss(first, second, context)
    assert close(keep, torch.nn.functional.softplus(-odds, threshold=50))
    if name in ("sigmoid", "bradley_terry", "bpr", "tdpo", "ld_dpo"):
        assert close(keep, objective.loss(first, second, context), 1e-9)


def test_weighted_sum_adds_losses_statistics_and_needs() -> None:
    first, second = helpers.random_sides(("logp", "reference", "length", "mismatch"))
    parts = [(by_name("kto"), 0.5), (by_name("beta_dpo"), 2.0), (by_name("simpo"), 1.0), (by_name("beta_dpo", beta=0.7), 0.25)]
    total = weighted_sum(*parts)
    context = total.context(first, second, {})
    expected = sum(w * o.loss(first, second, checks.context_of(o, first, second)) for o, w in parts)
    assert close(total.loss(first, second, context), expected)
    assert total.needs == {"logp", "reference", "length", "mismatch"}
    assert total.context(first, second, context)["1.mean"].isfinite()
    assert total.swap == "comparison"
    assert weighted_sum((by_name("sigmoid"), 1.0), (by_name("aot"), 1.0)).swap == "none"
    with pytest.raises(ValueError, match="the weight of kto is a number of at least 0"):
        weighted_sum((by_name("kto"), -1.0))
    with pytest.raises(ValueError, match="at least one"):
        weighted_sum()


def test_saturated_comparisons_are_counted() -> None:
    m = torch.tensor([-31.0, -29.0, 0.0, 31.0])
    first, second = Side(logp=m, reference_logp=torch.zeros(4)), Side(logp=torch.zeros(4), reference_logp=torch.zeros(4))
    objective = by_name("exponential", beta=1.0)
    assert objective.saturated(first, second, {}).tolist() == [True, False, False, False]
    assert by_name("sigmoid").saturated is None
    x = torch.tensor([-1e4], requires_grad=True)
    loss = objective.loss(Side(logp=x, reference_logp=torch.zeros(1)), Side(logp=torch.zeros(1), reference_logp=torch.zeros(1)), {})
    assert torch.autograd.grad(loss, x)[0].item() == pytest.approx(-math.exp(30), rel=1e-5)
    certain = Side(logp=torch.tensor([0.0, -1.0]), n_tokens=torch.tensor([1, 1]))
    assert by_name("orpo").saturated(certain, certain, {}).tolist() == [True, False]
    far = by_name("forward_kl")
    assert far.saturated(first, second, {}).tolist() == [True, False, False, False]
    assert weighted_sum((far, 1.0), (by_name("hinge"), 1.0)).saturated(first, second, {}).tolist() == [True, False, False, False]
