"""A free ideal point per person: what PAL is without its prototypes (user-embedding Bradley-Terry), as a baseline for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.models.people import Fits, ridge_logistic
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape, linear, normal
from cupel.objectives.types import Side


class PersonVectors(PreferenceModel):
    """score(x) = -|f(x) - centre - v_u|^2: f linear, v_u [dim] free for each person and decayed, so that few comparisons move it little.

    The margin is |z_2|^2 - |z_1|^2 + 2 (centre + v_u) . (z_1 - z_2). A person who is not known (-1, or beyond the others)
    has v = 0, the centre; so has, nearly, one who is in the table but never compared anything.

    dim           of the space; 0: the vectors themselves are the space
    pace_vectors  factor of the learning rate for the vectors, which meet few comparisons each

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = PersonVectors(Shape(width=1, people=1), dim=0)
    >>> _ = model.centre.data.fill_(1.0), model.vectors.data.fill_(2.0)
    >>> model.score(torch.tensor([[0.0], [0.0]]), Given(person=torch.tensor([0, -1]))).tolist()
    [-9.0, -1.0]
    """

    name = "person_vectors"
    summary = "a free ideal point per person (user-embedding Bradley-Terry)"
    reads = frozenset({"person"})

    def __init__(self, shape: Shape, *, dim: int = 16, pace_vectors: float = 10.0, seed: int = 0) -> None:
        super().__init__(shape)
        if dim < 0 or not pace_vectors > 0:
            raise InputError(f"person_vectors: dim >= 0 and pace_vectors > 0 are asked for, not {dim} and {pace_vectors:g}")
        self.pace_vectors = pace_vectors
        draw = torch.Generator().manual_seed(seed)
        self.map: nn.Module = linear(draw, shape.width, dim, bias=False) if dim else nn.Identity()
        self.centre = normal(draw, dim or shape.width, scale=0.1)
        self.vectors = normal(draw, shape.people, dim or shape.width, scale=0.1)

    def represent(self, x: Tensor) -> Tensor:
        """The points of the responses, [m, d]."""
        return self.map(x)

    def sides(self, first: Tensor, second: Tensor, given: Given) -> tuple[Side, Side]:
        """Sides with the scores of both responses for the same person."""
        ideal = self.ideal(given.person)
        return Side(score=-(first - ideal).square().sum(dim=1)), Side(score=-(second - ideal).square().sum(dim=1))

    def score(self, z: Tensor, given: Given) -> Tensor:
        """[m] scores of points z for the people given; for the centre where none are."""
        return -(z - self.ideal(given.person)).square().sum(dim=1)

    def ideal(self, person: Tensor | None) -> Tensor:
        """[B, d] ideal points of people by index; the centre [1, d] where None."""
        if person is None:
            return self.centre[None]
        known = (person >= 0) & (person < len(self.vectors))
        return self.centre + torch.where(known[:, None], self.vectors[person.clamp(0, len(self.vectors) - 1)], 0)

    def decayed(self, name: str) -> bool:
        """l2 is for f and the vectors; the centre goes free."""
        return name != "centre"

    def pace(self, name: str) -> float:
        """`pace_vectors` for centre and vectors."""
        return 1.0 if name.startswith("map.") else self.pace_vectors

    @torch.no_grad()
    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """Table people: how far each ideal point is from the centre, and its cosine with the mean of all."""
        v = self.vectors.double()
        names = [people[i] if i < len(people) else str(i) for i in range(len(v))]
        cosine = functional.cosine_similarity(v, v.mean(dim=0, keepdim=True), dim=1)
        table = {"person": names, "distance": torch.linalg.vector_norm(v, dim=1).tolist(), "cosine_with_mean": cosine.tolist()}
        return Explanation((f"{len(v):,} people have an ideal point each; anyone else is scored from the centre.",), {"people": table})


def fit_new_vectors(model: PersonVectors, features: np.ndarray, data: Comparisons, *, ridge: float = 1.0) -> Fits:
    """Vectors v [people, d] of new people, numbered by `data.annotator`, with f and the centre frozen: convex, with ridge/2 |v|^2.

    InputError where a comparison names no person, or ridge is not above 0.
    """
    data.check(features)
    people = len(data.annotators) or int(data.annotator.max(initial=-1)) + 1
    with torch.no_grad():
        z = model.represent(torch.from_numpy(features)).double().numpy()
        centre = model.centre.double().numpy()
    one, two = z[data.first], z[data.second]
    offset = (two**2).sum(axis=1) - (one**2).sum(axis=1) + 2 * (one - two) @ centre
    return ridge_logistic(2 * (one - two), data.p, data.w, data.annotator, people, ridge=ridge, offset=offset)


MODEL = PersonVectors
