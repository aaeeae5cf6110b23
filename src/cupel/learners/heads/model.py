"""A trained head, or several, as everybody uses them: prompts and responses in, scores out. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.learners.familiar import Familiar, Unlike, unlike
from cupel.learners.folders import Folder, matching_encoder, read_folder, write_folder
from cupel.learners.reward import HEADS as FORMAT
from cupel.learners.sides import RawSides, Scaling, raw_sides, raw_texts
from cupel.learners.threads import one_blas_thread

if TYPE_CHECKING:
    from cupel.encode import Encoder
    from cupel.records.schema import Votes

VERSION = 1
#: rows scored at a time
BLOCK = 1 << 14


@dataclass(frozen=True)
class HeadReward:
    """K heads on frozen vectors; score(prompt, response) is their mean, `scores` all of them. Only differences within a prompt mean
    something.

    members  for each head its float32 arrays: theta [d], or hidden [d, h], bias [h] and out [h]
    scaling  of the d features; encoder_name, encoder_hash: the only vectors it can read
    info     how it was trained;  familiar  where the training sides lay, where there were enough of them
    """

    members: tuple[Mapping[str, np.ndarray], ...]
    scaling: Scaling
    encoder_name: str
    encoder_hash: str
    info: Mapping[str, Any] = field(default_factory=dict)
    familiar: Familiar | None = field(default=None, compare=False, repr=False)
    cache: Path | None = field(default=None, compare=False, repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def encoder(self) -> Encoder:
        """The encoder whose vectors the heads read; EncoderError where it is not the one they were trained with."""
        if "encoder" not in self._loaded:
            self._loaded["encoder"] = matching_encoder(self.encoder_name, self.encoder_hash)
        return self._loaded["encoder"]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Mean reward of each (prompt, response), float64 [n]; a score does not depend on what is scored with it."""
        return self.scores(prompts, responses).mean(axis=0)

    def scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Reward of each (prompt, response) under each head, float64 [K, n]."""
        from cupel.records.text import render

        return self._rewards(*raw_texts([render(text) for text in prompts], responses, self.encoder, cache=self.cache))

    def margin(self, votes: Votes, *, sides: RawSides | None = None) -> np.ndarray:
        """score(first) - score(second) of each comparison, float64 [n]."""
        return self.margins(votes, sides=sides).mean(axis=0)

    def margins(self, votes: Votes, *, sides: RawSides | None = None) -> np.ndarray:
        """The margin of each comparison under each head, float64 [K, n]; their spread is the ensemble's disagreement."""
        sides = self.sides(votes) if sides is None else sides
        rewards = self._rewards(sides.embedding, sides.facts)
        return rewards[:, sides.first] - rewards[:, sides.second]

    def side_scores(self, votes: Votes, *, sides: RawSides | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean score of the first and of the second side of each comparison, float64 [n] each."""
        sides = self.sides(votes) if sides is None else sides
        reward = self._rewards(sides.embedding, sides.facts).mean(axis=0)
        return reward[sides.first], reward[sides.second]

    def sides(self, votes: Votes) -> RawSides:
        """The unscaled features of the comparisons' sides: the same for every model with this encoder."""
        return raw_sides(votes, self.encoder, cache=self.cache)

    def member(self, number: int) -> HeadReward:
        """One of the heads alone."""
        return replace(self, members=(self.members[number],), info={**self.info, "member": number})

    def unlike(self, votes: Votes, *, sides: RawSides | None = None) -> Unlike | None:
        """Which sides of the comparisons lie further from the training sides than 99 % of those do; None where the folder does not say."""
        if self.familiar is None:
            return None
        sides = self.sides(votes) if sides is None else sides
        return unlike(self.familiar, scaled(self.scaling, sides.embedding, sides.facts), sides.first, sides.second)

    def far(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray | None:
        """Whether each (prompt, response) lies further from the training sides than 99 % of those do, bool [n]; None as `unlike`."""
        if self.familiar is None:
            return None
        return self.familiar.beyond(scaled(self.scaling, *raw_texts(prompts, responses, self.encoder, cache=self.cache)))

    def save(self, directory: str | Path) -> Path:
        """Write model.safetensors and config.json into `directory`; the same heads give the same bytes. InputError on a full disk."""
        return write_folder(
            directory, format=FORMAT, version=VERSION, scaling=self.scaling, encoder=(self.encoder_name, self.encoder_hash),
            familiar=self.familiar, tensors={f"{k}.{name}": value for k, head in enumerate(self.members) for name, value in head.items()},
            config={"members": len(self.members), "info": dict(self.info)},
        )  # fmt: skip

    @classmethod
    def load(cls, directory: str | Path, *, cache: str | Path | None = None, device: str = "cpu") -> HeadReward:
        """The heads that `save` wrote. InputError for another folder, EncoderError where their encoder is missing or has changed."""

        def make(folder: Folder) -> HeadReward:
            members, width = [], len(folder.scaling.names)
            for k in range(folder.config["members"]):
                members.append({key.partition(".")[2]: x for key, x in sorted(folder.tensors.items()) if key.startswith(f"{k}.")})
                wide = members[-1]["theta" if "theta" in members[-1] else "hidden"]
                if len(wide) != width:
                    raise ValueError(f"head {k} reads {len(wide)} features of {width}")
            return cls(tuple(members), cache=Path(cache) if cache else None, **folder.parts)

        return read_folder(directory, make, format=FORMAT, version=VERSION, kind="reward head", device=device)

    def _rewards(self, embedding: np.ndarray, facts: np.ndarray) -> np.ndarray:
        out = np.empty((len(self.members), len(embedding)))
        for at in range(0, len(embedding), BLOCK):
            x = scaled(self.scaling, embedding[at : at + BLOCK], facts[at : at + BLOCK])
            for k, head in enumerate(self.members):
                out[k, at : at + BLOCK] = rewards(head, x)
        return out


def scaled(scaling: Scaling, embedding: np.ndarray, facts: np.ndarray) -> np.ndarray:
    """Features float32 [m, d] as heads are trained on and score them, made in blocks."""
    out = np.empty((len(embedding), embedding.shape[1] + facts.shape[1]), np.float32)
    for at in range(0, len(out), BLOCK):
        out[at : at + BLOCK] = scaling.apply(embedding[at : at + BLOCK], facts[at : at + BLOCK])
    return out


def rewards(head: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Scores float64 [m] of features x [m, d] under one head; each row's own products and sums, in an order that no other row moves.

    >>> rewards({"hidden": np.eye(2), "bias": np.zeros(2), "out": np.array([1.0, 10.0])}, np.array([[2.0, -1.0], [0.0, 3.0]])).tolist()
    [2.0, 30.0]
    """
    wide = {name: np.asarray(value, np.float64) for name, value in head.items()}
    out = np.empty(len(x))
    with one_blas_thread():
        for at in range(0, len(x), BLOCK):
            rows = np.asarray(x[at : at + BLOCK], np.float64)
            if "theta" in wide:
                out[at : at + BLOCK] = (rows * wide["theta"]).sum(axis=1)
            else:
                inner = np.matmul(rows[:, None, :], wide["hidden"])[:, 0] + wide["bias"]  # one product per row, of one shape
                out[at : at + BLOCK] = (np.maximum(inner, 0) * wide["out"]).sum(axis=1)
    return out
