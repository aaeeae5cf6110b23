"""What models that generate items share: ids, histories, the decoder, and how its log-probabilities become sides and lists."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.recommenders.attention import reseed, seeded
from cupel.learners.recommenders.generative.decoder import Decoder, Memory
from cupel.learners.recommenders.generative.ids import SemanticIds, residual_kmeans
from cupel.learners.recommenders.generative.search import beam, exact
from cupel.learners.recommenders.generative.trie import Trie
from cupel.learners.recommenders.types import Known, Recommender
from cupel.objectives.types import Need, Side

#: what is asked for: vectors [B, P, d] (rows of zeros: nothing), lists of texts, or nothing at all
Wish = Tensor | Sequence[Sequence[str]] | None


class Generative(Recommender):
    """A recommender that says the codes of the next item: score(item) = log P(item's codes | history, wish), the sum over its codes.

    Sides carry `logp` and `n_tokens` (the number of codes), so imitation trains it: objective `sft:reduction=sequence` is the mean
    cross-entropy over the codes, with negatives=0. Any objective of scores serves as well.

    levels, codes, last   of the semantic ids: quantiser levels, codes of each, and how many items may share the quantiser's codes
    quantiser  kmeans (residual k-means) or rqvae, for a `Known` without item_codes: ids are made of item_vectors, and saved with the state
    dim, heads, width   of the transformers; layers: of the decoder, encoder_layers: of what reads the history
    length     items of the history that are read, the latest; dropout
    """

    batches: ClassVar = "events"
    gives: ClassVar[frozenset[Need]] = frozenset({"score", "logp", "length"})
    codes: Tensor

    def __init__(
        self, users: int, items: int, *, levels: int, codes: int, last: int, quantiser: str, dim: int, heads: int, layers: int,
        width: int, length: int, dropout: float, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(users, items)
        if min(levels, codes, last, dim, layers, width, length) < 1:
            raise InputError(f"{self.name}: levels, codes, last, dim, layers, width and length are at least 1")
        if quantiser not in ("kmeans", "rqvae"):
            raise InputError(f"{self.name}: the quantiser is kmeans or rqvae, not {quantiser!r}")
        self.sizes, self.length, self.dim, self.quantiser, self.seed = (*[codes] * levels, last), length, dim, quantiser, seed
        with seeded(seed):
            self.decoder = Decoder(self.sizes, dim, heads, layers, width, dropout)
        self.register_buffer("codes", torch.full((items, levels + 1), -1, dtype=torch.int64))
        self._trie: Trie | None = None
        self.histories: list[np.ndarray] = []
        self.register_load_state_dict_post_hook(lambda model, _: setattr(model, "_trie", None))

    def prepare(self, known: Known) -> None:
        """The ids of the items, and the history before each event and after all of them. InputError where ids cannot be had."""
        rows = known.rows
        self.rows_item, self.rows_start = rows.item.astype(np.int64), rows.start
        owner = np.repeat(np.arange(self.n_users), rows.counts)
        self.place = np.empty(len(rows.item), np.int64)
        self.place[rows.event] = np.arange(len(rows.item)) - rows.start[owner]
        ids = known.item_codes
        if ids is None:
            if known.item_vectors is None:
                raise InputError(f"{self.name} needs semantic ids: item_codes, or item_vectors to make them of")
            ids = self._made(known.item_vectors)
        if ids.shape != tuple(self.codes.shape):
            raise InputError(f"{self.name} is for ids of shape {tuple(self.codes.shape)}, not {ids.shape}: set levels, or quantise alike")
        checked = SemanticIds(np.asarray(ids, np.int64), self.sizes)
        self.codes, self._trie = torch.from_numpy(checked.codes).to(self.device()), None

    def _made(self, vectors: np.ndarray) -> np.ndarray:
        levels, codes, last = len(self.sizes) - 1, self.sizes[0], self.sizes[-1]
        if self.quantiser == "kmeans":
            return residual_kmeans(vectors, levels=levels, codes=codes, last=last, seed=self.seed).codes
        from cupel.learners.recommenders.generative.rqvae import rqvae

        return rqvae(vectors, levels=levels, codes=codes, last=last, seed=self.seed).codes

    def begin_step(self, generator: torch.Generator) -> None:
        """The masks of this step's dropout."""
        reseed(self, generator)

    def states(self, history: Tensor, wish: Wish) -> tuple[Tensor, Tensor]:
        """(states [B, M, d], which of them there are, bool [B, M]) of histories int64 [B, T], -1 where there is no item.

        At least one state of each record is there, also of an empty history without a wish.
        """
        raise NotImplementedError

    def said_before(self, event: Tensor) -> Wish:
        """The wishes of events of the training log; None where none are known."""
        return None

    def said_last(self, user: Tensor) -> Wish:
        """The wishes of users after the training log."""
        return None

    def memory(self, history: Tensor, wish: Wish = None) -> Memory:
        """What the decoder looks at."""
        return self.decoder.memory(*self.states(history, wish))

    def history(self, user: Tensor, place: Tensor | None = None) -> Tensor:
        """The last `length` items before the place-th event of each user, oldest first, int64 [B, T], padded with -1; None: after all."""
        owner = user.cpu().numpy()
        until = self.rows_start[owner + 1] if place is None else self.rows_start[owner] + place.cpu().numpy()
        begin = np.maximum(self.rows_start[owner], until - self.length)
        return self.padded([self.rows_item[a:b] for a, b in zip(begin.tolist(), until.tolist(), strict=True)])

    def padded(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Histories as one array [B, T], T the longest after the cut to `length`, padded with -1. InputError for items there are not."""
        cut = [np.asarray(h, np.int64)[-self.length :] for h in histories]
        out = np.full((len(cut), max([1, *(len(h) for h in cut)])), -1, np.int64)
        for row, h in enumerate(cut):
            out[row, : len(h)] = h
        if out.max(initial=-1) >= self.n_items or out.min(initial=-1) < -1:
            raise InputError(f"a history names an item outside the {self.n_items:,} there are")
        return torch.from_numpy(out).to(self.device())

    def sides(self, user: Tensor, items: Tensor, event: Tensor) -> Side:
        """log-probabilities of the items' codes after what was taken before each event."""
        places = torch.from_numpy(self.place[event.cpu().numpy()])
        memory = self.memory(self.history(user, places), self.said_before(event))
        logp = self.decoder(memory, self.codes[items]).sum(-1).reshape(-1)
        return Side(score=logp, logp=logp, n_tokens=torch.full_like(logp, len(self.sizes)))

    def score(self, user: Tensor, items: Tensor, event: Tensor) -> Tensor:
        """log-probabilities [B, K]."""
        found = self.sides(user, items, event).score
        assert found is not None
        return found.view(items.shape)

    def scores(self, user: Tensor) -> Tensor:
        """log-probabilities [B, I] of all items after the whole training log, exactly."""
        return exact(self.decoder, self.memory(self.history(user), self.said_last(user)), self.codes)

    @property
    def trie(self) -> Trie:
        """The tree of the items' ids."""
        if self._trie is None:
            self._trie = Trie.of(self.codes)
        return self._trie

    @torch.no_grad()
    def scores_given(self, histories: Sequence[np.ndarray], wish: Wish = None, *, batch: int = 256) -> Tensor:
        """log-probabilities [B, I] of all items after any histories under any wishes, exactly; memory as `search.exact`."""
        out = [exact(self.decoder, memory, self.codes) for memory in self._memories(histories, wish, batch)]
        return torch.cat(out) if out else torch.zeros(0, self.n_items)

    @torch.no_grad()
    def beams(
        self, histories: Sequence[np.ndarray], k: int, *, wish: Wish = None, width: int = 20, batch: int = 256
    ) -> tuple[Tensor, Tensor]:
        """(items int64 [B, k], log-probabilities [B, k]) of the best that `width` beams find: for catalogues too large to score whole.

        InputError where k is above the number of beams or of items.
        """
        if not 1 <= k <= min(width, self.n_items):
            raise InputError(f"{min(width, self.n_items):,} beams give at most as many items, not {k}: take a wider search")
        found = [beam(self.decoder, memory, self.trie, width) for memory in self._memories(histories, wish, batch)]
        return torch.cat([x[:, :k] for x, _ in found]), torch.cat([x[:, :k] for _, x in found])

    def _memories(self, histories: Sequence[np.ndarray], wish: Wish, batch: int):
        was = self.training
        self.eval()
        for at in range(0, len(histories), batch):
            part = None if wish is None else wish[at : at + batch]
            yield self.memory(self.padded(histories[at : at + batch]), part)
        self.train(was)


def warn_empty(n: int, of: int, what: str) -> None:
    """A warning that so many wishes say nothing."""
    if n:
        warnings.warn(f"{n:,} of {of:,} {what} say nothing: they are read as no wish at all", stacklevel=3)
