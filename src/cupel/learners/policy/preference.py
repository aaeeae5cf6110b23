"""Preference models on transformers: the head of `cupel.learners.models` where a sequence classifier keeps its score layer.

The vector of a response is the hidden state at its last token, that of its prompt the state at the prompt's last token; in a causal model
the latter is the same for all responses. People are the annotators of the training data. A criterion belongs into the prompt's text, where
a transformer reads it: heads that want a context as a vector are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.margins import doubled, wide
from cupel.learners.models.names import build, reads_of, settings_of
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape
from cupel.learners.policy.batch import Data
from cupel.learners.policy.rewards import TransformerReward
from cupel.objectives.types import Need, Side
from cupel.records.schema import Votes
from cupel.scorers.anatomy import Anatomy, ScorerError, causal_of
from cupel.scorers.check import TOLERANCE, quiet
from cupel.scorers.groups import Groups
from cupel.scorers.layouts import padded
from cupel.scorers.layouts.index import Hidden, places
from cupel.scorers.reward import HEADS, RewardScorer, inner_model, rows_of, with_end

#: the head that is none: one number per response, which transformers and TRL read too
SCALAR = "scalar"
#: pairs compared at a time
BLOCK = 1 << 13


def gives(text: str) -> frozenset[Need]:
    """Fields of a side that the head fills. InputError where the text names none, or one that a transformer does not carry.

    >>> sorted(gives("scalar"))
    ['score']
    """
    if "context" in reads_of(text):
        raise InputError(
            f"the head {text} reads contexts as vectors. A transformer reads the criterion where the prompt states it: write it into the "
            f"prompt (a system message, say) and leave head out; {text} is for frozen vectors (cupel train reward --head {text})"
        )
    made = settings_of(text)[0]
    if made.named:
        raise InputError(
            f"the head {text} reads columns that have names, and the states of a transformer have none: train it on the columns of the "
            f"file, cupel train reward --head {text}"
        )
    return made.gives


class Standing(nn.Module):
    """The preference model in the place of a score layer: hidden states [..., H] to its representation of each, [..., d]."""

    def __init__(self, model: PreferenceModel) -> None:
        super().__init__()
        self.inside = model

    def forward(self, hidden: Tensor) -> Tensor:
        """`represent` of each state."""
        flat = self.inside.represent(hidden.reshape(-1, hidden.shape[-1]))
        return flat.reshape(*hidden.shape[:-1], -1)


def attach(model: Any, text: str, people: int, seed: int) -> None:
    """Put the preference model that a text names where the classifier has its score layer. InputError where it has none of one layer."""
    place = next((name for name in HEADS if isinstance(getattr(model, name, None), nn.Linear)), None)
    if place is None:
        raise InputError(
            f"{type(model).__name__} has no score layer ({' or '.join(HEADS)}) that the head {text} could stand in for: choose a decoder"
        )
    layer = getattr(model, place)
    size = int(layer.in_features)
    head = build(text, Shape(size, prompt=size, people=people), seed)
    setattr(model, place, Standing(head).to(layer.weight.device, layer.weight.dtype))


def meet(model: Any, data: Data) -> None:
    """Tell the head who is learned from, before the first step; of vectors there are none yet. InputError as its `prepare`."""
    head = attached(model)
    none = np.zeros(len(data), np.int64)
    people = {} if data.person is None else {"annotator": data.person, "annotators": data.spec.annotators}
    head.prepare(np.zeros((0, head.shape.width), np.float32), Comparisons.of(none, none, **people))


def attached(model: Any) -> PreferenceModel:
    """The preference model of a transformer, adapters or not: the one that is trained."""
    inner = inner_model(model)
    head = next(getattr(inner, name) for name in HEADS if hasattr(inner, name))
    kept = getattr(head, "modules_to_save", None)
    if kept is not None:  # peft keeps the module as it was beside the one that it trains
        head = kept[getattr(head, "active_adapter", "default") if isinstance(head.active_adapter, str) else head.active_adapter[0]]
    return head.inside


class PreferenceScores(NamedTuple):
    """What a preference model makes of a batch: z [N, d] and prompt [N, H] of responses, n_tokens [N], and the sides of its pairs; where no
    gradient is taken also `state` [N, H], what the head read."""

    z: Tensor
    prompt: Tensor
    n_tokens: Tensor
    pairs: tuple[Side, Side]
    state: Tensor | None = None

    def sides(self, groups: Groups, reference: object = None) -> tuple[Side, Side]:
        """The sides of the batch's pairs, with their numbers of tokens."""
        first, second = self.pairs
        return (
            replace(first, n_tokens=self.n_tokens.index_select(0, groups.first)),
            replace(second, n_tokens=self.n_tokens.index_select(0, groups.second)),
        )


class PreferenceScorer(RewardScorer):
    """Sides of comparisons, from a decoder with a preference model as its head. Options and layouts as `RewardScorer`.

    Sides are made inside `forward`, so that wrappers which gather parameters for it (FSDP) hold them whole there.
    """

    def _check_head(self, parts: Anatomy, groups: Groups, twin: Hidden) -> None:
        del twin
        longer = with_end(groups)
        ours = self._scores(groups, padded.hidden(parts, longer, places(longer))).z
        rows = [row[None] for row in rows_of(groups)]
        own = torch.cat([parts.causal(input_ids=row, attention_mask=torch.ones_like(row)).logits.float() for row in rows])
        gap = float((own.double() - ours.double()).abs().max() / own.double().abs().max().clamp(min=1))
        if not gap <= 10 * TOLERANCE.get(ours.dtype, 1e-3):
            raise ScorerError(f"what the head reads differs by up to {gap:.3g} from {type(parts.causal).__name__}'s own forward")

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]: sides in the place of scores
        self, groups: Groups, needs: Iterable[str] = ("score",), reference: Callable[..., Any] | None = None, epsilon: float = 0.01
    ) -> PreferenceScores:  # fmt: skip
        """The responses of `groups` and the sides of its pairs, with gradient where it is enabled."""
        return self._scores(groups, self.hidden(with_end(groups)))

    def _scores(self, groups: Groups, state: Hidden) -> PreferenceScores:  # pyright: ignore[reportIncompatibleMethodOverride]
        lengths = torch.tensor(groups.response_lengths, device=state.response.device)
        ends = torch.cumsum(lengths + 1, 0)
        causal = causal_of(self.model)
        head: Any = next(getattr(causal, name) for name in HEADS if hasattr(causal, name))
        last, first = (state.response.index_select(0, at) for at in (ends - 1, ends - 1 - lengths))
        kind = next(iter(head.parameters())).dtype
        if not torch.is_autocast_enabled(last.device.type):
            last, first = last.to(kind), first.to(kind)
        z, model = head(last).float(), attached(self.model)
        person = groups.person
        if person is None and "person" in model.reads:
            person = torch.full_like(groups.first, -1)
        found = Given(first.float().index_select(0, groups.first), person if "person" in model.reads else None)
        one, two = (z.index_select(0, index) for index in (groups.first, groups.second))
        return PreferenceScores(z, first.float(), lengths, model.sides(one, two, found), None if torch.is_grad_enabled() else last)


@dataclass(frozen=True)
class TransformerPreference(TransformerReward):
    """A transformer with a preference model as its head. Made by `load_reward` of its folder.

    people  the annotators it has met, by name
    """

    people: tuple[str, ...] = ()

    @property
    def model(self) -> PreferenceModel:
        """The head."""
        return attached(self.scorer.model)

    def margin(self, votes: Votes) -> np.ndarray:
        """Margin of each comparison in favour of its first side, float64 [n], as its annotator sees it."""
        place = {name: k for k, name in enumerate(self.people)}
        met = np.array([*(place.get(name, -1) for name in votes.annotators), -1], np.int64)
        z, prompt, first, second = self._nodes(votes)
        out = np.empty(len(votes))
        with torch.no_grad():
            model = wide(self.model)
            for at in range(0, len(votes), BLOCK):
                rows = slice(at, at + BLOCK)
                given = self._given(prompt[first[rows]], torch.from_numpy(met[votes.annotator[rows]]))
                out[rows] = model.margin(z[first[rows]], z[second[rows]], given).numpy()
        return out

    def scores(self, votes: Votes) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores of the first and of the second side of each comparison; None where the head gives none to a response alone."""
        if type(self.model).score is PreferenceModel.score:
            return None
        place = {name: k for k, name in enumerate(self.people)}
        met = np.array([*(place.get(name, -1) for name in votes.annotators), -1], np.int64)[votes.annotator]
        z, prompt, first, second = self._nodes(votes)
        with torch.no_grad():
            model = wide(self.model)
            one, two = (
                model.score(z[side], self._given(prompt[side], torch.from_numpy(met))).numpy() for side in (first, second)
            )  # fmt: skip
        return one, two

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]: one person more
        self, prompts: Sequence[str], responses: Sequence[str], progress: Callable[[int, int], None] | None = None, *,
        person: str | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Score of each (prompt, response) for one person (None: nobody in particular), float64 [n]. InputError where the head has none."""
        z, prompt = self._states(list(zip(prompts, responses, strict=True)), progress)
        with torch.no_grad():
            return wide(self.model).score(z, self._given(prompt, self._person(person, len(z)))).numpy()

    def matrix(self, prompt: str, responses: Sequence[str], *, person: str | None = None) -> np.ndarray:
        """Margin of response i over response j to a prompt, float64 [n, n]; each response is computed once."""
        n = len(responses)
        z, state = self._states([(prompt, text) for text in responses], None)
        first, second = (torch.from_numpy(index.reshape(-1)) for index in np.indices((n, n)))
        with torch.no_grad():
            given = self._given(state[first], self._person(person, n * n))
            return wide(self.model).margin(z[first], z[second], given).numpy().reshape(n, n)

    def explain(self) -> Explanation:
        """What the head has learned, with people by name."""
        return self.model.explain(self.people)

    def _person(self, name: str | None, n: int) -> Tensor:
        if name is not None and name not in self.people:
            raise InputError(f"the model has not met {name!r}; it knows {len(self.people):,} people. Leave person out for none")
        return torch.full((n,), -1 if name is None else self.people.index(name))

    def _given(self, prompt: Tensor, person: Tensor) -> Given:
        reads = self.model.reads
        return doubled(Given(prompt if "prompt" in reads else None, person if "person" in reads else None))

    def _nodes(self, votes: Votes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States of the different (prompt, response) pairs of the votes, and where each side's is."""
        prompts, responses = votes.prompt_texts(), votes.response_texts()
        size = max(len(responses), 1)
        keys = np.concatenate([votes.prompt.astype(np.int64) * size + side for side in (votes.first, votes.second)])
        nodes, at = np.unique(keys, return_inverse=True)
        z, prompt = self._states([(prompts[k // size], responses[k % size]) for k in nodes.tolist()], None)
        return z, prompt, *torch.from_numpy(at.reshape(2, -1))  # pyright: ignore[reportReturnType]: two rows

    def _states(self, pairs: Sequence[tuple[str, str]], progress: Callable[[int, int], None] | None) -> tuple[Tensor, Tensor]:
        """float64 [n, d] and [n, H] of different pairs."""
        unique: dict[tuple[str, str], int] = {}
        at = torch.tensor([unique.setdefault(pair, len(unique)) for pair in pairs], dtype=torch.int64)
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for names, groups in self._batches(self._rows(list(unique)), progress):
            with quiet(self.scorer):
                scores: PreferenceScores = self.scorer(groups)
            z, prompt = scores.z.double().cpu(), scores.prompt.double().cpu()
            found |= {n: (z[k], prompt[k]) for k, n in enumerate(names)}
        order = [found[n] for n in range(len(unique))]
        return torch.stack([z for z, _ in order])[at], torch.stack([prompt for _, prompt in order])[at]


def described(text: str, model: Any, people: Sequence[str]) -> dict[str, Any]:
    """What a folder says of its head: the text, the width it reads and the people it has met."""
    shape = attached(model).shape
    return {"text": text, "width": shape.width, "people": list(people)}


def restore(model: Any, said: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> None:
    """Attach the head that a folder describes; with `tensors` (of the folder's model, by name) its parameters too.

    InputError where they are not those of such a head.
    """
    attach(model, str(said["text"]), len(said["people"]), 0)
    if tensors is None:
        return
    name = next(name for name in HEADS if isinstance(getattr(model, name, None), Standing))
    found = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    try:
        getattr(model, name).load_state_dict(found, strict=True)
    except RuntimeError as error:
        raise InputError(f"the head {said['text']} and its stored parameters differ: {' '.join(str(error).split())[:200]}") from error
