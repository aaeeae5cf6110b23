"""Mender: a generative recommender that is told, in words, what is wanted now."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.recommenders.attention import Dropout, Layer, seeded
from cupel.learners.recommenders.generative.base import Generative, Wish, warn_empty
from cupel.learners.recommenders.types import Known

CONDITIONING = ("none", "embedding", "tokens")


class Mender(Generative):
    """TIGER's decoder over a memory of the wish and the history.

    Paischer et al. 2024, arXiv:2412.08604 (card 40-mender). conditioning:

    embedding  [vectors of the wishes; vectors of the history], mapped to `dim`, with a vector for the kind of slot and no positions,
               through `encoder_layers` layers (0: looked at directly, as published). Padded slots are masked; the official code masks none
    none       the same without wishes: what is asked for changes nothing
    tokens     "Instructions: {wish}. Items: {title} ..." through the encoder of a language model (`encoder`: a folder or a cached name),
               frozen but for LoRA of rank `lora` (0: none), mapped to `dim`

    Where nothing is asked for a learned vector stands in the wish's place. In training the wish of an event is `Known.event_vectors`
    (or event_texts), after the log `Known.user_vectors` (or user_texts); `scores_given` takes any. Other settings: `Generative`.
    """

    name: ClassVar[str] = "mender"
    vectors: Tensor

    def __init__(
        self, users: int, items: int, *, conditioning: str | None = "embedding", encoder: str = "", lora: int = 0, levels: int = 3,
        codes: int = 32, last: int = 32, quantiser: str = "kmeans", dim: int = 64, heads: int = 4, layers: int = 2, encoder_layers: int = 2,
        width: int = 256, length: int = 20, dropout: float = 0.2, inputs: int = 256, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            users, items, levels=levels, codes=codes, last=last, quantiser=quantiser, dim=dim, heads=heads, layers=layers, width=width,
            length=length, dropout=dropout, seed=seed,
        )  # fmt: skip
        conditioning = "none" if conditioning is None else conditioning  # recipes read the word none as no value
        if conditioning not in CONDITIONING:
            raise InputError(f"mender: conditioning is one of {', '.join(CONDITIONING)}, not {conditioning!r}")
        if (conditioning == "tokens") != bool(encoder) or (lora and not encoder):
            raise InputError("mender: conditioning=tokens needs encoder=FOLDER, a language model's, and nothing else takes one (or lora)")
        self.conditioning, self.inputs = conditioning, inputs
        self.text = None
        with seeded(seed + 1):
            if encoder:
                from cupel.learners.recommenders.generative.text import TextEncoder

                self.text = TextEncoder(encoder, lora=lora)
                inputs = self.text.dim
            self.map = nn.Linear(inputs, dim)
            self.slot = nn.Parameter(torch.randn(2, dim) * dim**-0.5)
            self.nothing = nn.Parameter(torch.randn(dim) * dim**-0.5)
            self.layers = nn.ModuleList(Layer(dim, heads, width, dropout) for _ in range(0 if encoder else encoder_layers))
        self.norm, self.dropout = nn.LayerNorm(dim), Dropout(dropout)
        self.register_buffer("vectors", torch.zeros(0, self.inputs), persistent=False)
        self.titles: tuple[str, ...] = ()
        self.before: Tensor | tuple[str, ...] | None = None
        self.last: Tensor | tuple[str, ...] | None = None

    def prepare(self, known: Known) -> None:
        """Ids and histories, the vectors (or texts) of items, and what was said when. InputError where these are missing."""
        super().prepare(known)
        if self.text is not None:
            if known.log.texts is None:
                raise InputError("mender with conditioning=tokens reads the items' texts, and the log has none")
            self.titles, self.before, self.last = known.log.texts, known.event_texts, known.user_texts
            for said, n, what in ((self.before, len(known.log), "events"), (self.last, self.n_users, "users")):
                if said is not None and len(said) != n:
                    raise InputError(f"{len(said):,} wishes for {n:,} {what}: give one to each, an empty text for nothing")
            return
        if known.item_vectors is None or known.item_vectors.shape[1:] != (self.inputs,):
            shape = None if known.item_vectors is None else known.item_vectors.shape
            raise InputError(f"mender reads item_vectors [items, {self.inputs}], not {shape}: give them, or set inputs to their width")
        self.vectors = self._scaled(known.item_vectors)
        for name, given, n in (("before", known.event_vectors, len(known.log)), ("last", known.user_vectors, self.n_users)):
            if given is not None and given.shape != (n, self.inputs):
                raise InputError(f"mender: wishes are vectors of shape ({n:,}, {self.inputs}), not {given.shape}")
            setattr(self, name, None if given is None or self.conditioning == "none" else torch.from_numpy(np.asarray(given, np.float32)))
        if isinstance(self.before, Tensor):
            warn_empty(int((self.before == 0).all(1).sum()), len(self.before), "wishes of events")

    def _scaled(self, vectors: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(vectors, np.float32)).to(self.device())

    def said_before(self, event: Tensor) -> Wish:
        """What was said before events of the training log."""
        return self._said(self.before, event)

    def said_last(self, user: Tensor) -> Wish:
        """What users said after the training log."""
        return self._said(self.last, user)

    def _said(self, said: Tensor | tuple[str, ...] | None, index: Tensor) -> Wish:
        if isinstance(said, Tensor):
            return said[index.cpu()][:, None].to(self.device())
        return None if said is None else [[said[i]] for i in index.tolist()]

    def states(self, history: Tensor, wish: Wish) -> tuple[Tensor, Tensor]:
        """States of the wishes (or of no wish) and of the history's items."""
        if self.text is not None:
            return self._text_states(history, wish)
        if wish is not None and not isinstance(wish, Tensor):
            raise InputError("mender with conditioning=embedding takes wishes as vectors [B, P, d], not as texts: encode them")
        if wish is None or self.conditioning == "none":
            wishes, asked = self.nothing.expand(len(history), 1, -1), history.new_ones(len(history), 1, dtype=torch.bool)
        else:
            asked = (wish != 0).any(dim=2)
            empty = ~asked.any(dim=1)
            if not self.training:
                warn_empty(int(empty.sum()), len(empty), "wishes")
            wishes = self._mapped(wish.to(self.vectors))
            first = torch.where(empty[:, None], self.nothing, wishes[:, 0])
            wishes = torch.cat([first[:, None], wishes[:, 1:]], dim=1)
            asked = torch.cat([(asked[:, :1] | empty[:, None]), asked[:, 1:]], dim=1)
        items = self._mapped(self.vectors[history.clamp(min=0)])
        x = torch.cat([wishes + self.slot[0], items + self.slot[1]], dim=1)
        there = torch.cat([asked, history >= 0], dim=1)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, there[:, None, :])
        return self.norm(x), there

    def _mapped(self, vectors: Tensor) -> Tensor:
        """Vectors of length 1 have components of mean square 1 / d: they are brought to 1 before the map."""
        return self.map(vectors * self.inputs**0.5)

    def _text_states(self, history: Tensor, wish: Wish) -> tuple[Tensor, Tensor]:
        assert self.text is not None
        if isinstance(wish, Tensor):
            raise InputError("mender with conditioning=tokens takes wishes as texts, not as vectors")
        said = [[] for _ in range(len(history))] if wish is None else [[text for text in texts if text.strip()] for texts in wish]
        if wish is not None and not self.training:
            warn_empty(sum(not texts for texts in said), len(said), "wishes")
        lines = []
        for texts, items in zip(said, history.tolist(), strict=True):
            titles = " ".join(self.titles[i] for i in items if i >= 0)
            lines.append(f"Instructions: {' '.join(texts) or 'none'}. Items: {titles}")
        states, there = self.text(lines, self.device())
        return self.norm(self.dropout(self.map(states))), there


MODEL = Mender
