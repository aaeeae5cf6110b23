"""A trained preference model, or several, as everybody uses them: votes in, margins out; scores where the model has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cupel.errors import InputError
from cupel.learners.familiar import Familiar, Unlike, unlike
from cupel.learners.folders import Folder, matching_encoder, read_folder, write_folder
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.inputs import Known, comparisons, features_of, scaled_texts
from cupel.learners.heads.margins import doubled, margins, scores, wide
from cupel.learners.heads.model import BLOCK, scaled
from cupel.learners.models.context import ContextReward
from cupel.learners.models.names import build
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape
from cupel.learners.reward import PREFERENCES as FORMAT
from cupel.learners.sides import RawSides, Scaling, raw_sides, raw_texts

if TYPE_CHECKING:
    from cupel.encode import Encoder
    from cupel.records.schema import Votes

VERSION = 1
#: contexts whose directions are compared with each other, by name
EXPLAINED = 100


@dataclass(frozen=True)
class PreferenceReward:
    """K preference models of one kind on frozen vectors; margins and scores are their means.

    models   in float32, as they were trained
    text     what kind they are, `name:argument=value,...`
    scaling  of the features; encoder_name, encoder_hash: the only vectors they can read
    known    the people and contexts they have met
    info     how they were trained;  familiar  where the training sides lay, where there were enough of them
    """

    models: tuple[PreferenceModel, ...]
    text: str
    scaling: Scaling
    encoder_name: str
    encoder_hash: str
    known: Known = field(default_factory=Known)
    info: Mapping[str, Any] = field(default_factory=dict)
    familiar: Familiar | None = field(default=None, compare=False, repr=False)
    cache: Path | None = field(default=None, compare=False, repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def encoder(self) -> Encoder:
        """The encoder whose vectors the models read; EncoderError where it is not the one they were trained with."""
        if "encoder" not in self._loaded:
            self._loaded["encoder"] = matching_encoder(self.encoder_name, self.encoder_hash)
        return self._loaded["encoder"]

    def margin(self, votes: Votes, *, sides: RawSides | None = None) -> np.ndarray:
        """Margin of each comparison in favour of its first side, float64 [n]: of its annotator, in its context, under its prompt."""
        return self.margins(votes, sides=sides).mean(axis=0)

    def margins(self, votes: Votes, *, sides: RawSides | None = None) -> np.ndarray:
        """The margin of each comparison under each model, float64 [K, n]. InputError where votes lack what the models read."""
        sides = self.sides(votes) if sides is None else sides
        return margins(self.models, features_of(votes, sides, self.known, self.scaling), self._data(votes, sides))

    def scores(self, votes: Votes, *, sides: RawSides | None = None) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean scores of the first and of the second side of each comparison, as its annotator in its context sees them; None where the
        model gives no score to a response alone."""
        if type(self.models[0]).score is PreferenceModel.score:
            return None
        sides = self.sides(votes) if sides is None else sides
        data, features = self._data(votes, sides), features_of(votes, sides, self.known, self.scaling)
        first, second = (scores(self.models, features, data, side).mean(axis=0) for side in (data.first, data.second))
        return first, second

    def sides(self, votes: Votes) -> RawSides:
        """The unscaled features of the comparisons' sides: the same for every model with this encoder."""
        return raw_sides(votes, self.encoder, cache=self.cache)

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], *, person: str | None = None, context: str | None = None
    ) -> np.ndarray:
        """Mean score of each (prompt, response) for one person in one context, float64 [n].

        person None: nobody in particular, which the model's page defines; InputError for a name it has not met, for contexts as
        `Known.vectors`, and where the model gives no score to a response alone (compare pairs: `margin`, `matrix`).
        """
        z, given = self._represented(prompts, responses, person, context)
        with torch.no_grad():
            found = [model.score(one, given).numpy() for model, one in zip(map(wide, self.models), z, strict=True)]
        return np.mean(found, axis=0)

    def matrix(self, prompt: str, responses: Sequence[str], *, person: str | None = None, context: str | None = None) -> np.ndarray:
        """Mean margin of response i over response j to one prompt, float64 [n, n]; one pass per response. InputError as `score`."""
        n = len(responses)
        z, given = self._represented([prompt] * n, responses, person, context)
        first, second = (torch.from_numpy(index.reshape(-1)) for index in np.indices((n, n)))
        out = []
        with torch.no_grad():
            for model, one in zip(map(wide, self.models), z, strict=True):
                out.append(model.margin(one[first], one[second], given.map(lambda x: x[first])).numpy().reshape(n, n))
        return np.mean(out, axis=0)

    def explain(self) -> Explanation:
        """What the first of the models has learned, with people and contexts by name (of contexts as texts the first hundred)."""
        model, contexts = self.models[0], self.known.contexts
        if isinstance(model, ContextReward) and self.known.context_as == "text" and contexts:
            shown = contexts[:EXPLAINED]
            return model.compare(self.known.vectors(shown, self.scaling, self.encoder, self.cache), shown)
        return model.explain(self.known.people, contexts)

    def member(self, number: int) -> PreferenceReward:
        """One of the models alone."""
        return replace(self, models=(self.models[number],), info={**self.info, "member": number})

    def _data(self, votes: Votes, sides: RawSides) -> Comparisons:
        told: dict[str, Any] = {"known": self.known, "scaling": self.scaling, "encoder": self.encoder, "cache": self.cache}
        return comparisons(votes, sides, reads=self.models[0].reads, **told)

    def _represented(
        self, prompts: Sequence[str], responses: Sequence[str], person: str | None, context: str | None
    ) -> tuple[list[torch.Tensor], Given]:
        from cupel.encode.cache import encode_cached
        from cupel.records.text import render

        if self.known.features:
            raise InputError(
                f"the model reads the columns {', '.join(self.known.features)} of a file, and texts alone have none: score a file that "
                f"holds them (margin of votes, cupel score)"
            )
        asked, reads, n = [render(text) for text in prompts], self.models[0].reads, len(responses)
        x = torch.from_numpy(scaled(self.scaling, *raw_texts(asked, responses, self.encoder, cache=self.cache)).astype(np.float64))
        found: dict[str, torch.Tensor] = {}
        if "prompt" in reads:
            found["prompt"] = torch.from_numpy(scaled_texts(self.scaling, encode_cached(self.encoder, asked, self.cache)))
        if "person" in reads:
            if person is not None and person not in self.known.people:
                raise InputError(f"the model has not met {person!r}; it knows {len(self.known.people):,} people. Leave person out for none")
            found["person"] = torch.full((n,), -1 if person is None else self.known.people.index(person))
        if "context" in reads:
            vector = self.known.vectors([context or ""], self.scaling, self.encoder, self.cache)
            found["context"] = torch.from_numpy(vector).expand(n, -1)
        with torch.no_grad():
            z = [torch.cat([model.represent(x[at : at + BLOCK]) for at in range(0, n, BLOCK)]) for model in map(wide, self.models)]
        return z, doubled(Given(**found))

    def unlike(self, votes: Votes, *, sides: RawSides | None = None) -> Unlike | None:
        """Which sides of the comparisons lie further from the training sides than 99 % of those do; None where the folder does not say."""
        if self.familiar is None:
            return None
        sides = self.sides(votes) if sides is None else sides
        n = np.arange(len(votes))
        first, second = (n, n + len(n)) if self.known.features else (sides.first, sides.second)
        return unlike(self.familiar, features_of(votes, sides, self.known, self.scaling), first, second)

    def far(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray | None:
        """Whether each (prompt, response) lies further from the training sides than 99 % of those do, bool [n]; None as `unlike`, and for
        models of named columns, which texts do not have."""
        if self.familiar is None or self.known.features:
            return None
        return self.familiar.beyond(scaled(self.scaling, *raw_texts(prompts, responses, self.encoder, cache=self.cache)))

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors, config.json and explanation.json; the same models give the same bytes. InputError on a full disk."""
        from cupel.records.files import write_json

        place = write_folder(
            directory, format=FORMAT, version=VERSION, scaling=self.scaling, encoder=(self.encoder_name, self.encoder_hash),
            familiar=self.familiar, prefix="scaling.",
            tensors={f"{k}.{name}": value.numpy() for k, model in enumerate(self.models) for name, value in model.state_dict().items()},
            config={
                "head": self.text, "shape": asdict(self.models[0].shape), "members": len(self.models), "known": asdict(self.known),
                "info": dict(self.info),
            },
        )  # fmt: skip
        write_json(place / "explanation.json", self.explain().recorded())
        return place

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> PreferenceReward:
        """The models that `save` wrote. InputError for another folder, EncoderError where their encoder is missing or has changed."""

        def make(folder: Folder) -> PreferenceReward:
            config, told = folder.config, folder.config["known"]
            shape = Shape(**{**config["shape"], "names": tuple(config["shape"]["names"])})
            models = []
            for k in range(config["members"]):
                models.append(build(config["head"], shape, 0).requires_grad_(False))
                state = {key.partition(".")[2]: torch.from_numpy(x) for key, x in folder.tensors.items() if key.startswith(f"{k}.")}
                models[-1].load_state_dict(state, strict=True)
            known = Known(tuple(told["people"]), tuple(told["contexts"]), told["column"], told["context_as"], tuple(told["features"]))
            return cls(tuple(models), config["head"], known=known, cache=Path(cache) if cache else None, **folder.parts)

        return read_folder(
            directory, make, format=FORMAT, version=VERSION, kind="preference model", prefix="scaling.", device=device
        )  # fmt: skip
