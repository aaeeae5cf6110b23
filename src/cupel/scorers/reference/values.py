"""What a learner is given as its reference: stored scores, a live snapshot of the policy, or nothing.

A live reference is the policy's own module with other values in its trainable tensors: they are exchanged for the length of one forward.
So an SFT adapter that the policy starts from is the reference, not the base model below it, and no second copy of frozen weights exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from cupel.scorers.anatomy import Head
from cupel.scorers.check import quiet
from cupel.scorers.groups import Groups
from cupel.scorers.reference.cache import ReferenceCache
from cupel.scorers.reference.key import CacheError, ReferenceKey, adapters_in_use
from cupel.scorers.scorer import Scorer
from cupel.scorers.scores import Scores


class Free:
    """No reference at all: for objectives that need none."""

    def scores(self, groups: Groups, needs: Iterable[str] = ()) -> None:
        """None."""
        return


class Cached(NamedTuple):
    """Stored scores; `truncation` is part of what a row is looked up by."""

    cache: ReferenceCache
    truncation: str = "none"

    def scores(self, groups: Groups, needs: Iterable[str] = ()) -> Scores:
        """Scores of a batch. CacheError where they are not stored, or `needs` ask for more than log-probabilities of a schema."""
        if "reference_tokens" in needs and self.cache.schema != "token":
            raise CacheError('the objective needs log-probabilities of tokens; fill a cache with schema="token"')
        if "prompt" in needs:
            raise CacheError("log-probabilities of prompts are not stored; use a live reference")
        return self.cache.scores(groups, truncation=self.truncation)


class Live:
    """The policy as it was: at the start (TRL's default), every so many steps, or as a moving average.

    every  take the policy's values again after this many optimiser steps;  decay  move by value <- decay value + (1 - decay) policy after
    each step. Neither: the reference never changes. `version` counts changes and is part of `key`, so that stored scores of one version
    are never read as another's. Raises ValueError for both at once, every < 1, decay outside [0, 1). Sharded parameters (FSDP) cannot be
    exchanged this way: RuntimeError; use stored scores there.

    """

    def __init__(self, scorer: Scorer, *, every: int | None = None, decay: float | None = None) -> None:
        if every is not None and decay is not None:
            raise ValueError("a reference is refreshed (every) or a moving average (decay), not both")
        if every is not None and every < 1:
            raise ValueError(f"every is a number of steps, at least 1, not {every!r}")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay lies in [0, 1), not {decay!r}")
        self.scorer, self.every, self.decay = scorer, every, decay
        self.version = 0
        self._adapters = adapters_in_use(scorer.model)
        self._values = {name: p.detach().clone() for name, p in self._trainable()}

    def _trainable(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for name, parameter in self.scorer.named_parameters():
            if parameter.requires_grad:
                if hasattr(parameter, "full_tensor"):
                    raise RuntimeError(f"{name} is sharded; a live reference cannot exchange it. Use a cached reference")
                yield name, parameter

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        here = adapters_in_use(self.scorer.model)
        if here != self._adapters:
            raise CacheError(
                f"the reference was taken with adapters {', '.join(self._adapters) or 'none'}, now {', '.join(here) or 'none'} act: its "
                f"scores would be another model's. Make the reference again, or switch the adapters back"
            )
        changed = [(parameter, self._values[name]) for name, parameter in self._trainable() if name in self._values]
        own = [parameter.data for parameter, _ in changed]
        try:
            for parameter, value in changed:
                parameter.data = value
            with quiet(self.scorer):
                yield
        finally:
            for (parameter, _), value in zip(changed, own, strict=True):
                parameter.data = value

    def scores(self, groups: Groups, needs: Iterable[str] = ()) -> Scores:
        """Scores of a batch under the reference, in evaluation mode, without gradient."""
        wanted = frozenset({"logp", "prompt" if "prompt" in needs else "logp", "tokens" if "reference_tokens" in needs else "logp"})
        with self._exchanged():
            return self.scorer(groups, needs=wanted)

    def distribution(self, groups: Groups) -> tuple[Tensor, Head]:
        """Hidden states at predicting positions and the head: what `Scorer.forward` takes as `reference` for divergence and tilt."""
        with self._exchanged():
            state = self.scorer.hidden(groups).response
            head = self.scorer.head()
            return state, head._replace(weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())

    def key(self, *, template: str = "", autocast: str = "off") -> ReferenceKey:
        """What stored scores of this version depend on."""
        with self._exchanged():
            return ReferenceKey.of(self.scorer.model, template=template, autocast=autocast, version=str(self.version))

    def after_step(self, step: int) -> bool:
        """To be called after each optimiser step, counted from 1; whether the reference changed."""
        if self.every is not None and step % self.every == 0:
            self._values = {name: p.detach().clone() for name, p in self._trainable()}
        elif self.decay is not None:
            for name, parameter in self._trainable():
                self._values[name].lerp_(parameter.detach().to(self._values[name]), 1 - self.decay)
        else:
            return False
        self.version += 1
        return True

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, for a checkpoint."""
        return dict(self._values)

    def load(self, values: Mapping[str, Tensor], version: int) -> None:
        """Take the state of a checkpoint. CacheError where names or shapes are not those of the policy's trainable tensors."""
        wrong = sorted(values.keys() ^ self._values.keys()) or [n for n, v in values.items() if v.shape != self._values[n].shape]
        if wrong:
            raise CacheError(f"{len(wrong)} tensors of the stored reference do not fit the policy (first: {wrong[0]})")
        self._values = {name: value.to(self._values[name]).clone() for name, value in values.items()}
        self.version = version
