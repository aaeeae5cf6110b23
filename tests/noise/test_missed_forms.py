"""One family for a preference that was not recorded: its forms, its learned rate per pair, and the oracles of card 05-nbpo."""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.loss import preference_loss
from cupel.noise.missed import FORMS, missed, negative_weight, slopes
from cupel.noise.pair_rate import ITEM, USER, pair_rate
from cupel.noise.propensity import propensity
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives import Side, bpo, bpo_probability, by_name

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus
X_I, G_I, X_J, G_J = 0.7, 0.2, -0.3, 0.4
COUNT = 60


def some(seed=0, n=COUNT, items=5):
    """Terms and labels of n pairs of 4 users and some items."""
    rng = np.random.default_rng(seed)
    x = double(rng.normal(size=n) * 2)
    terms = bare_terms(sp(-x), sp(x))._replace(
        annotator=torch.tensor(rng.integers(-1, 4, n)), group=torch.tensor(rng.integers(-1, items, n))
    )  # fmt: skip
    label = Target(double(rng.random(n) < 0.3), double(rng.random(n) + 0.5))
    return terms._replace(given=label), label


def loss_of(objective, treatment, x, p, spec=DataSpec()):  # noqa: B008
    """Equation (1) for items of scores x, each judged alone."""
    label = Target(double(p), torch.ones(len(x), dtype=torch.float64))
    terms = bare_terms(torch.zeros(len(x), dtype=torch.float64))
    return preference_loss(objective, treatment, Side(score=x), Side(), label, terms, treatment.init(spec))[0]


# ---- the inverse forms are propensity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_missed_and_exposure_are_the_same_thing(clip, nonnegative):
    terms, label = some()
    form = "nonnegative" if nonnegative else "inverse"
    spec = DataSpec(groups=tuple("abcde"))
    rates = {"a": 0.1, "b": 0.9, "c": 0.0, "d": 0.5, "e": 0.75, "": 0.6}
    for rate, theta, by in ((0.65, 1 - 0.65, "all"), (rates, {key: 1 - g for key, g in rates.items()}, "group")):
        one = missed(rate, by=by, form=form, clip=clip)
        other = propensity(theta, by=by, clip=clip, nonnegative=nonnegative)
        found, wanted = (t.target(label, terms, t.init(spec)) for t in (one, other))
        assert torch.equal(found.p, wanted.p)
        assert torch.equal(found.w, wanted.w)
        assert (one.scope, one.touches, one.corrects, one.reads_flip) == (other.scope, other.touches, other.corrects, other.reads_flip)
        assert one.settings["form"] == form


def test_at_rate_0_every_form_is_plain():
    terms, label = some()
    for form in FORMS:
        treat = missed(0.0, form=form)
        used = treat.target(label, terms, treat.init(DataSpec()))
        assert torch.equal(used.p, label.p), form
        assert torch.equal(used.w, label.w), form


def test_a_clip_above_every_propensity_is_said():
    with pytest.warns(UserWarning, match="rescaled naive loss"):
        propensity(0.2, by="all", clip=0.5)
    with pytest.warns(UserWarning, match=r"largest: 0\.3"):
        missed({"a": 0.7, "b": 0.9}, by="group", form="inverse", clip=0.5)
    propensity(0.2, by="all", clip=1.0)  # the naive loss itself, asked for


# ---- oracles of card 05 --------------------------------------------------------------------------------------------------


def test_worked_example_of_nbpos():
    """Oracle 1, NBPOs: the surrogate target under probabilities. Value, and the coefficients of x and of the logit of g."""
    x, g = [X_I, X_J], [G_I, G_J]
    spec = DataSpec(records=("0", "1"))

    def value(x, y):
        rate = {str(k): 1 / (1 + math.exp(-v)) for k, v in enumerate(y)}
        treat = missed(rate, by="record", form="surrogate")
        return -loss_of(bpo_probability(), treat, double(x), [1.0, 0.0], spec).sum().item()

    y = [math.log(v / (1 - v)) for v in g]
    assert abs(value(x, y) - 1.279215728) < 6e-10
    for k, (c, d) in enumerate([(0.177370299, -0.106910044), (-0.146674987, 0.102133796)]):
        up, down = ([*x[:k], x[k] + h, *x[k + 1 :]] for h in (1e-5, -1e-5))
        assert abs((value(up, y) - value(down, y)) / 2e-5 - c) < 1e-9
        up, down = ([*y[:k], y[k] + h, *y[k + 1 :]] for h in (1e-5, -1e-5))
        assert abs((value(x, up) - value(x, down)) / 2e-5 - d) < 1e-9


def test_worked_example_of_the_rates():
    """Oracle 1: d_i and d_j of NBPOo and NBPO, and the log-likelihood."""
    z, g = double([X_I, X_J]), double([G_I, G_J])
    yes, no = slopes(z, g, "exact")
    assert abs(yes[0].item() + 0.2) < 1e-12
    assert abs(no[1].item() - 0.137153923) < 6e-10
    yes, no = slopes(z, g, "surrogate")
    assert abs(yes[0].item() + 0.133637554) < 6e-10
    assert abs(no[1].item() - 0.255334490) < 6e-10
    s = torch.sigmoid(z)
    assert abs((torch.log((1 - g[0]) * s[0]) + torch.log1p(-(1 - g[1]) * s[1])).item() + 0.921149741) < 6e-10


def test_bpr_and_bpo():
    """Oracle 1: the losses and coefficients without a model of what was missed."""
    x = double([X_I, X_J]).requires_grad_()
    loss = by_name("bpr").loss(Side(score=x[:1]), Side(score=x[1:]), {})
    assert abs(loss.item() - 0.313261688) < 6e-10
    assert abs(-torch.autograd.grad(loss.sum(), x)[0][0].item() - 0.268941421) < 6e-10
    loss = loss_of(bpo(), missed(0.0), x, [1.0, 0.0]).sum()
    assert abs(loss.item() - 0.957541293) < 6e-10
    np.testing.assert_allclose(-torch.autograd.grad(loss, x)[0], [0.331812228, -0.425557483], atol=6e-10)


@quick
@given(st.floats(-12, 12))
def test_at_rate_0_coefficients_are_those_of_bpo(x):
    """Oracle 2: exactly 1 - s and -s; NBPOs has s (1 - s) and -s (1 - s)."""
    at = double([x, x]).requires_grad_()
    s = torch.sigmoid(at.detach()[0]).item()
    for form in ("exact", "surrogate"):
        c = -torch.autograd.grad(loss_of(bpo(), missed(0.0, form=form), at, [1.0, 0.0]).sum(), at)[0]
        assert c.tolist() == pytest.approx([1 - s, -s], abs=1e-15)
    c = -torch.autograd.grad(loss_of(bpo_probability(), missed(0.0, form="surrogate"), at, [1.0, 0.0]).sum(), at)[0]
    assert c.tolist() == pytest.approx([s * (1 - s), -s * (1 - s)], abs=1e-15)


@quick
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_fisher_identity(x, y):
    """Oracle 3: c_j = q - s and d_j = q (1 - g), and all four are slopes of the log-likelihood."""
    z = double([x]).requires_grad_()
    logit = double([y]).requires_grad_()
    g, s = torch.sigmoid(logit), torch.sigmoid(z)
    no = torch.log1p(-(1 - g) * s).sum()
    c, d = torch.autograd.grad(no, (z, logit))
    q = (g * s / (1 - s + g * s)).item()
    assert c.item() == pytest.approx(q - s.item(), abs=1e-12)
    assert d.item() == pytest.approx(q * (1 - g.item()), abs=1e-12)
    yes = torch.log((1 - torch.sigmoid(logit)) * torch.sigmoid(z)).sum()
    c_yes, d_yes = torch.autograd.grad(yes, (z, logit))
    found = slopes(z.detach(), torch.sigmoid(logit).detach(), "exact")
    assert [found[0].item(), found[1].item()] == pytest.approx([d_yes.item(), d.item()], abs=1e-12)
    for label, wanted in ((1.0, c_yes), (0.0, c)):
        slope = torch.autograd.grad(loss_of(bpo(), missed(torch.sigmoid(logit).item()), z, [label]).sum(), z)[0]
        assert -slope.item() == pytest.approx(wanted.item(), abs=1e-12)


@quick
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_the_surrogate_is_the_detached_form_of_the_card(x, y):
    """x and the logit of g at once, from the card's two lines with stop-gradients."""
    for label in (1.0, 0.0):
        z, logit = double([x]).requires_grad_(), double([y]).requires_grad_()
        g, s = torch.sigmoid(logit).detach(), torch.sigmoid(z).detach()
        if label:
            loss = (1 - g) * sp(-z) + s * sp(logit)
        else:
            loss = sp(z) + g * sp(-z) + s * sp(-logit)
        c, d = torch.autograd.grad(loss.sum(), (z, logit))
        treat = missed(g.item(), form="surrogate")
        assert torch.autograd.grad(loss_of(bpo(), treat, z, [label]).sum(), z)[0].item() == pytest.approx(c.item(), abs=1e-12)
        found = slopes(z.detach(), g, "surrogate")[0 if label else 1]
        # the card's loss lowers by d ln(g) = 1 - g per unit of the logit: (1 - g) s, and -g s for a yes
        assert found.item() == pytest.approx(-d.item(), abs=1e-12)


@pytest.mark.parametrize(("form", "wanted", "pace"), [("surrogate", 0.4 / 1.4, 2.0), ("exact", 0.0, 50.0)])
def test_where_a_pure_no_settles(form, wanted, pace):
    """Oracle 4: gradient descent on one item that was never taken: g / (1 + g) under the surrogate, 0 under the likelihood (and BPO)."""
    x = double([0.5]).requires_grad_()
    for _ in range(40):
        (slope,) = torch.autograd.grad(loss_of(bpo(), missed(0.4, form=form), x, [0.0]).sum(), x)
        x = (x - pace * slope).detach().requires_grad_()
    assert torch.sigmoid(x).item() == pytest.approx(wanted, abs=1e-6 if wanted else 2e-3)


def test_enumeration_of_all_true_labels():
    """Oracle 5: 2^9 true matrices give the sum of the NBPOo terms over the cells; and (1) has its gradient in x and in logit g."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=9), rng.normal(size=9)
    recorded = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0])

    def marginal(x, y):
        s, g, total = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y)), 0.0
        for true in itertools.product((0, 1), repeat=9):
            t = np.array(true)
            seen = np.where(t == 1, np.where(recorded == 1, 1 - g, g), np.where(recorded == 1, 0, 1))
            total += np.prod(np.where(t == 1, s, 1 - s) * seen)
        return math.log(total)

    s, g = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y))
    terms = np.where(recorded == 1, np.log((1 - g) * s), np.log1p(-(1 - g) * s))
    assert abs(marginal(x, y) - terms.sum()) < 1e-10
    at = double(x).requires_grad_()
    treat = missed({str(k): float(v) for k, v in enumerate(g)}, by="record")
    loss = loss_of(bpo(), treat, at, recorded.astype(float), DataSpec(records=tuple("012345678")))
    (slope,) = torch.autograd.grad(loss.sum(), at)
    yes, no = slopes(double(x), double(g), "exact")
    for k in range(9):
        step = np.eye(9)[k] * 1e-5
        assert abs(-slope[k].item() - (marginal(x + step, y) - marginal(x - step, y)) / 2e-5) < 1e-8
        assert abs((yes if recorded[k] else no)[k].item() - (marginal(x, y + step) - marginal(x, y - step)) / 2e-5) < 1e-8


@quick
@given(st.floats(-5, -0.05), st.floats(0.01, 0.98))
def test_the_surrogate_rises_with_the_rate_and_crosses_zero(x, g):
    """Oracle 6: c_j increases in g_j, with its zero at s / (1 - s)."""
    s = 1 / (1 + math.exp(-x))

    def c(rate):
        at = double([x]).requires_grad_()
        return -torch.autograd.grad(loss_of(bpo(), missed(rate, form="surrogate"), at, [0.0]).sum(), at)[0].item()

    assert c(g) < c(g + 0.01)
    if s / (1 - s) < 1:
        assert abs(c(s / (1 - s))) < 1e-12


@quick
@given(st.floats(-6, 6), st.floats(0.01, 0.98), st.sampled_from(["exact", "surrogate"]))
def test_the_weight_of_a_negative_is_its_push_over_that_of_bpo(x, g, form):
    at = double([x]).requires_grad_()
    (push,) = torch.autograd.grad(loss_of(bpo(), missed(g, form=form), at, [0.0]).sum(), at)
    (plain,) = torch.autograd.grad(loss_of(bpo(), missed(0.0), at, [0.0]).sum(), at)
    found = negative_weight(at.detach(), double([g]), form)
    assert found.item() == pytest.approx((push / plain).item(), rel=1e-9, abs=1e-9)
    if form == "exact":
        assert 0 <= found.item() < 1, "the likelihood never pulls a no up"


# ---- the learned rate per pair -------------------------------------------------------------------------------------------


def test_a_step_by_hand():
    """P_u += learn (sum d Q_i - l2 P_u), Q_i likewise from the old P; rows that are not in the step, and unknown ids, stay."""
    terms, label = some(seed=4)
    spec = DataSpec(annotators=tuple("abcdef"), groups=tuple("vwxyz"))
    for form in ("exact", "surrogate"):
        treat = missed(0.1, by="pair", form=form, learn=0.05, dim=3, l2=0.7, start=0.3, decay=0.9, warmup=0, seed=1)
        state = treat.init(spec)
        p, q = state[USER].clone(), state[ITEM].clone()
        new_p, new_q, z = p.clone(), q.clone(), terms.flip - terms.keep
        rate = 0.05 * 0.9**2
        rows, columns = set(), set()
        for k in range(COUNT):
            u, i = int(terms.annotator[k]), int(terms.group[k])
            if u < 0 or i < 0:
                continue
            g = torch.sigmoid(math.log(0.1 / 0.9) + p[u] @ q[i])
            s = torch.sigmoid(z[k])
            d_yes, d_no = (-g, g * (1 - g) * s / (1 - s + g * s)) if form == "exact" else (-g * s, (1 - g) * s)
            d = label.w[k] * (label.p[k] * d_yes + (1 - label.p[k]) * d_no)
            new_p[u] += rate * d * q[i]
            new_q[i] += rate * d * p[u]
            rows.add(u)
            columns.add(i)
        for u in rows:
            new_p[u] -= rate * 0.7 * p[u]
        for i in columns:
            new_q[i] -= rate * 0.7 * q[i]
        after = treat.update(terms._replace(epoch=2), state)
        torch.testing.assert_close(after[USER], new_p, atol=1e-12, rtol=0)
        torch.testing.assert_close(after[ITEM], new_q, atol=1e-12, rtol=0)
        assert torch.equal(after[USER][4:], p[4:]), "users e and f are in no pair"
        used = treat.target(label, terms, after)
        unknown = (terms.annotator < 0) | (terms.group < 0)
        prior = missed(0.1, form=form).target(label, terms, {})
        torch.testing.assert_close(used.p[unknown], prior.p[unknown])
        assert not torch.allclose(used.p[~unknown], prior.p[~unknown])


@pytest.mark.parametrize("form", ["exact", "surrogate"])
@pytest.mark.parametrize("dim", [0, 3])
@pytest.mark.parametrize("strangers", [False, True])
def test_a_step_in_place_is_the_pure_step(form, dim, strangers):
    """Many steps: the same bytes, in the tensors that were handed in, and no row moves that is not in a step."""
    treat = missed(0.1, by="pair", form=form, learn=0.05, dim=dim, l2=0.7, decay=0.9, warmup=1, seed=1)
    spec = DataSpec(annotators=tuple("abcdef"), groups=tuple("vwxyzq"))
    assert treat.renew is not None
    pure, own = treat.init(spec), treat.init(spec)
    first = {name: x.clone() for name, x in own.items()}
    tables = dict(own)
    for step in range(8):
        terms, _ = some(seed=step)
        if not strangers:
            terms = terms._replace(annotator=terms.annotator.clamp(min=0), group=terms.group.clamp(min=0))
        terms = terms._replace(step=step, epoch=step // 3)
        before = {name: x.clone() for name, x in pure.items()}
        after = treat.update(terms, pure)
        assert all(torch.equal(pure[name], before[name]) for name in before), "update is pure"
        pure, own = after, treat.renew(terms, own)
        assert all(torch.equal(pure[name], own[name]) for name in pure)
    assert all(own[name] is tables[name] for name in tables)
    assert not torch.equal(own[ITEM], first[ITEM])
    assert torch.equal(own[ITEM][5:], first[ITEM][5:]), "item q is in no pair"
    nobody = terms._replace(annotator=torch.full_like(terms.annotator, -1), group=torch.full_like(terms.group, -1))
    last = {name: x.clone() for name, x in own.items()}
    assert all(torch.equal(x, last[name]) for name, x in treat.renew(nobody, own).items())


@pytest.mark.parametrize("start", [None, 0.00193, 0.9])
def test_the_start(start):
    """The mean logit at the first step is that of `start`; without one, rates lie near the prior but not on a saddle."""
    spec = DataSpec(annotators=tuple(map(str, range(200))), groups=tuple(map(str, range(300))))
    rate = pair_rate(0.5, 50, 0.01, 1.0, start, 1.0, 0)
    state = rate.init(spec)
    logits = state[USER] @ state[ITEM].T
    if start is None:
        assert logits.abs().max() < 0.5
        assert logits.abs().min() > 0
        return
    assert abs(logits.mean().item() - math.log(start / (1 - start))) < 0.15
    assert (state[USER] >= 0).all(), "the published start: uniform in (0, 5) / sqrt(50) and its negative"
    if start == 0.00193:
        assert state[USER].max() <= 5 / math.sqrt(50) + 1e-3
        assert state[ITEM].max() <= 0


def long_run(prior, l2, start=0.00193, form="surrogate", steps=200):
    """Rates of 30 x 20 pairs, a fifth of them taken, after a long run with the model held at its labels' rate."""
    rng = np.random.default_rng(5)
    users, items = (torch.tensor(v.ravel()) for v in np.mgrid[:30, :20])
    label = Target(double(rng.random(600) < 0.2), torch.ones(600, dtype=torch.float64))
    x = double(rng.normal(-1.4, 1, 600))
    terms = bare_terms(sp(-x), sp(x))._replace(annotator=users, group=items, given=label)
    treat = missed(prior, by="pair", form=form, learn=0.01, dim=8, l2=l2, start=start, warmup=0)
    state = treat.init(DataSpec(annotators=tuple(map(str, range(30))), groups=tuple(map(str, range(20)))))
    for _ in range(steps):
        state = treat.update(terms, state)
    rate = pair_rate(prior, 8, 0.01, l2, start, 1.0, 0)
    return rate.read(terms, state, x)


def test_a_regulariser_of_the_logit_pulls_every_rate_to_one_half():
    """Oracle 7, the pitfall of the published form: prior one half and a large l2; and its cure, a prior that was chosen."""
    assert long_run(0.5, 0.0).max() - long_run(0.5, 0.0).min() > 0.1, "without the pull, rates differ by pair"
    published = long_run(0.5, 40.0)
    torch.testing.assert_close(published, torch.full_like(published, 0.5), atol=1e-3, rtol=0)
    centred = long_run(0.05, 40.0)
    torch.testing.assert_close(centred, torch.full_like(centred, 0.05), atol=1e-3, rtol=0)


def test_learned_rates_find_items_that_are_missed_more_often():
    """A calibrated model that is known, two kinds of items whose yes is missed at .1 and .6: rates by item, and by pair through Q."""
    rng = np.random.default_rng(6)
    users, items = (torch.tensor(v.ravel()) for v in np.mgrid[:300, :20])
    truth = np.where(np.arange(20) < 10, 0.1, 0.6)
    x = rng.normal(0.5, 1.5, 6000)
    taken = (rng.random(6000) < 1 / (1 + np.exp(-x))) & (rng.random(6000) >= truth[items.numpy()])
    terms = bare_terms(sp(-double(x)), sp(double(x)))._replace(
        annotator=users, group=items, given=Target(double(taken), torch.ones(6000, dtype=torch.float64))
    )  # fmt: skip
    spec = DataSpec(annotators=tuple(map(str, range(300))), groups=tuple(map(str, range(20))))
    for dim, start in ((0, None), (2, None)):
        treat = missed(0.3, by="pair", learn=0.02, dim=dim, l2=0.5, start=start, warmup=0)
        state = treat.init(spec)
        for _ in range(150):
            state = treat.update(terms, state)
        rate = pair_rate(0.3, dim, 0.02, 0.5, start, 1.0, 0).read(terms, state, double(x)).reshape(300, 20).mean(0)
        assert abs(rate[:10].mean() - 0.1) < 0.1, dim  # l2 pulls toward .3
        assert abs(rate[10:].mean() - 0.6) < 0.1, dim
        assert rate[:10].max() < rate[10:].min() - 0.1, dim


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: missed(0.1, by="pair"), "say learn=0.01"),
        (lambda: missed({"a": 0.1}, by="pair", learn=0.1), "one prior number"),
        (lambda: missed(0.1, by="pair", learn=0.1, form="inverse"), "not learned beside the model"),
        (lambda: missed(0.0, by="pair", learn=0.1), "inside"),
        (lambda: missed(0.1, by="pair", learn=0.1, l2=10.0), "below 1"),
        (lambda: missed(0.1, by="pair", learn=0.1, start=1.0), "inside"),
        (lambda: missed(0.1, start=0.2), "goes with by='pair'"),
        (lambda: missed(0.1, clip=0.2), "clip belongs to"),
        (lambda: inspect.unwrap(missed)(0.1, form="other"), "form is one of exact, surrogate, inverse, nonnegative"),
        (lambda: missed({"a": 1.0, "b": 0.2}, by="group"), r"rate of 'a' \(1 of 2 values\)"),
        (lambda: missed(0.1, decay=0.0), "decay"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
