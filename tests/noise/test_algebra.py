"""Any objective with any treatment: what must hold for every pair of the two tables of names; a new name takes part by being there."""

from __future__ import annotations

import dataclasses
import runpy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cupel.noise.chain import chain
from cupel.noise.em import em
from cupel.noise.fixed import conservative, identity, unbiased
from cupel.noise.loss import check, list_loss, preference_loss, preference_terms, terms_of
from cupel.noise.names import TREATMENTS, available, factory
from cupel.noise.selection import small_loss
from cupel.noise.state import state_digest
from cupel.noise.step import merge_terms
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives import Side, available_lists, likelihood, list_by_name
from cupel.objectives import available as objectives
from cupel.objectives import by_name as objective_by_name
from cupel.objectives.lists import RankedList

helpers = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "objectives" / "helpers.py")))
N = 6
SPEC = DataSpec(records=tuple(f"r{i}" for i in range(N)), annotators=("ann", "bob"), groups=("x",))
P, W = [1.0, 0.0, 0.3, 1.0, 0.5, 1.0], [1.0, 2.0, 0.5, 1.0, 1.5, 1.0]
SOFT = {f"r{i}": value for i, value in enumerate([0.9, 0.2, 1.0, 0.5, 0.0, 0.7])}
COUNTS = {f"r{i}": value for i, value in enumerate([(3, 1, 0), (0, 2, 0), (1, 1, 1), (0, 0, 2), (5, 0, 0), (0, 0, 0)])}


def example(name):
    """A treatment by name, with arguments at which it does something."""
    special = {"soft_labels": {"p": SOFT}, "votes": {"counts": COUNTS}}
    entry = TREATMENTS.get(name)
    return factory(name)(**(special.get(name) or (dict(entry.example) if entry else {})))


ALL = available()
SWAPPED = [name for name in objectives() if objective_by_name(name).swap == "comparison"]
RIGID = [name for name in objectives() if objective_by_name(name).swap != "comparison"]
CHANGE_P = [name for name in ALL if "p" in example(name).touches]


def target():
    return Target(torch.tensor(P, dtype=torch.float64), torch.tensor(W, dtype=torch.float64))


def peers(seed=9):
    gen = torch.Generator().manual_seed(seed)
    return {name: torch.rand(N, generator=gen, dtype=torch.float64) * 3 for name in ("peer_keep", "peer_flip")}


def terms(**changes):
    annotator, group = torch.tensor([0, 1, 0, -1, 1, 0]), torch.tensor([0, 0, -1, 0, 0, -1])
    return bare_terms(torch.zeros(N, dtype=torch.float64))._replace(annotator=annotator, group=group, **peers(), **changes)


def leaves(side):
    """The side with gradients asked for, and its tensors that carry them."""
    grown = side.map(lambda x: x.detach().clone().requires_grad_() if x.is_floating_point() else x)
    return grown, [value for f in dataclasses.fields(grown) if (value := getattr(grown, f.name)) is not None and value.requires_grad]


def setting(objective, seed=0):
    """(first, second, leaves, context) of random sides for an objective."""
    first, second = helpers.random_sides(objective.needs, n=N, seed=seed)
    context = {} if objective.context is None else objective.context(first, second, {})
    (first, a), (second, b) = leaves(first), leaves(second)
    return first, second, a + b, context


@cache
def both_losses(name):
    """(keep, flip) of an objective on random sides, without gradient."""
    objective = objective_by_name(name)
    first, second, _, context = setting(objective)
    return tuple(x.detach() for x in terms_of(objective, first, second, context))


def slopes(loss, tensors):
    found = torch.autograd.grad(loss.sum(), tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


# ---- the published formulas, written without (p, w) ---------------------------------------------------------------------------


def stated(keep, flip):
    p = torch.tensor(P, dtype=torch.float64)
    return p * keep + (1 - p) * flip, p * flip + (1 - p) * keep


def published_em(keep, flip):
    """Responsibilities from likelihoods (Gibbs), reliability .9, of p labels "first" and 1 - p labels "second"."""
    energy = torch.stack([-keep, -flip]).detach().softmax(0)
    right, wrong = 0.9 * energy[0] / (0.9 * energy[0] + 0.1 * energy[1]), 0.9 * energy[1] / (0.9 * energy[1] + 0.1 * energy[0])
    p = torch.tensor(P, dtype=torch.float64)
    return p * (right * keep + (1 - right) * flip) + (1 - p) * (wrong * flip + (1 - wrong) * keep)


def published_selfie(keep, flip):
    """Nothing is remembered at the first step, so nothing is smoothed; the quantile is tested with its state elsewhere."""
    return stated(keep, flip)[0]


def published_ropo(keep, flip):
    c, z = 4 * 14 / 15**2, (flip - keep).detach()
    p = torch.tensor(P, dtype=torch.float64)
    return c * (p * (1 + 14 / (1 + torch.exp(-z))) * keep + (1 - p) * (1 + 14 / (1 + torch.exp(z))) * flip)


def published_missed(keep, flip):
    s = (flip - keep).detach().sigmoid()
    q = 0.5 * s / (1 - s + 0.5 * s)
    p = torch.tensor(P, dtype=torch.float64)
    return p * keep + (1 - p) * (q * keep + (1 - q) * flip)


def published_votes(keep, flip):
    rows = [a * keep[i] + b * flip[i] + t * (keep[i] + flip[i]) / 2 for i, (a, b, t) in enumerate(COUNTS.values())]
    return torch.stack(rows)


def published_certainty(keep, flip):
    a = 0.2 / (2 * np.log(2))
    label, reverse = stated(keep, flip)
    return (1 - a) * label + a * reverse


def published_unbiased(keep, flip):
    label, reverse = stated(keep, flip)
    return (0.9 * label - 0.1 * reverse) / 0.8


def published_by_side(keep, flip):
    """Natarajan et al.: [(1 - e_other) loss(y) - e_y loss(-y)] / (1 - e1 - e2), e1 = .1, e2 = .2, for y = first and second."""
    p = torch.tensor(P, dtype=torch.float64)
    return (p * (0.8 * keep - 0.1 * flip) + (1 - p) * (0.9 * flip - 0.2 * keep)) / 0.7


def published_propensity(keep, flip):
    y = torch.tensor(P, dtype=torch.float64)
    return y / 0.5 * keep + (1 - y / 0.5) * flip


def published_exposed(keep, flip):
    """A "no" weighs as much as it was seen: mu = 1/2, n = e^-flip."""
    n = torch.exp(-flip.detach())
    p = torch.tensor(P, dtype=torch.float64)
    return p * keep + (1 - p) * (0.5 * n / (0.5 * n + 0.5)) * flip


def published_unobserved(keep, flip):
    p = torch.tensor(P, dtype=torch.float64)
    return p * keep + 0.25 * (1 - p) * flip


PUBLISHED = {
    "conservative": lambda keep, flip: 0.9 * stated(keep, flip)[0] + 0.1 * stated(keep, flip)[1],
    "unbiased": published_unbiased, "unbiased_by_side": published_by_side, "em": published_em, "selfie": published_selfie,
    "ropo": published_ropo, "missed": published_missed, "votes": published_votes, "certainty": published_certainty,
    "propensity": published_propensity, "exposed": published_exposed, "unobserved": published_unobserved,
    "soft_labels": lambda keep, flip: torch.stack([s * keep[i] + (1 - s) * flip[i] for i, s in enumerate(SOFT.values())]),
}  # fmt: skip


def test_every_own_treatment_of_p_has_its_formula_here():
    assert set(PUBLISHED) == {name for name in CHANGE_P if name in TREATMENTS}


@pytest.mark.parametrize("objective_name", SWAPPED)
def test_gradient_is_that_of_the_published_formula(objective_name):
    """Equation (1), for every objective whose sides can be swapped, with every treatment of p of ours."""
    objective = objective_by_name(objective_name)
    first, second, tensors, context = setting(objective)
    for name in PUBLISHED:
        treat = example(name)
        loss, _ = preference_loss(objective, treat, first, second, target(), terms(), treat.init(SPEC), context)
        keep, flip = objective.loss(first, second, context), objective.loss(second, first, context)
        published = torch.tensor(W, dtype=torch.float64) * PUBLISHED[name](keep, flip)
        for found, wanted in zip(slopes(loss, tensors), slopes(published, tensors), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-11, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("objective_name", SWAPPED)
def test_every_treatment_of_p_weighs_the_two_losses(objective_name):
    """Any name, ours or another package's: the gradient is w (p grad keep + (1 - p) grad flip) with what it returned held fixed."""
    objective = objective_by_name(objective_name)
    first, second, tensors, context = setting(objective, seed=3)
    for name in CHANGE_P:
        treat = example(name)
        loss, used = preference_loss(objective, treat, first, second, target(), terms(), treat.init(SPEC), context)
        assert not used.p.requires_grad
        assert not used.w.requires_grad
        keep, flip = slopes(objective.loss(first, second, context) * used.w * used.p, tensors), slopes(
            objective.loss(second, first, context) * used.w * (1 - used.p), tensors
        )
        for found, a, b in zip(slopes(loss, tensors), keep, flip, strict=True):
            torch.testing.assert_close(found, a + b, atol=1e-10, rtol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("objective_name", SWAPPED)
def test_em_on_the_likelihood_is_the_marginal_likelihood(objective_name):
    """With `likelihood(objective)` the gradient of (1) is that of -log(P eta + (1 - P)(1 - eta)), P = sigmoid(flip - keep)."""
    objective = objective_by_name(objective_name)
    first, second, tensors, context = setting(objective, seed=1)
    treat = em(0.2)
    loss, _ = preference_loss(likelihood(objective), treat, first, second, target(), terms(), treat.init(SPEC), context)
    z = objective.loss(second, first, context) - objective.loss(first, second, context)
    right, wrong = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    p, w = torch.tensor(P, dtype=torch.float64), torch.tensor(W, dtype=torch.float64)
    marginal = -w * (
        p * torch.logaddexp(right + np.log(0.8), wrong + np.log(0.2)) + (1 - p) * torch.logaddexp(right + np.log(0.2), wrong + np.log(0.8))
    )
    for found, wanted in zip(slopes(loss, tensors), slopes(marginal, tensors), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("name", [name for name in ALL if name in TREATMENTS and TREATMENTS[name].plain is not None])
def test_at_rate_0_a_treatment_is_plain_training(name):
    """Bit for bit, before and after it has seen steps, for every objective it takes."""
    treat = factory(name)(**dict(TREATMENTS[name].plain))
    state = treat.init(SPEC)
    for epoch in range(3):
        for objective_name in SWAPPED + ([] if "p" in treat.touches or treat.reads_flip else RIGID):
            keep, flip = both_losses(objective_name)
            seen = terms(step=epoch, epoch=epoch, given=target())._replace(keep=keep, flip=flip)
            used = treat.target(target(), seen, state)
            assert torch.equal(used.p, target().p)
            assert torch.equal(used.w, target().w)
        state = treat.update(seen, state)
    objective = objective_by_name("ipo")
    first, second, _, context = setting(objective)
    treated, _, _ = preference_terms(objective, treat, first, second, target(), terms(), state, context)
    plain, _ = preference_loss(objective, identity(), first, second, target(), terms(), {}, context)
    assert torch.equal(treated, plain)


@pytest.mark.parametrize("name", ALL)
def test_order_of_comparisons_does_not_matter(name):
    gen = torch.Generator().manual_seed(5)
    keep, flip = (torch.rand(N, generator=gen, dtype=torch.float64) * 2 for _ in range(2))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    treat = example(name)
    states = {False: treat.init(SPEC), True: treat.init(SPEC)}
    for step in range(3):
        outcome = {}
        for shuffled in (False, True):
            row = order if shuffled else torch.arange(N)
            given = Target(target().p[row], target().w[row])
            seen = terms(step=step, epoch=step, given=given)
            fields = {f: getattr(seen, f)[row] for f in ("record", "annotator", "group", "peer_keep", "peer_flip")}
            seen = seen._replace(keep=(keep + step)[row], flip=flip[row], **fields)
            used = treat.target(given, seen, states[shuffled])
            outcome[shuffled] = used if shuffled else Target(used.p[order], used.w[order])
            states[shuffled] = treat.update(merge_terms([seen]), states[shuffled])
        torch.testing.assert_close(outcome[True].p, outcome[False].p)
        torch.testing.assert_close(outcome[True].w, outcome[False].w)
    assert state_digest(states[True]) == state_digest(states[False])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("objective_name", RIGID)
def test_objectives_without_swap_take_weights_only(name, objective_name):
    objective, treat = objective_by_name(objective_name), example(name)
    first, second, tensors, context = setting(objective)
    arguments = (objective, treat, first, second, target(), terms(), treat.init(SPEC), context)
    if "p" in treat.touches or treat.reads_flip:
        with pytest.raises(ValueError, match=f"{treat.name} .*{objective.name}.*Use a treatment"):
            preference_loss(*arguments)
        return
    loss, used = preference_loss(*arguments)
    for found, wanted in zip(slopes(loss, tensors), slopes(used.w * objective.loss(first, second, context), tensors), strict=True):
        torch.testing.assert_close(found, wanted)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", available_lists())
def test_lists_take_weights_only(name):
    objective = list_by_name(name)
    with pytest.raises(ValueError, match="changes p"):
        check(objective, em(0.1))
    with pytest.raises(ValueError, match="changes p"):
        check(objective, chain(small_loss(0.1), conservative(0.1)))
    check(objective, small_loss(0.1))


def test_weighted_lists():
    lists = RankedList(torch.tensor([[1.0, 0.3], [0.0, 2.0], [0.5, 0.4]], dtype=torch.float64))
    objective = list_by_name("plackett_luce")
    one = bare_terms(torch.zeros(3, dtype=torch.float64))
    labels = Target(torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    loss, used = list_loss(objective, small_loss(0.34, ramp=0), lists, labels, one, {})
    assert used.w[1] == 0
    torch.testing.assert_close(loss, used.w * objective.loss(lists))
    with pytest.raises(ValueError, match="do not belong together"):
        list_loss(objective, identity(), lists, target(), one, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_extreme_losses_are_finite(dtype):
    values = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4, 500.0])
    soft = torch.nn.functional.softplus
    for name in ALL:
        treat = example(name)
        for keep, flip in ((soft(-values), soft(values)), (soft(values), soft(-values))):
            seen = terms()._replace(keep=keep.to(dtype), flip=flip.to(dtype))
            used = treat.target(Target(torch.tensor(P), torch.tensor(W)), seen, treat.init(SPEC))
            assert torch.isfinite(used.p).all(), name
            assert torch.isfinite(used.w).all(), name
            assert (used.w >= 0).all(), name
            assert used.p.dtype == used.w.dtype == torch.float32, name


def test_parts_that_do_not_fit_are_refused(toy):
    side = Side(score=torch.zeros(N, dtype=torch.float64))
    part = side.map(lambda x: x[:2])
    with pytest.raises(ValueError, match=r"treat_step"):
        preference_loss(toy, small_loss(0.1), part, part, target(), terms(), {})


def test_array_head_of_the_main_job():
    """The linear head's loss and gradient are those of (1) with the sigmoid objective and plain training, for any p and w."""
    from cupel.votes.linear_head import objective as array_loss

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    for p in (rng.random(40), (rng.random(40) < 0.5).astype(float), rng.normal(0.5, 1, 40)):
        w = rng.random(40) * 2
        theta = torch.tensor(rng.normal(size=3), requires_grad=True)
        first = Side(score=torch.tensor(x) @ theta)
        second = Side(score=torch.zeros(40, dtype=torch.float64))
        at = bare_terms(torch.zeros(40, dtype=torch.float64))
        for treat in (identity(), unbiased(0.2)):
            loss, used = preference_loss(
                objective_by_name("bradley_terry"), treat, first, second, Target(torch.tensor(p), torch.tensor(w)), at, {}
            )
            (slope,) = torch.autograd.grad(loss.sum(), theta, retain_graph=True)
            value, gradient = array_loss(theta.detach().numpy(), x, used.p.numpy(), w, 0.0)
            np.testing.assert_allclose(loss.sum().item(), value, rtol=1e-12)
            np.testing.assert_allclose(slope.numpy(), gradient, rtol=1e-10, atol=1e-12)
