"""Three models of who votes for what: one margin for all, people who differ in reliability, people who differ in taste.

A vote of person a compares items i and j (first and second as shown). With x = 1 where the order is known, else 0, the log-odds that the
first wins are

    scalar   s_i - s_j + b x
    noise    (1 + g_a) (s_i - s_j) + b_a x
    plural   (1 + g_a) (s_i - s_j) + b_a x + u_a . (v_i - v_j),     u_a in R^r

and in each a share of votes is a coin toss: P = l/2 + (1 - l) sigmoid(log-odds), one l for all in `scalar` and one per person in the other
two. A slope 1 + g_a is at least 0: a person who errs follows the common margin less, down to not at all. One whose answers run
consistently against it tells something, which is taste here (or the question read the other way round: votes do not tell these two
apart). An item is its own effect plus, where traits t_i in R^k are given
(a length, principal components of frozen vectors), a linear one: s_i = e_i + t_i . beta, v_i = f_i + t_i B. Each model contains the one
before it, so a gain of `plural` over `noise` is a gain of taste over everything that reliability, place and carelessness explain.

Fitted by mean-field variational Bayes under the quadratic bound on the logistic function (Jaakkola & Jordan 2000, Statistics and Computing
10): alternating regressions with closed-form posteriors, of people (their 2 + r numbers jointly) and of items (conjugate gradients over
all items at once). The variances of g, b, e and each taste are estimated from the data by MacKay's fixed point (MacKay 1992, Neural
Computation 4), so effects the votes do not support shrink to 0; a prediction is averaged over what remains unknown (the same paper's
sigmoid(mean / sqrt(1 + pi var / 8))). The bilinear form of taste is that of ideal points and of PAL with squared distance
(arXiv 2406.08469): there the margin is linear in the person's point.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.ballots import Ballots
from cupel.votes.ballots import ballots as ballots  # one import for votes and fit

Model = Literal["scalar", "noise", "plural"]
MODELS: tuple[Model, ...] = ("scalar", "noise", "plural")
#: a coin toss prior worth this many votes of a person
_COINS = 10.0
#: variances of effects stay inside, in squared log-odds
_LEAST, _MOST = 1e-6, 25.0
_TOLERANCE = 5e-4
#: iterations before variances of people are estimated: of slopes nothing can be known while scores are near 0
_WARM = 8
#: tastes that move the log-odds by less than this (standard deviation over votes) are none: the fit is then that of `noise` itself
_NO_TASTE = 0.02


@dataclass(frozen=True)
class TasteFit:
    """A fitted model.

    scores [items]: s; slope [people]: 1 + g; place [people]: b; coin [people]: l; taste [people, r]: u; factors [items, r]: v;
    spread: standard deviation, over the votes it was fitted on, of the log-odds that taste adds (0 without taste); mean_spread: that of
    the common margin s_i - s_j; iterations and converged.
    """

    model: Model
    scores: np.ndarray
    slope: np.ndarray
    place: np.ndarray
    coin: np.ndarray
    taste: np.ndarray
    factors: np.ndarray
    spread: float
    mean_spread: float
    iterations: int
    converged: bool
    _state: _State = field(repr=False)

    def predict(self, votes: Ballots) -> np.ndarray:
        """P(the first side wins), float64 [n], averaged over what the fit does not know; a person without votes is the average one."""
        return self._state.predict(votes)

    def log_loss(self, votes: Ballots) -> np.ndarray:
        """-log P(recorded outcome), nats, float64 [n]."""
        p = self.predict(votes)
        return -np.log(np.where(votes.won, p, 1.0 - p))


def fit_tastes(votes: Ballots, model: Model = "plural", *, rank: int = 2, seed: int = 0, max_iterations: int = 100) -> TasteFit:
    """Fit one of the three models to votes.

    rank: tastes, 1 to 3; more than the votes support shrink to nothing. seed: of the start of the tastes. InputError for an unknown
    model or another rank.

    >>> rng = np.random.default_rng(0)
    >>> who, (i, j) = rng.integers(0, 40, 6000), rng.permuted(np.tile(np.arange(20), (6000, 1)), axis=1)[:, :2].T
    >>> like = np.where(who % 2, 1.5, -1.5) * (np.arange(20) % 2)[i] - np.where(who % 2, 1.5, -1.5) * (np.arange(20) % 2)[j]
    >>> found = fit_tastes(ballots(i, j, rng.random(6000) < 1 / (1 + np.exp(-like)), who), rank=1)
    >>> abs(round(float(np.corrcoef(found.taste[:, 0], np.arange(40) % 2)[0, 1]), 1))
    1.0
    """
    if model not in MODELS:
        raise InputError(f"the models are {', '.join(MODELS)}, not {model!r}")
    if rank not in (1, 2, 3):
        raise InputError(f"the rank of taste is 1, 2 or 3, not {rank!r}")
    state = _State(votes if model != "scalar" else replace(votes, person=np.zeros_like(votes.person), people=1), model)
    done, converged = state.run(max_iterations)
    if model == "plural":
        richer = copy(state)
        richer.add_tastes(rank, seed)
        more, converged = richer.run(max_iterations)
        done += more
        if richer.spread() >= _NO_TASTE:
            state = richer
        else:
            state.without_tastes(rank)
    return state.result(votes.people, done, converged)


class _State:
    """Posterior means and covariances, and the alternating updates. c = 1 + r columns: the common score and the tastes."""

    def __init__(self, votes: Ballots, model: Model) -> None:
        from scipy.sparse import csr_array

        self.votes = votes
        self.model: Model = model
        n, self.r, self.k = len(votes), 0, votes.traits.shape[1]
        rows = np.arange(n)
        self.d = csr_array(
            (np.concatenate([np.ones(n), -np.ones(n)]), (np.tile(rows, 2), np.concatenate([votes.first, votes.second]))),
            shape=(n, votes.items),
        )
        self.dt = self.d.T.tocsr()
        self.touched = abs(self.dt)
        self.apart = self.d @ votes.traits if self.k else np.zeros((n, 0))  # t_i - t_j
        self.x = float(votes.ordered)
        self.kappa = votes.won - 0.5
        self.seen = np.bincount(votes.person, minlength=votes.people) > 0
        self.effect = np.zeros((votes.items, 1))  # e, f
        self.slopes = np.zeros((self.k, 1))  # beta, B
        self.item_cov = np.zeros((votes.items, 1, 1))
        self.item_var = np.ones(1)
        # a person's numbers: g, u_1 ... u_r, b
        self.theta = np.zeros((votes.people, 2))
        self.theta_cov = np.zeros((votes.people, 2, 2))
        self.b0 = 0.0
        self.prior = np.array([0.25, 0.1]) if model != "scalar" else np.array([_LEAST, 1.0])
        self.done = 0
        self.coin0 = 0.02
        self.coin = np.full(votes.people, self.coin0)

    # ---- moments of every vote ------------------------------------------------------------------------------------------------

    def items_of(self) -> np.ndarray:
        """Scores and factors of items [items, 1 + r]."""
        return self.effect + self.votes.traits @ self.slopes if self.k else self.effect

    def second_moment(self) -> np.ndarray:
        """E[c c'] of people [people, 1 + r, 1 + r], c = (1 + g, u)."""
        mean = self.loading()
        return mean[:, :, None] * mean[:, None, :] + self.theta_cov[:, :-1, :-1]

    def loading(self) -> np.ndarray:
        """E[c] of people [people, 1 + r]: what the common score and the tastes are multiplied by."""
        return self.theta[:, :-1] + np.eye(1, 1 + self.r)[0]

    def moments(self, votes: Ballots, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance) [n] of the log-odds."""
        z, who, both = self._design(apart), votes.person, self.second_moment()
        mean, var = z[0].copy(), np.zeros(len(votes))
        for i in range(len(z)):
            mean += z[i] * self.theta[who, i]
            for j in range(i, len(z)):
                times = 1.0 if i == j else 2.0
                var += times * z[i] * z[j] * self.theta_cov[who, i, j]
                if j < len(z) - 1:
                    var += times * both[who, i, j] * self._unsure(votes, i, j)
        return mean, np.maximum(var, 0.0)

    def _design(self, apart: np.ndarray) -> np.ndarray:
        """What a person's numbers multiply [2 + r, n]: margin, tastes, place."""
        return np.concatenate([apart.T, np.full((1, len(apart)), self.x)])

    def _unsure(self, votes: Ballots, i: int, j: int) -> np.ndarray:
        """Covariance [n] of columns i and j of (score, factors) of first - second."""
        cov = self.item_cov[:, i, j]
        return cov[votes.first] + cov[votes.second]

    # ---- updates --------------------------------------------------------------------------------------------------------------

    def run(self, limit: int) -> tuple[int, bool]:
        """Alternate until the log-odds move by less than the tolerance (root mean square); (iterations, converged)."""
        before = None
        for step in range(1, limit + 1):
            apart = self.d @ self.items_of()
            mean, var = self.moments(self.votes, apart)
            if before is not None and step > _WARM and np.sqrt(np.mean((mean - before) ** 2)) < _TOLERANCE:
                return step, True
            before = mean
            weight, omega = self.weigh(mean, var)
            self.update_people(apart, weight, omega)
            self.update_items(weight, omega)
        return limit, False

    def weigh(self, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(probability that the vote was meant, curvature of the bound) [n]; updates the shares of coin tosses."""
        votes = self.votes
        meant = _sigmoid(np.where(votes.won, mean, -mean) / np.sqrt(1 + np.pi * var / 8))
        coin = self.coin[votes.person]
        weight = (1 - coin) * meant / ((1 - coin) * meant + coin / 2)
        tossed = np.bincount(votes.person, weights=1 - weight, minlength=votes.people)
        total = np.bincount(votes.person, minlength=votes.people)
        self.coin = (tossed + _COINS * self.coin0) / (total + _COINS)
        self.coin0 = float(np.clip(self.coin[self.seen].mean(), 1e-4, 0.9))
        xi = np.sqrt(mean**2 + var)
        omega = np.where(xi > 1e-4, np.tanh(xi / 2) / (2 * np.maximum(xi, 1e-4)), 0.25)
        return weight, omega

    def update_people(self, apart: np.ndarray, weight: np.ndarray, omega: np.ndarray) -> None:
        """Posterior of (g, b, u) of every person given items, then the variances between people."""
        votes, size = self.votes, 2 + self.r
        z, curve, meant = self._design(apart), weight * omega, weight * self.kappa
        gram, pull = np.empty((votes.people, size, size)), np.empty((votes.people, size))
        for i in range(size):
            for j in range(i, size):
                square = z[i] * z[j] if j == size - 1 else z[i] * z[j] + self._unsure(votes, i, j)
                gram[:, i, j] = gram[:, j, i] = np.bincount(votes.person, weights=curve * square, minlength=votes.people)
            # what g = 0 leaves, E[z m], is not the person's
            pull[:, i] = np.bincount(votes.person, weights=meant * z[i], minlength=votes.people) - gram[:, 0, i]
        pull[:, -1] += self.b0 / self.prior[-1]
        self.theta_cov = np.linalg.inv(gram + np.diag(1 / self.prior))
        self.theta = np.einsum("pij,pj->pi", self.theta_cov, pull)
        self.done += 1
        if self.model == "scalar":
            return
        self._not_reversed()
        if self.done <= _WARM:
            return
        if self.x:
            self.b0 = float(self.theta[self.seen, -1].mean())
        centred = self.theta[self.seen] - self.b0 * np.eye(1, size, size - 1)[0]
        kept = self.seen.sum() - self.theta_cov[self.seen][:, range(size), range(size)].sum(axis=0) / self.prior
        free = np.arange(size) < (size if self.x else size - 1)
        self.prior = np.where(free, _variance(centred, kept, self.prior), self.prior)

    def _not_reversed(self) -> None:
        """A slope below 0 becomes 0, and the person's other numbers what they are given that."""
        at = np.flatnonzero(self.theta[:, 0] < -1)
        if not len(at):
            return
        column = self.theta_cov[at, :, 0]
        self.theta[at] += column * ((-1 - self.theta[at, 0]) / column[:, 0])[:, None]
        self.theta_cov[at] -= column[:, :, None] * column[:, None, :] / column[:, :1, None]

    def update_items(self, weight: np.ndarray, omega: np.ndarray, tolerance: float = 1e-3) -> None:
        """Posterior of e and f of all items (and of beta and B) given people, by conjugate gradients; then the variance of e."""
        votes, c = self.votes, 1 + self.r
        curve, mean = weight * omega, self.loading()
        with_place = mean * self.theta[:, -1:] + self.theta_cov[:, :-1, -1]  # E[c b]
        matrix = curve[:, None] * self.second_moment().reshape(-1, c * c)[votes.person]
        right = (weight * self.kappa)[:, None] * mean[votes.person] - (self.x * curve)[:, None] * with_place[votes.person]
        gram = (self.touched @ matrix).reshape(-1, c, c)
        matrix = matrix.reshape(-1, c, c)
        self.item_cov = np.linalg.inv(gram + np.diag(1 / self.item_var))
        apart = self.apart
        trait_gram = np.einsum("nk,nij->kij", apart**2, matrix) + np.eye(c)
        trait_cov = np.linalg.inv(trait_gram)

        def times(e: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            inside = np.einsum("nij,nj->ni", matrix, self.d @ e + apart @ b)
            return self.dt @ inside + e / self.item_var, apart.T @ inside + b

        def soften(e: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.einsum("pij,pj->pi", self.item_cov, e), np.einsum("kij,kj->ki", trait_cov, b)

        start = (self.effect, self.slopes)
        self.effect, self.slopes = _conjugate_gradients(times, soften, (self.dt @ right, apart.T @ right), start, tolerance)
        kept = votes.items - self.item_cov[:, range(c), range(c)].sum(axis=0) / self.item_var
        new = _variance(self.effect, kept, self.item_var)
        # without traits the scale of tastes is that of people, with them this is how far items leave their traits
        self.item_var = np.concatenate([np.maximum(new[:1], 1e-3), np.clip(new[1:], 1e-4, 1.0) if self.k else self.item_var[1:]])

    def add_tastes(self, rank: int, seed: int) -> None:
        """Start r tastes at the leading directions of what people's votes leave over, per item, in units of its standard error."""
        votes = self.votes
        mean, var = self.moments(votes, self.d @ self.items_of())
        weight, omega = self.weigh(mean, var)
        left = weight * (self.kappa - omega * mean)
        from scipy.sparse import coo_array

        rows, columns = np.tile(votes.person, 2), np.concatenate([votes.first, votes.second])
        table = coo_array((np.concatenate([left, -left]), (rows, columns)), shape=(votes.people, votes.items)).tocsr()
        people = 1 / np.sqrt(np.bincount(votes.person, weights=weight * omega, minlength=votes.people) + 1)
        items = 1 / np.sqrt(self.touched @ (weight * omega) + 1)
        table = (table * people[:, None]).tocsr() * items[None, :]
        table = table.tocsr()
        q = np.linalg.qr(np.random.default_rng([seed, 13]).normal(size=(votes.items, rank)))[0]
        for _ in range(30):
            q = np.linalg.qr(table.T @ (table @ q))[0]
        rank = q.shape[1]
        v = q * items[:, None]
        v *= np.sqrt(votes.items / np.maximum((v**2).sum(axis=0), 1e-12))
        self.r = rank
        self.effect = np.concatenate([self.effect, v], axis=1)
        self.slopes = np.concatenate([self.slopes, np.zeros((self.k, rank))], axis=1)
        self.item_cov = np.pad(self.item_cov, ((0, 0), (0, rank), (0, rank)))
        self.item_var = np.concatenate([self.item_var, np.ones(rank)])
        self._open(rank)
        self.prior = np.concatenate([self.prior[:1], np.ones(rank), self.prior[1:]])

    def without_tastes(self, rank: int) -> None:
        """The same fit, with tastes of nothing."""
        self.r = rank
        self.effect, self.slopes = (np.pad(x, ((0, 0), (0, rank))) for x in (self.effect, self.slopes))
        self.item_cov = np.pad(self.item_cov, ((0, 0), (0, rank), (0, rank)))
        self._open(rank)

    def _open(self, rank: int) -> None:
        """Room for the tastes of people, at 0, between g and b."""
        self.theta = np.insert(self.theta, [1] * rank, 0.0, axis=1)
        self.theta_cov = np.insert(np.insert(self.theta_cov, [1] * rank, 0.0, axis=1), [1] * rank, 0.0, axis=2)

    def spread(self) -> float:
        """Standard deviation over the votes of the log-odds that taste adds."""
        apart = self.d @ self.items_of()
        return float(np.sqrt(np.mean(np.einsum("nr,nr->n", apart[:, 1:], self.theta[self.votes.person, 1:-1]) ** 2)))

    # ---- results --------------------------------------------------------------------------------------------------------------

    def predict(self, votes: Ballots) -> np.ndarray:
        """P(first wins) [n]."""
        if (votes.items, votes.people) != (self.votes.items, self.votes.people) and self.model != "scalar":
            raise InputError("predictions need votes on the same items by the same people as the fit: cut them with `take`")
        if self.model == "scalar":
            votes = replace(votes, person=np.zeros_like(votes.person), people=1)
        items = self.items_of()
        mean, var = self.moments(votes, items[votes.first] - items[votes.second])
        coin = self.coin[votes.person]
        return coin / 2 + (1 - coin) * _sigmoid(mean / np.sqrt(1 + np.pi * var / 8))

    def result(self, people: int, iterations: int, converged: bool) -> TasteFit:
        """The fit as users see it."""
        items = self.items_of()
        every = np.zeros(people, dtype=np.int64) if self.model == "scalar" else np.arange(people)
        apart = self.d @ items
        return TasteFit(
            model=self.model, scores=items[:, 0], slope=1 + self.theta[every, 0], place=self.x * self.theta[every, -1],
            coin=self.coin[every], taste=self.theta[every, 1:-1], factors=items[:, 1:], spread=self.spread(),
            mean_spread=float(np.sqrt(np.mean(apart[:, 0] ** 2))), iterations=iterations, converged=converged, _state=self,
        )  # fmt: skip


def _variance(mean: np.ndarray, kept: np.ndarray, now: np.ndarray) -> np.ndarray:
    """MacKay's fixed point: sum of squared means over the number of effects that the data determine; within bounds, at most halved."""
    new = (mean**2).sum(axis=0) / np.maximum(kept, 1e-9)
    return np.clip(new, np.maximum(now / 4, _LEAST), np.minimum(now * 4, _MOST))


def _conjugate_gradients(times, soften, right, start, tolerance, *, limit: int = 30):
    """Solve times(x) = right for a pair of arrays, preconditioned by soften, from start."""
    x = start
    product = times(*x)
    rest = tuple(a - b for a, b in zip(right, product, strict=True))
    soft = soften(*rest)
    step, size = soft, _dot(rest, soft)
    goal = tolerance**2 * max(_dot(right, soften(*right)), 1e-30)
    for _ in range(limit):
        if size <= goal:
            break
        product = times(*step)
        length = size / max(_dot(step, product), 1e-300)
        x = tuple(a + length * b for a, b in zip(x, step, strict=True))
        rest = tuple(a - length * b for a, b in zip(rest, product, strict=True))
        soft = soften(*rest)
        size, old = _dot(rest, soft), size
        step = tuple(a + size / old * b for a, b in zip(soft, step, strict=True))
    return x


def _dot(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> float:
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
