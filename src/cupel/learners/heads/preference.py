"""A trained preference model, or several, as everybody uses them: votes in, margins out; scores where the model has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.inputs import Known, comparisons, features_of, scaled_texts
from cupel.learners.heads.margins import doubled, margins, scores, wide
from cupel.learners.heads.model import BLOCK, scaled
from cupel.learners.models.context import ContextReward
from cupel.learners.models.names import build
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape
from cupel.learners.reward import PREFERENCES as FORMAT
from cupel.learners.reward import matching_encoder
from cupel.learners.sides import RawSides, Scaling, raw_sides, raw_texts

if TYPE_CHECKING:
    from cupel.encode import Encoder
    from cupel.records.schema import Votes

VERSION = 1
#: contexts whose directions are compared with each other, by name
EXPLAINED = 100
_SCALING = ("centre", "norm", "mean", "spread")


@dataclass(frozen=True)
class PreferenceReward:
    """K preference models of one kind on frozen vectors; margins and scores are their means.

    models   in float32, as they were trained
    text     what kind they are, `name:argument=value,...`
    scaling  of the features; encoder_name, encoder_hash: the only vectors they can read
    known    the people and contexts they have met
    info     how they were trained
    """

    models: tuple[PreferenceModel, ...]
    text: str
    scaling: Scaling
    encoder_name: str
    encoder_hash: str
    known: Known = field(default_factory=Known)
    info: Mapping[str, Any] = field(default_factory=dict)
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

    def scores(self, votes: Votes) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean scores of the first and of the second side of each comparison, as its annotator in its context sees them; None where the
        model gives no score to a response alone."""
        if type(self.models[0]).score is PreferenceModel.score:
            return None
        sides = self.sides(votes)
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

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors, config.json and explanation.json; the same models give the same bytes. InputError on a full disk."""
        from safetensors.numpy import save

        from cupel.records.files import atomic_write, write_json

        place, s = Path(directory), self.scaling
        tensors = {f"scaling.{name}": np.asarray(getattr(s, name), np.float64).reshape(-1) for name in _SCALING}
        for k, model in enumerate(self.models):
            tensors |= {f"{k}.{name}": value.numpy() for name, value in model.state_dict().items()}
        data = save({name: np.ascontiguousarray(value) for name, value in sorted(tensors.items())})
        with atomic_write(place / "model.safetensors") as temporary:
            temporary.write_bytes(data)
        config = {
            "format": FORMAT, "version": VERSION, "head": self.text, "shape": asdict(self.models[0].shape), "members": len(self.models),
            "encoder": {"name": self.encoder_name, "hash": self.encoder_hash}, "features": list(s.names), "known": asdict(self.known),
            "info": dict(self.info),
        }  # fmt: skip
        write_json(place / "config.json", config)
        write_json(place / "explanation.json", self.explain().recorded())
        return place

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> PreferenceReward:
        """The models that `save` wrote. InputError for another folder, EncoderError where their encoder is missing or has changed."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        place = Path(directory)
        try:
            config = json.loads((place / "config.json").read_text("utf-8"))
            tensors = load_file(place / "model.safetensors")
            if config.get("format") != FORMAT or config.get("version") != VERSION:
                raise InputError(
                    f"{place} holds {config.get('format')!r} version {config.get('version')!r}; this cupel reads {FORMAT} version "
                    f"{VERSION}. Train it again."
                )
            of = {name: tensors[f"scaling.{name}"] for name in _SCALING}
            scaling = Scaling(of["centre"], float(of["norm"][0]), of["mean"], of["spread"])
            shape = Shape(**{**config["shape"], "names": tuple(config["shape"]["names"])})
            models = []
            for k in range(config["members"]):
                models.append(build(config["head"], shape, 0).requires_grad_(False))
                state = {key.partition(".")[2]: torch.from_numpy(x) for key, x in tensors.items() if key.startswith(f"{k}.")}
                models[-1].load_state_dict(state, strict=True)
            told = config["known"]
            known = Known(tuple(told["people"]), tuple(told["contexts"]), told["column"], told["context_as"], tuple(told["features"]))
            name, digest, info = config["encoder"]["name"], config["encoder"]["hash"], config["info"]
        except InputError:
            raise
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
            said = " ".join(str(error).split())[:300]
            raise InputError(f"{place} is not a preference model that cupel wrote ({said}); give a folder made by train reward") from error
        encoder = matching_encoder(name, digest, device)
        return cls(tuple(models), config["head"], scaling, name, digest, known, info, Path(cache) if cache else None, {"encoder": encoder})
