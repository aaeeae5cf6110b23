"""Expectation maximisation on labels: the worked numbers of card 02-lcpo and what must hold for all data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.em import em, fit_reliability, posterior
from cupel.noise.state import state_digest
from cupel.noise.types import DataSpec

quick = settings(max_examples=40, deadline=None)
P = [0.9, 0.8, 0.7, 0.4, 0.1, 0.95]
TWO = [0.9, 0.8, 0.7, 0.4, 0.95, 0.2, 0.15, 0.6]


def double(x):
    return torch.as_tensor(x, dtype=torch.float64)


def sp(x):
    return torch.nn.functional.softplus(double(x))


def run(iterations, *, p=P, slot=None, start=(0.9,), prior=None):
    z = torch.logit(double(p))
    slots = torch.zeros(len(z), dtype=torch.long) if slot is None else torch.tensor(slot)
    return fit_reliability(z, slots, double(start), prior=prior, iterations=iterations, tolerance=0.0 if iterations < 10 else 1e-14)


def test_worked_posterior_and_iterations():
    w = posterior(torch.ones(6, dtype=torch.float64), torch.logit(double(P)), double(0.9))
    golden = [0.98780488, 0.97297297, 0.95454545, 0.85714286, 0.5, 0.99418605]
    torch.testing.assert_close(w, double(golden), atol=6e-9, rtol=0)
    for iterations, eta in enumerate([0.87777537, 0.85976174, 0.84629641, 0.83676157], start=1):
        assert abs(run(iterations).reliability.item() - eta) < 6e-9
    limit = run(5000).reliability.item()
    assert abs(limit - 0.81771414) < 6e-9
    grid = np.linspace(0.5, 1, 500_001)[:, None]
    p = np.array(P)
    assert abs(grid[np.argmax(np.log(p * grid + (1 - p) * (1 - grid)).sum(axis=1)), 0] - limit) < 2e-6


@pytest.mark.parametrize("start", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_the_limit_does_not_depend_on_the_start(start):
    assert abs(run(20_000, start=(start,)).reliability.item() - 0.81771414) < 1e-6


def test_worked_annotators():
    slot = [0] * 4 + [1] * 4
    golden = [(0.94311654, 0.80779115), (0.96758131, 0.69722647), (0.98149402, 0.60186548)]
    for iterations, eta in enumerate(golden, start=1):
        torch.testing.assert_close(run(iterations, p=TWO, slot=slot, start=(0.9, 0.9)).reliability, double(eta), atol=6e-9, rtol=0)
    limit = run(20_000, p=TWO, slot=slot, start=(0.9, 0.9)).reliability
    torch.testing.assert_close(limit, double((1.0, 0.44235765)), atol=6e-9, rtol=0)
    kept = run(20_000, p=TWO, slot=slot, start=(0.9, 0.9), prior=(9.0, 2.0)).reliability
    torch.testing.assert_close(kept, double((0.90675274, 0.84069252)), atol=6e-9, rtol=0)


def test_worked_running_mean(terms):
    z = torch.logit(double(TWO))
    treat = em(0.1, by="annotator", share=0.1, warmup=0)
    state = treat.init(DataSpec(annotators=("ann", "bob")))
    seen = terms(sp(-z), sp(z), annotator=torch.tensor([0] * 4 + [1] * 4))
    after = treat.update(seen, state)
    torch.testing.assert_close(after["reliability@annotator"], double((0.90431165, 0.89077911)), atol=6e-9, rtol=0)
    assert after["reliability"].item() == state["reliability"].item(), "nobody unknown was seen"
    assert after["labels@annotator"].tolist() == [4, 4]


FIXTURE = {
    "dpo": ([0.91661542, 0.88050537, 0.89772739, 0.94770907], [0.61481579, 0.77423994, 0.70316849, 0.4397897]),
    "ipo": ([0.99967474, 0.11660321, 0.76803068, 0.99997097], [0.00482138, 0.50688418, 1.08129237, 0.0005007]),
    "simpo": ([0.86833228, 0.91177659, 0.9553135, 0.91315669], [0.81970976, 0.63858819, 0.39001482, 0.63189183]),
    "cpo_token": (None, [0.62440062, 0.73120586, 0.49709092, 0.36266922]),
    "cpo": ([0.9959186, 0.63349143, 0.98405011, 0.99999443], None),
    "bt": ([0.98518552, 0.54914694, 0.87514369, 0.99989869], [0.15655698, 1.22522189, 0.79472534, 0.00162064]),
    "hinge": ([0.93068274, 0.85781075, 0.89540914, 0.97333106], None),
    "ipo_sum": ([1.0, 0.0, 0.05717438, 1.0], None),
}


def both_losses(name, f):
    """(keep, flip) of an objective on the fixture, from its formula."""
    n = {"w": f["n_w"], "l": f["n_l"]}
    per_token = f["a"] / n["w"] - f["b"] / n["l"]
    lengths = f["lp_w"] / n["w"] - f["lp_l"] / n["l"]
    difference = f["lp_w"] - f["lp_l"]
    return {
        "dpo": (sp(-0.1 * f["h"]), sp(0.1 * f["h"])),
        "ipo": ((per_token - 5) ** 2, (-per_token - 5) ** 2),
        "ipo_sum": ((f["h"] - 5) ** 2, (-f["h"] - 5) ** 2),
        "simpo": (sp(-(2 * lengths - 0.5)), sp(2 * lengths + 0.5)),
        "cpo": (sp(-0.1 * difference) - f["lp_w"], sp(0.1 * difference) - f["lp_l"]),
        "cpo_token": (sp(-0.1 * difference) - f["lp_w"] / n["w"], sp(0.1 * difference) - f["lp_l"] / n["l"]),
        "bt": (sp(-f["h"]), sp(f["h"])),
        "hinge": ((1 - 0.1 * f["h"]).clamp(min=0), (1 + 0.1 * f["h"]).clamp(min=0)),
    }[name]


@pytest.mark.parametrize("name", sorted(FIXTURE))
def test_fixture(name, pairs, terms, target):
    keep, flip = both_losses(name, pairs)
    treat = em(0.1)
    used = treat.target(target([1.0] * 4), terms(keep, flip), treat.init(DataSpec()))
    w, loss = FIXTURE[name]
    if w is not None:
        torch.testing.assert_close(used.p, double(w), atol=6e-9, rtol=0)
    if loss is not None:
        z = flip - keep
        torch.testing.assert_close(used.p * sp(-z) + (1 - used.p) * sp(z), double(loss), atol=6e-9, rtol=0)


def test_fixture_gradient_and_marginal(pairs):
    z = (0.1 * pairs["h"]).requires_grad_()
    w = posterior(torch.ones(4, dtype=torch.float64), z.detach(), double(0.9))
    (slope,) = torch.autograd.grad((w * sp(-z) + (1 - w) * sp(z)).sum(), z)
    torch.testing.assert_close(slope, double([-0.36678142, -0.43033937, -0.40397707, -0.2795213]), atol=6e-9, rtol=0)
    p = torch.sigmoid(z.detach())
    marginal = -(p * 0.9 + (1 - p) * 0.1).log()
    torch.testing.assert_close(marginal, double([0.6164321, 0.77624013, 0.70319699, 0.45483885]), atol=6e-9, rtol=0)


@quick
@given(st.floats(-30, 30), st.floats(0, 1), st.floats(0.001, 0.999))
def test_gradient_is_that_of_the_marginal_likelihood(z, p, eta):
    """Fisher's identity: d/dZ [r sp(-Z) + (1-r) sp(Z)] with r fixed = d/dZ of minus the marginal log likelihood of the (soft) label."""
    at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    r = posterior(double(p), at.detach(), double(eta))
    soft = torch.nn.functional.softplus
    (one,) = torch.autograd.grad(r * soft(-at) + (1 - r) * soft(at), at)

    def marginal(x):
        return -torch.logaddexp(-soft(-x) + math.log(eta), -soft(x) + math.log1p(-eta))

    (two,) = torch.autograd.grad(p * marginal(at) + (1 - p) * marginal(-at), at)
    assert abs(one - two) < 1e-12


@quick
@given(st.lists(st.tuples(st.floats(-800, 800), st.floats(0, 1)), min_size=1, max_size=20))
def test_certain_labels_stay_as_they_are(rows):
    z, p = double([r[0] for r in rows]), double([r[1] for r in rows])
    assert torch.equal(posterior(p, z, double(1.0)), p)
    torch.testing.assert_close(posterior(p, z, double(0.5)), torch.sigmoid(z), atol=1e-12, rtol=0)


def test_a_start_at_rate_0_is_plain_for_good(margin_terms, target):
    treat = em(0.0, by="annotator", warmup=0)
    state = treat.init(DataSpec(annotators=("a", "b")))
    seen = margin_terms([-3.0, 2.0, 0.1], annotator=torch.tensor([0, 1, -1]))
    for _ in range(3):
        state = treat.update(seen, state)
    assert torch.equal(treat.target(target([1.0, 0.3, 0.0]), seen, state).p, double([1.0, 0.3, 0.0]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, (8.0, 2.0), (1.0, 3.0)]))
def test_penalised_likelihood_never_falls(seed, prior):
    rng = np.random.default_rng(seed)
    n, k = 60, 4
    fit = fit_reliability(
        double(rng.normal(0, 3, n)), torch.tensor(rng.integers(k, size=n)), double(rng.uniform(0.05, 0.95, k)), p=double(rng.random(n)),
        w=double(rng.random(n) * 2), prior=prior, iterations=60,
    )  # fmt: skip
    trace = np.array(fit.trace)
    assert (np.diff(trace) >= -1e-9 * np.abs(trace[1:])).all()


def test_full_batch_training_climbs_the_marginal_likelihood(terms, target):
    """E step, M step for the rate, and a model that is refitted to the posterior each time: a linear head on 300 labels."""
    rng = np.random.default_rng(0)
    x, truth = double(rng.normal(size=(300, 5))), double(rng.normal(size=5))
    label = torch.where(torch.sigmoid(x @ truth * 3) > double(rng.random(300)), 1.0, 0.0)
    label = torch.where(double(rng.random(300)) < 0.25, 1 - label, label).double()
    head, eta, trace = torch.zeros(5, dtype=torch.float64), double([0.9]), []
    for _ in range(40):
        z = x @ head
        trace.append(fit_reliability(z, torch.zeros(300, dtype=torch.long), eta, p=label, iterations=0).trace[0])
        r = posterior(label, z, eta)
        eta = fit_reliability(z, torch.zeros(300, dtype=torch.long), eta, p=label, iterations=1).reliability
        for _ in range(8):  # Newton to the optimum of the weighted loss
            q = torch.sigmoid(x @ head)
            head = head + torch.linalg.solve((x.T * (q * (1 - q))) @ x + 1e-9 * torch.eye(5), x.T @ (r - q))
    assert (np.diff(trace) > -1e-9).all()
    assert trace[-1] > trace[0] + 10


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_recovers_the_rate_from_calibrated_log_odds(rate):
    rng = np.random.default_rng(round(100 * rate))
    z = rng.normal(0, 2, 20_000)
    z = np.where(rng.random(len(z)) < 1 / (1 + np.exp(-z)), z, -z)
    z = np.where(rng.random(len(z)) < rate, -z, z)
    fit = fit_reliability(double(z), torch.zeros(len(z), dtype=torch.long), double([0.9]), iterations=300)
    assert abs(1 - fit.reliability.item() - rate) < 4 * fit.error.item() + 2e-3


@pytest.mark.parametrize("schedule", ["average", "full"])
def test_order_of_a_step_does_not_matter(schedule, margin_terms):
    rng = np.random.default_rng(3)
    treat = em(0.2, by="annotator", schedule=schedule, warmup=0)
    spec = DataSpec(records=tuple(f"r{i}" for i in range(40)), annotators=("a", "b", "c"))
    z, who = double(rng.normal(size=40)), torch.tensor(rng.integers(-1, 3, size=40))
    states = []
    for order in (torch.arange(40), torch.tensor(rng.permutation(40))):
        state = treat.init(spec)
        for epoch in range(3):
            seen = margin_terms(z[order], annotator=who[order], record=order, epoch=epoch)
            state = treat.update(seen, state)
        states.append(state)
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-12, rtol=0)


def test_full_schedule_is_em_on_the_pass_before(margin_terms):
    rng = np.random.default_rng(5)
    z, who = double(rng.normal(1, 2, 30)), torch.tensor(rng.integers(0, 2, size=30))
    treat = em(0.1, by="annotator", schedule="full", warmup=0)
    state = treat.init(DataSpec(records=tuple(map(str, range(30))), annotators=("a", "b")))
    for step, rows in enumerate(torch.arange(30).split(7)):
        state = treat.update(margin_terms(z[rows], annotator=who[rows], record=rows, step=step), state)
        assert state["reliability@annotator"].tolist() == [0.9, 0.9]
    state = treat.update(margin_terms(z[:7] + 100, annotator=who[:7], epoch=1), state)
    fit = fit_reliability(z, who, double([0.9, 0.9]), prior=(8.0, 2.0))
    torch.testing.assert_close(state["reliability@annotator"], fit.reliability, atol=1e-12, rtol=0)
    assert state["labels@annotator"].sum() == 30


def test_peer_evidence_is_used_and_demanded(margin_terms, target):
    treat = em(0.1, evidence="peer")
    assert treat.reads_peer
    seen = margin_terms([0.0], peer_keep=double([0.0]), peer_flip=double([2.0]))
    torch.testing.assert_close(treat.target(target([1.0]), seen, treat.init(DataSpec())).p, torch.sigmoid(double([2 + math.log(9)])))
    with pytest.raises(ValueError, match="peer_keep"):
        treat.target(target([1.0]), margin_terms([0.0]), treat.init(DataSpec()))


def test_mean_rate_stays_below_one_half_while_one_annotator_may_be_above(margin_terms):
    treat = em(0.1, by="annotator", share=1.0, warmup=0)
    state = treat.init(DataSpec(annotators=("good", "bad")))
    for _ in range(60):
        state = treat.update(margin_terms([4.0] * 6 + [-4.0] * 2, annotator=torch.tensor([0] * 6 + [1] * 2)), state)
    assert state["reliability@annotator"][0] > 0.95
    assert state["reliability@annotator"][1] < 0.1
    for _ in range(60):
        state = treat.update(margin_terms([-4.0] * 8, annotator=torch.tensor([0] * 4 + [1] * 4)), state)
    mean = (state["labels@annotator"] @ state["reliability@annotator"]) / state["labels@annotator"].sum()
    assert mean >= 0.5 - 1e-9


def test_warmup_and_fixed_rates_leave_the_state_alone(margin_terms):
    seen = margin_terms([-4.0, 3.0], step=9, total=100)
    for treat, moves in ((em(0.1), False), (em(0.1, warmup=9), True), (em(0.1, warmup=0.05), True), (em(0.1, schedule="fixed"), False)):
        state = treat.init(DataSpec())
        assert (state_digest(treat.update(seen, state)) != state_digest(state)) == moves


def test_half_precision_posteriors_are_not_rounded_in_the_middle(terms, target):
    treat = em(0.1)
    state = treat.init(DataSpec())
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        seen = terms([0.1, 6.0], [4.0, 0.01])
        low = seen._replace(keep=seen.keep.to(dtype), flip=seen.flip.to(dtype))
        exact = treat.target(target([1.0, 0.0]), low._replace(keep=low.keep.double(), flip=low.flip.double()), state).p
        found = treat.target(target([1.0, 0.0])._replace(p=torch.tensor([1.0, 0.0])), low, state).p
        torch.testing.assert_close(found, exact.float(), atol=1e-6, rtol=1e-5)


@quick
@given(st.floats(-1e4, 1e4), st.floats(0, 1), st.floats(0, 0.999))
def test_never_nan(z, p, flip):
    treat = em(flip)
    from cupel.noise.types import Target, Terms

    none = torch.tensor([-1])
    for dtype in (torch.float32, torch.bfloat16):
        seen = Terms(torch.zeros(1, dtype=dtype), torch.tensor([z]).to(dtype), torch.tensor([0]), none, none)
        used = treat.target(Target(torch.tensor([p]), torch.ones(1)), seen, treat.init(DataSpec()))
        assert torch.isfinite(used.p).all()
        assert 0 <= used.p.item() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.0}, r"in \[0, 1\)"), ({"by": "record"}, "one label"), ({"flip": {"a": 0.1}}, "whose ids"),
        ({"share": 0.0}, r"\(0, 1\]"), ({"prior": (0.5, 2.0)}, "at least 1"),
        ({"warmup": 1.5}, "whole number"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        em(**arguments)


def test_starting_rates_by_annotator():
    treat = em({"ann": 0.3, "": 0.05}, by="annotator")
    state = treat.init(DataSpec(annotators=("ann", "bob")))
    assert state["reliability@annotator"].tolist() == [0.7, 0.95]
    assert state["reliability"].tolist() == [0.95]
    with pytest.raises(ValueError, match="flip is missing for 1 of 2 annotators"):
        em({"ann": 0.3}, by="annotator").init(DataSpec(annotators=("ann", "bob")))
