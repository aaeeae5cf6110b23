"""A trained transformer reward model as everybody uses it: prompts and responses in, scores out; the one path of training and evaluation.

A folder says how texts become tokens (`cupel.json`, written by training); a folder of another tool is read by its own tokenizer, with its
chat template where it has one, and closed as the template or the end-of-text token closes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cupel.errors import InputError
from cupel.learners.familiar import Familiar, Unlike, vote_of
from cupel.learners.policy.shift import Distances, Watched, as_array, digest, kept, key
from cupel.learners.policy.template import Template
from cupel.scorers.check import quiet
from cupel.scorers.groups import Groups
from cupel.scorers.reference import ReferenceCache, ReferenceKey
from cupel.scorers.reward import HEADS, reward_scorer

if TYPE_CHECKING:
    from cupel.records.schema import Votes

CONVENTIONS = "cupel.json"


@dataclass(frozen=True)
class TransformerReward:
    """Scores of (prompt, response) pairs under a transformer with one output. Made by `TransformerReward.load`.

    scorer        reads token groups (`cupel.scorers.reward`)
    template      texts to tokens;  max_length  tokens of prompt and response; a longer prompt loses its beginning
    batch_tokens  of a forward pass;  cache  scores by content on disk, shared by everything that scores with these weights; or None
    familiar  where the training sides lay (`cupel.learners.policy.shift`), None where the folder does not say;  distances  from there, as
              `cache` holds scores
    """

    scorer: Any
    template: Template
    max_length: int
    batch_tokens: int = 8192
    cache: Any = field(default=None, repr=False)
    info: dict[str, Any] = field(default_factory=dict)
    familiar: Familiar | None = field(default=None, compare=False, repr=False)
    distances: Any = field(default=None, repr=False)

    @classmethod
    def load(
        cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu", batch_tokens: int = 8192, dtype: str = "auto"
    ) -> TransformerReward:  # fmt: skip
        """The model of a folder (or of a name that transformers knows), adapters included.

        Raises InputError for folders without such a model, and where its tokenizer does not make the tokens it was trained on.
        """
        from transformers import AutoTokenizer

        from cupel.learners.policy.reward_model import load_classifier

        place = Path(directory)
        told = _conventions(place)
        said, head = told.get("tokens", {}), told.get("head")
        adapter = (place / "adapter_config.json").is_file()
        more: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(directory))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{directory} has no tokenizer that can be loaded: {' '.join(str(error).split())[:300]}") from error
        if adapter:
            model = _adapted(place, more, len(tokenizer), head)
        else:
            model = load_classifier(str(directory), **more)
            if head:
                from cupel.learners.policy.preference import restore

                restore(model, head, _tensors(place))
        model.config.use_cache = False
        familiar = kept(place, told)
        template = Template(tokenizer, said.get("template") or "none" if said else None, said.get("template_arguments"))
        if said and said["digest"] != template.digest:
            raise InputError(
                f"the tokenizer in {directory} is not the one that its model was trained with (its vocabulary, special tokens or chat "
                f"template differ): scores would be of other tokens. Restore the folder that training wrote"
            )
        longest = int(said.get("max_length") or getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1024)
        model.to(device).eval()
        if head:
            from cupel.learners.policy.preference import PreferenceScorer, TransformerPreference

            scorer = PreferenceScorer(model, longest=longest + 1)
            return TransformerPreference(
                scorer, template, longest, batch_tokens, info=said, familiar=familiar, people=tuple(head["people"])
            )  # fmt: skip
        scorer = reward_scorer(model, longest=longest)
        stored = distances = None
        if cache is not None:
            name = ReferenceKey.of(scorer.model, template=template.digest[:32])
            stored = ReferenceCache.under(cache, name, repair=True)
            if familiar is not None:
                distances = ReferenceCache.under(cache, replace(name, version=f"distance {digest(familiar)}"), repair=True)
        return cls(scorer, template, longest, batch_tokens, stored, said, familiar, distances)

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """float64 [n] reward of each response; each different pair is computed once, and a score never depends on the others.

        Prompts are as records hold them, chat lists as JSON. InputError where a pair has no tokens or no place in `max_length`.
        """
        unique: dict[tuple[str, str], int] = {}
        at = np.array([unique.setdefault(pair, len(unique)) for pair in zip(prompts, responses, strict=True)], dtype=np.int64)
        rows = self._rows(list(unique))
        if self.cache is not None:
            told: dict[str, Any] = {"truncation": "shorten_prompt", "batch_tokens": self.batch_tokens}
            watched = None if self.familiar is None else Watched(self.scorer, self.familiar)
            self.cache.fill(watched or self.scorer, rows, progress=progress, **told)
            if watched is not None and watched.memo:  # what was computed now; the rest waits until somebody asks
                self.distances.fill(Distances(watched), [row for row in rows if key(*row) in watched.memo], **told)
            return self.cache.sums(rows, truncation="shorten_prompt")[at]
        return self._computed(rows, progress)[at]

    def margin(self, votes: Votes) -> np.ndarray:
        """score(first) - score(second) of each comparison, float64 [n]."""
        prompts, responses = votes.prompt_texts(), votes.response_texts()
        size = max(len(responses), 1)
        keys = np.concatenate([votes.prompt.astype(np.int64) * size + side for side in (votes.first, votes.second)])
        nodes, at = np.unique(keys, return_inverse=True)
        scores = self.score([prompts[k] for k in (nodes // size).tolist()], [responses[k] for k in (nodes % size).tolist()])[at]
        return scores[: len(votes)] - scores[len(votes) :]

    def states(self, rows: Sequence[tuple[list[int], list[int]]]) -> np.ndarray | None:
        """float32 [n, H] what the head reads of (prompt, response) token lists: states at their last tokens. None where it reads more."""
        out: dict[int, np.ndarray] = {}
        for names, groups in self._batches(rows, None):
            with quiet(self.scorer):
                state = self.scorer(groups).state
            if state is None:
                return None
            out |= zip(names, as_array(state), strict=True)
        return np.stack([out[n] for n in range(len(rows))]) if rows else None

    def far(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray | None:
        """Whether each (prompt, response) lies further from the training sides than 99 % of those do, bool [n]; None as `unlike`."""
        if self.familiar is None:
            return None
        unique: dict[tuple[str, str], int] = {}
        at = np.array([unique.setdefault(pair, len(unique)) for pair in zip(prompts, responses, strict=True)], dtype=np.int64)
        rows = self._rows(list(unique))
        if self.distances is not None:
            scorer = Distances(Watched(self.scorer, self.familiar))
            self.distances.fill(scorer, rows, truncation="shorten_prompt", batch_tokens=self.batch_tokens)
            distance = self.distances.sums(rows, truncation="shorten_prompt")
        else:
            states = self.states(rows)
            distance = np.zeros(0) if states is None else self.familiar.distance(states).astype(np.float32)
        return distance[at] > self.familiar.quantiles[-1]

    def unlike(self, votes: Votes) -> Unlike | None:
        """Which sides of the comparisons lie further from the training sides than 99 % of those do; None where the folder does not say."""
        if self.familiar is None:
            return None
        prompts, responses = votes.prompt_texts(), votes.response_texts()
        size = max(len(responses), 1)
        keys = np.concatenate([votes.prompt.astype(np.int64) * size + side for side in (votes.first, votes.second)])
        nodes, at = np.unique(keys, return_inverse=True)
        far = self.far([prompts[k] for k in (nodes // size).tolist()], [responses[k] for k in (nodes % size).tolist()])
        first, second = at.reshape(2, -1)
        assert far is not None
        return Unlike(far, vote_of(first, second, len(nodes)), self.familiar.held)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token lists of each pair; prompts are tokenised once."""
        heads: dict[str, list[int]] = {}
        rows = []
        for n, (prompt, response) in enumerate(pairs):
            if prompt not in heads:
                heads[prompt] = self.template.prompt(prompt)
            ids = self.template.response(prompt, response).ids
            room = self.max_length - len(ids)
            if not ids or room < 1:
                raise InputError(
                    f"a response has {len(ids):,} tokens, where 1 to {self.max_length - 1:,} fit (first: pair {n}, {response[:60]!r}). "
                    f"Drop or shorten such responses"
                )
            rows.append((heads[prompt][-room:], ids))
        return rows

    def _computed(self, rows: Sequence[tuple[list[int], list[int]]], progress: Callable[[int, int], None] | None) -> np.ndarray:
        """float64 [n] scores of the rows."""
        out = np.zeros(len(rows))
        for names, groups in self._batches(rows, progress):
            with quiet(self.scorer):
                out[names] = self.scorer(groups).score.double().cpu().numpy()
        return out

    def _batches(
        self, rows: Sequence[tuple[list[int], list[int]]], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[list[int], Groups]]:
        """(numbers of the rows, their groups on the model's device): rows of one prompt together, long ones with long ones."""
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for n, (prompt, _) in enumerate(rows):
            by_prompt.setdefault(tuple(prompt), []).append(n)
        order = sorted(by_prompt.items(), key=lambda item: (len(item[0]) + max(len(rows[n][1]) for n in item[1]), item[1][0]))
        device = next(self.scorer.model.parameters()).device
        done, part = 0, []
        size = 0
        for prompt, members in [*order, ((), [])]:
            more = len(prompt) + sum(len(rows[n][1]) for n in members)
            if part and (size + more > self.batch_tokens or not members):
                groups = Groups.of([ids for ids, _ in part], [(g, rows[n][1]) for g, (_, who) in enumerate(part) for n in who])
                names = [n for _, who in part for n in who]
                yield names, groups.to(device)
                done, part, size = done + len(names), [], 0
                if progress is not None:
                    progress(done, len(rows))
            part.append((prompt, members))
            size += more


def _conventions(place: Path) -> dict[str, Any]:
    """What training wrote into the folder, {} where it did not."""
    path = place / CONVENTIONS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if found.get("kind") != "reward":
        raise InputError(f"{place} holds a model that cupel trained as {found.get('kind', 'policy')!r}, not a reward model")
    return found


def _tensors(place: Path) -> dict[str, torch.Tensor]:
    """Parameters of a folder's head, by name."""
    from safetensors import safe_open

    found = {}
    for file in sorted(place.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            names = [name for name in stored.keys() if name.startswith(HEADS)]  # noqa: SIM118 - it is no mapping
            found |= {name: stored.get_tensor(name) for name in names}
    return found


def _adapted(place: Path, more: dict[str, Any], size: int, head: dict[str, Any] | None) -> Any:
    """The base model that an adapter names, with the adapter, and with a head where the folder describes one."""
    from peft import PeftConfig, PeftModel

    from cupel.learners.policy.reward_model import load_classifier

    base = load_classifier(str(PeftConfig.from_pretrained(str(place)).base_model_name_or_path), **more)
    if base.get_input_embeddings().weight.shape[0] < size:
        base.resize_token_embeddings(size)
    if head:
        from cupel.learners.policy.preference import restore

        restore(base, head, None)  # its parameters come with the adapter
    return PeftModel.from_pretrained(base, str(place))
