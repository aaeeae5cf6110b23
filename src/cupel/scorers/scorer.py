"""The policy's scorer: one module whose forward runs body and head, so that DDP and FSDP wrap the whole computation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cupel.scorers import check as check_
from cupel.scorers import cost
from cupel.scorers.anatomy import Anatomy, Head, ScorerError, anatomy, causal_of, head_of, is_checkpointing, is_sharded
from cupel.scorers.extras import EXTRAS, extras
from cupel.scorers.groups import Groups
from cupel.scorers.head import KEEP_BYTES, TILE_BYTES, token_logp
from cupel.scorers.layouts import kv, mask, padded, segments
from cupel.scorers.layouts.index import Hidden, Places, anchored, further_alone, places
from cupel.scorers.scores import Scores, by_response

_HIDDEN: dict[str, Callable[..., Hidden]] = {
    "padded": padded.hidden, "mask": mask.hidden, "kv": kv.hidden, "segments": segments.hidden,
}  # fmt: skip


class Scorer(nn.Module):
    """Log-probabilities of responses under a causal language model: each prompt computed once, each response once, logits never whole.

    model       a transformers causal language model, or a peft model around one
    layout      "auto" picks for every batch the cheapest layout that passed its check; or one of "segments", "kv", "mask", "padded"
    tile_bytes  temporary logits, at most;  keep_bytes  logits kept for backward, at most
    check       compare layouts with plain rows now, and the tiled head with the model's own logits; without, layouts are believed
    examples    a few records with the further inputs that batches will have (images), on which everything is compared as well
    longest     no prompt and response together will have more tokens: shortens the check of models with long windows

    Attributes: `layouts` that may be used, `layouts_further` those for batches with further inputs (plain rows without examples),
    `differences` from plain rows that the check found, `reason` why prompts are not shared.
    A layout that fails is not used, and a LayoutWarning says so once with the numbers. Raises ScorerError for models it cannot read, and
    for a head that does more than it knows.
    """

    def __init__(
        self, model: nn.Module, layout: str = "auto", *, tile_bytes: int = TILE_BYTES, keep_bytes: int = KEEP_BYTES, check: bool = True,
        longest: int | None = None, examples: Groups | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if layout != "auto" and layout not in cost.LAYOUTS:
            raise ValueError(f"layout is auto, {', '.join(cost.LAYOUTS)}, not {layout!r}")
        self.model = model
        self.tile_bytes, self.keep_bytes, self.longest = tile_bytes, keep_bytes, longest
        self.asked = layout
        self.differences: dict[str, float] = {}
        self.last_layout = ""
        parts = anatomy(model)
        self.reason = parts.reason
        self.rates = cost.rates(parts)
        wanted = cost.LAYOUTS if layout == "auto" else (layout,)
        self.layouts: tuple[str, ...] = ("padded",) if parts.reason else tuple(wanted)
        if parts.reason and layout not in ("auto", "padded"):
            warnings.warn(f"layout {layout!r} is not used: {parts.reason}. Left: padded", check_.LayoutWarning, stacklevel=2)
        if "segments" in self.layouts and (why := segments.install(parts)):
            self._drop("segments", why)
        self.layouts_further: tuple[str, ...] = ("padded",)
        self.sees = examples is not None
        if check:
            self._check(parts)
            if examples is not None:
                self._check_further(parts, examples)
        if "segments" not in self.layouts:
            segments.uninstall(parts)

    def _drop(self, layout: str, why: str) -> None:
        rest = tuple(name for name in self.layouts if name != layout)
        self.layouts = rest or ("padded",)
        warnings.warn(f"layout {layout!r} is not used: {why}. Left: {', '.join(self.layouts)}", check_.LayoutWarning, stacklevel=4)

    def _check(self, parts: Anatomy) -> None:
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, enabled=False), check_.quiet(self.model):
            groups = check_.probe(parts, self.longest).to(device)
            at, twin = check_.plain(parts, groups)
            self._check_head(parts, groups, twin)
            for layout in [name for name in self.layouts if name != "padded"]:
                self.differences[layout], why = check_.check_layout(parts, _HIDDEN[layout], groups, at, twin)
                if why:
                    self._drop(layout, why)

    def _check_head(self, parts: Anatomy, groups: Groups, twin: Hidden) -> None:
        """ScorerError where what stands on the body gives other numbers than the model's own forward."""
        check_.check_head(parts, groups, twin)

    def _check_further(self, parts: Anatomy, examples: Groups) -> None:
        """Plain rows against the model's own forward, one record at a time; then layouts against plain rows, those that differ left out."""
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, enabled=False), check_.quiet(self.model):
            groups = examples.to(device)
            at, twin = check_.plain(parts, groups)
            self._check_head(parts, groups, twin)
            good = []
            shared = [] if further_alone(parts, groups) else [name for name in self.layouts if name != "padded"]
            for layout in shared:
                self.differences[f"{layout}, further inputs"], why = check_.check_layout(parts, _HIDDEN[layout], groups, at, twin)
                if not why:
                    good.append(layout)
            self.layouts_further = (*good, "padded")

    def choose(self, groups: Groups, at: Places | None = None) -> cost.Choice:
        """The layout of a batch, by cost. ScorerError where the KV layout was asked for and cannot be used."""
        return self._choose(anatomy(self.model), groups, at or places(groups))

    def _choose(self, parts: Anatomy, groups: Groups, at: Places) -> cost.Choice:
        allowed = self.layouts_further if groups.has_further else self.layouts
        if "kv" in allowed and (why := self._against_kv(parts)):
            if self.asked == "kv":
                raise ScorerError(f'the KV layout is not for this: {why}. Use layout="auto"')
            allowed = tuple(name for name in allowed if name != "kv") or ("padded",)
        return cost.costs(groups, at, self.rates, allowed)[0]

    def _against_kv(self, parts: Anatomy) -> str:
        if torch.is_grad_enabled() and is_checkpointing(parts):
            return "it loses the prompt when activations are computed again in backward, and gradient checkpointing is on"
        if is_sharded(parts):
            return "it passes through the body several times, each process its own number of times, and parameters are sharded (FSDP)"
        return ""

    def hidden(self, groups: Groups, *, prompt: bool = False) -> Hidden:
        """Hidden states at predicting positions. Call it from inside a forward only: wrappers do not see it."""
        at, parts = places(groups), anatomy(self.model)
        self._refuse_longer(groups)
        choice = self._choose(parts, groups, at)
        self.last_layout = choice.layout
        found = _HIDDEN[choice.layout](parts, groups, at, prompt=prompt, rows=choice.rows)
        return found._replace(response=anchored(parts, found.response)) if self.sees else found

    def _refuse_longer(self, groups: Groups) -> None:
        if self.longest is None:
            return
        sizes = [groups.prompt_lengths[g] + n for g, n in zip(groups.prompt_index, groups.response_lengths, strict=True)]
        over = [n for n, size in enumerate(sizes) if size > self.longest]
        if over:
            raise ScorerError(
                f"{len(over)} of {groups.n_responses} responses have, with their prompt, more than longest={self.longest} tokens (first: "
                f"response {over[0]} of the batch, {sizes[over[0]]}). Truncate them, or make the scorer with a larger `longest`"
            )

    def head(self) -> Head:
        """The vocabulary head as it is now."""
        return head_of(causal_of(self.model))

    def forward(
        self, groups: Groups, needs: Iterable[str] = ("logp",), reference: Callable[[Groups], tuple[Tensor, Head]] | None = None,
        epsilon: float = 0.01,
    ) -> Scores:  # fmt: skip
        """Scores of the responses of `groups`, with gradient where it is enabled.

        needs: what an objective's `needs` say; "tokens", "collision", "entropy", "divergence", "tilt" and "prompt" cost extra, anything
        else is ignored. reference: hidden states and head of a live reference, for "divergence" and "tilt" (`cupel.scorers.reference`).
        """
        wanted = frozenset(needs)
        state = self.hidden(groups, prompt="prompt" in wanted)
        device = state.response.device
        head, response, ids, lengths = self.head(), _autocast(state.response), groups.response_ids, groups.n_counted
        if groups.counted is not None:
            response, ids = response[groups.counted], ids[groups.counted]
        logp = token_logp(response, ids, head, self.tile_bytes, self.keep_bytes)
        found: dict[str, Tensor] = {}
        if more := wanted & EXTRAS.keys():
            other = reference(groups) if reference is not None and any(EXTRAS[name] for name in more) else None
            if other is not None and groups.counted is not None:
                other = (other[0][groups.counted], other[1])
            found = extras(more, response, ids, head, other, epsilon, self.tile_bytes)
        for name in ("tilt_up", "tilt_down"):
            if name in found:
                found[name] = by_response(found[name], lengths)
        if "tokens" in wanted or "reference_tokens" in wanted or more:
            found["token_logp"] = logp
        if "prompt" in wanted:
            found["prompt_logp"] = self._prompt_logp(groups, state, head)
        return Scores(by_response(logp, lengths), torch.tensor(lengths, device=device), **found)

    def _prompt_logp(self, groups: Groups, state: Hidden, head: Head) -> Tensor:
        """[N] log-probability of each response's prompt, from its second token on; the first token is given."""
        assert state.prompt is not None
        follows = torch.ones(len(groups.prompt_ids), dtype=torch.bool)
        follows[torch.tensor([0, *groups.prompt_lengths[:-1]]).cumsum(0)] = False
        target = groups.prompt_ids[follows.to(groups.prompt_ids.device)]
        owner = torch.tensor(groups.prompt_index, device=target.device)
        if not len(target):
            return torch.zeros(groups.n_responses, device=target.device)
        logp = token_logp(_autocast(state.prompt), target, head, self.tile_bytes, self.keep_bytes)
        return by_response(logp, tuple(n - 1 for n in groups.prompt_lengths)).index_select(0, owner)


def _autocast(hidden: Tensor) -> Tensor:
    """Hidden states in the dtype of autocast where it is on: the last norm gives float32."""
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) and hidden.is_floating_point() else hidden
