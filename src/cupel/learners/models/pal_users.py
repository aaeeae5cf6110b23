"""PAL beyond training: mixtures of new people from a few comparisons, one person's reward as a scorer, and how many prototypes to take.

Second stage and export of card 13 (arXiv:2406.08469). Everything shared is frozen; the loss of a new person is logistic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.margins import margins, wide
from cupel.learners.models.pal import PAL, check_finite
from cupel.learners.models.people import LEAST_PRIOR, cross_entropy, padded, simplex_logistic

if TYPE_CHECKING:
    from cupel.learners.heads.fit import Fitted

#: steps and rate of Adam where a mixture's margins are not linear in it (the card's are 100 and 0.1)
ADAM_STEPS, ADAM_RATE = 300, 0.1


@dataclass(frozen=True)
class NewUsers:
    """Mixtures of new people, in the order of their index.

    weights      float64 [people, K], each row at least 0 with sum 1
    comparisons  int64 [people], those of them that are no tie and have weight
    loss         float64 [people], mean log loss on them; nan without any
    at_prior     bool [people], who has none of these and stays at the prior's mean
    warnings     what to know before these weights are believed
    """

    weights: np.ndarray
    comparisons: np.ndarray
    loss: np.ndarray
    at_prior: np.ndarray
    warnings: tuple[str, ...]


def fit_new_users(
    model: PAL, features: np.ndarray, data: Comparisons, *, prior: float = 1.0, towards: Literal["population", "uniform"] = "population"
) -> NewUsers:  # fmt: skip
    """Mixtures of the people whom `data.annotator` numbers from 0, all else of the model frozen.

        argmin over the simplex  sum_i w_i [p_i sp(-m_i) + (1 - p_i) sp(m_i)]  -  prior sum_k mean_k log v_k

    The prior is a Dirichlet's, worth `prior` comparisons, and least at the population's mean or at 1/K. With squared distance the margin is
    linear in v, the problem convex, and Newton's steps within the simplex find its one minimum; otherwise (unsquared distance, an MLP after
    the mixture, kind B) Adam goes from zero logits, all people at once, to a local one. Who has only ties stays at the prior's mean and is
    counted in the warnings; so is who has one comparison.
    InputError where a comparison names no person, vectors are not finite (with the row), or kind B is given no prompts.

    >>> from cupel.learners.models.types import Shape
    >>> model = PAL(Shape(width=1, people=2), prototypes=2, dim=0)
    >>> _ = model.prototypes.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> x = np.array([[0.5], [-0.5]], np.float32)
    >>> data = Comparisons.of(np.zeros(4, int), np.ones(4, int), np.array([1, 1, 1, 0.0]), annotator=np.zeros(4, int))
    >>> fit_new_users(model, x, data, prior=0.0, towards="uniform").weights.round(4).tolist()  # 4 w - 2 = log 3
    [[0.7747, 0.2253]]
    """
    check_finite(features)
    data.check(features)
    if towards not in ("population", "uniform"):
        raise InputError(f"a new person's prior lies at the population's mean or is uniform, not {towards!r}")
    people = len(data.annotators) or int(data.annotator.max(initial=-1)) + 1
    padded(data.annotator, max(people, 1))  # names those without a person
    says = (data.p != 0.5) & (data.w > 0)
    count = np.bincount(data.annotator[says], minlength=people)
    used = data.take(np.flatnonzero(count[data.annotator] > 0))
    mean = np.full(model.count, 1 / model.count)
    if towards == "population":
        with torch.no_grad():
            mean = model.population().double().numpy()
            mean = np.maximum(mean, LEAST_PRIOR) / np.maximum(mean, LEAST_PRIOR).sum()
    if len(used):
        w, loss = _fitted(model, features, used, people, prior, mean)
    else:
        w, loss = np.tile(mean, (people, 1)), np.zeros(people)
    at_prior = count == 0
    w[at_prior] = mean
    total = np.bincount(used.annotator, used.w, people)
    warnings = []
    for text, who in (("no comparison that is not a tie and stay at the prior's mean", at_prior), ("one comparison only", count == 1)):
        if who.any():
            some = ", ".join(_name(data.annotators, int(u)) for u in np.flatnonzero(who)[:3])
            warnings.append(f"{int(who.sum()):,} of {people:,} new people have {text} (first: {some})")
    return NewUsers(w, count, np.where(at_prior, np.nan, loss / np.where(total > 0, total, 1)), at_prior, tuple(warnings))


@dataclass(frozen=True)
class PersonalReward:
    """A scalar reward from a PAL model: that of one mixture. Made by `export`; whatever takes a number per response takes it."""

    model: PAL
    mixture: np.ndarray
    whose: str

    def score(self, features: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """Rewards float64 [m] of responses from their vectors float32 [m, d]; kind B reads prompts [m, p]. InputError as the model."""
        check_finite(features)
        model = cast("PAL", wide(self.model))
        with torch.no_grad():
            prompt = None if prompts is None else torch.from_numpy(np.asarray(prompts, np.float64))
            z = model.represent(torch.from_numpy(np.asarray(features, np.float64)))
            return model.toward(z, model.ideal(torch.from_numpy(self.mixture)[None], prompt)).numpy()


def export(
    model: PAL, weights: Sequence[float] | np.ndarray | None = None, *, person: int | None = None, prototype: int | None = None
) -> PersonalReward:  # fmt: skip
    """The reward of a mixture, of a person of training by index, or of one prototype; of the population's mean where nothing is given.

    InputError for weights that are no mixture (K numbers of at least 0 with sum 1), for indices that are not there, for more than one.

    >>> from cupel.learners.models.types import Shape
    >>> model = PAL(Shape(width=1, people=2), prototypes=2, dim=0)
    >>> _ = model.prototypes.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> export(model, [0.5, 0.5]).score(np.array([[2.0]], np.float32)).tolist()
    [-4.0]
    """
    if sum(choice is not None for choice in (weights, person, prototype)) > 1:
        raise InputError("a reward is exported for weights, for a person or for a prototype: give one of the three")
    k = model.count
    if weights is not None:
        mixture, whose = np.asarray(weights, np.float64), "a given mixture"
        if mixture.shape != (k,) or not (mixture >= 0).all() or abs(mixture.sum() - 1) > 1e-6:
            raise InputError(
                f"a mixture of this model is {k} weights of at least 0 with sum 1, not {mixture.tolist()} (sum {mixture.sum():g})"
            )
    elif prototype is not None:
        if not 0 <= prototype < k:
            raise InputError(f"there is no prototype {prototype}: they are 0 to {k - 1}")
        mixture, whose = np.eye(k)[prototype], f"prototype {prototype}"
    else:
        if person is not None and not (0 <= person < len(model.omega) and (bool(model.seen[person]) or not bool(model.seen.any()))):
            raise InputError(f"person {person} is not among those of training: fit their weights with fit_new_users and give these")
        with torch.no_grad():
            found = model.population() if person is None else functional.softmax(model.omega[person] / model.temperature, dim=0)
            mixture = found.double().numpy()
        whose = "the population's mean" if person is None else f"person {person}"
    return PersonalReward(model, mixture, whose)


def exemplars(model: PAL, features: np.ndarray, count: int = 5) -> np.ndarray:
    """Rows of the features nearest to each prototype of kind A, nearest first: int64 [K, count]. InputError for kind B or wrong vectors."""
    check_finite(features)
    with torch.no_grad():
        apart = torch.cdist(model.points(), model.represent(torch.from_numpy(features)))
        return apart.argsort(dim=1, stable=True)[:, :count].numpy()


def balanced(annotator: np.ndarray) -> np.ndarray:
    """Weights with mean 1 under which all people count the same, [n]: n / (people n_u). The authors' user-balanced losses, over all data.

    >>> balanced(np.array([0, 0, 0, 1])).round(4).tolist()
    [0.6667, 0.6667, 0.6667, 2.0]
    """
    _, inverse, count = np.unique(annotator, return_inverse=True, return_counts=True)
    return len(annotator) / (len(count) * count[inverse.reshape(-1)])


@dataclass(frozen=True)
class ChosenK:
    """k of least held-out loss, and for each k tried its mean log loss and accuracy, with the loss's difference to the best's and the
    standard error of that over people; used and tested: comparisons of each split."""

    k: int
    loss: dict[int, float]
    accuracy: dict[int, float]
    behind: dict[int, tuple[float, float]]
    used: tuple[int, ...]
    tested: tuple[int, ...]


def choose_k(
    features: np.ndarray, data: Comparisons, fit: Callable[[np.ndarray, Comparisons, int], Fitted], ks: Sequence[int] = (1, 2, 3, 4, 5), *,
    by: Literal["item", "comparison"] = "item", heldout: float = 0.3, splits: int = 2, seed: int = 0,
) -> ChosenK:  # fmt: skip
    """The number of prototypes by held-out likelihood of people's comparisons.

    fit(features, data, k) trains the model, as a rule `heads.fit.fit` with `head=f"pal:prototypes={k}"`. by="item": a share `heldout` of
    the items (rows of features) is set aside, models learn from comparisons of two other items and are judged on comparisons of two that
    were set aside; mixed ones are left out, and people who were not learned from are judged as the population. A random split of
    comparisons (by="comparison") is for features that say nothing about unseen items (one-hot); it shows each model the items it is
    judged on. InputError where a split leaves nothing to learn from or to judge.
    """
    if not 0 < heldout < 1 or splits < 1 or not ks or by not in ("item", "comparison"):
        raise InputError(
            f"choose_k asks for 0 < heldout < 1, splits >= 1, some ks, by=item or comparison, not {heldout}, {splits}, {ks}, {by!r}"
        )
    check_finite(features)
    loss: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    right: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    who, used, tested = [], [], []
    for split in range(splits):
        rng = np.random.default_rng([seed, split, 13])
        aside = rng.random(len(features)) < heldout
        one, two = (aside[data.first], aside[data.second]) if by == "item" else [rng.random(len(data)) < heldout] * 2
        learn, judge = np.flatnonzero(~one & ~two), np.flatnonzero(one & two & (data.p != 0.5))
        if not len(learn) or not len(judge):
            raise InputError(
                f"split {split} by {by} leaves {len(learn):,} comparisons to learn from and {len(judge):,} to judge of "
                f"{len(data):,}: change heldout"
            )
        train, test = data.take(learn), data.take(judge)
        if not train.annotators:
            train = replace(train, annotators=tuple(map(str, range(int(data.annotator.max()) + 1))))
        for k in ks:
            m = margins(fit(features, train, k).models[:1], features, test)[0]
            loss[k].append(cross_entropy(m, test.p))
            right[k].append(np.where(m == 0, 0.5, (m > 0) == (test.p > 0.5)))
        who.append(test.annotator)
        used.append(len(train))
        tested.append(len(test))
    people = np.unique(np.concatenate(who), return_inverse=True)[1].reshape(-1)
    mean = {k: float(np.concatenate(loss[k]).mean()) for k in ks}
    best = min(ks, key=lambda k: (mean[k], k))
    behind = {}
    for k in ks:
        apart = np.concatenate(loss[k]) - np.concatenate(loss[best])
        sums = np.bincount(people, apart - apart.mean())
        behind[k] = (float(apart.mean()), float(np.sqrt((sums**2).sum()) / len(apart)))
    accuracy = {k: float(np.concatenate(right[k]).mean()) for k in ks}
    return ChosenK(best, mean, accuracy, behind, tuple(used), tuple(tested))


@torch.no_grad()
def mixed_margins(model: PAL, features: np.ndarray, data: Comparisons, mixtures: np.ndarray) -> np.ndarray:
    """Margins float64 [n] of comparisons whose `annotator` points at rows of `mixtures` [people, K], e.g. `NewUsers.weights`."""
    padded(data.annotator, len(mixtures))
    model = cast("PAL", wide(model))
    z = model.represent(torch.from_numpy(np.asarray(features, np.float64)))
    ideal = model.ideal(torch.from_numpy(mixtures[data.annotator]), _prompt(data))
    return (model.toward(z[torch.from_numpy(data.first)], ideal) - model.toward(z[torch.from_numpy(data.second)], ideal)).numpy()


def _fitted(
    model: PAL, features: np.ndarray, data: Comparisons, people: int, prior: float, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Weights [people, K] and summed loss [people]."""
    if model.is_linear:
        every = [mixed_margins(model, features, data, np.tile(row, (people, 1))) for row in np.eye(model.count)]
        found = simplex_logistic(np.stack(every, axis=1), data.p, data.w, data.annotator, people, prior=prior, mean=mean)
        return found.values, found.loss
    model = cast("PAL", wide(model))
    z = model.represent(torch.from_numpy(np.asarray(features, np.float64)))
    one, two, who = z[torch.from_numpy(data.first)], z[torch.from_numpy(data.second)], torch.from_numpy(data.annotator)
    p, w, prompt = torch.from_numpy(data.p), torch.from_numpy(data.w), _prompt(data)
    pull = torch.from_numpy(max(prior, LEAST_PRIOR) * mean)
    omega = torch.zeros(people, model.count, dtype=torch.float64, requires_grad=True)

    def losses() -> Tensor:
        ideal = model.ideal(functional.softmax(omega, dim=1)[who], prompt)
        m = model.toward(one, ideal) - model.toward(two, ideal)
        return w * (functional.softplus(m) - p * m)

    hard, model.partition = model.partition, False  # soft while they are fitted, as in training; the model is a copy
    optimiser = torch.optim.Adam([omega], lr=ADAM_RATE)
    for step in range(ADAM_STEPS):
        optimiser.param_groups[0]["lr"] = ADAM_RATE * min(1.0, 2 * (1 - step / ADAM_STEPS))
        optimiser.zero_grad()
        (losses().sum() - (pull * functional.log_softmax(omega, dim=1)).sum()).backward()
        optimiser.step()
    model.partition = hard
    with torch.no_grad():
        loss = np.bincount(data.annotator, losses().double().numpy(), people)
        weights = functional.softmax(omega.double(), dim=1).numpy()
    return weights, loss


def _prompt(data: Comparisons) -> Tensor | None:
    if data.prompt is None or data.prompts is None:
        return None
    return torch.from_numpy(np.asarray(data.prompts[data.prompt], np.float64))


def _name(annotators: Sequence[str], u: int) -> str:
    return annotators[u] if u < len(annotators) else str(u)
