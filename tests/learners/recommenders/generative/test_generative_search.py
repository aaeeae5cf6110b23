"""The tree, the decoder step by step against the whole at once, and beams against every item's score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.learners.recommenders.attention import seeded
from cupel.learners.recommenders.generative.decoder import Decoder, Memory
from cupel.learners.recommenders.generative.ids import resolved
from cupel.learners.recommenders.generative.search import beam, exact
from cupel.learners.recommenders.generative.trie import Trie


def made(items: int = 40, records: int = 5, seed: int = 0) -> tuple[Decoder, Memory, torch.Tensor]:
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(resolved(rng.integers(0, 4, (items, 2)), 12))
    with seeded(seed):
        decoder = Decoder((4, 4, 12), 8, 2, 2, 16, 0.1).double().eval()
        states = torch.randn(records, 3, 8, dtype=torch.float64)
    there = torch.ones(records, 3, dtype=torch.bool)
    there[1, 2] = False
    return decoder, decoder.memory(states, there), codes


def twin(decoder: Decoder, memory: Memory, codes: torch.Tensor) -> torch.Tensor:
    """Every item of every record in one teacher-forced pass: no tree, no state."""
    return decoder(memory, codes.expand(len(memory.there), -1, -1)).sum(-1)


def test_the_tree_holds_every_id_once() -> None:
    _, _, codes = made()
    trie = Trie.of(codes)
    back = torch.arange(len(trie.item))
    path = []
    for level in reversed(trie.levels):
        path.append(level.code[back])
        back = level.parent[back]
    assert torch.equal(torch.stack(path[::-1], 1), codes[trie.item])
    assert sorted(trie.item.tolist()) == list(range(40))
    for depth, level in enumerate(trie.levels):
        beginnings = {tuple(row[: depth + 1]) for row in codes.tolist()}
        assert len(level.code) == len(beginnings)
        assert int(level.first[-1]) == len(level.code)


def test_exact_scores_are_those_of_the_whole_pass() -> None:
    decoder, memory, codes = made()
    whole = twin(decoder, memory, codes)
    for nodes in (1 << 15, 150, 30, 1):
        torch.testing.assert_close(exact(decoder, memory, codes, nodes=nodes), whole, atol=1e-9, rtol=0)


def test_probabilities_of_items_sum_to_less_than_one() -> None:
    """Card 40, oracle 4: at most 1 over the ids that items have, 1 after renormalisation; over all ids there could be exactly 1."""
    decoder, memory, codes = made()
    found = exact(decoder, memory, codes)
    mass = found.exp().sum(1)
    assert bool((mass < 1).all())
    torch.testing.assert_close(found.log_softmax(1).exp().sum(1), torch.ones(5, dtype=torch.float64))
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4), torch.arange(12))
    torch.testing.assert_close(exact(decoder, memory, every).exp().sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("width", [40, 100])
def test_wide_beams_are_exhaustive(width: int) -> None:
    """Card 40, oracle 4."""
    decoder, memory, codes = made()
    items, value = beam(decoder, memory, Trie.of(codes), width)
    found, order = torch.sort(twin(decoder, memory, codes), dim=1, descending=True)
    assert torch.equal(items, order)
    torch.testing.assert_close(value, found, atol=1e-5, rtol=0)


def test_narrow_beams_are_what_beams_are() -> None:
    """Against beams kept in a list of Python tuples; every beam is an item, and never better than it truly is."""
    decoder, memory, codes = made(seed=3)
    whole = twin(decoder, memory, codes)
    ids = [tuple(row) for row in codes.tolist()]
    for width in (1, 3, 7):
        items, value = beam(decoder, memory, Trie.of(codes), width)
        assert items.shape == (5, width)
        torch.testing.assert_close(value, whole.gather(1, items))
        for record in range(5):
            beams: list[tuple[int, ...]] = [()]
            one = memory.take(slice(record, record + 1))
            for depth in range(3):
                longer = sorted({row[: depth + 1] for row in ids if row[:depth] in beams})
                padded = torch.tensor([[*begin, *[0] * (2 - depth)] for begin in longer])
                logp = decoder(one, padded[None])[0, :, : depth + 1].sum(-1)
                beams = [longer[i] for i in torch.argsort(logp, descending=True, stable=True)[:width].tolist()]
            assert [ids[i] for i in items[record].tolist()] == beams


def test_beams_of_small_trees() -> None:
    decoder, memory, _ = made()
    codes = torch.tensor([[0, 1, 0], [2, 1, 0], [2, 3, 0]])
    items, value = beam(decoder, memory, Trie.of(codes), 10)
    assert sorted(items[0].tolist()) == [0, 1, 2]
    assert bool(torch.isfinite(value).all())
    with pytest.raises(InputError, match="at least 1 beam"):
        beam(decoder, memory, Trie.of(codes), 0)
