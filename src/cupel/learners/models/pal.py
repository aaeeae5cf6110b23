"""PAL: every response is a point, every person an ideal point that is a convex mixture of K prototypes shared by all (card 13).

"PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences", Chen et al. 2024, arXiv:2406.08469. Formulas follow the
card's account of the authors' code; what is known of the paper's body only at second hand (its theorems, its settings) is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cupel.errors import InputError
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Reads, Shape, linear, normal
from cupel.objectives.types import Side

if TYPE_CHECKING:
    from cupel.learners.heads.data import Comparisons

#: largest factor of the cosine in kind B
LARGEST_SCALE = 100.0
#: a prototype whose mean weight is below this share of 1/K is one that fewer prototypes would do without
PRUNE = 0.2
#: a person says where a prototype is once this much of the weight lies on it
VERTEX = 0.8


class PAL(PreferenceModel):
    """Scores of responses for a person u with mixture w_u = softmax(omega_u / temperature) over K prototypes; larger is better.

        kind A   score(x) = -|f(x) - a_u|^2  (distance sq_l2)  or  -|f(x) - a_u|  (l2);   a_u = w_u P, f(w_u P) or w_u f(P)  (where)
        kind B   score(x) = s cos(f(x), a_u(q)),   a_u(q) = sum_k w_uk g_k(q),   s = min(exp(logit_scale), 100), learned from 1/0.07

    q is the vector of the prompt, which only kind B reads. With sq_l2 the margin is |z_2|^2 - |z_1|^2 + 2 a_u . (z_1 - z_2), linear in the
    ideal point. The logits omega start at random: with equal ones all people share one ideal point and no gradient tells them apart.

    prototypes     K, at most as many as there are people; 1 is one ideal point for all
    dim            d of the space; 0: the vectors themselves are the space (no f)
    layers         0: f is linear without bias; N: an MLP with N hidden GELU layers of width d
    prompt_layers  hidden layers of each g_k, likewise
    partition      kind B's variant: mixtures while learning, each person's largest prototype alone afterwards
    tight          kind A: factor of the mean squared distance of the prototypes from their centre, added to the loss. Any larger triangle
                   around the same ideal points predicts as well; a small factor takes the smallest, which is what makes mixtures mean
                   something. Not the paper's, whose own penalty on large norms is switched off; 0 as there
    unknown        whom a person outside training (index -1, beyond the others, or never learned from) is scored as: `population`, the mean
                   of w over the people learned from, which `explain` says; or `error`
    pace_users     factor of the learning rate for omega, prototypes and logit_scale, which meet few comparisons each. The authors'
                   rates for their fine-tuned encoder are in a ratio of 50 (1000 for logit_scale) to that of f

    Comparisons that are learned from have to name their person. InputError for settings that make no sense or do not fit the data.

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = PAL(Shape(width=2, people=2), prototypes=2, dim=0)
    >>> _ = model.prototypes.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> _ = model.omega.data.copy_(torch.tensor([[0.2, -0.3], [9.0, -9.0]]))
    >>> z = model.represent(torch.tensor([[0.5, 0.5], [1.5, -1.0]]))
    >>> round(model.margin(z[:1], z[1:], Given(person=torch.tensor([0]))).item(), 4)
    3.7703
    """

    name = "pal"
    summary = "a person is a mixture of shared prototypes: ideal points (A) or directions that depend on the prompt (B)"
    reads = frozenset({"person"})

    def __init__(
        self, shape: Shape, *, prototypes: int = 3, dim: int = 16, kind: str = "A", distance: str = "sq_l2", where: str = "Pw",
        layers: int = 0, prompt_layers: int = 1, temperature: float = 1.0, partition: bool = False, tight: float = 0.0,
        unknown: str = "population", pace_users: float = 10.0, seed: int = 0,
    ) -> None:  # fmt: skip
        for key, value, known in (
            ("kind", kind, ("A", "B")), ("distance", distance, ("sq_l2", "l2")), ("where", where, ("Pw", "f(Pw)", "f(P)w")),
            ("unknown", unknown, ("population", "error")),
        ):  # fmt: skip
            if value not in known:
                raise InputError(f"pal: {key} is one of {', '.join(known)}, not {value!r}")
        self.reads = self.reading(kind=kind)  # pyright: ignore[reportIncompatibleVariableOverride, reportAttributeAccessIssue]
        super().__init__(shape)
        if prototypes < 1 or min(dim, layers, prompt_layers, tight) < 0 or not (temperature > 0 and pace_users > 0):
            raise InputError(
                f"pal: prototypes >= 1, dim, layers, prompt_layers, tight >= 0 and temperature, pace_users > 0 are asked for, not "
                f"{prototypes}, {dim}, {layers}, {prompt_layers}, {tight:g}, {temperature:g}, {pace_users:g}"
            )
        if prototypes > shape.people:
            raise InputError(
                f"pal: {prototypes} prototypes for {shape.people} people: a prototype stands for several, so give at most as many"
            )
        if not dim and layers:
            raise InputError(f"pal: layers={layers} of width dim=0: give dim, or layers=0 for the vectors as they are")
        if (partition and kind == "A") or (tight and kind == "B"):
            raise InputError("pal: partition is a variant of kind=B, tight one of kind=A")
        self.kind, self.distance, self.where, self.temperature = kind, distance, where, temperature
        self.is_linear = kind == "A" and distance == "sq_l2" and (where != "f(Pw)" or not layers)  #: margins in the mixture, exactly
        self.partition, self.tight, self.unknown, self.pace_users = partition, tight, unknown, pace_users
        draw = torch.Generator().manual_seed(seed)
        space = dim or shape.width
        self.map: nn.Module = _map(draw, shape.width, dim, layers) if dim else nn.Identity()
        self.omega = normal(draw, shape.people, prototypes)
        if kind == "A":
            self.prototypes = normal(draw, prototypes, space if where == "Pw" else shape.width)
            self.prototypes.data /= self.prototypes.data.norm(dim=1, keepdim=True)
        else:
            self.prompts = nn.ModuleList(_map(draw, shape.prompt, space, prompt_layers, bias=True) for _ in range(prototypes))
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("seen", torch.zeros(shape.people, dtype=torch.bool))
        self.seen: Tensor

    @classmethod
    def reading(cls, **settings: Any) -> frozenset[Reads]:
        """The person, and for kind B the prompt."""
        reads: list[Reads] = ["person", "prompt"] if settings.get("kind", "A") == "B" else ["person"]
        return frozenset(reads)

    @property
    def count(self) -> int:
        """K, how many prototypes there are."""
        return self.omega.shape[1]

    @property
    def learning(self) -> bool:
        """Whether gradients of the mixtures are being taken, as in training."""
        return self.training and self.omega.requires_grad and torch.is_grad_enabled()

    def represent(self, x: Tensor) -> Tensor:
        """The points f(x) of the responses, [m, d]."""
        return self.map(x)

    def prepare(self, features: np.ndarray, data: Comparisons) -> None:
        """Notes who is learned from. InputError where a comparison names no person or a vector is not finite: how many, which first."""
        check_finite(features)
        bad = np.flatnonzero((data.annotator < 0) | (data.annotator >= len(self.omega)))
        if len(bad):
            raise InputError(
                f"pal: {len(bad):,} of {len(data):,} comparisons to learn from name no person (first: row {bad[0]}): fill the column of "
                f"annotators, or leave these comparisons out"
            )
        self.seen[torch.from_numpy(data.annotator)] = True
        if self.count > int(self.seen.sum()):
            raise InputError(f"pal: {self.count} prototypes for {int(self.seen.sum())} people who compared something: give at most as many")

    def weights(self, person: Tensor | None) -> Tensor:
        """Mixtures w of people by index, [B, K]; those who are unknown, and all where None, get the population's, or InputError."""
        everyone = functional.softmax(self.omega / self.temperature, dim=1)
        if person is None:
            if self.unknown == "error":
                raise InputError("pal reads the person of each comparison: name the annotators, or score with unknown=population")
            return self.population()[None]
        inside = person.clamp(0, len(everyone) - 1)
        strange = (person < 0) | (person >= len(everyone))
        if bool(self.seen.any()):
            strange = strange | ~self.seen[inside]
        if not bool(strange.any()):
            return everyone[person]
        if self.unknown == "error":
            first = int(strange.nonzero()[0])
            raise InputError(
                f"pal: {int(strange.sum()):,} of {len(person):,} people were not in training (first: index {int(person[first])} of row "
                f"{first}). Fit them with fit_new_users, or score them as the mean of all with unknown=population"
            )
        return torch.where(strange[:, None], self.population(), everyone[inside])

    def population(self) -> Tensor:
        """[K] mean of w over the people learned from; over all of them where nobody was yet."""
        known = self.seen if bool(self.seen.any()) else torch.ones_like(self.seen)
        return functional.softmax(self.omega[known] / self.temperature, dim=1).mean(dim=0)

    def points(self) -> Tensor:
        """[K, d] the prototypes of kind A as ideal points. InputError for kind B, whose prototypes are functions of the prompt."""
        if self.kind == "B":
            raise InputError("pal: the prototypes of kind B are functions of the prompt, not points")
        return self.prototypes if self.where == "Pw" else self.map(self.prototypes)

    def ideal(self, mixture: Tensor, prompt: Tensor | None) -> Tensor:
        """[B or 1, d] ideal points of mixtures [B or 1, K], for prompts [B, p] in kind B."""
        if self.kind == "A":
            return self.map(mixture @ self.prototypes) if self.where == "f(Pw)" else mixture @ self.points()
        if prompt is None:
            raise InputError("pal: kind=B reads the prompt of each comparison, and none is given")
        if self.partition and not self.learning:
            mixture = functional.one_hot(mixture.argmax(dim=1), self.count).to(mixture.dtype)
        return (mixture[..., None] * torch.stack([g(prompt) for g in self.prompts], dim=1)).sum(dim=1)

    def toward(self, z: Tensor, ideal: Tensor) -> Tensor:
        """[m] scores of points z [m, d] for ideal points [m or 1, d]."""
        if self.kind == "B":
            return self.logit_scale.exp().clamp(max=LARGEST_SCALE) * functional.cosine_similarity(z, ideal, dim=1)
        if self.distance == "l2":
            return -torch.linalg.vector_norm(z - ideal, dim=1)
        return -(z - ideal).square().sum(dim=1)

    def score(self, z: Tensor, given: Given) -> Tensor:
        """[m] scores of points z for the people given. InputError for a missing prompt (B) or person (as `unknown` says)."""
        return self.toward(z, self.ideal(self.weights(given.person), given.prompt))

    def sides(self, first: Tensor, second: Tensor, given: Given) -> tuple[Side, Side]:
        """Sides with the scores of both responses for the same ideal points."""
        ideal = self.ideal(self.weights(given.person), given.prompt)
        return Side(score=self.toward(first, ideal)), Side(score=self.toward(second, ideal))

    def penalty(self) -> Tensor | None:
        """tight times the mean squared distance of the prototypes from their centre; None where tight is 0."""
        if not self.tight:
            return None
        points = self.points()
        return self.tight * (points - points.mean(dim=0)).square().sum(dim=1).mean()

    def decayed(self, name: str) -> bool:
        """l2 is for f and g alone, as in the authors' groups."""
        return name.startswith(("map.", "prompts.")) and not name.endswith("bias")

    def pace(self, name: str) -> float:
        """`pace_users` for all but f and g."""
        return 1.0 if name.startswith(("map.", "prompts.")) else self.pace_users

    @torch.no_grad()
    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """Tables: people (mixture, entropy in nats, largest weight, cluster), prototypes (mean weight, people, largest weight of anybody),
        distances (kind A: between the prototypes' ideal points). Words: prototypes to prune, those nobody is close to, unknown people."""
        known = self.seen if bool(self.seen.any()) else torch.ones_like(self.seen)
        rows = known.nonzero()[:, 0]
        w = functional.softmax(self.omega[known] / self.temperature, dim=1).double()
        names = [people[i] if i < len(people) else str(i) for i in rows.tolist()]
        cluster, k = w.argmax(dim=1), self.count
        mean, largest, size = w.mean(dim=0), w.amax(dim=0), torch.bincount(cluster, minlength=k)
        tables: dict[str, dict[str, list[Any]]] = {
            "people": {
                "person": names, **{f"w{j}": w[:, j].tolist() for j in range(k)}, "entropy": torch.special.entr(w).sum(dim=1).tolist(),
                "largest": w.amax(dim=1).tolist(), "cluster": cluster.tolist(),
            },
            "prototypes": {"prototype": list(range(k)), "mean_weight": mean.tolist(), "people": size.tolist(), "largest": largest.tolist()},
        }  # fmt: skip
        words = [
            f"{len(rows):,} people are mixtures of {k} prototype{'s' * (k > 1)}; anyone else is scored as {self._stranger(len(rows))}."
        ]
        if self.kind == "A" and k > 1:
            points = self.points().double()
            at = torch.triu_indices(k, k, offset=1)
            apart = torch.linalg.vector_norm(points[at[0]] - points[at[1]], dim=1)
            tables["distances"] = {"first": at[0].tolist(), "second": at[1].tolist(), "distance": apart.tolist()}
        idle = (mean < PRUNE / k).nonzero()[:, 0].tolist()
        if idle:
            words.append(f"Prototypes {idle} carry less than {PRUNE:g} of an equal share of the weight: {k - len(idle)} would do.")
        vague = ((largest < VERTEX) & (mean >= PRUNE / k)).nonzero()[:, 0].tolist() if k > 1 else []
        if vague:
            words.append(
                f"Nobody has more than {VERTEX:g} on prototypes {vague}: where these lie is not identified, only the mixtures' points."
            )
        return Explanation(tuple(words), tables)

    def _stranger(self, people: int) -> str:
        return f"the mean mixture of these {people:,}" if self.unknown == "population" else "an error"


def over_tokens(
    losses: Tensor, begin: Tensor, end: Tensor, how: Literal["mean", "only_last", "cumulative"] = "cumulative"
) -> Tensor:  # fmt: skip
    """One loss per comparison, [B], from losses at every token [B, T], of which begin to end (inclusive, int64 [B]) count.

    begin is the first position where the two responses differ. With n tokens that count and i = 1..n among them: mean; the last alone;
    cumulative, sum_i i loss_i / (n (n + 1) / 2). From the authors' code, by the card. InputError where no token counts or one is not there.

    >>> losses = torch.tensor([[9.0, 0.9, 0.7, 0.4, 0.2]])
    >>> [round(over_tokens(losses, torch.tensor([1]), torch.tensor([4]), how).item(), 4) for how in ("cumulative", "mean", "only_last")]
    [0.43, 0.55, 0.2]
    """
    if how not in ("mean", "only_last", "cumulative"):
        raise InputError(f"losses of tokens are reduced by mean, only_last or cumulative, not {how!r}")
    bad = ((begin > end) | (begin < 0) | (end >= losses.shape[1])).nonzero()[:, 0]
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(begin):,} comparisons have no tokens that count within {losses.shape[1]} (first: row {int(bad[0])})"
        )
    at = torch.arange(losses.shape[1], device=losses.device)[None]
    rank = (at - begin[:, None] + 1) * (at >= begin[:, None]) * (at <= end[:, None])
    weight = {"mean": rank > 0, "only_last": (rank > 0) & (at == end[:, None]), "cumulative": rank}[how].to(losses.dtype)
    return torch.where(weight > 0, losses * weight, 0).sum(dim=1) / weight.sum(dim=1)


def check_finite(features: np.ndarray) -> None:
    """InputError where a vector has an entry that is not finite, with how many and the first row."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(features):,} vectors are not finite (first: row {bad[0]}): leave these responses out, or "
            f"encode them again"
        )


def _map(draw: torch.Generator, inputs: int, width: int, layers: int, *, bias: bool = False) -> nn.Module:
    """Linear(inputs, width), then N times GELU and Linear(width, width). Only an MLP has biases, unless asked for."""
    parts: list[nn.Module] = [linear(draw, inputs, width, bias=bias or layers > 0)]
    for _ in range(layers):
        parts += [nn.GELU(), linear(draw, width, width)]
    return nn.Sequential(*parts)


MODEL = PAL
