"""Two-step judgement: the card's numbers, the bound on random instances, EM that never falls, aggregation, gaps, underspecified pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import InputError
from cupel.records import read
from cupel.votes.contexts import (
    borda,
    context_gap,
    decompose_error,
    expected_reward,
    hard_majority,
    latent_contexts,
    marginal_preference,
    mixture,
    posterior,
    weighted_rewards,
    weights,
)
from cupel.votes.underspecified import underspecified

W = np.array([0.5, 0.3, 0.2])
R = np.array([[1, 0.2, 0], [0, 0.9, 1], [0.3, 0.4, 0.2]])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_error_and_its_two_terms():  # oracle 1
    found = decompose_error([0.7, 0.3], [0.5, 0.5], [0.9, 0.2], [0.8, 0.3])
    assert mixture([0.7, 0.3], [0.9, 0.2]) == pytest.approx(0.69, abs=1e-12)
    assert mixture([0.5, 0.5], [0.8, 0.3]) == pytest.approx(0.55, abs=1e-12)
    assert [float(x) for x in (found.error, found.inference, found.judgement, found.bound)] == pytest.approx([0.14, 0.2, 0.1, 0.3])


def test_the_bound_holds_on_20000_random_instances():  # oracles 1 and 2
    rng = np.random.default_rng(0)
    for z in (2, 3, 4, 5):
        p, phat = rng.dirichlet(np.full(z, 0.7), 5000), rng.dirichlet(np.full(z, 0.7), 5000)
        q, qhat = rng.random((5000, z)), rng.random((5000, z))
        found = decompose_error(p, phat, q, qhat)
        assert (found.error - found.bound).max() <= 1e-15
        assert np.abs(decompose_error(p, p, q, qhat).inference).max() == 0
        assert np.abs(decompose_error(p, phat, q, q).judgement).max() == 0
        assert np.abs(decompose_error(p, p, q, q).error).max() == 0


def test_the_bound_is_attained():
    """No smaller constant would do: one context is believed instead of the other, and they disagree entirely."""
    found = decompose_error([1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0])
    assert float(found.error) == float(found.bound) == 1.0


def test_aggregation_of_the_card():  # oracle 4
    p = marginal_preference(W, R)
    assert [p[0, 1], p[0, 2], p[1, 2]] == pytest.approx([0.52670655, 0.55120755, 0.52739004], abs=5e-9)
    assert borda(W, R) == pytest.approx([1.07791411, 1.00068349, 0.92140240], abs=5e-9)
    assert expected_reward(W, R) == pytest.approx([0.56, 0.45, 0.34], abs=1e-12)


def test_aggregations_are_sums_over_contexts():
    """Slow twins, by loops."""
    rng = np.random.default_rng(3)
    w, r = rng.dirichlet(np.ones(4)), rng.normal(size=(4, 5))
    p, share = np.zeros((5, 5)), np.zeros((5, 5))
    for z, i, j in itertools.product(range(4), range(5), range(5)):
        p[i, j] += w[z] * sigmoid(r[z, i] - r[z, j])
        share[i, j] += w[z] * (0.5 if r[z, i] == r[z, j] else float(r[z, i] > r[z, j]))
    assert marginal_preference(w, r) == pytest.approx(p, abs=1e-12)
    assert hard_majority(w, r) == pytest.approx(share, abs=1e-12)
    assert borda(w, r) == pytest.approx([sum(p[i, j] for j in range(5) if j != i) for i in range(5)], abs=1e-12)


def test_posterior_of_the_card():  # oracle 5
    chosen = np.stack([R[:, 0] - R[:, 1], R[:, 2] - R[:, 1]])
    assert posterior(W, chosen) == pytest.approx([0.63754559, 0.18688420, 0.17557022], abs=5e-9)
    assert posterior(W, np.zeros((0, 3))) == pytest.approx(W)
    both = posterior(W, np.concatenate([chosen, chosen[:1]]), np.array([1, 1, 0]), units=3)
    assert both[1] == pytest.approx(posterior(W, chosen))
    assert both[0] == pytest.approx(posterior(W, chosen[:1]))
    assert both[2] == pytest.approx(W)


def test_constants_of_a_context_change_expected_reward_alone():  # oracle 6
    moved = R + np.array([[0.0], [5.0], [-3.0]])
    assert marginal_preference(W, moved) == pytest.approx(marginal_preference(W, R), abs=1e-12)
    assert borda(W, moved) == pytest.approx(borda(W, R), abs=1e-12)
    one, two = (np.stack([r[:, 0] - r[:, 1], r[:, 2] - r[:, 1]]) for r in (R, moved))
    assert posterior(W, one) == pytest.approx(posterior(W, two), abs=1e-12)
    assert expected_reward(W, moved) == pytest.approx(expected_reward(W, R) + 0.9)


def test_a_context_of_ten_times_the_scale_turns_expected_reward_but_no_majority():  # oracle 7
    loud = R * np.array([[1.0], [10.0], [1.0]])
    assert np.argsort(-expected_reward(W, R)).tolist() == [0, 1, 2]
    assert np.argsort(-expected_reward(W, loud)).tolist() == [2, 1, 0]
    assert hard_majority(W, loud) == pytest.approx(hard_majority(W, R), abs=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**31))
def test_em_never_lowers_the_likelihood(z, n, seed):  # oracle 9
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, max(n // 3, 1), n)
    unit[: unit.max() + 1] = np.arange(unit.max() + 1)
    m = rng.normal(size=(n, z)) * 2
    found = latent_contexts(m, unit=unit, group=rng.integers(0, 2, unit.max() + 1), prior=rng.dirichlet(np.ones(z)))
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(found.likelihood))
    assert found.responsibility.sum(axis=1) == pytest.approx(1)
    alone = latent_contexts(m, unit=unit)
    each = [np.log(alone.prior[0] @ np.prod(sigmoid(m[unit == u]), axis=0)) for u in range(unit.max() + 1)]
    assert alone.likelihood[-1] == pytest.approx(sum(each), abs=1e-8)


def test_em_with_refitted_rewards_finds_two_opposed_groups_of_people():
    rng = np.random.default_rng(1)
    truth, people, each = np.array([[2.0, 0.0, 1.0], [-2.0, 0.5, -1.0]]), 60, 12
    kind = rng.random(people) < 0.35
    unit = np.repeat(np.arange(people), each)
    x = rng.normal(size=(people * each, 3))
    right = rng.random(len(x)) < sigmoid((x * truth[kind[unit].astype(int)]).sum(axis=1))
    x = np.where(right[:, None], x, -x)
    seen: list[np.ndarray] = []

    def refit(rho):
        seen.append(weighted_rewards(x, rho, l2=0.0))
        return x @ seen[-1].T

    found = latent_contexts(x @ rng.normal(size=(2, 3)).T * 0.1, unit=unit, refit=refit)
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(found.likelihood))
    order = np.argsort(-seen[-1][:, 0])
    guess = found.responsibility[:, order[1]] > 0.5
    assert np.mean(guess == kind) > 0.95
    assert np.abs(seen[-1][order] - truth).max() < 0.6
    assert found.prior[0, order[1]] == pytest.approx(kind.mean(), abs=0.05)


def test_em_with_a_penalised_refit_never_lowers_the_penalised_likelihood():
    rng = np.random.default_rng(8)
    x, unit = rng.normal(size=(120, 3)), np.repeat(np.arange(30), 4)

    def refit(rho):
        theta = weighted_rewards(x, rho, l2=5.0)
        return x @ theta.T, 5.0 / 2 * float((theta**2).sum())

    found = latent_contexts(x @ rng.normal(size=(3, 2)), unit=unit, refit=refit)
    assert len(found.likelihood) > 5
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(found.likelihood))
    calls = itertools.count()
    with pytest.raises(InputError, match="in step 1"):  # the same margins at a growing penalty
        latent_contexts(x[:, :2], refit=lambda rho: (x[:, :2], 10.0 * next(calls)))


def test_one_context_is_plain_bradley_terry():  # oracle 8
    rng = np.random.default_rng(0)
    m = rng.normal(size=(40, 1))
    found = latent_contexts(m)
    assert found.likelihood[-1] == pytest.approx(np.log(sigmoid(m)).sum(), abs=1e-12)
    assert found.responsibility == pytest.approx(1)

    x = rng.normal(size=(200, 3))
    x = np.where((rng.random(200) < sigmoid(x @ [1.0, -2.0, 0.5]))[:, None], x, -x)
    theta = weighted_rewards(x, np.ones((200, 1)), l2=0.3)[0]
    assert np.abs(x.T @ sigmoid(-(x @ theta)) - 0.3 * theta).max() < 1e-8  # the slope of plain, penalised Bradley-Terry
    assert theta == pytest.approx([1.0, -2.0, 0.5], abs=0.6)


def test_a_context_blind_model_is_right_on_one_half_of_balanced_reversals():  # oracle 3
    rng = np.random.default_rng(5)
    blind = rng.normal(size=50)
    blind[:5] = 0
    row = np.repeat(np.arange(50), 2)
    margins = np.repeat(blind, 2) * np.tile([1, -1], 50)
    found = context_gap(margins, none=margins, wrong=-margins, shuffled=margins, row=row)
    assert found.right.estimate == 0.5
    assert found.wrong is not None
    assert found.wrong.estimate == 0.5
    assert found.reversal is not None
    assert found.reversal.estimate == 0.0
    assert found.uses_context == 0.0


def test_gap_of_a_model_that_uses_its_context():
    right = np.array([1.0, 2.0, 1.0, -1.0])
    found = context_gap(right, wrong=-right, row=np.array([4, 4, 9, 9]), group=np.array(list("xxyy")))
    assert (found.right.estimate, found.reversal and found.reversal.estimate) == (0.75, 0.5)
    assert found.uses_context == 0.5
    assert found.right.groups == 2
    assert context_gap(right).uses_context is None


def test_bad_input():
    with pytest.warns(UserWarning, match="sum to 2, not 1"):
        assert weights([1.0, 1.0]).tolist() == [0.5, 0.5]
    for call, match in (
        (lambda: weights([-0.5, 1.5]), "1 of 2 weights of contexts are negative"),
        (lambda: weights([0.0, 0.0]), "all 0"),
        (lambda: weights([float("nan"), 1.0]), r"not finite \(first: \(0,\)"),
        (lambda: mixture([0.5, 0.5], [1.2, 0.0]), "probabilities"),
        (lambda: decompose_error([1.0], [0.5, 0.5], [0.1], [0.2]), "different numbers of contexts"),
        (lambda: posterior([0.5, 0.5], [[1.0, 2.0, 3.0]]), "2 contexts"),
        (lambda: posterior([0.5, 0.5], [[1.0, 2.0]], np.array([5]), units=2), "outside 0 to 1"),
        (lambda: latent_contexts(np.zeros((0, 2))), "at least one of each"),
        (lambda: latent_contexts(np.zeros((3, 2)), unit=np.zeros(2, int)), "3 labels, but 2"),
        (lambda: latent_contexts(np.ones((3, 2)), refit=lambda rho: -9 * np.ones((3, 2))), "lowered the likelihood"),
        (lambda: borda([0.5, 0.5], R), "one weight per context"),
        (lambda: context_gap([1.0, 2.0, 3.0], row=np.array([0, 0, 1])), r"1 of 2 reversal rows .* \(first: row 1\)"),
        (lambda: context_gap([1.0], wrong=[1.0, 2.0]), "same 1 comparisons"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def votes_of(rows):
    return read([{"prompt": p, "response_a": f"{p} yes", "response_b": f"{p} no", "vote": v, "annotator": a, "context": c}
                 for p, v, a, c in rows], heldout=0)  # fmt: skip


def slow_rates(rows, key):
    """(between differ, between, within differ, within) by a loop over vote pairs; key: position of what is contrasted."""
    out = [0, 0, 0, 0]
    for one, two in itertools.combinations(rows, 2):
        if one[0] == two[0] and "tie" not in (one[1], two[1]) and one[key] and two[key]:
            k = 2 * (one[key] == two[key])
            out[k] += one[1] != two[1]
            out[k + 1] += 1
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_underspecified_counts_what_a_loop_counts(seed):
    rng = np.random.default_rng(seed)

    def one_of(*values):
        return values[rng.integers(len(values))]

    rows = [(f"p{one_of(0, 1, 2, 3)}", one_of("a", "b", "tie"), one_of("k", "l", None), one_of("x", "y", None)) for _ in range(25)]
    found = underspecified(votes_of(rows), draws=20)
    for contrast, key in ((found.annotator, 2), (found.context, 3)):
        differ, couples, differ_in, couples_in = slow_rates(rows, key)
        assert (contrast.between and contrast.between.estimate) == (pytest.approx(differ / couples) if couples else None)
        assert (contrast.within and contrast.within.estimate) == (pytest.approx(differ_in / couples_in) if couples_in else None)


def test_context_explains_what_noise_does_not():
    rng = np.random.default_rng(2)
    rows = []
    for p in range(60):
        for context in ("formal", "casual"):
            for who in "kl":
                vote = "a" if (context == "formal") != (rng.random() < 0.05) else "b"
                rows.append((f"p{p}", vote, who, context))
    found = underspecified(votes_of(rows))
    assert found.context.between is not None
    assert found.context.between.estimate > 0.85
    assert found.context.within is not None
    assert found.context.within.estimate < 0.2
    assert found.context.excess is not None
    assert found.context.excess.low > 0.5
    assert "noise alone does not explain it" in found.context.words
    assert found.annotator.excess is not None
    assert found.annotator.excess.low < 0.1
    assert found.prompts == 60
    assert len(found.context.flipped) == found.context.flipping


def test_underspecified_says_when_it_cannot_tell():
    votes = votes_of([("p", "a", None, None), ("p", "b", None, None)])
    found = underspecified(votes)
    assert found.context.pairs == 0
    assert "cannot be told" in found.context.words
    once = underspecified(votes_of([("p", "a", "k", "x"), ("p", "b", "l", "y"), ("q", "a", "k", "x"), ("q", "a", "l", "y")]))
    assert once.context.excess is None
    assert (once.context.pairs, once.context.flipping, once.open_prompts) == (2, 1, 1)
    assert "decided a pair twice" in once.context.words
    with pytest.raises(InputError, match="no column 'situation'"):
        underspecified(votes, column="situation")


def test_reversal_rows_keep_context_and_group():
    rows = [
        {"prompt": f"q{k}", "response_a": f"{k} short", "response_b": f"{k} long", "context_1": "be brief", "context_2": "be complete"}
        for k in range(3)
    ]
    rows.append({**rows[0], "prompt": "q9", "label_1": "b", "label_2": "b"})
    votes = read(rows, heldout=0, max_bad=1)
    assert votes.source_format == "reversals"
    assert votes.sign.tolist() == [1, -1] * 3
    assert votes.source is not None
    assert votes.source["context"].to_pylist() == ["be brief", "be complete"] * 3
    assert len(set(votes.group.tolist())) == 3  # the two records of a row are never split
    assert [(q.line, q.reason) for q in votes.quarantine] == [(4, "same_label")]
    found = underspecified(votes)
    assert (found.context.flipping, found.context.pairs) == (3, 3)
