"""From the next code to items: every item's log-probability through the tree, or the most probable few by beams that never leave it."""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.attention import Keys
from cupel.learners.recommenders.generative.decoder import Decoder, Memory
from cupel.learners.recommenders.generative.trie import Trie

#: hypotheses (records times beginnings) that are held at once
NODES = 1 << 15


def exact(decoder: Decoder, memory: Memory, codes: Tensor, *, nodes: int = NODES) -> Tensor:
    """log P(item) = sum over its codes of log P(code | codes before), of all items, [B, I].

    codes int64 [I, C]. Every beginning that items share is computed once. About `nodes` hypotheses are held at a time: records, and
    where one record's tree is larger the items in the order of their ids, are taken in parts. The sum of P over items is below 1: what is
    missing lies on codes that no item has.
    """
    trie = Trie.of(codes)
    out = torch.empty(len(memory.there), len(codes), device=codes.device, dtype=decoder.token.dtype)
    most = max(1, nodes // 2)
    parts = [trie] if trie.nodes <= nodes else [Trie.of(codes, trie.item[at : at + most]) for at in range(0, len(trie.item), most)]
    for part in parts:
        rows = max(1, nodes // part.nodes)
        for at in range(0, len(memory.there), rows):
            out[at : at + rows, part.item] = _all(decoder, memory.take(slice(at, at + rows)), part)
    return out


def _all(decoder: Decoder, memory: Memory, trie: Trie) -> Tensor:
    """log-probabilities of the leaves of a tree, [B, leaves]."""
    total, code, past = None, None, None
    for depth, level in enumerate(trie.levels):
        found, now = decoder.step(depth, memory, code, past)
        here = found[:, level.parent, level.code]
        total = here if total is None else total[:, level.parent] + here
        code = level.code.expand(len(found), -1)
        if depth + 1 < len(trie.levels):
            past = _chosen(now, level.parent.expand(len(found), -1))
    assert total is not None
    return total


def beam(decoder: Decoder, memory: Memory, trie: Trie, width: int) -> tuple[Tensor, Tensor]:
    """(items int64 [B, W], log-probabilities [B, W]) of the best found with `width` beams, best first, W = min(width, items).

    At each level the `width` most probable beginnings of ids that items have are kept; with width >= items nothing is left out, and the
    result is that of `exact`. Ties go to the smaller id. Every beam is an item. InputError where width is below 1.
    """
    if width < 1:
        raise InputError(f"a search needs at least 1 beam, not {width}")
    b, device = len(memory.there), memory.there.device
    total, node = torch.zeros(b, 1, device=device, dtype=decoder.token.dtype), torch.zeros(b, 1, dtype=torch.int64, device=device)
    code, past = None, None
    for depth, level in enumerate(trie.levels):
        found, now = decoder.step(depth, memory, code, past)
        first, step = level.first[node], torch.arange(level.widest, device=device)
        child = first[..., None] + step  # [B, W, widest]
        valid = (child < level.first[node + 1][..., None]) & (total > -torch.inf)[..., None]
        child = child.where(valid, 0)
        value = total[..., None] + found.gather(2, level.code[child])
        value = value.masked_fill(~valid, -torch.inf).flatten(1)
        kept = min(width, len(level.code))
        total, at = torch.sort(value, dim=1, descending=True, stable=True)
        total, at = total[:, :kept], at[:, :kept]
        source, node = at // level.widest, child.flatten(1).gather(1, at)
        code = level.code[node]
        if depth + 1 < len(trie.levels):
            past = _chosen(now, source)
    return torch.where(total > -torch.inf, trie.item[node], -1), total


def _chosen(past: list[Keys], source: Tensor) -> list[Keys]:
    """Keys and values of the hypotheses that go on: row w of record b continues hypothesis source[b, w] of that record."""
    b, wide = len(source), past[0][0].shape[0] // len(source)
    at = (source + torch.arange(b, device=source.device)[:, None] * wide).reshape(-1)
    return [(k[at], v[at]) for k, v in past]
