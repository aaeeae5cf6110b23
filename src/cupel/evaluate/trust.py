"""What may be believed of reward models' scores on a file of votes: calibration, ceiling, style, disagreement, distribution.

One object for the command line, the files and a page. Each part says what it rests on; a part that the data do not allow is a sentence
that says why, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.calibration import Method, checked
from cupel.evaluate.ceiling import Ceiling, vote_ceiling
from cupel.evaluate.ensembles import Disagreement, Shift, disagreement, shift
from cupel.evaluate.outside import Outside, not_known
from cupel.evaluate.paired import Share, model_margins
from cupel.evaluate.probabilities import CalibrationReport, calibrate, mean
from cupel.evaluate.style import FACTS, LengthReliance, StyleControl, length_reliance, style_controlled, style_facts, style_ratio
from cupel.records.schema import Votes

if TYPE_CHECKING:
    from cupel.report.figures import Figure


@dataclass(frozen=True)
class ModelTrust:
    """What is known of one model: accuracy on the votes, calibration to votes (and to a truth where given), length, style."""

    accuracy: Share
    calibration: CalibrationReport | None
    to_truth: CalibrationReport | None
    length: LengthReliance
    style: StyleControl | None

    def to_json(self) -> dict[str, Any]:
        """All parts; None for those that the data do not allow."""
        parts = ("accuracy", "calibration", "to_truth", "length", "style")
        return {name: None if getattr(self, name) is None else getattr(self, name).to_json() for name in parts}


@dataclass(frozen=True)
class Trust:
    """Everything about the trust in scores on one file, by model where it is the model's.

    ensemble  disagreement of the models, where there are two or more; shift: the file against the training file, where that was given
    notes     what could not be said, and why
    outside   by model: are the file's texts like those it was trained on, as far as its folder says?
    """

    models: Mapping[str, ModelTrust]
    ceiling: Ceiling
    ensemble: Disagreement | None
    shift: Shift | None
    notes: tuple[str, ...] = field(default=())
    outside: Mapping[str, Outside] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `trust.json` holds."""
        return {
            "models": {name: model.to_json() for name, model in self.models.items()}, "ceiling": self.ceiling.to_json(),
            "ensemble": None if self.ensemble is None else self.ensemble.to_json(),
            "shift": None if self.shift is None else self.shift.to_json(),
            "outside": {name: found.to_json() for name, found in self.outside.items()}, "notes": list(self.notes), "words": self.words,
        }  # fmt: skip

    @property
    def words(self) -> list[str]:
        """All of it in sentences."""
        out = list(self.ceiling.words)
        for name, model in self.models.items():
            said = [] if model.calibration is None else model.calibration.words
            said = said + ([] if model.to_truth is None else model.to_truth.words) + model.length.words
            said = said + ([] if model.style is None else model.style.words)
            top = self.ceiling.highest
            if top is not None and model.accuracy.low is not None and model.accuracy.low > top:
                said.insert(0, (
                    f"Accuracy {model.accuracy} is surely above the ceiling {top:.3f}: it was trained on these votes, or the repeated "
                    "pairs are harder than the others."
                ))  # fmt: skip
            said += self.outside[name].words if name in self.outside else []
            out += [f"{name}: {line}" for line in said]
        out += [] if self.ensemble is None else self.ensemble.words
        out += [] if self.shift is None else self.shift.words
        return [*out, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.words)

    def figures(self) -> list[Figure]:
        """Pictures for a page: stated against observed shares of each model, and accuracy by length beside the ceiling."""
        found = [_reliability(i, name, m.calibration) for i, (name, m) in enumerate(self.models.items()) if m.calibration is not None]
        return [*found, _by_length(self)]


def trust(
    margins: Mapping[str, np.ndarray],
    votes: Votes,
    *,
    method: Method = "temperature",
    flip: float | None = None,
    truth: np.ndarray | None = None,
    train: Votes | None = None,
    outside: Mapping[str, Outside] | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> Trust:
    """Calibration, ceiling, length and style reliance, disagreement and distribution of models' scores on votes they did not see.

    margins  {name: score(first) - score(second), [n]}; `margins_of` makes them
    method   of the calibration; flip: flip rate e of the votes, where it is known or estimated: then probabilities of the truth follow
    truth    clean labels [n] (+1, -1, 0 unknown): a second calibration, to the truth
    train    what the models were trained on: are the texts of this file like it? (surface facts of the responses)
    outside  what `outside_of` says of the models' folders: the same question without the training file; of models it leaves out a note
             says that nothing is known
    InputError where there is no model, or no vote with a preference.

    >>> import cupel
    >>> rng = np.random.default_rng(0)
    >>> votes = cupel.read([
    ...     {"prompt": f"q{i}", "response_a": f"word {i}", "response_b": f"words, {i} of them", "vote": "ab"[i % 2]} for i in range(40)
    ... ])
    >>> found = trust({"plain": votes.sign + rng.normal(size=40)}, votes, draws=50)
    >>> found.words[0]
    'No ceiling: none of 40 pairs has two decided votes by different people. Collect a second vote on some pairs.'
    """
    if not margins:
        raise InputError("trust needs the margins of at least one model")
    sign, group = votes.sign.astype(np.float64), votes.group
    checks = {name: checked(margin, sign, group)[0] for name, margin in margins.items()}
    if not sign.any():
        raise InputError(f"none of the {len(votes):,} rows has a preference (ties and skips only): nothing can be said of scores")
    lengths = _lengths(votes)
    longer = lengths[votes.first] - lengths[votes.second]
    log_ratio = np.log1p(lengths[votes.first]) - np.log1p(lengths[votes.second])
    facts = style_facts(votes.responses)
    z = style_ratio(facts[votes.first], facts[votes.second], plus_one=True)
    notes: list[str] = []
    share: dict[str, Any] = {"seed": seed, "draws": draws}
    models = {}
    for name, margin in checks.items():
        known = None if truth is None else np.nan_to_num(np.asarray(truth, dtype=np.float64))
        models[name] = ModelTrust(
            accuracy=mean((0.5 + 0.5 * np.sign(margin * sign))[sign != 0], group[sign != 0], seed, draws, (0.0, 1.0)),
            calibration=_tried(notes, lambda m=margin: calibrate(m, sign, group, log_ratio, method=method, flip=flip, **share)),
            to_truth=None if known is None else _tried(
                notes, lambda m=margin, t=known: calibrate(m, t, group, log_ratio, method=method, on="truth", flip=flip, **share)
            ),
            length=length_reliance(margin, longer, sign, group, votes.pair, **share),
            style=_tried(notes, lambda m=margin: style_controlled(m, z, sign, group, names=FACTS, **share)),
        )  # fmt: skip
    ceiling = vote_ceiling(votes.pair, votes.pair_sign, group, votes.annotator, **share)
    ensemble = None
    if len(checks) > 1:
        ensemble = _tried(notes, lambda: disagreement(list(checks.values()), sign, group, seed=seed, draws=min(draws, 500)))
    notes += [] if outside is None else not_known(name for name in checks if name not in outside)
    moved = None if train is None else _tried(notes, lambda: _shift(train, votes, seed))
    return Trust(models, ceiling, ensemble, moved, tuple(dict.fromkeys(notes)), dict(outside or {}))


def margins_of(
    models: Mapping[str, Any] | Sequence[tuple[str, Any]], votes: Votes, *, sides: dict[str, Any] | None = None
) -> dict[str, np.ndarray]:  # fmt: skip
    """{name: margin [n]} of reward models; what models with the same encoder read is encoded once, and left in `sides` by its hash."""
    sides = {} if sides is None else sides
    return {name: model_margins(model, votes, sides)[0] for name, model in dict(models).items()}


def save_calibrations(found: Trust, folders: Mapping[str, Path]) -> list[str]:
    """Write each model's calibration into its folder; what was written, or why nothing was, in words."""
    out = []
    for name, folder in folders.items():
        report = found.models[name].calibration
        if report is None:
            out.append(f"{name}: no calibration was written, because these data allow none.")
        else:
            out.append(f"{name}: {report.calibration}, written to {report.calibration.save(folder)}; cupel score reads it.")
    return out


def _tried(notes: list[str], make: Any) -> Any:
    """What `make` gives, or None and its refusal as a note."""
    try:
        return make()
    except InputError as refusal:
        notes.append(str(refusal))
        return None


def _lengths(votes: Votes) -> np.ndarray:
    from cupel.records.arrow import pc

    return pc.fill_null(pc.utf8_length(votes.responses), 0).to_numpy(zero_copy_only=False).astype(np.float64)


def _shift(train: Votes, votes: Votes, seed: int) -> Shift:
    """Surface facts of the responses of one file against those of the other; a response belongs to the group of its first vote."""
    from cupel.encode.surface import surface

    def side(some: Votes) -> tuple[np.ndarray, np.ndarray]:
        used, at = np.unique(np.concatenate([some.first, some.second]), return_index=True)
        return surface(some.responses.take(_pa(used))), np.concatenate([some.group, some.group])[at]

    (old, old_group), (new, new_group) = side(train), side(votes)
    return shift(old, new, old_group, new_group, seed=seed)


def _pa(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.int64())


# ---- pictures --------------------------------------------------------------------------------------------------------------------


def _reliability(number: int, name: str, report: CalibrationReport) -> Figure:
    from cupel.report import svg
    from cupel.report import tables as tb
    from cupel.report import text as t
    from cupel.report.figures import Figure

    bins = report.reliability
    rows = [
        (float(p), float(o), low, high)
        for p, o, low, high in zip(bins["predicted"], bins["observed"], bins["low"], bins["high"], strict=True)
        if p is not None and o is not None
    ]
    what = "votes" if report.calibration.on == "votes" else "labels known to be true"
    described = f"{name}: points on the diagonal mean that stated and observed shares of {what} agree. " + "; ".join(
        f"stated {t.percent(p, 0)}, observed {t.percent(o, 0)}" for p, o, *_ in rows[:12]
    )
    return Figure(
        svg.reliability(f"fig-trust-{number}", f"Stated against observed, {name}", described, rows),
        f"{name}, {report.calibration}. Across: the probability of the side that the model prefers; up: the share of {what} for it.",
        tb.table(
            f"Stated probability and observed share of {what}, {name}",
            ["Stated", "Observed#", "95 % interval#", "n#"],
            [
                (t.percent(p), t.percent(o), t.interval(low, high) or t.NOTHING, t.count(n))
                for (p, o, low, high), n in zip(rows, bins["n"], strict=True)
            ],
        ),
    )


def _by_length(found: Trust) -> Figure:
    from cupel.report import svg
    from cupel.report import tables as tb
    from cupel.report import text as t
    from cupel.report.figures import Figure

    spans, rows = [], []
    if found.ceiling.low is not None and found.ceiling.high is not None:
        words = f"{t.percent(found.ceiling.low)} to {t.percent(found.ceiling.high)}"
        spans.append(svg.Span("Ceiling of any model against one vote", found.ceiling.low, found.ceiling.high, None, words))
        rows.append(("ceiling", "", words, t.count(found.ceiling.votes)))
    names = {"all": "all votes", "shorter_wins": "the shorter side won", "longer_wins": "the longer side won"}
    for name, model in found.models.items():
        for key, label in names.items():
            share = model.accuracy if key == "all" else model.length.accuracy[key]
            if share.estimate is None:
                continue
            words = t.percent(share.estimate)
            spans.append(svg.Span(f"{name}, {label}", share.low, share.high, share.estimate, words))
            rows.append((name, label, f"{words} {t.interval(share.low, share.high) or ''}".strip(), t.count(share.n)))
    drawn = svg.intervals(
        "fig-trust-length", "Accuracy by which side is longer", "; ".join(f"{span.label}: {span.words}" for span in spans), spans,
        axis=(0.0, 1.0), ticks=(0.0, 0.5, 1.0), label=lambda value: t.percent(value, 0),
    )  # fmt: skip
    said = "A model that follows length is right where the longer side won and wrong where the shorter did. Bars are 95 % intervals."
    return Figure(drawn, said, tb.table("Accuracy by length", ["Model", "Votes where", "Accuracy#", "n#"], rows))
