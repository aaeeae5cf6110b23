"""Small-loss selection and peer review (card 09-crm)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.noise.peer import curriculum_order, peer_review
from cupel.noise.selection import keep_best, kept_share, small_loss
from cupel.noise.types import DataSpec, Target, bare_terms

quick = settings(max_examples=40, deadline=None)
double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
sp = torch.nn.functional.softplus
M1, M2 = (2.0, -1.0, 0.5, 0.1, -3.0, 1.2), (1.0, 0.3, -0.7, 0.2, -2.0, 2.5)


def peer(own, other, margin_terms, **changes):
    return margin_terms(own, peer_keep=sp(-double(other)), peer_flip=sp(double(other)), **changes)


def test_worked_exchange(margin_terms, target):
    treat = peer_review(1 / 3, ramp=0)
    for own, other, rows, mean in ((M1, M2, [0, 1, 3, 5], 0.58696723), (M2, M1, [0, 2, 3, 5], 0.52336907)):
        seen = peer(own, other, margin_terms)
        used = treat.target(target([1.0] * 6), seen, {})
        assert torch.nonzero(used.w).flatten().tolist() == rows
        assert abs((used.w * seen.keep).mean().item() - mean) < 3e-8, "the mean over what is kept"
    losses = sp(-double(M1))[[0, 1, 3, 5]]
    torch.testing.assert_close(losses, double([0.126928, 1.313262, 0.644397, 0.263282]), atol=6e-7, rtol=0)


def test_schedules():
    shares = [kept_share(0.4, 5, bare_terms(torch.zeros(1), epoch=t)) for t in range(8)]
    np.testing.assert_allclose(shares, [1, 0.92, 0.84, 0.76, 0.68, 0.6, 0.6, 0.6])
    steps = [kept_share(0.4, 0.5, bare_terms(torch.zeros(1), step=t, total=100)) for t in (0, 25, 50, 99)]
    np.testing.assert_allclose(steps, [1, 0.8, 0.6, 0.6])


@quick
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 1))
def test_selection_ignores_monotone_transforms_and_order(scores, share):
    n = len(scores)
    target = Target(torch.ones(n, dtype=torch.float64), torch.linspace(0.5, 2, n, dtype=torch.float64))
    terms = bare_terms(torch.zeros(n, dtype=torch.float64))
    score = double(scores).round(decimals=3)
    w = keep_best(target, score, terms, share).w
    torch.testing.assert_close(w.sum(), target.w.sum())
    assert torch.equal(keep_best(target, score**3 * 7 + score, terms, share).w, w)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    shuffled = terms._replace(record=order)
    again = keep_best(Target(target.p[order], target.w[order]), score[order], shuffled, share).w
    torch.testing.assert_close(again, w[order])


def test_constant_margins_are_told_apart_by_record(terms, target):
    used = small_loss(0.5, ramp=0).target(target([1.0] * 4), terms([1.0] * 4, record=torch.tensor([3, 1, 0, 2])), {})
    assert used.w.tolist() == [0, 2, 2, 0]


def test_weightless_comparisons_take_no_place(terms, target):
    used = small_loss(0.5, ramp=0).target(target([1.0] * 4, [0.0, 1.0, 1.0, 0.0]), terms([0.0, 2.0, 1.0, 0.0]), {})
    assert used.w.tolist() == [0, 0, 2, 0]


def test_oracle_peer_keeps_no_flip(margin_terms, target):
    rng = np.random.default_rng(0)
    wrong = np.zeros(100, dtype=bool)
    wrong[rng.choice(100, 20, replace=False)] = True
    seen = peer(rng.normal(size=100), np.where(wrong, -1.0, 1.0), margin_terms, record=torch.tensor(rng.permutation(100)))
    used = peer_review(0.2, ramp=0).target(target([1.0] * 100), seen, {})
    assert torch.equal(used.w > 0, torch.tensor(~wrong))


def test_soft_and_reversed_labels_follow_what_they_say(margin_terms, target):
    """A label for the second side is believed where the peer's margin is negative."""
    seen = peer((0.0,) * 4, (2.0, -2.0, 2.0, -2.0), margin_terms)
    used = peer_review(0.49, ramp=0).target(target([1.0, 0.0, 0.0, 1.0]), seen, {})
    assert (used.w > 0).tolist() == [True, True, False, False]


def test_loss_rank_needs_no_swap(terms, target):
    treat = peer_review(0.25, ramp=0, rank="loss")
    assert not treat.reads_flip
    seen = terms([0.0] * 4, peer_keep=double([1.0, 9.0, 2.0, 0.0]), peer_flip=double([float("nan")] * 4))
    assert (treat.target(target([1.0] * 4), seen, {}).w > 0).tolist() == [True, False, True, True]


def test_a_peer_is_demanded(margin_terms, target):
    with pytest.raises(ValueError, match="peer"):
        peer_review(0.2, ramp=0).target(target([1.0]), margin_terms([0.0]), {})


def test_selection_by_epoch_and_the_curriculum(margin_terms, target):
    treat = peer_review(0.4, ramp=2, level="epoch")
    assert treat.scope == "comparison"
    spec = DataSpec(records=tuple("abcdef"))
    state = treat.init(spec)
    seen = peer(M1, M2, margin_terms)
    assert treat.target(target([1.0] * 6), seen, state).w.tolist() == [1] * 6
    for rows in ([0, 1, 2], [3, 4, 5]):
        at = torch.tensor(rows)
        state = treat.update(peer([M1[i] for i in rows], [M2[i] for i in rows], margin_terms, record=at), state)
    mean = (double(M1) + double(M2)) / 2
    assert curriculum_order(state).tolist() == torch.argsort(mean, descending=True).tolist()
    state = treat.update(seen._replace(epoch=1), state)  # rho = 1 - .4 / 2: floor(4.8 + .5) = 5 of 6 kept, all but record 4
    assert treat.target(target([1.0] * 6), seen, state).w.tolist() == [1.2, 1.2, 1.2, 1.2, 0, 1.2]
    state = treat.update(seen._replace(epoch=2), state)  # rho = .6: floor(3.6 + .5) = 4 of 6
    assert (treat.target(target([1.0] * 6), seen, state).w > 0).tolist() == [True, True, False, True, False, True]
    assert state["times_seen@record"].tolist() == [3] * 6
    assert state["times_kept@record"].tolist() == [3, 3, 2, 3, 1, 3]
    half = treat.target(target([1.0] * 2), peer(M1[2:4], M2[2:4], margin_terms, record=torch.tensor([2, 3])), state)
    assert half.w.tolist() == [0, 1.5], "a part of a step finds its own records"
    with pytest.raises(ValueError, match="level='epoch'"):
        curriculum_order({})


@pytest.mark.parametrize(
    "make", [lambda: small_loss(1.0), lambda: peer_review(0.5), lambda: small_loss(0.1, ramp=1.5), lambda: peer_review(-0.1)]
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()
