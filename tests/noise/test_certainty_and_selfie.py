"""UPO's certainty (card 01-upo) and Selfie's smoothing of the least confident labels (card 08-selfie-spa)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.certainty import bald, certainty, certainty_weights, sampling_share
from cupel.noise.selfie import selfie
from cupel.noise.types import DataSpec, Target, bare_terms

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus
PASSES = [[0.9, 0.6, 0.99], [0.8, 0.5, 0.98], [0.95, 0.3, 0.995], [0.85, 0.9, 0.99]]
B = [0.01509273, 0.10632808, 0.00128927]


def test_worked_uncertainty():
    b = bald(double(PASSES))
    torch.testing.assert_close(b, double(B), atol=6e-9, rtol=0)
    torch.testing.assert_close(sampling_share(b), double([0.3423038, 0.31059502, 0.34710118]), atol=6e-9, rtol=0)
    torch.testing.assert_close(sampling_share(b, 5.0), double([0.37214541, 0.22888984, 0.39896475]), atol=6e-9, rtol=0)


@quick
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_uncertainty_is_between_0_and_ln_2(passes):
    p = double(passes).round(decimals=6)
    if bool((p == p[0]).all()):
        return
    b = bald(p)
    mean = p.mean(0)
    entropy = -torch.xlogy(mean, mean) - torch.xlogy(1 - mean, 1 - mean)
    assert (b >= -1e-12).all()
    assert (b <= entropy + 1e-12).all()
    torch.testing.assert_close(bald(p.flip(0)), b)
    torch.testing.assert_close(bald(1 - p), b, atol=1e-9, rtol=0)


def test_extreme_passes():
    assert abs(bald(double([[1.0], [0.0]])).item() - math.log(2)) < 1e-12
    assert bald(double([[0.3, 0.2], [0.3, 0.4]]))[0] == 0
    with pytest.raises(ValueError, match="two passes"):
        bald(double([[0.3]]))
    with pytest.raises(ValueError, match="dropout off"):
        bald(double([[0.3], [0.3]]))


@pytest.mark.parametrize(
    ("alpha", "doubt", "golden_alpha", "golden_loss", "golden_slope"),
    [
        ("bald", B, [0.0108871, 0.0766995, 0.00093001], [0.60031629, 0.78279897, 0.40383706], [-0.4392789, -0.4731345, -0.33088221]),
        (
            "paper", [0.3423038, 0.31059502, 0.34710118], [0.74498783, 0.76301221, 0.74233474], [0.74713644, 0.64553643, 0.92282036],
            [0.29482183, 0.21317821, 0.41052251],
        ),
        ("estimator", [0.125, 0.425, 0.01125], [0.125, 0.425, 0.01125], None, None),
    ],
)  # fmt: skip
def test_worked_smoothing(alpha, doubt, golden_alpha, golden_loss, golden_slope, terms, target):
    names = ("x", "y", "z")
    given_doubt = dict(zip(names, doubt, strict=True))
    if alpha == "paper":
        with pytest.warns(UserWarning, match="pushed down"):
            treat = certainty(given_doubt, alpha=alpha)
    else:
        treat = certainty(given_doubt, alpha=alpha)
    m = double([0.2, -0.2, 0.7]).requires_grad_()
    keep, flip = sp(-m), sp(m)
    used = treat.target(target([1.0] * 3), terms(keep.detach(), flip.detach()), treat.init(DataSpec(records=names)))
    torch.testing.assert_close(1 - used.p, double(golden_alpha), atol=6e-8, rtol=0)
    if golden_loss is not None:
        loss = used.p * keep + (1 - used.p) * flip
        torch.testing.assert_close(loss.detach(), double(golden_loss), atol=6e-8, rtol=0)
        (slope,) = torch.autograd.grad(loss.sum(), m)
        torch.testing.assert_close(slope, double(golden_slope), atol=6e-8, rtol=0)


def test_doubt_of_one_half_says_nothing(terms, target):
    used = certainty(0.9, by="all", alpha="estimator").target(target([1.0, 0.0]), terms([0, 0], [0, 0]), {})
    assert used.p.tolist() == [0.5, 0.5]


def test_weights_are_the_sampling_in_expectation(terms, target):
    treat = certainty_weights(dict(zip("xyz", B, strict=True)), power=5.0)
    state = treat.init(DataSpec(records=("x", "y", "z")))
    used = treat.target(target([1.0] * 3), terms([0, 0, 0]), state)
    torch.testing.assert_close(used.w / 3, double([0.37214541, 0.22888984, 0.39896475]), atol=6e-9, rtol=0)
    part = treat.target(target([1.0]), terms([0.0], record=torch.tensor([2])), state)
    torch.testing.assert_close(part.w[0], used.w[2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: certainty(0.8, by="all"), lambda: certainty(-0.1, by="all"), lambda: certainty_weights(0.2, power=-1.0),
        lambda: selfie(alpha=0.6), lambda: selfie(share=1.0), lambda: selfie(share=0.1, buffer=5), lambda: selfie(warmup=1.5),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_selfie_on_the_fixture(pairs, margin_terms, target):
    """alpha = .1 on pairs 2 and 3, the two margins below the median."""
    m = 0.1 * pairs["h"]
    treat = selfie(0.1, 0.5, warmup=0, buffer=4)
    seen = margin_terms(m)
    state = treat.update(seen, treat.init(DataSpec()))
    used = treat.target(target([1.0] * 4), seen, state)
    loss = used.p * seen.keep + (1 - used.p) * seen.flip
    torch.testing.assert_close(loss, double([0.59813887, 0.77813887, 0.7032253, 0.40318605]), atol=6e-9, rtol=0)


def test_share_below_the_threshold_is_exact(margin_terms, target):
    gen = torch.Generator().manual_seed(0)
    treat = selfie(0.5, 0.1, warmup=0, buffer=2000)
    state = treat.init(DataSpec())
    margins = torch.randn(3000, generator=gen, dtype=torch.float64)
    for part in margins.split(150):
        state = treat.update(margin_terms(part), state)
    assert int(state["seen"]) == 3000
    kept = margins[-2000:]
    torch.testing.assert_close(state["margins"].sort().values, kept.sort().values, atol=1e-12, rtol=0)
    used = treat.target(target([1.0] * 2000), margin_terms(kept), state)
    assert (used.p < 1).sum() == 200
    assert set(used.p.tolist()) == {0.5, 1.0}


def test_no_smoothing_before_there_is_a_quantile(margin_terms, target):
    treat = selfie(0.1, 0.1, warmup=0)
    state = treat.update(margin_terms([1.0] * 9), treat.init(DataSpec()))
    assert treat.target(target([1.0]), margin_terms([-9.0]), state).p.tolist() == [1]
    state = treat.update(margin_terms([1.0]), state)
    assert treat.target(target([1.0]), margin_terms([-9.0]), state).p.tolist() == [0.9]
    late = selfie(0.1, 0.1, warmup=0.2)
    assert late.target(target([1.0]), margin_terms([-9.0], step=1, total=10), state).p.tolist() == [1]
    assert late.target(target([1.0]), margin_terms([-9.0], step=2, total=10), state).p.tolist() == [0.9]


def test_a_step_longer_than_the_memory(margin_terms):
    treat = selfie(0.1, 0.25, warmup=0, buffer=4)
    state = treat.update(margin_terms([1.0, 2, 3]), treat.init(DataSpec()))
    state = treat.update(margin_terms([4.0, 5, 6, 7, 8, 9]), state)
    assert sorted(round(x) for x in state["margins"].tolist()) == [6, 7, 8, 9]


def test_confidence_of_an_extrapolated_policy(margin_terms, target):
    """With one token the extrapolated margin is (1 + lambda) m: the same pairs are smoothed (card 08, oracle 3)."""
    gen = torch.Generator().manual_seed(1)
    m = torch.randn(40, generator=gen, dtype=torch.float64)
    found = []
    for evidence, scale in (("own", 1.0), ("peer", 1.5)):
        treat = selfie(0.1, 0.2, evidence=evidence, warmup=0, buffer=40)
        seen = margin_terms(m, peer_keep=sp(-scale * m), peer_flip=sp(scale * m))
        state = treat.update(seen, treat.init(DataSpec()))
        found.append(treat.target(target([1.0] * 40), seen, state).p)
    assert torch.equal(found[0], found[1])
    assert (found[0] < 1).sum() == 8


@quick
@given(st.floats(0, 0.5), st.floats(-5, 5))
def test_gradient_is_that_of_the_smoothed_loss(alpha, m):
    treat = selfie(alpha, 0.5, warmup=0, buffer=2)
    at = double([m, m + 1]).requires_grad_()
    seen = bare_terms(sp(-at.detach()), sp(at.detach()))
    state = treat.update(seen, treat.init(DataSpec()))
    used = treat.target(Target(torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), seen, state)
    (slope,) = torch.autograd.grad((used.p * sp(-at) + (1 - used.p) * sp(at)).sum(), at)
    torch.testing.assert_close(slope, -torch.sigmoid(-at.detach()) + alpha * double([1.0, 0.0]), atol=1e-12, rtol=0)
