"""The report's input: a JSON-like dict of which every part may be missing.

Proportions are floats between 0 and 1; an interval is `low`, `high`; a missing number is `None` (NaN is read as missing). What is
not there is left out of the page with a sentence that says why: `missing[section]` where given, a general one otherwise. Data that have no
such thing at all name their `sections` (keys of `cupel.report.view.SECTIONS`); the page then has and lists no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

Recorded = Literal["left", "right", "tie", "both_bad"]


class ActionPart(TypedDict):
    """One thing to do next and the command that does it."""

    text: str
    command: NotRequired[str | None]


class VerdictPart(TypedDict):
    """The answer; `code` is one of the five verdict codes."""

    code: str
    sentence: str
    actions: NotRequired[Sequence[ActionPart]]
    would_change: NotRequired[Sequence[str]]


class NumberPart(TypedDict):
    """One headline number: `value` is already text; `low`, `high` are proportions where it ends in `points` or holds a `%`."""

    label: str
    value: str
    n: NotRequired[int | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    source: NotRequired[str]
    note: NotRequired[str]


class FlipRatePart(TypedDict):
    """Label error with its basis; `estimate` is `None` where the basis gives bounds only.

    `low`, `high` are the interval of the estimate with trusted answers, else bounds; with repeats the interval of the estimate is in
    `details` as `point_low`, `point_high`.
    """

    basis: str
    estimate: float | None
    low: float
    high: float
    assumptions: NotRequired[Sequence[str]]
    n: NotRequired[int]
    details: NotRequired[Mapping[str, Any]]


class PowerPart(TypedDict):
    """How well planted errors were found; keys of `caught_at` and `precision_at` are shares of rows as text ("0.10")."""

    auc: float
    auc_low: NotRequired[float | None]
    auc_high: NotRequired[float | None]
    planted_rate: float
    caught_at: Mapping[str, float]
    precision_at: NotRequired[Mapping[str, float]]
    verdict: str
    length_biased: NotRequired[Mapping[str, Any]]
    n: NotRequired[int]


class FindingPart(TypedDict):
    """What one check found; `examples` are ids or short texts."""

    name: str
    status: str
    scope: NotRequired[str]
    severity: NotRequired[str]
    count: NotRequired[int]
    n: NotRequired[int]
    message: NotRequired[str]
    examples: NotRequired[Sequence[str]]
    remedy: NotRequired[str]
    details: NotRequired[Mapping[str, Any]]


class CirclesPart(TypedDict):
    """Circles of three that the check `cycles` found, as `Cyclicity.recorded()` holds them; for each item its text (None: not to be shown)
    and the number of its prompt; the text of the strongest circle's prompt."""

    triangles: Sequence[Mapping[str, Any]]
    n_triangles: int
    names: Sequence[str | None]
    prompt_of: Sequence[int]
    prompt: NotRequired[str]


class CurationPart(TypedDict):
    """Rows per verdict (keep, reweight, flip, drop, review), the estimated precision of what was changed, entries in the ledger."""

    counts: Mapping[str, int]
    precision: NotRequired[Mapping[str, Any] | float | str | None]
    ledger_entries: NotRequired[int | None]


class PairPart(TypedDict):
    """One pair of the worklist. `recorded` stays folded; `harmful` folds the texts too."""

    id: str
    prompt: str
    left: str
    right: str
    recorded: str
    annotator: NotRequired[str | None]
    suspicion: NotRequired[float | None]
    reasons: NotRequired[Sequence[str]]
    harmful: NotRequired[bool]


class ModelRow(TypedDict):
    """One trained model on the held-out rows; further scalar keys become further columns."""

    model: str
    accuracy: float
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    n: NotRequired[int]
    seeds: NotRequired[int | Sequence[int]]
    shorter_wins: NotRequired[float | None]


class DifferenceRow(TypedDict):
    """A paired difference of accuracies with its interval."""

    name: str
    difference: float
    low: float
    high: float


class TrainingPart(TypedDict):
    """Plain against robust; `reading` is the sentence that says what it means."""

    rows: Sequence[ModelRow]
    differences: NotRequired[Sequence[DifferenceRow]]
    reading: NotRequired[str]


class AnnotatorRow(TypedDict):
    """Agreement of one annotator (a pseudonym) with the others on shared pairs."""

    name: str
    n: int
    agreement: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]


class LengthsPart(TypedDict):
    """Histogram of lengths: k + 1 `edges`, k counts each for the chosen and the rejected side."""

    edges: Sequence[float]
    chosen: Sequence[float]
    rejected: Sequence[float]
    unit: NotRequired[str]


class SuspicionPart(TypedDict):
    """Histogram of suspicion: k + 1 `edges`, k counts of rows and, where errors were planted, of planted ones."""

    edges: Sequence[float]
    counts: Sequence[float]
    planted_counts: NotRequired[Sequence[float] | None]


class ReliabilityPart(TypedDict):
    """Stated probability that a label is right against the share that was, by bin."""

    predicted: Sequence[float]
    observed: Sequence[float]
    low: NotRequired[Sequence[float]]
    high: NotRequired[Sequence[float]]
    n: NotRequired[Sequence[int]]


class QuarantinePart(TypedDict):
    """Rows set aside: how many, why, and the first of them (`line`, `reason`, `detail`)."""

    n: int
    reasons: Mapping[str, int]
    first: NotRequired[Sequence[Mapping[str, Any]]]


class RunPart(TypedDict):
    """What repeats the run."""

    command: str
    seed: int
    encoder: NotRequired[str]
    encoder_hash: NotRequired[str]
    input_name: NotRequired[str]
    input_sha256: NotRequired[str]
    versions: NotRequired[Mapping[str, str]]


class Report(TypedDict, total=False):
    """All parts, in the order of the page."""

    title: str
    verdict: VerdictPart
    numbers: Sequence[NumberPart]
    power: PowerPart
    suspicion_hist: SuspicionPart
    flip_rate: FlipRatePart
    reliability: ReliabilityPart
    findings: Sequence[FindingPart]
    circles: CirclesPart
    lengths: LengthsPart
    worklist: Sequence[PairPart]
    curation: CurationPart
    training: TrainingPart
    annotators: Sequence[AnnotatorRow]
    quarantine: QuarantinePart
    method: Sequence[str]
    limits: Sequence[str]
    run: RunPart
    missing: Mapping[str, str]
    sections: Sequence[str]
