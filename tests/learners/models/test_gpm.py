"""General preferences: the orientation of the form, Bradley-Terry as a special case, what it can hold, and cycles learned from labels."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.gpm import GeneralPreference
from cupel.learners.models.names import build, settings_of
from cupel.learners.models.types import Given, Shape
from cupel.noise.names import parse
from cupel.objectives.names import available, by_name
from cupel.objectives.preference import general_preference, general_score, gpo
from cupel.objectives.types import Side

NOTHING = Given()


def free(vectors, *, tau=1.0, **settings):
    """A model whose vectors are given: responses are rows of the identity."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    model = GeneralPreference(Shape(width=len(vectors)), dim=vectors.shape[1], bias=False, normalize=False, tau=tau, **settings).double()
    model.vectors.data.copy_(vectors.T)
    return model, torch.eye(len(vectors), dtype=torch.float64)


def rotation(dim):
    """The card's R: blocks [[0, -1], [1, 0]]."""
    made = torch.zeros(dim, dim, dtype=torch.float64)
    for plane in range(dim // 2):
        made[2 * plane, 2 * plane + 1], made[2 * plane + 1, 2 * plane] = -1, 1
    return made


# ---- the form ----------------------------------------------------------------------------------------------------------------------------


def test_orientation():  # oracle 1
    v = torch.tensor([[0.6, 0.8, -0.3, 0.4], [1.0, 0.0, 0.5, -0.5]], dtype=torch.float64)
    model, x = free(v)
    s = model.score_matrix(model.represent(x))
    assert s[0, 1].item() == pytest.approx(-0.85)
    assert (general_score(v[:1, :2], v[1:, :2]).item(), general_score(v[:1, 2:], v[1:, 2:]).item()) == pytest.approx((-0.80, -0.05))
    assert ((rotation(4) @ v[0]) @ v[1]).item() == pytest.approx(-0.85)
    assert (v[0] @ rotation(4) @ v[1]).item() == pytest.approx(0.85)  # what half of the paper prints
    assert model.margin(model.represent(x[:1]), model.represent(x[1:]), NOTHING).item() == pytest.approx(-0.85)


def test_antisymmetry_and_rotations():  # oracle 2
    rng = torch.Generator().manual_seed(0)
    v = torch.randn(7, 6, generator=rng, dtype=torch.float64)
    model, x = free(v)
    s = model.score_matrix(model.represent(x))
    assert (s + s.T).abs().max().item() <= 1e-12
    assert s.diagonal().abs().max().item() <= 1e-12
    turned = v @ rotation(6).T
    torch.testing.assert_close(turned.norm(dim=1), v.norm(dim=1), rtol=0, atol=1e-12)
    angle = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    block = torch.zeros(6, 6, dtype=torch.float64)
    for plane, a in enumerate(angle):
        block[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]])
    common, _ = free(v @ block.T)
    torch.testing.assert_close(common.score_matrix(common.represent(x)), s, rtol=0, atol=1e-12)
    z = torch.complex(v[:, 0::2], v[:, 1::2])  # the complex form: Im <z_i, z_j>
    torch.testing.assert_close((z[:, None].conj() * z[None]).sum(-1).imag, s, rtol=0, atol=1e-12)


def test_vectors_r_1_are_bradley_terry_in_loss_and_gradient():  # oracle 3
    r = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)
    r1, r2 = r.clone().requires_grad_(), r.clone().requires_grad_()
    first, second = torch.tensor([0, 1, 3]), torch.tensor([1, 2, 0])
    z = torch.stack([r1, torch.ones(4, dtype=torch.float64)], dim=1)
    model, _ = free(z.detach())
    sides = model.sides(z[first], z[second], NOTHING)
    plain = (Side(score=r2[first]), Side(score=r2[second]))
    by_form = general_preference(tau=1.0).loss(*sides, {})
    by_half_scores = by_name("bradley_terry").loss(*sides, {})
    expected = by_name("bradley_terry").loss(*plain, {})
    torch.testing.assert_close(by_form, expected)
    torch.testing.assert_close(by_half_scores, expected)
    by_form.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(r1.grad, r2.grad)
    c = 2.5  # v = (r, c): c (r_i - r_j)
    scaled, x = free(torch.stack([r, torch.full_like(r, c)], dim=1))
    torch.testing.assert_close(scaled.score_matrix(scaled.represent(x)), c * (r[:, None] - r))


def test_every_skew_matrix_has_vectors():  # oracle 4
    rng = torch.Generator().manual_seed(1)
    p = torch.randn(5, 5, generator=rng, dtype=torch.float64)
    p = p - p.T
    v = torch.zeros(5, 10, dtype=torch.float64)
    v[:, 0::2], v[:, 1::2] = torch.eye(5, dtype=torch.float64), p / 2
    model, x = free(v)
    torch.testing.assert_close(model.score_matrix(model.represent(x)), -p, rtol=0, atol=1e-14)
    v[:, 1::2] *= -1
    model, x = free(v)
    torch.testing.assert_close(model.score_matrix(model.represent(x)), p, rtol=0, atol=1e-14)


# ---- losses of GPO and SPPO --------------------------------------------------------------------------------------------------------------


def test_losses_of_targets():  # oracle 10, its second half
    from cupel.votes.games import targets

    found = targets([[0, 1.2, -0.4], [-1.2, 0, 0.7], [0.4, -0.7, 0]])
    ratio, length = torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64), torch.tensor([10, 20, 5])

    def terms(rating, **settings):
        side = Side(logp=ratio, reference_logp=torch.zeros_like(ratio), n_tokens=length, rating=torch.from_numpy(rating))
        return (gpo(beta=0.5, **settings).loss(side, side, {}) / 2).numpy()

    np.testing.assert_allclose(terms(found.rating("gpo")), [0.187778, 0.001111, 0.16], atol=5e-7)
    assert terms(found.rating("gpo")).mean() == pytest.approx(0.116296, abs=5e-7)
    np.testing.assert_allclose(terms(found.rating("sppo")), [0.000175, 0.054340, 0.060680], atol=5e-7)
    np.testing.assert_allclose(terms(found.rating("gpo"), gamma=1.0), [0.273878, 0.101336, 0.057600], atol=5e-7)


# ---- what it learns ----------------------------------------------------------------------------------------------------------------------


def learned(tournaments, dim, *, normalize=True, steps=600, rate=0.05, tau=0.1):
    """Share of edges on the right side after full-batch Adam on each tournament (n, edges, seed), whose items share no parameter.

    One model holds all of them: its responses are the rows of one identity, its loss the sum of the tournaments' mean losses.
    """
    asked = {"dim": dim, "bias": False, "normalize": normalize, "tau": tau}
    parts = [GeneralPreference(Shape(width=n), **asked, seed=seed).vectors.data for n, _, seed in tournaments]
    model = GeneralPreference(Shape(width=sum(x.shape[1] for x in parts)), dim=dim, bias=False, normalize=normalize, tau=tau)
    model.vectors.data.copy_(torch.cat(parts, dim=1))
    start = np.cumsum([0] + [n for n, _, _ in tournaments])
    edges = torch.tensor(np.concatenate([np.array(e) + at for (_, e, _), at in zip(tournaments, start, strict=False)])).T
    whose = torch.tensor(np.repeat(np.arange(len(tournaments)), [len(e) for _, e, _ in tournaments]))
    weight = 1 / torch.bincount(whose)[whose]
    x = torch.eye(model.shape.width)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    for _ in range(steps):
        z = model.represent(x)
        loss = (weight * torch.nn.functional.softplus(-model.margin(z[edges[0]], z[edges[1]], NOTHING))).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        z = model.represent(x)
        margin = model.margin(z[edges[0]], z[edges[1]], NOTHING)
    right = (margin > 0).double() + 0.5 * (margin == 0)
    return torch.bincount(whose, weights=right * weight).numpy()


def test_rings_are_learned():  # oracle 6, first half
    rings = [(n, [(i, (i + 1) % n) for i in range(n)], seed) for n in (3, 4, 5) for seed in range(10)]
    for dim, normalize in ((4, True), (6, True), (2, False)):
        np.testing.assert_allclose(learned(rings, dim, normalize=normalize), 1)
    one = learned(rings, 2).reshape(3, 10)  # one plane of unit vectors: a seed in ten may stay at chance
    assert ((one > 1 - 1e-6).sum(axis=1) >= 8).all()


def test_a_random_tournament_needs_planes():  # oracle 6, second half
    from cupel.votes.bradley_terry import fit_bradley_terry
    from cupel.votes.cycles import agreement

    rng = np.random.default_rng(0)
    edges = [pair if rng.random() < 0.5 else pair[::-1] for pair in combinations(range(12), 2)]
    at = {k: float(learned([(12, edges, 0), (12, edges, 1)], 2 * k).mean()) for k in (1, 2, 3, 4)}
    wins = np.zeros((12, 12))
    wins[tuple(np.array(edges).T)] = 1
    plain = agreement(fit_bradley_terry(*np.array(edges).T, 12).scores, wins - wins.T)
    assert plain < 0.85  # another tournament than the card's (.606)
    assert plain < at[2]
    assert at[1] < at[2] <= at[3] + 1e-9
    assert at[3] >= 0.97
    assert at[4] == pytest.approx(1)


def kinds(n=300, seed=0):
    """Responses of three kinds; each kind is better than the next, and the last than the first."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    x = (np.eye(3)[kind] @ rng.normal(size=(3, 8)) + 0.2 * rng.normal(size=(n, 8))).astype(np.float32)
    first, second = rng.integers(0, n, (2, 900))
    keep = kind[first] != kind[second]
    first, second = first[keep], second[keep]
    return x, first, second, ((kind[second] - kind[first]) % 3 == 1).astype(float), kind


@pytest.mark.parametrize("treatment", ["identity", "em:flip=0.1", "unbiased:flip=0.1"])
@pytest.mark.parametrize("objective", ["bradley_terry", "general_preference"])
def test_cycles_survive_planted_flips(treatment, objective):
    x, first, second, right, _ = kinds()
    flipped = np.random.default_rng(1).random(len(right)) < 0.1
    data = Comparisons.of(first, second, np.where(flipped, 1 - right, right))
    options = HeadOptions(head="gpm:dim=4", epochs=15, learning_rate=0.02)
    found = fit(x, data, by_name(objective), parse(treatment), options)
    model = found.models[0]
    z = model.represent(torch.from_numpy(x))
    margin = model.margin(z[first], z[second], NOTHING).numpy()
    assert np.mean((margin > 0) == (right > 0.5)) > 0.95
    plain = fit(x, data, by_name("bradley_terry"), parse(treatment), HeadOptions(epochs=15, learning_rate=0.02)).models[0]
    score = plain.score(plain.represent(torch.from_numpy(x)), NOTHING).numpy()
    assert np.mean((score[first] > score[second]) == (right > 0.5)) < 0.72


def test_cycles_are_found_in_what_was_learned():
    x, first, second, right, kind = kinds()
    options = HeadOptions(head="gpm", epochs=15, learning_rate=0.02)
    model = fit(x, Comparisons.of(first, second, right), by_name("bradley_terry"), parse("identity"), options).models[0]
    middle = np.stack([x[kind == k].mean(axis=0) for k in range(3)])
    found = model.cycles(model.represent(torch.from_numpy(middle)))
    assert found.share > 0.9
    assert found.triangles[0].items == (0, 1, 2)


@pytest.mark.parametrize("name", [name for name in available() if by_name(name).needs <= {"score", "embedding"}])
@pytest.mark.parametrize("gate", ["none", "softmax"])
def test_any_objective_of_scores_or_vectors(name, gate):
    x, first, second, right, _ = kinds(n=60)
    prompts = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    data = Comparisons.of(first, second, right, prompt=first % 5, prompts=prompts)
    found = fit(x, data, by_name(name), parse("identity"), HeadOptions(head=f"gpm:dim=4,gate={gate}", epochs=2, learning_rate=0.01))
    assert math.isfinite(found.epochs[-1]["heads"][0]["loss"])
    assert found.epochs[-1]["heads"][0]["loss"] < found.epochs[0]["heads"][0]["loss"]


# ---- the gate ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["softmax", "softplus"])
def test_a_gate_weighs_planes_by_the_prompt_and_keeps_antisymmetry(gate):
    model = GeneralPreference(Shape(width=5, prompt=3), dim=6, gate=gate, seed=4)
    rng = torch.Generator().manual_seed(0)
    z, prompt = model.represent(torch.randn(4, 5, generator=rng)), torch.randn(2, 3, generator=rng)
    one, other = model.score_matrix(z, prompt[0]), model.score_matrix(z, prompt[1])
    torch.testing.assert_close(one, -one.T, rtol=0, atol=0)
    assert not torch.allclose(one, other)
    torch.testing.assert_close(model.gates(torch.zeros(1, 3)), torch.ones(1, 3))  # the uniform gate is the identity
    given = Given(prompt=prompt[[0, 1]])
    sides = model.sides(z[[0, 1]], z[[2, 3]], given)
    back = model.sides(z[[2, 3]], z[[0, 1]], given)
    torch.testing.assert_close(sides[0].score, back[1].score)
    torch.testing.assert_close(2 * sides[0].score, torch.stack([one[0, 2], other[1, 3]]) / model.tau)
    margin = general_preference(tau=model.tau).margin(*sides, {})
    torch.testing.assert_close(margin, sides[0].score - sides[1].score)
    weights, z, one = model.gates(prompt).detach(), z.detach(), one.detach()
    by_hand = sum(float(weights[0, k]) * general_score(z[:1, 2 * k : 2 * k + 2], z[1:2, 2 * k : 2 * k + 2]).item() for k in range(3))
    assert one[0, 1].item() == pytest.approx(by_hand, rel=1e-5)
    if gate == "softmax":
        torch.testing.assert_close(weights, 3 * torch.softmax(prompt @ model.planes.detach().T, dim=1))
        assert one.abs().max() <= weights[0].max() + 1e-6


def test_a_gated_circle_turns_with_the_prompt():
    """One prompt prefers kinds one way round, another the other way: only the prompt can tell."""
    x, first, second, right, _ = kinds()
    prompt = np.random.default_rng(3).integers(0, 2, len(right))
    p = np.where(prompt == 0, right, 1 - right)
    data = Comparisons.of(first, second, p, prompt=prompt, prompts=np.eye(2, dtype=np.float32))

    def right_share(head):
        model = fit(x, data, by_name("bradley_terry"), parse("identity"), HeadOptions(head=head, epochs=40, learning_rate=0.05)).models[0]
        z = model.represent(torch.from_numpy(x))
        given = Given(prompt=torch.eye(2)[prompt]) if model.reads else NOTHING
        return np.mean((model.margin(z[first], z[second], given).numpy() > 0) == (p > 0.5))

    assert right_share("gpm:dim=4,gate=softmax") > 0.95
    assert right_share("gpm:dim=4") < 0.65


# ---- what is refused, and the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dim": 3}, "even number"), ({"dim": 0}, "even number"), ({"gate": "relu"}, "none, softmax or softplus"),
     ({"gate": "softmax"}, "reads the prompt"), ({"tau": 0.0}, "positive number"), ({"tau": math.nan}, "positive number")],
)  # fmt: skip
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(InputError, match=message):
        GeneralPreference(Shape(width=3), **settings)


def test_what_is_missing_or_broken_is_refused():
    model = GeneralPreference(Shape(width=3, prompt=2), gate="softmax")
    z = model.represent(torch.eye(3))
    with pytest.raises(InputError, match="no prompt vector"):
        model.score_matrix(z)
    with pytest.raises(InputError, match="at least 2"):
        model.score_matrix(z[:1], torch.zeros(2))
    broken = z.detach().clone()
    broken[0] = math.nan
    with pytest.raises(InputError, match="5 of 9 scores are not finite"):
        model.score_matrix(broken, torch.zeros(2))
    with pytest.raises(InputError, match="no score to a response alone"):
        model.score(z, NOTHING)


def test_text_and_seed_decide():
    shape = Shape(width=6)
    assert settings_of("gpm:dim=6,gate=none,normalize=false,tau=0.5")[1] == {"dim": 6, "gate": None, "normalize": False, "tau": 0.5}
    one, same, other = (build("gpm:dim=6,gate=none", shape, seed) for seed in (0, 0, 1))
    assert torch.equal(one.vectors, same.vectors)
    assert not torch.equal(one.vectors, other.vectors)
    assert one.reads == frozenset()
    assert build("gpm:gate=softplus", Shape(width=6, prompt=2), 0).reads == {"prompt"}
    assert GeneralPreference.reading(gate="softmax") == {"prompt"}
    wide = GeneralPreference(Shape(width=400), dim=50, seed=0).vectors.detach()
    assert float(wide.var()) == pytest.approx(1 / 401, rel=0.05)


def test_the_scalar_against_opponents_is_the_mean_score():
    model = GeneralPreference(Shape(width=4), dim=4)
    z = model.represent(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(model.against(z, z), model.score_matrix(z).mean(dim=1))


def test_explanation_names_the_largest_plane():
    model, _ = free([[1.0, 0, 0, 0.1], [0, 3.0, 0, 0], [0, 0, 0.5, 0]])
    found = model.explain().recorded()
    table = found["tables"]["planes"]
    assert table["plane"] == [1, 2]
    assert table["area"] == pytest.approx([3.0, 0.05])
    assert "98%" in found["words"][1]
    named = GeneralPreference(Shape(width=3, prompt=2, names=("length", "lists", "code")), dim=2, bias=False, gate="softmax")
    named.vectors.data.copy_(torch.tensor([[0.0, 1, 0.5], [2.0, 0, 0]]))
    table = named.explain().tables["planes"]
    assert table["features"] == ["length, lists, code"]
    assert "pull of the prompt" in table


def test_with_a_constant_one_plane_holds_a_score_of_features_with_mean_zero():
    from cupel.learners.heads.data import Comparisons
    from cupel.learners.heads.fit import fit
    from cupel.learners.heads.margins import margins
    from cupel.learners.heads.options import HeadOptions
    from cupel.noise.fixed import identity
    from cupel.objectives.reward import bradley_terry

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    first, second = rng.integers(0, 200, (2, 1500))
    first, second = first[first != second], second[first != second]
    first, second = np.where(x[first, 0] > x[second, 0], (first, second), (second, first))
    data = Comparisons.of(first, second)
    right = {}
    for bias in ("true", "false"):
        head = f"gpm:dim=2,bias={bias}"
        found = fit(x, data, bradley_terry(), identity(), HeadOptions(head=head, epochs=10, learning_rate=0.03, heldout=0.0))
        right[bias] = (margins(found.models, x, data)[0] > 0).mean()
    assert right["true"] > 0.9
    assert right["false"] < 0.75
    model = GeneralPreference(Shape(width=2, names=("length", "lists")), dim=2)
    assert set(model.explain().tables["planes"]["features"][0].split(", ")) == {"length", "lists", "1"}


def test_the_page_says_what_happens():
    import doctest
    from pathlib import Path

    page = Path(__file__).resolve().parents[3] / "docs" / "general-preference.md"
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    assert found.attempted > 15
