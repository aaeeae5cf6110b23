"""PRO: weights over several rewards that depend on the prompt, and one score from them.

Card "Preference Orchestrator: Prompt-Aware Multi-Objective Alignment" (Liu et al. 2025, arXiv:2511.10656). The published adapter is a text
encoder with a linear layer; here prompts are vectors. Targets and exact fits are in `simplex`, baselines in `scalarise`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.models import simplex
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape, linear
from cupel.objectives.types import Side

if TYPE_CHECKING:
    from cupel.learners.heads.data import Comparisons

NORMALISERS = ("zscore", "minmax", "rank", "raw")
#: knots of the stored distribution of an objective's scores, for ranks
_KNOTS = 101


class Orchestrator(PreferenceModel):
    """score(y | x) = s f(x) . r~(y), f(x) = softmax(x A + b): the vector of a response is its K rewards, the prompt decides their weights.

    target       preference: fitted by the objective of the run; winner, difference: by `fit_targets`, never by a run of comparisons
    temperature  T of those targets
    normalise    r~: zscore (r - mean) / std, minmax (r - min) / (max - min), rank (share of scores below), raw; statistics of the
                 responses of training, stored with the model and used ever after. A constant objective gets weight 0; `explain` says so
    entropy      lambda of lambda sum f log f, averaged over prompts, against weights that collapse to one objective

    K = 1 is legal: its weight is 1. `use` sets weights that override the adapter.

    >>> model = Orchestrator(Shape(width=2, prompt=3, names=("helpful", "short")))
    >>> model.use([0.25, 0.75])
    >>> model.score(torch.tensor([[4.0, 0.0]]), Given(prompt=torch.zeros(1, 3))).tolist()
    [1.0]
    """

    name = "orchestrator"
    named = True
    summary = "weights over several rewards that depend on the prompt (PRO)"
    reads = frozenset({"prompt"})

    def __init__(
        self, shape: Shape, *, target: str = "preference", temperature: float = 0.1, normalise: str = "zscore", entropy: float = 0.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(shape)
        if target not in simplex.TARGETS:
            raise InputError(f"orchestrator: target is preference, winner or difference, not {target!r}")
        if normalise not in NORMALISERS:
            raise InputError(f"orchestrator: normalise is {', '.join(NORMALISERS[:-1])} or raw, not {normalise!r}")
        if not (temperature > 0 and np.isfinite(temperature)):
            raise InputError(f"orchestrator: temperature is a positive number, not {temperature!r}")
        if not (entropy >= 0 and np.isfinite(entropy)):
            raise InputError(f"orchestrator: entropy is at least 0, not {entropy!r}")
        self.target, self.temperature, self.normalise, self.entropy = target, temperature, normalise, entropy
        k = shape.width
        self.adapter = linear(torch.Generator().manual_seed(seed), shape.prompt, k)
        scale = torch.zeros(())
        if target == "preference":
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale)
        self.register_buffer("centre", torch.zeros(k))
        self.register_buffer("spread", torch.ones(k))
        self.register_buffer("knots", torch.zeros(k, _KNOTS if normalise == "rank" else 0))
        self.register_buffer("live", torch.ones(k, dtype=torch.bool))
        self.register_buffer("user", torch.zeros(k))  # all 0: nobody overrides the adapter
        self.register_buffer("audited", torch.full((6, k), torch.nan))
        self._prompts: Tensor | None = None

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the K rewards."""
        return self.shape.names or tuple(f"objective {k}" for k in range(self.shape.width))

    def prepare(self, features: np.ndarray, data: Comparisons) -> None:
        """Take the normaliser from the responses compared. InputError where a score is missing, or where targets are no comparisons."""
        if self.target != "preference":
            raise InputError(
                f"orchestrator: target={self.target} is fitted to weights, not to comparisons: fit_targets(features, data, "
                f"target={self.target!r}) does it, and target=preference (the default) learns by this objective"
            )
        self.take(features, data)

    def take(self, features: np.ndarray, data: Comparisons) -> None:
        """The statistics of the rewards of all responses that `data` compares."""
        rows = np.unique(np.concatenate([data.first, data.second]))
        x = np.asarray(features[rows], np.float64)
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, k = int(rows[bad[0][0]]), int(bad[0][1])
            who = np.flatnonzero((data.first == row) | (data.second == row))[0]
            raise InputError(
                f"{len(bad):,} of {x.size:,} scores are missing (first: record {data.ids[int(who)]}, response row {row}, objective "
                f"{self.objectives[k]}). Score the response, or leave out the record or the objective"
            )
        live = x.max(axis=0) - x.min(axis=0) > 1e-9 * np.maximum(np.abs(x).max(axis=0), 1e-30)
        if not live.any():
            raise InputError(f"every score of every objective ({', '.join(self.objectives)}) is the same: there is nothing to weigh")
        centre, spread = {
            "zscore": (x.mean(axis=0), x.std(axis=0)), "minmax": (x.min(axis=0), x.max(axis=0) - x.min(axis=0)),
        }.get(self.normalise, (np.zeros(x.shape[1]), np.ones(x.shape[1])))  # fmt: skip
        with torch.no_grad():
            self.get_buffer("centre").copy_(torch.from_numpy(np.where(live, centre, 0)))
            self.get_buffer("spread").copy_(torch.from_numpy(np.where(live, spread, 1)))
            self.get_buffer("live").copy_(torch.from_numpy(live))
            if self.normalise == "rank":
                self.get_buffer("knots").copy_(torch.from_numpy(np.quantile(x, np.linspace(0, 1, _KNOTS), axis=0).T.copy()))

    def represent(self, x: Tensor) -> Tensor:
        """r~: normalised rewards [m, K]; 0 for an objective that was constant in training."""
        live = self.get_buffer("live")
        if self.normalise == "rank":
            x = self._ranked(x)
        else:
            x = (x - self.get_buffer("centre")) / self.get_buffer("spread")
        return torch.where(live, x, 0.0)

    def _ranked(self, x: Tensor) -> Tensor:
        """Position among the knots, in [0, 1]: linear between two, the middle of equal ones, the ends outside."""
        knots, flat = self.get_buffer("knots"), x.T.contiguous()
        low, high = torch.searchsorted(knots, flat), torch.searchsorted(knots, flat, right=True)
        left, right = (low - 1).clamp(min=0), low.clamp(max=_KNOTS - 1)
        below, above = knots.gather(1, left), knots.gather(1, right)
        width = above - below
        part = torch.where(width > 0, (flat - below) / torch.where(width > 0, width, 1), 0.0).clamp(0, 1)
        place = torch.where(high > low, (low + high - 1) / 2, left + part)
        return (place / (_KNOTS - 1)).clamp(0, 1).T

    def use(self, weights: Sequence[float] | np.ndarray | None) -> None:
        """Weights of the user, which override the adapter from now on; None: the adapter again. InputError unless on the simplex."""
        k = self.shape.width
        found = np.zeros(k) if weights is None else simplex.on_simplex(weights, k)
        if found.shape != (k,):
            raise InputError(f"a user's weights are {k} numbers, not {list(found.shape)}")
        with torch.no_grad():
            self.get_buffer("user").copy_(torch.from_numpy(found))

    def weights(self, prompt: Tensor) -> Tensor:
        """f(x) of prompt vectors [B, P], or the user's weights: [B, K], rows on the simplex."""
        user = self.get_buffer("user")
        if bool(user.any()):
            return user.expand(len(prompt), -1)
        logits = torch.where(self.get_buffer("live"), self.adapter(prompt), -torch.inf)
        return torch.softmax(logits, dim=1)

    def sides(self, first: Tensor, second: Tensor, given: Given) -> tuple[Side, Side]:
        """Scores of both, under the weights of their prompt."""
        w = self._weights(given, len(first))
        return Side(score=(w * first).sum(dim=1)), Side(score=(w * second).sum(dim=1))

    def score(self, z: Tensor, given: Given) -> Tensor:
        """s f(x) . r~, [m]."""
        return (self._weights(given, len(z)) * z).sum(dim=1)

    def _weights(self, given: Given, n: int) -> Tensor:
        """s f(x); the user's weights need no prompt."""
        user = self.get_buffer("user")
        if bool(user.any()):
            return user.expand(n, -1) * self.log_scale.exp()
        if given.prompt is None:
            raise InputError("the model orchestrator reads the prompt of each response: give prompt vectors, or weights with `use`")
        if self.entropy and self.training and torch.is_grad_enabled():
            self._prompts = given.prompt
        return self.weights(given.prompt) * self.log_scale.exp()

    def penalty(self) -> Tensor | None:
        """lambda times the mean over the batch's prompts of sum f log f."""
        if not self.entropy or self._prompts is None:
            return None
        logs = torch.log_softmax(self.adapter(self._prompts)[:, self.get_buffer("live")], dim=1)
        self._prompts = None
        return self.entropy * (logs.exp() * logs).sum(dim=1).mean()

    def decayed(self, name: str) -> bool:
        """All but the adapter's bias and the scale."""
        return super().decayed(name) and name != "log_scale"

    def audit(self, features: np.ndarray, data: Comparisons, reference: Orchestrator | None = None) -> None:
        """Keep for `explain`: mean weights, their entropy, and how weights go with the level of scores, beside a reference's.

        reference: weights fitted to the preferences themselves; None: they are fitted here, with this model's normaliser. Where those rise
        as an objective's scores fall and the model's do not, the model takes the size of a score for its importance.
        """
        z, x, p, w = self._arrays(features, data)
        level = (z[0] + z[1]) / 2
        mine = self._weights_of(x)
        if reference is None:
            live = self.get_buffer("live").numpy()
            found = simplex.fit_preferences(x, (z[0] - z[1])[:, live], p, weight=w)
            theirs = np.zeros_like(mine)
            theirs[:, live] = found(x)
        else:
            theirs = reference._weights_of(x)
        table = [mine.mean(axis=0), *simplex.level_correlation(mine, level).T, simplex.level_correlation(theirs, level)[:, 0]]
        spread = np.full(len(table[0]), simplex.entropy(mine).mean())
        with torch.no_grad():
            self.get_buffer("audited").copy_(torch.from_numpy(np.stack([*table, spread])))

    def _weights_of(self, prompts: np.ndarray) -> np.ndarray:
        from cupel.learners.heads.margins import wide

        with torch.no_grad():
            model = wide(self)
            assert isinstance(model, Orchestrator)
            return model.weights(torch.from_numpy(np.asarray(prompts, np.float64))).numpy()

    def _arrays(self, features: np.ndarray, data: Comparisons) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """(r~ of both sides), prompt vectors, p, w, in float64."""
        from cupel.learners.heads.margins import wide

        if data.prompt is None or data.prompts is None:
            raise InputError("the model orchestrator reads the prompt of a comparison, and these comparisons have none")
        with torch.no_grad():
            model, both = wide(self), (np.asarray(features[side], np.float64) for side in (data.first, data.second))
            first, second = (model.represent(torch.from_numpy(x)).numpy() for x in both)
        return (first, second), np.asarray(data.prompts[data.prompt], np.float64), data.p, data.w

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """Mean weight of each objective and its correlation with the level of scores, as `audit` found them; objectives left out."""
        names, words = self.objectives, []
        dropped = [name for name, live in zip(names, self.get_buffer("live").tolist(), strict=True) if not live]
        if dropped:
            words.append(f"weight 0, because all training scores are the same: {', '.join(dropped)}")
        user = self.get_buffer("user")
        if bool(user.any()):
            said = ", ".join(f"{name} {w:.3g}" for name, w in zip(names, user.tolist(), strict=True))
            words.append(f"the user's weights override the adapter: {said}")
        table = self.get_buffer("audited").double().numpy()
        if np.isnan(table[0]).all():
            return Explanation((*words, "audit(features, data) measures the weights of data"))
        words.append(f"mean entropy of the weights {table[5][0]:.3f} of at most {np.log(len(names)):.3f}")
        flagged = []
        for name, corr, low, other in zip(names, table[1], table[2], table[4], strict=True):
            flagged.append(bool(other < -0.1 and low > other and corr > 0))
            if flagged[-1]:
                words.append(
                    f"{name}: its weight rises with its scores (correlation {corr:+.2f}), while the preferences ask for more of it where "
                    f"its scores are low ({other:+.2f}); the size of a score was taken for its importance: fit with target=preference"
                )
        columns = ("mean_weight", "level_correlation", "low", "high", "preference_level_correlation")
        shown: dict[str, list[Any]] = {"objective": list(names)}
        shown |= {key: [None if np.isnan(x) else round(float(x), 6) for x in row] for key, row in zip(columns, table, strict=False)}
        shown["flagged"] = flagged
        return Explanation(tuple(words), {"weights": shown})


def fit_targets(
    features: np.ndarray, data: Comparisons, *, target: str = "winner", temperature: float = 0.1, normalise: str = "zscore",
    entropy: float = 0.0, l2: float = 1e-4, seed: int = 0,
) -> Orchestrator:  # fmt: skip
    """An orchestrator whose weights imitate targets made of scores: equation (7) with target=winner, ours with target=difference.

    Minimises the mean over records of w KL(w* || f(x)), plus the entropy term and l2, exactly (L-BFGS). Ties have no winner and are left
    out, with a warning. The scale stays 1. It ends with `audit`, so that `explain` compares with the weights preferences ask for. Do not
    judge the adapter by the accuracy of these scores on these pairs: they made the targets.
    """
    shape = Shape(features.shape[1], prompt=0 if data.prompts is None else data.prompts.shape[1], names=tuple(data.columns))
    if target == "preference":
        raise InputError("target=preference is learned from comparisons: train the head `orchestrator` with an objective of scores")
    model = Orchestrator(shape, target=target, temperature=temperature, normalise=normalise, entropy=entropy, seed=seed)
    model.take(features, data)
    (first, second), x, p, w = model._arrays(features, data)
    kept = (p != 0.5) & (w > 0)
    if not kept.any():
        raise InputError(f"none of the {len(data):,} records has a winner and a weight: there is no target")
    ties = int((p == 0.5).sum())
    if ties:
        warnings.warn(f"{ties:,} of {len(data):,} records are ties, have no winner, and were left out", stacklevel=2)
    ahead = (p > 0.5)[:, None]
    goal = simplex.target_weights(np.where(ahead, first, second), np.where(ahead, second, first), target=target, temperature=temperature)
    live = model.get_buffer("live").numpy()
    goal = goal[:, live] / goal[:, live].sum(axis=1, keepdims=True)
    found = simplex.fit_softmax(x[kept], goal[kept], weight=(w * np.abs(2 * p - 1))[kept], l2=l2, collapse=entropy)
    with torch.no_grad():
        model.adapter.weight.zero_()
        model.adapter.bias.zero_()
        model.adapter.weight[torch.from_numpy(live)] = torch.from_numpy(found.matrix.T).float()
        model.adapter.bias[torch.from_numpy(live)] = torch.from_numpy(found.bias).float()
    model.audit(features, data)
    return model.requires_grad_(False).eval()


class OrchestratedReward:
    """A reward function for trainers that call `f(prompts, completions, **columns)`: PRO's r_total = f(x) . r~(x, y), equation (9).

    rewards  K functions of the same form, in the order of the model's objectives;  encode: prompts to vectors [n, P]
    The published total weighs raw rewards; here they are normalised as in training, so that weights mean the same.
    """

    def __init__(
        self, rewards: Sequence[Callable[..., Sequence[float | None]]], model: Orchestrator, encode: Callable[[Sequence[Any]], np.ndarray]
    ) -> None:  # fmt: skip
        if len(rewards) != model.shape.width:
            raise InputError(f"the model weighs {model.shape.width} rewards ({', '.join(model.objectives)}), and {len(rewards)} are given")
        self.rewards, self.model, self.encode, self.__name__ = tuple(rewards), model, encode, "orchestrated"

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One number per completion. InputError where a reward is missing, with the row and the objective."""
        from cupel.learners.heads.margins import wide

        table = np.array([list(reward(prompts, completions, **columns)) for reward in self.rewards], np.float64).T
        bad = np.argwhere(~np.isfinite(table))
        if len(bad):
            raise InputError(f"{len(bad):,} scores are missing (first: row {bad[0][0]}, objective {self.model.objectives[bad[0][1]]})")
        with torch.no_grad():
            model, x = wide(self.model), torch.from_numpy(np.asarray(self.encode(prompts), np.float64))
            return model.score(model.represent(torch.from_numpy(table)), Given(prompt=x)).tolist()


MODEL = Orchestrator
