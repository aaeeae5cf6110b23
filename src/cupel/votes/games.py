"""The game that a matrix of preferences is: its von Neumann winner, policies that learn to play it, targets for training a policy.

Where preferences go round there is no best response, only a best mixture: the policy p that no response beats, max_y s(y > p) = 0. GPO
plays on scores, SPPO on probabilities of winning: different games with different winners. S_ij is the score of i over j, S_ij = -S_ji;
`tau` is the temperature of preferences, P(i > j) = sigmoid(S_ij / tau), and `beta` the strength with which a policy is held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cupel.errors import InputError
from cupel.votes.cycles import skew

Game = Literal["gpo", "sppo"]


@dataclass(frozen=True)
class Winner:
    """A mixture that no response beats: policy [n], and by how much the best answer still beats it (0 up to rounding)."""

    policy: np.ndarray
    exploitability: float


@dataclass(frozen=True)
class Play:
    """Policies of a run: `last` [n], and `average` [n] of the policies of all steps, the first included and `last` not."""

    last: np.ndarray
    average: np.ndarray


@dataclass(frozen=True)
class Targets:
    """What GPO and SPPO regress the log-ratio of each of K responses to, times beta.

    score [..., K]   mean score against the K responses: `rating` of the objective gpo
    win [..., K]     mean probability to beat them; `rating` of SPPO is win - 1/2
    self_comparison  (K - 1) / K where each response is compared with itself too (score 0, probability 1/2), which is a sample of the
                     policy that always ties: score and win - 1/2 are this factor times those against the others; 1 where left out
    """

    score: np.ndarray
    win: np.ndarray
    self_comparison: float

    def rating(self, game: Game) -> np.ndarray:
        """[..., K] `rating` of the objective `gpo` for that game."""
        return self.score if _known(game) == "gpo" else self.win - 0.5


def payoff(scores: Any, game: Game = "gpo", *, tau: float = 1.0, symmetrise: bool = False) -> np.ndarray:
    """The skew-symmetric matrix that is played: S for GPO, sigmoid(S / tau) - 1/2 for SPPO. InputError as `skew`, and unless tau > 0.

    >>> payoff([[0, 2], [-2, 0]], "sppo").round(4).tolist()
    [[0.0, 0.3808], [-0.3808, 0.0]]
    """
    _positive(tau=tau)
    s = skew(scores, symmetrise=symmetrise)
    return s if _known(game) == "gpo" else np.tanh(s / (2 * tau)) / 2


def exploitability(policy: Any, scores: Any) -> float:
    """max_y s(y > p): by how much the best single answer beats a mixture p [n] (at least 0). The duality gap of p against p is twice it.

    InputError as `skew`, and for what is no probability vector.

    >>> exploitability([1, 0, 0], [[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    1.0
    """
    s = skew(scores)
    return float((s @ _policy(policy, len(s))).max())


def von_neumann_winner(scores: Any, game: Game = "gpo", *, tau: float = 1.0, symmetrise: bool = False) -> Winner:
    """The mixture that no response beats, by linear programming: maximise v with sum_i p_i s(i > j) >= v for all j.

    The value of the game is 0. Where several mixtures win, one corner of their set is given. InputError as `payoff`.

    >>> (von_neumann_winner([[0, 2, -1], [-2, 0, 3], [1, -3, 0]]).policy * 6).round(6).tolist()
    [3.0, 1.0, 2.0]
    """
    from scipy.optimize import linprog

    s = payoff(scores, game, tau=tau, symmetrise=symmetrise)
    n, unit = len(s), np.abs(s).max() or 1.0
    bounds = np.column_stack([-s.T / unit, np.ones(n)])
    found = linprog(
        np.append(np.zeros(n), -1.0), A_ub=bounds, b_ub=np.zeros(n), A_eq=np.append(np.ones(n), 0.0)[None], b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)], method="highs",
    )  # fmt: skip
    if found.status != 0:
        raise InputError(f"the linear program of the von Neumann winner did not end: {found.message}")
    policy = np.clip(found.x[:n], 0, None)
    policy /= policy.sum()
    return Winner(policy, float((s @ policy).max()))


def step(policy: Any, scores: Any, beta: float, game: Game = "gpo", *, tau: float = 1.0) -> np.ndarray:
    """The next policy [n] of the exact tabular step: p(y) exp(g(y) / beta), normalised, g the mean payoff of y against p.

    g = s(y > p) for GPO (Zhang et al. 2024, arXiv:2410.02197, equation 5.2), P(y > p) - 1/2 for SPPO (Wu et al. 2024, arXiv:2405.00675).
    InputError as `payoff`, for what is no policy, and unless beta > 0.

    >>> step([0.5, 0.5], [[0, 2], [-2, 0]], beta=1.0).round(4).tolist()
    [0.8808, 0.1192]
    """
    _positive(beta=beta)
    s = payoff(scores, game, tau=tau)
    p = _policy(policy, len(s))
    return _moved(np.log(np.maximum(p, 1e-300)), s @ p / beta)[0]


def play(
    scores: Any, start: Any = None, *, steps: int, beta: float, game: Game = "gpo", tau: float = 1.0, opponents: int | None = None,
    seed: int = 0,
) -> Play:  # fmt: skip
    """Many steps from a start (None: uniform). The average policy approaches the von Neumann winner; the last one may go round for ever.

    With |payoff| <= rho and beta of the order of sqrt(steps) the exploitability of the average falls as 1 / sqrt(steps) (theorem 5.1 of the
    paper). opponents: mean payoffs are taken against that many samples of the policy instead of the policy itself. InputError as `step`.

    >>> circle = [[0, 1, -1], [-1, 0, 1], [1, -1, 0]]
    >>> found = play(circle, [0.6, 0.3, 0.1], steps=1000, beta=1000**0.5)
    >>> round(exploitability(found.average, circle), 4), exploitability(found.last, circle) > 0.3
    (0.0633, True)
    """
    _positive(beta=beta)
    s = payoff(scores, game, tau=tau)
    n = len(s)
    p = np.full(n, 1 / n) if start is None else _policy(start, n)
    for name, value in (("steps", steps), ("opponents", 1 if opponents is None else opponents)):
        if value < 1:
            raise InputError(f"{name} is a whole number of at least 1, not {value!r}")
    rng = np.random.default_rng([seed, 19])
    total, log_p = np.zeros(n), np.log(np.maximum(p, 1e-300))
    for _ in range(steps):
        total += p
        against = p if opponents is None else rng.multinomial(opponents, p) / opponents
        p, log_p = _moved(log_p, s @ against / beta)
    return Play(p, total / steps)


def targets(scores: Any, *, tau: float = 1.0, self_comparison: bool = True) -> Targets:
    """Mean scores and probabilities of winning of K responses to one prompt, or [P, K, K] for P prompts, against each other.

    Card's equation: sbar_i = 1/K sum_k s(y_i > y_k), pbar_i = 1/K sum_k sigmoid(s_ik / tau), k = i included. self_comparison=False
    divides by K - 1 and leaves k = i out, which is the unbiased mean against the policy. tau divides inside the sigmoid only. The authors'
    script subtracts the transposed table from a table that is skew already, which doubles every score; that is not done here, and their
    clamp of GPO's scores at 1000 [unverified] neither. InputError as `skew`, and unless tau > 0.

    >>> found = targets([[0, 1.2, -0.4], [-1.2, 0, 0.7], [0.4, -0.7, 0]])
    >>> found.score.round(6).tolist(), found.win.round(6).tolist()
    ([0.266667, -0.166667, -0.1], [0.556612, 0.466554, 0.476833])
    """
    _positive(tau=tau)
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim == 3:
        if not len(table):
            raise InputError("there are no prompts: give at least one matrix of scores")
        parts = [targets(one, tau=tau, self_comparison=self_comparison) for one in table]
        return Targets(np.stack([x.score for x in parts]), np.stack([x.win for x in parts]), parts[0].self_comparison)
    s = skew(table)
    k = len(s)
    factor = (k - 1) / k if self_comparison else 1.0
    win = (np.tanh(s / (2 * tau)) / 2).sum(axis=1)
    return Targets(s.sum(axis=1) / (k - 1) * factor, 0.5 + win / (k - 1) * factor, factor)


def rated_rows(
    prompts: Sequence[str], responses: Sequence[Sequence[str]], scores: Sequence[Any], *, game: Game = "gpo", tau: float = 1.0,
    self_comparison: bool = True, every: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of preference data in TRL's columns with a rating of each side, for the objective `gpo`: K sampled responses of each prompt.

    prompt, chosen, rejected, chosen_rating, rejected_rating, preference_strength (their difference). Of each prompt the responses with
    the highest and the lowest mean are taken, as the authors of SPPO do; every=True takes each response once, the best against the worst,
    the second against the last but one, and so on (with K odd the middle one is left out). Equal means keep the order of the samples.
    scores: one [K, K] matrix per prompt, of the preference model. InputError as `targets`, and where counts differ.

    >>> rated_rows(["2 + 2?"], [["4", "5", "five"]], [[[0, 1, 2], [-1, 0, 0], [-2, 0, 0]]])[0]["chosen_rating"]
    1.0
    """
    if not len(prompts) == len(responses) == len(scores):
        raise InputError(
            f"{len(prompts):,} prompts, {len(responses):,} lists of responses and {len(scores):,} matrices of scores: give one of each"
        )
    rows = []
    for at, (prompt, texts, table) in enumerate(zip(prompts, responses, scores, strict=True)):
        if len(texts) != len(table):
            raise InputError(f"prompt {at} has {len(texts)} responses and a matrix of scores for {len(table)}")
        rating = targets(table, tau=tau, self_comparison=self_comparison).rating(game)
        order = np.argsort(-rating, kind="stable")
        for high, low in zip(order[: len(order) // 2 if every else 1], order[::-1], strict=False):
            up, down = float(rating[high]), float(rating[low])
            row = {"prompt": prompt, "chosen": texts[high], "rejected": texts[low], "chosen_rating": up, "rejected_rating": down}
            rows.append({**row, "preference_strength": up - down})
    return rows


def _moved(log_p: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Policy and its logarithm after multiplication by exp(gain)."""
    raised = log_p + gain
    top = raised.max()
    raised -= top + np.log(np.exp(raised - top).sum())
    return np.exp(raised), raised


def _policy(policy: Any, n: int) -> np.ndarray:
    p = np.asarray(policy, dtype=np.float64)
    if p.shape != (n,) or not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
        raise InputError(f"a policy is {n} probabilities that sum to 1, not {np.array2string(p, threshold=6, precision=4)}")
    return p / p.sum()


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} is a positive number, not {value!r}")


def _known(game: str) -> str:
    if game not in ("gpo", "sppo"):
        raise InputError(f"the game is gpo (scores) or sppo (probabilities of winning), not {game!r}")
    return game
