"""Tiles against whole logits: values, gradients, memory of what is kept, and the quantities that few objectives need."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cupel.errors import RecordError
from cupel.scorers import Groups, Scorer, ScorerError, token_logp
from cupel.scorers import head as head_module
from cupel.scorers.anatomy import Head
from cupel.scorers.extras import extras
from cupel.scorers.head import Tiling, tiling

M, H, V = 37, 8, 1000


def inputs(dtype: torch.dtype = torch.float64, *, bias: bool = True, frozen: bool = False) -> tuple[Any, ...]:
    torch.manual_seed(1)
    hidden = torch.randn(M, H, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, H, dtype=dtype, requires_grad=not frozen)
    return hidden, weight, torch.randn(V, dtype=dtype, requires_grad=not frozen) if bias else None, torch.randint(V, (M,))


def whole(hidden: Any, weight: Any, bias: Any, target: Any, scale: float, softcap: float | None) -> torch.Tensor:
    logits = scale * (hidden @ weight.T + (0 if bias is None else bias))
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("tile", [1, 40_000, 1 << 20])
@pytest.mark.parametrize("keep", [0, 1 << 16, 1 << 30])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_tiles_equal_whole_logits(tile: int, keep: int, softcap: float | None, bias: bool, frozen: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(head_module, "_ROWS", 5)  # small tiles of both axes at this size
    hidden, weight, b, target = inputs(bias=bias, frozen=frozen)
    given = [x for x in (hidden, weight, b) if x is not None and x.requires_grad]
    coefficient = torch.randn(M, dtype=torch.float64)
    expected = whole(hidden, weight, b, target, 0.5, softcap)
    wanted = torch.autograd.grad(expected @ coefficient, given)
    found = token_logp(hidden, target, Head(weight, b, 0.5, softcap), tile, keep)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found @ coefficient, given), wanted, atol=1e-11, rtol=1e-11)


def test_second_backward_of_a_retained_graph() -> None:
    hidden, weight, b, target = inputs()
    out = token_logp(hidden, target, Head(weight, b, 1.0, None)).sum()
    one = torch.autograd.grad(out, (hidden, weight), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(out, (hidden, weight)), one)


def test_no_tensor_of_logits_beyond_the_budget(monkeypatch: Any) -> None:
    sizes = []
    own = head_module.tile_logits

    def watched(*args: Any) -> torch.Tensor:
        out = own(*args)
        sizes.append(out.numel() * 4)
        return out

    monkeypatch.setattr(head_module, "tile_logits", watched)
    torch.manual_seed(0)
    hidden, weight = torch.randn(3000, 4, requires_grad=True), torch.randn(5000, 4, requires_grad=True)
    token_logp(hidden, torch.randint(5000, (3000,)), Head(weight, None, 1.0, None), tile_bytes=1 << 22, keep_bytes=0).sum().backward()
    assert len(sizes) > 20
    assert max(sizes) <= 1 << 21  # two tiles are alive at a time


@pytest.mark.parametrize("args", [(0, 10), (1, 10), (10, 1 << 20), (10_000, 32_000), (100, 262_144)])
def test_tilings(args: tuple[int, int]) -> None:
    plan = tiling(*args)
    assert isinstance(plan, Tiling)
    assert plan.rows >= 1
    assert 4 * plan.rows * plan.columns <= head_module.TILE_BYTES
    assert 4 * plan.keep * args[1] <= head_module.KEEP_BYTES


def test_half_precision_sums_in_float32() -> None:
    hidden, weight, _, target = inputs(torch.bfloat16, bias=False)
    found = token_logp(hidden, target, Head(weight, None, 1.0, None))
    assert found.dtype == torch.float32
    exact = whole(hidden.double(), weight.double(), None, target, 1.0, None)
    assert float((found - exact).detach().abs().max()) < 0.1
    found.sum().backward()
    assert weight.grad.dtype == torch.bfloat16


def test_extras_equal_whole_distributions() -> None:
    hidden, weight, b, target = inputs()
    other = (torch.randn(M, H, dtype=torch.float64), Head(torch.randn(V, H, dtype=torch.float64), None, 1.0, None))
    names = frozenset({"collision", "entropy", "divergence", "tilt"})
    found = extras(names, hidden, target, Head(weight, b, 0.5, 3.0), other, epsilon=0.1, tile_bytes=400_000)
    f = 3 * torch.tanh(0.5 * (hidden @ weight.T + b) / 3)
    g = other[0] @ other[1].weight.T
    p, q = torch.softmax(f, -1), torch.softmax(g, -1)
    expected = {
        "collision": (p**2).sum(-1).log(),
        "entropy": -(p * p.log()).sum(-1),
        "divergence": (q * (q / p).log()).sum(-1),
        "tilt_up": torch.log_softmax(1.1 * f - 0.1 * g, -1).gather(1, target[:, None])[:, 0],
        "tilt_down": torch.log_softmax(0.9 * f + 0.1 * g, -1).gather(1, target[:, None])[:, 0],
    }
    assert found.keys() == expected.keys()
    coefficient = torch.randn(M, dtype=torch.float64)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-10)
        wanted = torch.autograd.grad(value @ coefficient, (hidden, weight, b), retain_graph=True)
        torch.testing.assert_close(
            torch.autograd.grad(found[name] @ coefficient, (hidden, weight, b), retain_graph=True), wanted, atol=1e-10, rtol=1e-9
        )


def test_extras_refuse() -> None:
    hidden, weight, b, target = inputs()
    head = Head(weight, b, 1.0, None)
    with pytest.raises(ScorerError, match="live reference"):
        extras(frozenset({"divergence"}), hidden, target, head)
    with pytest.raises(ScorerError, match="1,000 entries, the reference's 3"):
        extras(frozenset({"tilt"}), hidden, target, head, (hidden.detach(), Head(weight[:3], None, 1.0, None)))
    with pytest.raises(ScorerError, match="unknown quantities margin"):
        extras(frozenset({"margin"}), hidden, target, head)


def test_sides_carry_what_was_asked(model: Any, ragged: Groups, slow: Any) -> None:
    scorer = Scorer(model("llama"))
    plain = scorer(ragged)
    assert plain.token_logp is None
    assert plain.prompt_logp is None
    scores = scorer(ragged, needs={"logp", "tokens", "collision", "prompt"})
    side = scores.side(ragged.first, reference=scores)
    assert side.mask is not None
    assert side.token_logp is not None
    assert side.reference_token_logp is not None
    assert not side.reference_token_logp.requires_grad
    torch.testing.assert_close(side.token_logp.sum(1), plain.logp[ragged.first])
    assert side.mask.sum(1).tolist() == [ragged.response_lengths[n] for n in ragged.first]
    assert side.collision is not None
    assert bool((side.collision[side.mask] <= 0).all())
    # the prompt scored as a response to its own first token, by the slow twin
    prompts = [ids.tolist() for ids in ragged.prompt_ids.split(list(ragged.prompt_lengths))]
    with torch.no_grad():
        expected = [float(slow(scorer.model, Groups.of([p[:1]], [(0, p[1:])]))[0]) if len(p) > 1 else 0.0 for p in prompts]
    for layout in ("segments", "kv", "mask", "padded"):
        found = Scorer(scorer.model, layout)(ragged, needs={"prompt"}).prompt_logp
        torch.testing.assert_close(found, torch.tensor([expected[g] for g in ragged.prompt_index]), atol=1e-4, rtol=1e-5)


def test_groups_refuse() -> None:
    with pytest.raises(RecordError, match=r"1 of 2 responses of a batch have no tokens \(first: response 1\)"):
        Groups.of([[1]], [(0, [2]), (0, [])])
    with pytest.raises(RecordError, match="prompt 0"):
        Groups.of([[]], [(0, [2])])
    with pytest.raises(RecordError, match="a prompt that is not there"):
        Groups.of([[1]], [(1, [2])])
    with pytest.raises(RecordError, match="names response 2"):
        Groups.of([[1]], [(0, [2]), (0, [3])], [(0, 2)])
