"""Is one reward model better than another, and how sure are we: paired on the same votes, resampling prompts (and training seeds).

The labels evaluated on are claims too. Symmetric noise in them shrinks every difference by (1 - 2e) and keeps the order; a systematic
bias rewards the model that learned it. So beside the accuracy stand: what the longer side alone would give, the accuracy on votes whose
recorded winner is the shorter side, on pairs whose several votes have a majority, and against a truth or a person's answers where given.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.crossed import crossed_interval
from cupel.records.schema import Votes

if TYPE_CHECKING:
    from cupel.curate.review import Answers
    from cupel.learners.reward import RewardModel

#: a recovered share is a ratio of noise below this difference (accuracy)
RECOVERABLE = 0.02


@dataclass(frozen=True)
class Share:
    """A share or a difference of shares: estimate, 95 % interval (None where it cannot be had), rows and groups it rests on."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    groups: int

    def to_json(self) -> dict[str, Any]:
        """The five fields."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "n": self.n, "groups": self.groups}

    def __str__(self) -> str:
        if self.estimate is None:
            return "- (n = 0)"
        if self.low is None or self.high is None:
            return f"{self.estimate:.3f} (n = {self.n:,}; one group, no interval)"
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n:,})"


@dataclass(frozen=True)
class Evaluation:
    """Accuracies and paired differences; every Share carries its n and interval.

    accuracy      {subset: {model: Share}}; subsets: votes, shorter_wins, repeated, and truth, reviewed where given
    length_only   {subset: Share} of predicting the longer side
    difference    {subset: {model: Share}} each model minus the first
    recovered     share of clean - first that each other model recovers, or why none is stated
    mcnemar       per other model, on reviewed rows where it and the first disagree: {only_first, only_other, p_value}
    disagreement  positions in the evaluated votes where the first two models disagree, in seeded order (for `review`)
    """

    names: tuple[str, ...]
    n: int
    skipped: int
    seeds: Mapping[str, int]
    accuracy: Mapping[str, Mapping[str, Share]]
    length_only: Mapping[str, Share]
    difference: Mapping[str, Mapping[str, Share]]
    recovered: Mapping[str, Any]
    mcnemar: Mapping[str, Mapping[str, Any]]
    disagreement: np.ndarray
    disagreement_ids: tuple[str, ...]
    seed: int
    draws: int
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """What `evaluation.json` holds."""
        return {
            "models": list(self.names), "n": self.n, "skipped": self.skipped, "training_seeds": dict(self.seeds),
            "accuracy": {s: {m: v.to_json() for m, v in row.items()} for s, row in self.accuracy.items()},
            "length_only": {s: v.to_json() for s, v in self.length_only.items()},
            "difference": {s: {m: v.to_json() for m, v in row.items()} for s, row in self.difference.items()},
            "recovered": dict(self.recovered), "mcnemar": {m: dict(v) for m, v in self.mcnemar.items()},
            "disagreement": {"n": len(self.disagreement), "ids": list(self.disagreement_ids)},
            "seed": self.seed, "draws": self.draws, "level": 0.95, "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The evaluation in words, one fact a line."""
        out = [f"{self.n:,} votes with a preference; {self.skipped:,} ties and skips left out."]
        for subset, row in self.accuracy.items():
            for name, share in row.items():
                out.append(f"{SUBSETS[subset]}, {name}: {share}")
            out.append(f"{SUBSETS[subset]}, the longer side: {self.length_only[subset]}")
        for name, share in self.difference.get("votes", {}).items():
            out.append(f"{name} minus {self.names[0]}, {SUBSETS['votes']}: {share}")
        return [*out, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        cells = []
        for subset, row in self.accuracy.items():
            shares = [*row.items(), ("the longer side", self.length_only[subset])]
            shares += [(f"{name} minus {self.names[0]}", share) for name, share in self.difference.get(subset, {}).items()]
            for name, share in shares:
                cells.append(f"<tr><td>{SUBSETS[subset]}</td><td>{html.escape(name)}</td><td>{html.escape(str(share))}</td></tr>")
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        head = "<tr><th>accuracy on</th><th>model</th><th>share [95 % interval]</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{''.join(cells)}</tbody></table><ul>{notes}</ul>"


#: what each subset is called in words
SUBSETS = {
    "votes": "recorded votes",
    "shorter_wins": "votes for the shorter side",
    "repeated": "majority of pairs with several votes",
    "truth": "clean labels",
    "reviewed": "pairs a person checked",
}


def evaluate(
    *models: RewardModel | Sequence[RewardModel] | np.ndarray,
    on: Votes,
    names: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
    clean: RewardModel | Sequence[RewardModel] | np.ndarray | None = None,
    reviewed: Answers | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> Evaluation:
    """Accuracy of each model on `on`, and each model's paired difference to the first (the plain one).

    models    reward models; a list of them (the same recipe with other training seeds) counts as one model and its seeds are
              resampled together with the groups; or margins [n] (or [seeds, n]) of the first side against the second
    truth     clean labels [n] where known: +1 the first side is better, -1 the second, 0 or NaN unknown
    clean     a model trained on clean labels: the share of its advantage over the first model that the others recover, stated only
              where that advantage is at least 2 points
    reviewed  a person's answers (`read_reviewed`): accuracy on the rows in `on`, and McNemar's exact test where models disagree
    Ties and skips are left out and counted; a margin of exactly 0 counts one half. Intervals: bootstrap over groups crossed with
    seeds, 95 %, expanded for few groups. InputError where nothing can be compared.

    >>> import pyarrow as pa
    >>> z = np.zeros(4, dtype=np.int32)
    >>> votes = Votes(pa.array(["a", "b", "c", "d"]), pa.array(["short", "much longer"]), pa.array(list("wxyz")),
    ...     np.arange(4, dtype=np.int32), z, z + 1, np.array([0, 1, 1, 2], np.int8), z - 1, np.arange(4, dtype=np.int32), z + 1.0, z + 1.0,
    ...     z + np.nan, z + np.nan, z - 1, z - 1, np.ones(4, np.int8), np.arange(4))
    >>> result = evaluate(np.array([1.0, 1, -1, 0]), np.array([1.0, -1, -1, 0]), on=votes, names=["plain", "robust"])
    >>> result.n, result.skipped, str(result.accuracy["votes"]["plain"])[:5], str(result.difference["votes"]["robust"])[:5]
    (3, 1, '0.667', '0.333')
    """
    if not models:
        raise InputError("evaluate needs at least one model")
    labels = tuple(names) if names is not None else _default_names(len(models))
    if len(labels) != len(models) or len(set(labels)) != len(labels):
        raise InputError(f"{len(models)} models need as many different names, not {labels}")
    sides: dict[str, Any] = {}
    margins = [model_margins(model, on, sides) for model in models]
    clean_margin = None if clean is None else model_margins(clean, on, sides)
    subsets, notes = _subsets(on, truth, reviewed)
    if subsets["votes"].n == 0:
        raise InputError(f"none of the {len(on):,} rows to evaluate on has a preference (ties and skips only): nothing can be compared")
    longer = _longer(on)[None, :]
    accuracy: dict[str, dict[str, Share]] = {}
    difference: dict[str, dict[str, Share]] = {}
    length_only: dict[str, Share] = {}
    for key, subset in subsets.items():
        hits = [subset.hits(margin) for margin in margins]  # each [seeds, rows of the subset]
        accuracy[key] = {name: subset.share(hit, None, seed, draws) for name, hit in zip(labels, hits, strict=True)}
        difference[key] = {name: subset.share(hit, hits[0], seed, draws) for name, hit in zip(labels[1:], hits[1:], strict=True)}
        length_only[key] = subset.share(subset.hits(longer), None, seed, draws)
    base = subsets["truth" if "truth" in subsets else "votes"]
    recovered = {} if clean_margin is None else _recovered(base, margins, clean_margin, labels)
    mean = [margin.mean(axis=0) for margin in margins]
    apart = np.flatnonzero((mean[0] > 0) != (mean[1] > 0)) if len(mean) > 1 else np.zeros(0, dtype=np.int64)
    apart = np.random.default_rng([seed, 5]).permutation(apart[on.sign[apart] != 0])
    first_of_pair = np.sort(np.unique(on.pair[apart], return_index=True)[1])
    apart = apart[first_of_pair]  # a pair is shown to a person once
    tests = (
        {} if reviewed is None else {name: _mcnemar(subsets["reviewed"], mean[0], m) for name, m in zip(labels[1:], mean[1:], strict=True)}
    )
    return Evaluation(
        names=labels, n=subsets["votes"].n, skipped=int((on.sign == 0).sum()),
        seeds={k: len(m) for k, m in zip(labels, margins, strict=True)},
        accuracy=accuracy, length_only=length_only, difference=difference, recovered=recovered, mcnemar=tests, disagreement=apart,
        disagreement_ids=tuple(on.ids.take(_pa(apart)).to_pylist()), seed=seed, draws=draws, notes=tuple(notes),
    )  # fmt: skip


# ---- subsets --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subset:
    """Rows (positions) with the sign they are judged by, and the group of each."""

    rows: np.ndarray
    sign: np.ndarray
    group: np.ndarray

    @property
    def n(self) -> int:
        return len(self.rows)

    def hits(self, margin: np.ndarray) -> np.ndarray:
        """1 right, 1/2 undecided, 0 wrong: float64 [seeds, n]."""
        return 0.5 + 0.5 * np.sign(margin[:, self.rows] * self.sign)

    def share(self, hit: np.ndarray, base: np.ndarray | None, seed: int, draws: int) -> Share:
        if self.n == 0:
            return Share(None, None, None, 0, 0)
        low, high, estimate, groups = crossed_interval(hit, base, self.group, seed=seed, draws=draws)
        return Share(estimate, low, high, self.n, groups)


def _subsets(on: Votes, truth: np.ndarray | None, reviewed: Answers | None) -> tuple[dict[str, _Subset], list[str]]:
    sign = on.sign.astype(np.float64)
    decided = np.flatnonzero(sign)
    notes: list[str] = []
    subsets = {"votes": _Subset(decided, sign[decided], on.group[decided])}
    shorter = decided[_longer(on)[decided] * sign[decided] < 0]
    subsets["shorter_wins"] = _Subset(shorter, sign[shorter], on.group[shorter])
    _, at, pair = np.unique(on.pair[decided], return_index=True, return_inverse=True)
    pair = pair.reshape(-1)
    same = on.first[decided] == on.first[decided][at][pair]
    lean = np.bincount(pair, weights=np.where(same, sign[decided], -sign[decided]), minlength=len(at))
    chosen = np.flatnonzero((np.bincount(pair, minlength=len(at)) >= 2) & (lean != 0))
    rows = decided[at[chosen]]
    subsets["repeated"] = _Subset(rows, np.sign(lean[chosen]), on.group[rows])
    if len(chosen) == 0:
        notes.append("No pair has several votes with a majority.")
    if truth is not None:
        known = np.asarray(truth, dtype=np.float64)
        if known.shape != (len(on),):
            raise InputError(f"truth needs one value for each of the {len(on):,} rows, not an array of shape {known.shape}")
        rows = np.flatnonzero(np.nan_to_num(known) != 0)
        subsets["truth"] = _Subset(rows, np.sign(known[rows]), on.group[rows])
    if reviewed is not None:
        said = reviewed.signs_for(on)
        rows = np.flatnonzero(np.nan_to_num(said) != 0)
        subsets["reviewed"] = _Subset(rows, said[rows], on.group[rows])
        notes.append(
            "Pairs a person checked were partly chosen because models disagree on them: compare models there, do not read an accuracy."
        )
    return subsets, notes


def _longer(on: Votes) -> np.ndarray:
    """+1 where the first side has more characters, -1 where the second has, 0 where they are equal: float64 [n]."""
    import pyarrow.compute as pc

    length = pc.fill_null(pc.utf8_length(on.responses), 0).to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[attr-defined]
    return np.sign(length[on.first] - length[on.second])


def model_margins(model: Any, on: Votes, sides: dict[str, Any]) -> np.ndarray:
    """Margins [seeds, n] of a model, a list of models, or the array itself.

    sides: what models with the same encoder read, by its hash; filled where a model has one. InputError for an array of another shape or
    with values that are not finite, and for an empty list.
    """
    if isinstance(model, np.ndarray):
        values = np.atleast_2d(model.astype(np.float64))
        if values.ndim != 2 or values.shape[1] != len(on) or not np.isfinite(values).all():
            raise InputError(f"margins need one finite value for each of the {len(on):,} rows, not an array of shape {model.shape}")
        return values
    several = list(model) if isinstance(model, list | tuple) else [model]
    if not several:
        raise InputError("a list of models is empty: give one model for each training seed")
    out = []
    for one in several:
        if not hasattr(one, "encoder_hash"):  # a transformer reads the texts themselves
            out.append(one.margin(on))
            continue
        if one.encoder_hash not in sides:
            sides[one.encoder_hash] = one.sides(on)
        out.append(one.margin(on, sides=sides[one.encoder_hash]))
    return np.stack(out)


def _default_names(count: int) -> tuple[str, ...]:
    return ("plain", "robust") if count == 2 else tuple("plain" if i == 0 else f"model_{i}" for i in range(count))


def _pa(values: np.ndarray):
    import pyarrow as pa

    return pa.array(values, pa.int64())


def _recovered(subset: _Subset, margins: Sequence[np.ndarray], clean: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """(model - first) / (clean - first) in accuracy, stated only where the denominator is at least `RECOVERABLE`."""
    value = [float(subset.hits(margin).mean()) for margin in margins]
    room = float(subset.hits(clean).mean()) - value[0]
    out: dict[str, Any] = {"clean_minus_first": room, "share": None, "why": None}
    if room < RECOVERABLE:
        out["why"] = (
            f"clean labels gain {100 * room:.1f} points over {names[0]}, less than {100 * RECOVERABLE:.0f}: there is nothing to recover"
        )
    else:
        out["share"] = {name: (v - value[0]) / room for name, v in zip(names[1:], value[1:], strict=True)}
    return out


def _mcnemar(subset: _Subset, plain: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Exact two-sided binomial test of the reviewed pairs on which the models disagree. McNemar 1947."""
    from scipy.stats import binomtest

    one, two = subset.hits(plain[None])[0], subset.hits(other[None])[0]
    only_first, only_other = int(((one == 1) & (two == 0)).sum()), int(((one == 0) & (two == 1)).sum())
    total = only_first + only_other
    return {"only_first": only_first, "only_other": only_other, "p_value": float(binomtest(only_other, total).pvalue) if total else None}
