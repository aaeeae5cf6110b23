"""Votes as a preference model reads them: sides as features, and beside them the vectors of prompts, the people, and the contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cupel.encode.surface import SURFACE
from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.model import scaled
from cupel.learners.sides import RawSides, Scaling
from cupel.records.schema import Votes

if TYPE_CHECKING:
    from cupel.encode import Encoder
    from cupel.learners.models.types import Reads


@dataclass(frozen=True)
class Known:
    """The people and contexts that a model has met, in the order of its parameters.

    people      names of annotators
    contexts    texts of contexts; "" is the context of a comparison that states none
    column      of the votes' source rows in which a context stands
    features    names of the numeric columns that are read in the embedding's place; empty: embeddings are read
    context_as  text: a context is the vector of its text, so that an unseen one has a vector too; id: it is one of those met
    """

    people: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    column: str = "context"
    context_as: Literal["text", "id"] = "text"
    features: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, votes: Votes, reads: frozenset[Reads], *, column: str, context_as: Literal["text", "id"], features: str = ""
    ) -> Known:  # fmt: skip
        """What these votes know of people and contexts; contexts only where the model reads them. InputError as `contexts_of`.

        features: names of numeric columns separated by /, or all. InputError as `cupel.records.features.feature_columns`.
        """
        found = contexts_of(votes, column) if "context" in reads else []
        if "person" in reads and not len(votes.annotators):
            raise InputError(
                "the model learns what each annotator prefers, and these votes name no annotator: name the column that does, "
                "--map annotator=COLUMN, or train a model of no person"
            )
        names: tuple[str, ...] = ()
        if features:
            from cupel.records.features import feature_columns

            names = feature_columns(votes, () if features == "all" else [name.strip() for name in features.split("/")]).names
        return cls(votes.annotators if "person" in reads else (), tuple(sorted(set(found) - {""})), column, context_as, names)

    def persons(self, names: Sequence[str]) -> np.ndarray:
        """int64: the place of each name among the people, -1 where it is new."""
        place = {name: k for k, name in enumerate(self.people)}
        return np.array([place.get(name, -1) for name in names], np.int64)

    def vectors(self, texts: Sequence[str], scaling: Scaling, encoder: Encoder, cache: Path | None) -> np.ndarray:
        """float32 [len(texts), c]: the vectors of contexts; of no context ("") all 0. InputError for one not met, where they are ids."""
        from cupel.encode.cache import encode_cached

        stated = [k for k, text in enumerate(texts) if text]
        if self.context_as == "text":
            out = np.zeros((len(texts), len(scaling.centre)), np.float32)
            if stated:
                out[stated] = scaled_texts(scaling, encode_cached(encoder, [texts[k] for k in stated], cache))
            return out
        place = {text: k for k, text in enumerate(self.contexts)}
        new = sorted({texts[k] for k in stated} - set(place))
        if new:
            raise InputError(
                f"{len(new):,} contexts were not there when the model was trained (first: {new[0][:80]!r}). It knows them by name only: "
                f"train with context_as=text for contexts that are not known beforehand"
            )
        out = np.zeros((len(texts), max(len(self.contexts), 1)), np.float32)
        for k in stated:
            out[k, place[texts[k]]] = 1
        return out


def contexts_of(votes: Votes, column: str) -> list[str]:
    """The context of each vote, "" where none is stated. InputError where there is no such column."""
    source = votes.source
    if source is None or column not in source.column_names:
        have = "no columns" if source is None else ", ".join(source.column_names)
        raise InputError(f"the model reads the context of a comparison, and there is no column {column!r} (there are {have}): set context=")
    return ["" if value is None else str(value) for value in source[column].to_pylist()]


def scaled_texts(scaling: Scaling, vectors: np.ndarray) -> np.ndarray:
    """Vectors of prompts and contexts, float32, on the scale of the responses' embeddings."""
    return ((np.asarray(vectors, np.float64) - scaling.centre) / scaling.norm).astype(np.float32)


def comparisons(
    votes: Votes, sides: RawSides, *, reads: frozenset[Reads] = frozenset(), known: Known | None = None, scaling: Scaling | None = None,
    encoder: Encoder | None = None, cache: Path | None = None, vectors: np.ndarray | None = None,
) -> Comparisons:  # fmt: skip
    """The comparisons of votes, pointing at the rows of their sides; lengths are words.

    reads, known, scaling, encoder  what the model reads beside the sides, and what it needs to be read
    vectors  of `votes.prompts`, to encode nothing
    """
    group = np.unique(votes.group, return_inverse=True)
    more: dict[str, Any] = {"annotator": votes.annotator, "annotators": votes.annotators}
    if known is not None and "person" in reads:
        named = known.persons(votes.annotators)
        more = {"annotator": np.where(votes.annotator >= 0, np.append(named, -1)[votes.annotator], -1), "annotators": known.people}
    if "prompt" in reads:
        more |= {"prompt": votes.prompt, "prompts": _prompts(votes, scaling, encoder, cache, vectors)}
    if "context" in reads and known is not None:
        assert scaling is not None
        assert encoder is not None
        texts = contexts_of(votes, known.column)
        unique = sorted(set(texts))
        place = {text: k for k, text in enumerate(unique)}
        index = np.array([place[text] for text in texts], np.int64)
        more |= {"context": index, "contexts": known.vectors(unique, scaling, encoder, cache)}
    length = np.maximum(np.rint(np.expm1(sides.facts[:, SURFACE.index("log_words")])), 1).astype(np.float32)
    first, second = sides.first, sides.second
    if known is not None and known.features:
        n = len(votes)  # rows of `features_of`: all first sides, then all second ones
        length, (first, second) = length[np.concatenate([first, second])], (np.arange(n), np.arange(n, 2 * n))
        more["columns"] = known.features
    return Comparisons.of(
        first, second, votes.p, votes.w, group=group[1].reshape(-1), ids=votes.ids.to_pylist(),
        groups=tuple(map(str, group[0].tolist())), length=length, strength=stated_strength(votes), **more,
    )  # fmt: skip


def stated_strength(votes: Votes) -> np.ndarray | None:
    """How strongly a side was preferred, float64 [n]; None where a vote does not say it: objectives that read it are refused then."""
    return votes.strength if len(votes) and bool((votes.strength >= 0).all()) else None


def features_of(votes: Votes, sides: RawSides, known: Known, scaling: Scaling) -> np.ndarray:
    """float32 [rows, d]: the vectors that `comparisons` points at, of sides, or of the named columns of the votes."""
    if not known.features:
        return scaled(scaling, sides.embedding, sides.facts)
    from cupel.records.features import feature_columns

    return feature_columns(votes, known.features).values


def _prompts(
    votes: Votes, scaling: Scaling | None, encoder: Encoder | None, cache: Path | None, vectors: np.ndarray | None
) -> np.ndarray:  # fmt: skip
    from cupel.encode.cache import encode_cached
    from cupel.records.text import render

    assert scaling is not None
    if vectors is None:
        assert encoder is not None
        vectors = encode_cached(encoder, [render(text) for text in votes.prompt_texts()], cache)
    return scaled_texts(scaling, vectors)
