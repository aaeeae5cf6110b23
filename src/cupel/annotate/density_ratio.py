"""The density ratio of two language models as a reward: how much more likely a response is to the better-aligned one.

Method card 37-cdr (Customizable Density Ratios of strong-over-weak language models, arXiv:2411.02481):

    R(x, y)     = sum_t log pi_S(y_t | x, y_<t) - sum_t log pi_W(y_t | x, y_<t)     over the response, each model with its own tokens
    R_avg       = R / max(1, tokens of the response under the strong model)
    R_c(x, y)   = log pi_S(y | T_c(x)) - log pi_W(y | T_c(x) or x)                  customised by criteria of a domain

If pi_S is the optimum of KL-regularised training from pi_W, R is its reward over beta up to a constant of the prompt: a DPO policy over its
reference is a density ratio, with the same numbers. The authors' code scores by R_avg; the sum grows with length, so both are given, with
their correlation to length. The labels are deterministic and carry no noise model: calibrate |margin| on votes before it becomes a p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from cupel.annotate.criteria import Criterion, Router, routed
from cupel.annotate.labels import Labels, nodes, pair_labels
from cupel.annotate.probes import Monotonicity, monotonicity
from cupel.errors import InputError
from cupel.records.text import canonical, is_chat, messages
from cupel.votes.intervals import Interval, cluster_bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

    from cupel.records.schema import Votes

Reduce = Literal["mean", "sum"]


class LogProbs(Protocol):
    """A language model as the ratio reads it. Optional: `logprobs_many(prompts, responses)`, and `digest`, what makes its tokens."""

    def logprobs(self, prompt: str, response: str) -> Sequence[float]:
        """Log-probability of each token of the response, its end included, given the prompt and what stands before."""
        ...


class Stored:
    """Log-probabilities that were computed elsewhere, by (prompt, response): a list per response, or its sum.

    Sums have no number of tokens: they serve reduce="sum" alone. InputError for a pair that is not stored.

    >>> Stored(["p"], ["y"], [[-1.0, -0.5]]).logprobs("p", "y")
    [-1.0, -0.5]
    """

    def __init__(self, prompts: Sequence[str], responses: Sequence[str], values: Sequence[Sequence[float] | float]) -> None:
        if not len(prompts) == len(responses) == len(values):
            raise InputError(f"{len(prompts)} prompts, {len(responses)} responses, {len(values)} log-probabilities: give one of each")
        self._values: dict[tuple[str, str], Any] = {}
        for row, key in enumerate(zip(prompts, responses, strict=True)):
            value = values[row]
            made = [float(v) for v in value] if isinstance(value, Sequence | np.ndarray) else _Sum(float(value))  # type: ignore[arg-type]
            if self._values.setdefault(key, made) != made:
                raise InputError(f"row {row} has other log-probabilities than an earlier row of the same prompt and response")

    def logprobs(self, prompt: str, response: str) -> Any:
        """What is stored of a response."""
        try:
            return self._values[prompt, response]
        except KeyError:
            raise InputError(f"no log-probabilities are stored of the response {response[:60]!r} to {prompt[:60]!r}") from None


@dataclass(frozen=True)
class _Sum:
    """The sum of a response's log-probabilities, where its tokens are not known."""

    value: float


@dataclass(frozen=True)
class Ratios:
    """Scores of responses.

    strong, weak       float64 [n] log-probability of the response under each model
    n_strong, n_weak   int64 [n] its tokens under each, -1 where unknown
    total, mean        float64 [n] R and R_avg (NaN where tokens are unknown);  score  the one that was asked for
    clipped            int64 [n] tokens whose log-ratio was clipped;  empty  bool [n] responses without text: score 0
    """

    strong: np.ndarray
    weak: np.ndarray
    n_strong: np.ndarray
    n_weak: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    score: np.ndarray
    clipped: np.ndarray
    empty: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def length_corr(self) -> dict[str, float]:
        """Pearson correlation of R and of R_avg with the number of tokens, over responses with text; NaN where one is constant."""
        rows = ~self.empty & (self.n_strong > 0)
        return {"sum": _pearson(self.total[rows], self.n_strong[rows]), "mean": _pearson(self.mean[rows], self.n_strong[rows])}

    def table(self) -> pa.Table:
        """The scores as columns."""
        import pyarrow as pa

        return pa.table({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class RatioLabels(Labels):
    """Labels of pairs by a density ratio.

    margins      {"sum", "mean"}: float64 [m] margin of either reduction;  length_corr  correlation of either with the number of tokens
    empty        responses without text, among those scored;  changed  share of labels that clipping changed (0 without clipping)
    """

    margins: Mapping[str, np.ndarray]
    length_corr: Mapping[str, float]
    empty: int
    changed: float


class DensityRatio:
    """Rewards and labels by the ratio of two language models. A scorer: `score(prompts, responses)`.

    strong, weak   `LogProbs`: n-grams, transformers (`CausalLM`), stored columns (`Stored`), or anything else with `logprobs`
    template       criteria in front of prompts: a function, or one per domain with a `router` from prompt to domain
    template_on    "both" models see the template (its own effect on fluency then largely cancels), or only the "strong"
    reduce         "mean" (R_avg, the authors' default) or "sum"
    clip           log-ratios of single tokens are kept in [-clip, clip]; both models must make the same tokens
    on_zero        what two models that agree on every response are: "error", or "allow"

    Raises InputError for log-probabilities that are not finite or above 0, naming the row, and for identical models. An empty response
    scores 0, is not shown to the models, and is flagged.

    >>> strong, weak = (Stored(["x"], ["y"], [values]) for values in ([-1.2, -0.4, -2.0], [-1.5, -0.9, -1.8]))
    >>> found = DensityRatio(strong, weak).table(["x"], ["y"])
    >>> found.total.round(6).tolist(), found.score.round(6).tolist()
    ([0.6], [0.2])
    """

    def __init__(
        self, strong: LogProbs, weak: LogProbs, *, template: Criterion | Mapping[str, Criterion] | None = None,
        router: Router | None = None, template_on: Literal["both", "strong"] = "both", reduce: Reduce = "mean",
        clip: float | None = None, on_zero: Literal["error", "allow"] = "error",
    ) -> None:  # fmt: skip
        if reduce not in ("mean", "sum") or template_on not in ("both", "strong") or on_zero not in ("error", "allow"):
            raise InputError(
                f"reduce is mean or sum (not {reduce}), template_on both or strong (not {template_on}), on_zero error or allow ({on_zero})"
            )
        if clip is not None and not clip > 0:
            raise InputError(f"clip is a log-ratio above 0, not {clip!r}")
        if template is not None:
            routed(template, router, [])  # complains of domains without a router
        self.strong, self.weak, self.template, self.router = strong, weak, template, router
        self.template_on, self.reduce, self.clip, self.on_zero = template_on, reduce, clip, on_zero

    @property
    def __name__(self) -> str:
        """What trainers call this reward in their logs."""
        return "density_ratio"

    def score(self, prompts: Sequence[Any], responses: Sequence[Any]) -> np.ndarray:
        """float64 [n] reward of each response: R_avg, or with reduce="sum" R."""
        return self.table(prompts, responses).score

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **ignored: Any) -> list[float]:
        """Rewards as TRL asks for them; other columns of the data set are ignored."""
        return self.score(prompts, completions).tolist()

    def table(self, prompts: Sequence[Any], responses: Sequence[Any], *, names: Sequence[str] | None = None) -> Ratios:
        """Everything about each response; each different (prompt, response) is computed once. names: of the rows, for errors."""
        if len(prompts) != len(responses) or (names is not None and len(names) != len(prompts)):
            raise InputError(f"{len(prompts)} prompts for {len(responses)} responses: give one to each")
        asked = [_text(value, "prompt", n, False) for n, value in enumerate(prompts)]
        texts = list(zip(asked, [_text(value, "response", n, True) for n, value in enumerate(responses)], strict=True))
        place: dict[tuple[str, str], int] = {}
        at = np.array([place.setdefault(pair, len(place)) for pair in texts], dtype=np.int64)
        first = np.full(len(place), -1, dtype=np.int64)
        first[at[::-1]] = np.arange(len(at))[::-1]
        called = [f"row {n}" if names is None else f"{names[n]} (row {n})" for n in first.tolist()]
        found = self._unique(list(place), called)
        return Ratios(**{name: getattr(found, name)[at] for name in found.__dataclass_fields__})

    def annotate(self, votes: Votes, *, tie: float = 0.0) -> RatioLabels:
        """Labels of the distinct pairs of some votes: chosen is the larger score, a margin of at most `tie` is a tie."""
        prompts, responses, sides = nodes(votes)
        owner = np.zeros(len(prompts), dtype=np.int64)
        owner[sides[:, ::-1].reshape(-1)] = np.tile(np.arange(len(votes))[::-1], 2)
        found = self.table(prompts, responses, names=[f"vote {votes.ids[int(n)].as_py()}" for n in owner])
        kinds = {"sum": found.total, "mean": found.mean}
        by = {name: values[sides[0]] - values[sides[1]] for name, values in kinds.items()}
        plain = self._unclipped(found)
        score = found.score[sides[0]] - found.score[sides[1]]
        labels = pair_labels(votes, score, tie=tie)
        before = (plain[sides[0]] - plain[sides[1]])[labels.row]
        changed = float(np.mean(np.sign(before) != np.sign(labels.margin))) if len(labels) else 0.0
        return RatioLabels(
            labels.row, labels.margin, labels.sign, labels.length_gap, {name: values[labels.row] for name, values in by.items()},
            found.length_corr(), int(found.empty.sum()), changed,
        )  # fmt: skip

    def _unclipped(self, found: Ratios) -> np.ndarray:
        whole = np.where(found.empty, 0.0, found.strong - found.weak)
        return whole / np.maximum(found.n_strong, 1) if self.reduce == "mean" else whole

    def _unique(self, pairs: Sequence[tuple[str, str]], called: Sequence[str]) -> Ratios:
        n = len(pairs)
        empty = np.array([not response.strip() for _, response in pairs], dtype=bool)
        rows = np.flatnonzero(~empty).tolist()
        responses = [pairs[i][1] for i in rows]
        bare = [pairs[i][0] for i in rows]
        shown = routed(self.template, self.router, bare)
        names = [called[i] for i in rows]
        strong = _asked(self.strong, shown, responses, names, "strong")
        weak = _asked(self.weak, shown if self.template_on == "both" else bare, responses, names, "weak")
        out = {name: np.zeros(n) for name in ("strong", "weak", "total", "mean", "score")}
        count = {name: np.zeros(n, dtype=np.int64) for name in ("n_strong", "n_weak", "clipped")}
        for key, lists in (("strong", strong), ("weak", weak)):
            out[key][rows] = [v.value if isinstance(v, _Sum) else float(np.sum(v)) for v in lists]
            count[f"n_{key}"][rows] = [-1 if isinstance(v, _Sum) else len(v) for v in lists]
        same = bool(len(rows)) and all(
            np.array_equal(s, w) if isinstance(s, np.ndarray) and isinstance(w, np.ndarray) else s == w
            for s, w in zip(strong, weak, strict=True)
        )  # fmt: skip
        if same and self.on_zero == "error":
            raise InputError(
                f"zero gap: both models give each of {len(rows):,} responses the same log-probabilities, so every reward is 0. "
                "Name a stronger and a weaker model (on_zero='allow' lets it pass)"
            )
        out["total"][rows] = out["strong"][rows] - out["weak"][rows]
        if self.clip is not None:
            out["total"][rows], count["clipped"][rows] = self._clipped(strong, weak, names)
        unknown = count["n_strong"] < 0
        out["mean"] = np.where(unknown, np.nan, out["total"] / np.maximum(count["n_strong"], 1))
        if self.reduce == "mean" and unknown.any():
            raise InputError(
                f"{int(unknown.sum()):,} of {n:,} responses have a sum of log-probabilities and no number of tokens (first: "
                f"{called[int(np.argmax(unknown))]}): use reduce='sum', or give a list per response"
            )
        out["score"] = out["mean" if self.reduce == "mean" else "total"].copy()
        return Ratios(**out, **count, empty=empty)

    def _clipped(self, strong: list[Any], weak: list[Any], names: Sequence[str]) -> tuple[list[float], list[int]]:
        """Sums of clipped log-ratios of tokens, and how many were clipped. InputError where tokens are not the same on both sides."""
        assert self.clip is not None
        digests = [getattr(model, "digest", None) for model in (self.strong, self.weak)]
        sizes = [[-1 if isinstance(value, _Sum) else len(value) for value in side] for side in (strong, weak)]
        wrong = [n for n, (s, w) in enumerate(zip(*sizes, strict=True)) if s != w or s < 0]
        if wrong or (None not in digests and digests[0] != digests[1]):
            where = f"{len(wrong):,} of {len(strong):,} responses have" if wrong else "the models have"
            first = f" (first: {names[wrong[0]]})" if wrong else ""
            raise InputError(f"clip needs the same tokens on both sides, but {where} other tokens{first}: leave clip out")
        gaps = [s - w for s, w in zip(strong, weak, strict=True)]
        return (
            [float(np.clip(gap, -self.clip, self.clip).sum()) for gap in gaps],
            [int((np.abs(gap) > self.clip).sum()) for gap in gaps],
        )  # fmt: skip


def _asked(model: LogProbs, prompts: Sequence[str], responses: Sequence[str], names: Sequence[str], side: str) -> list[Any]:
    """float64 arrays of token log-probabilities (or sums), checked."""
    many = getattr(model, "logprobs_many", None)
    if many is not None:
        raw = many(prompts, responses, names=names)
    else:
        raw = [model.logprobs(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    out = [value if isinstance(value, _Sum) else np.asarray(value, dtype=np.float64).reshape(-1) for value in raw]
    bad = [n for n, value in enumerate(out) if not _sound(value)]
    if bad:
        raise InputError(
            f"{len(bad):,} of {len(out):,} responses have log-probabilities of the {side} model that are not finite, above 0, or none at "
            f"all (first: {names[bad[0]]}). A density of 0 has no ratio: check the model and its tokens, or leave these rows out"
        )
    return out


def _sound(value: Any) -> bool:
    values = np.array([value.value]) if isinstance(value, _Sum) else value
    return len(values) > 0 and bool(np.isfinite(values).all()) and bool((values <= 1e-4).all())


def _text(value: Any, what: str, row: int, response: bool) -> str:
    """A text as it is; a chat as canonical JSON, a response of one message as its words. InputError for anything else."""
    if is_chat(value):
        value = canonical(value)
    if not isinstance(value, str):
        raise InputError(f"the {what} of row {row} is no text but {type(value).__name__}; leave such rows out")
    if response and (chat := messages(value)) is not None and len(chat) == 1 and isinstance(chat[0]["content"], str) and len(chat[0]) == 2:
        return chat[0]["content"]
    return value


def gap_accuracy(t: float) -> float:
    """Accuracy of pairs under log-ratio = t q + e with quality q and noise e standard normal: 1/2 + arctan(t) / pi.

    >>> [round(gap_accuracy(t), 6) for t in (0, 0.25, 0.5, 1, 2)]
    [0.5, 0.577979, 0.647584, 0.75, 0.852416]
    """
    return float(0.5 + np.arctan(t) / np.pi)


@dataclass(frozen=True)
class Sweep:
    """Accuracy of several model pairs by their gap, the smallest gap first; rises: Spearman of gap and accuracy, None below 3 pairs.

    rows: name, gap, accuracy (Interval over prompts), n, length_corr.
    """

    rows: tuple[dict[str, Any], ...]
    rises: Monotonicity | None


def alignment_gap_sweep(
    pairs: Mapping[str, tuple[LogProbs, LogProbs]], gaps: Mapping[str, float], votes: Votes, *, reduce: Reduce = "mean", seed: int = 0
) -> Sweep:
    """How well density ratios of model pairs predict votes, against the alignment gap of each pair.

    gaps: of each pair, known from elsewhere (a difference of benchmark scores; taken from these votes it would explain itself). A zero gap
    of identical models is allowed and predicts nothing: accuracy 1/2. Votes without a preference are left out; equal scores count 1/2.
    """
    if set(pairs) != set(gaps) or not pairs:
        raise InputError(f"pairs and gaps name different pairs: {', '.join(sorted(set(pairs) ^ set(gaps))) or 'there are none'}")
    decided = votes.take(votes.sign != 0)
    if not len(decided):
        raise InputError(f"none of {len(votes):,} votes prefers a side: there is no accuracy")
    prompts, responses, sides = nodes(decided)
    rows = []
    for name in sorted(pairs, key=lambda one: (gaps[one], one)):
        found = DensityRatio(*pairs[name], reduce=reduce, on_zero="allow").table(prompts, responses)
        margin = (found.score[sides[0]] - found.score[sides[1]]) * decided.sign
        right = np.where(margin == 0, 0.5, margin > 0)
        accuracy: Interval = cluster_bootstrap(right, decided.prompt, seed=seed, clip=(0, 1))
        rows.append({"name": name, "gap": float(gaps[name]), "accuracy": accuracy, "n": len(right), "length_corr": found.length_corr()})
    gap, reached = [row["gap"] for row in rows], [row["accuracy"].estimate for row in rows]
    plain = len(rows) < 3 or len(set(gap)) == 1 or len(set(reached)) == 1
    return Sweep(tuple(rows), None if plain else monotonicity(gap, reached, seed=seed))


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) < 2 or not np.isfinite(a).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
