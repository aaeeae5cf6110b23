"""A transformers causal language model as a source of token log-probabilities, through cupel's own scorer, templates and score cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError

#: what stored rows say of how a record was cut; nothing is cut here, as in a run that drops what is too long
_TRUNCATION = "drop"


class CausalLM:
    """Log-probabilities of responses under a causal language model with its own tokenizer and chat template.

    A prompt and a response are rendered and tokenised by this model's template, the response being what follows the prompt, by position:
    the token that ends it counts, and a special token inside it counts as well. Made by `load`, or from a model and its tokenizer.

    max_length    tokens of prompt and response together; more is an error that names the row, never a cut
    cache         folder of stored scores of tokens. It may be the one of training runs: those that store scores of tokens (objectives that
                  read them) leave theirs in the same place; runs that store sums (plain DPO) keep them apart
    batch_tokens  of a forward pass
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, template: str | None = None, template_arguments: dict[str, Any] | None = None,
        max_length: int | None = None, cache: str | Path | None = None, batch_tokens: int = 8192, layout: str = "auto",
    ) -> None:  # fmt: skip
        from cupel.learners.policy.model import check_vocabulary
        from cupel.learners.policy.template import Template
        from cupel.scorers.reference import ReferenceCache, ReferenceKey
        from cupel.scorers.scorer import Scorer

        check_vocabulary(tokenizer, model.config, type(model).__name__)
        self.template = Template(tokenizer, template, template_arguments)
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        window = getattr(config, "max_position_embeddings", None)
        self.max_length = int(max_length or window or 1 << 20)
        self.batch_tokens = batch_tokens
        self.scorer = Scorer(model.eval(), layout, longest=self.max_length)
        self.cache = None
        if cache is not None:
            key = ReferenceKey.of(model, template=self.template.digest[:32])
            self.cache = ReferenceCache.under(cache, key, "token", repair=True)

    @classmethod
    def load(
        cls, name: str | Path, *, template: str | None = None, device: str = "cpu", dtype: str = "auto", allow_download: bool = False,
        **more: Any,
    ) -> CausalLM:  # fmt: skip
        """The model of a folder, or of a name in the local cache (fetched first with `allow_download`); adapter folders bring their base.

        template: file of a chat template, or "none" for plain text. InputError where the model or its tokenizer cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from cupel.learners.policy.model import quiet_bars
        from cupel.learners.policy.template import template_text

        told: dict[str, Any] = {"local_files_only": not allow_download}
        text = template_text(template)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name), **told)
            with quiet_bars():
                kind = dtype if dtype == "auto" else getattr(torch, dtype)
                model: Any = AutoModelForCausalLM.from_pretrained(str(name), dtype=kind, **told)
        except (OSError, ValueError, KeyError, ImportError) as error:
            said = " ".join(str(error).split())[:300]
            hint = "" if allow_download or Path(name).exists() else " Nothing is downloaded unasked: allow it with --allow-download."
            raise InputError(f"the language model {name} cannot be loaded: {said}{hint}") from error
        model.config.use_cache = False
        model.to(device)
        return cls(model, tokenizer, template=text, **more)

    @property
    def digest(self) -> str:
        """What makes the tokens: two models with one digest make the same tokens of the same texts."""
        return self.template.digest

    def logprobs(self, prompt: str, response: str) -> list[float]:
        """Log-probability of each token of the response, its end included."""
        return self.logprobs_many([prompt], [response])[0].tolist()

    def logprobs_many(self, prompts: Sequence[str], responses: Sequence[str], *, names: Sequence[str] | None = None) -> list[np.ndarray]:
        """float64 arrays, one per response; a prompt that several responses share is computed once."""
        import torch

        from cupel.scorers.check import quiet
        from cupel.scorers.groups import Groups

        rows = self._rows(prompts, responses, names)
        out: list[np.ndarray | None] = [None] * len(rows)
        device = next(self.scorer.model.parameters()).device
        if self.cache is not None:
            self.cache.fill(self.scorer, rows, truncation=_TRUNCATION, batch_tokens=self.batch_tokens)
        for part in token_parts(rows, self.batch_tokens):
            place: dict[tuple[int, ...], int] = {}
            index = [(place.setdefault(tuple(rows[n][0]), len(place)), rows[n][1]) for n in part]
            groups = Groups.of([list(ids) for ids in place], index, counted=[rows[n][2] for n in part])
            if self.cache is not None:
                found = self.cache.scores(groups, truncation=_TRUNCATION)
            else:
                with quiet(self.scorer):
                    found = self.scorer(groups.to(device), needs=("logp", "tokens"))
            assert found.token_logp is not None
            values = found.token_logp.to(torch.float64).cpu().numpy()
            for n, piece in zip(part, np.split(values, np.cumsum(groups.n_counted)[:-1]), strict=True):
                out[n] = piece
        return [piece for piece in out if piece is not None]

    def _rows(self, prompts: Sequence[str], responses: Sequence[str], names: Sequence[str] | None) -> list[tuple[Any, Any, Any]]:
        """(tokens of the prompt, of the response, which count). InputError for faults of the template and what has no place."""
        heads: dict[str, list[int]] = {}
        rows = []
        for n, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if prompt not in heads:
                heads[prompt] = self.template.prompt(prompt)
            made = self.template.response(prompt, response)
            name = f"row {n}" if names is None else names[n]
            size = len(heads[prompt]) + len(made.ids)
            if size > self.max_length:
                raise InputError(
                    f"{name} has {size:,} tokens with its prompt, and the model reads {self.max_length:,}: cutting it would change its "
                    "density. Leave such rows out, or use a model with a longer context"
                )
            if "prompt_not_prefix" in made.faults or "empty_response" in made.faults:
                raise InputError(f"{name}: the chat template gives the response no span of its own ({', '.join(made.faults)}); use another")
            rows.append((heads[prompt], made.ids, made.counted))
        return rows


def token_parts(rows: Sequence[tuple[Any, Any, Any]], budget: int) -> list[list[int]]:
    """Rows in batches of about `budget` tokens, those of one prompt together and like lengths beside each other."""
    order = sorted(range(len(rows)), key=lambda n: (len(rows[n][0]), rows[n][0], len(rows[n][1]), n))
    parts: list[list[int]] = []
    used = 0
    for n in order:
        size = len(rows[n][1]) + (0 if parts and rows[parts[-1][-1]][0] == rows[n][0] else len(rows[n][0]))
        if not parts or used + size > budget:
            parts.append([])
            used, size = 0, len(rows[n][0]) + len(rows[n][1])
        parts[-1].append(n)
        used += size
    return parts
