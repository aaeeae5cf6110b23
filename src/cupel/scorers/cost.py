"""Which layout is cheapest for a batch: floating-point operations of the body, attention and calls, counted from lengths alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from cupel.scorers.anatomy import Anatomy
from cupel.scorers.groups import Groups
from cupel.scorers.layouts import kv, mask
from cupel.scorers.layouts.index import Places

LAYOUTS = ("segments", "kv", "mask", "padded")


class Rates(NamedTuple):
    """Operations of a forward pass: per token, per pair of tokens that attend, per call of attention, per pass through the body."""

    token: float
    pair: float
    call: float
    whole_pass: float


class Choice(NamedTuple):
    """A layout, what it costs, and for the mask layout the prompts of each row."""

    layout: str
    cost: float
    rows: list[list[int]] | None = None


def rates(anatomy: Anatomy) -> Rates:
    """From the parameters of the body (embeddings left out) and its shape. The costs of calls are those of a CPU, measured roughly."""
    embeddings = {id(p) for m in anatomy.backbone.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    body = sum(p.numel() for p in anatomy.backbone.parameters() if id(p) not in embeddings)
    config = anatomy.causal.config.get_text_config() if hasattr(anatomy.causal.config, "get_text_config") else anatomy.causal.config
    layers = getattr(config, "num_hidden_layers", 1)
    heads = getattr(config, "num_attention_heads", None)
    width = heads * getattr(config, "head_dim", None) if heads and getattr(config, "head_dim", None) else config.hidden_size
    return Rates(2.0 * body, 4.0 * width * layers, 5e6 * layers, 2e7 * layers)


def costs(groups: Groups, at: Places, rate: Rates, allowed: tuple[str, ...] = LAYOUTS) -> list[Choice]:
    """The allowed layouts, cheapest first; ties in the order of `allowed`."""
    return sorted((_COST[name](groups, at, rate) for name in allowed), key=lambda choice: choice.cost)


def _padded(groups: Groups, at: Places, rate: Rates) -> Choice:
    n, longest = groups.n_responses, max(len(at.prefix[g]) + len(at.segment[i]) for i, g in enumerate(groups.prompt_index))
    return Choice("padded", n * (longest * rate.token + longest**2 / 2 * rate.pair) + rate.call + rate.whole_pass)


def _mask(groups: Groups, at: Places, rate: Rates) -> Choice:
    members = groups.members
    lengths = [at.length(g, members[g]) for g in range(groups.n_prompts)]
    best = None
    for capacity in sorted({max(lengths), 2 * max(lengths), 4 * max(lengths), sum(lengths)}):
        rows = mask.pack(lengths, capacity)
        width = max(sum(lengths[g] for g in row) for row in rows)
        cost = len(rows) * (width * rate.token + width**2 * rate.pair) + rate.call + rate.whole_pass
        if best is None or cost < best.cost:
            best = Choice("mask", cost, rows)
    assert best is not None
    return best


def _kv(groups: Groups, at: Places, rate: Rates) -> Choice:
    cost = 0.0
    for bucket, parts in kv.passes(at, groups.members):
        width = max(len(at.prefix[g]) for g in bucket)
        if width:
            cost += len(bucket) * (width * rate.token + width**2 / 2 * rate.pair) + rate.call + rate.whole_pass
        for part in parts:
            longest = max(len(at.segment[n]) for n in part)
            cost += len(part) * (longest * rate.token + longest * (width + longest) * rate.pair) + rate.call + rate.whole_pass
    return Choice("kv", cost)


def _segments(groups: Groups, at: Places, rate: Rates) -> Choice:
    cost, shapes = rate.whole_pass, set()
    for g, members in enumerate(groups.members):
        width = len(at.prefix[g])
        cost += width * rate.token + width**2 / 2 * rate.pair
        shapes.add((0, width))
        for n in members:
            own = len(at.segment[n])
            cost += own * rate.token + own * (width + own) * rate.pair
            shapes.add((width, own))
    return Choice("segments", cost + len(shapes) * rate.call)


_COST = {"padded": _padded, "mask": _mask, "kv": _kv, "segments": _segments}
