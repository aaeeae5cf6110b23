"""The verb annotate on files: a file of comparisons in, the same votes with those of one more annotator out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cupel.annotate.labels import append_votes, calibrate, nodes, pair_labels
from cupel.annotate.writing import facts_of, write_parts, write_votes
from cupel.errors import InputError
from cupel.records.columns import Frame, did_you_mean
from cupel.records.files import write_json
from cupel.records.schema import SKIP, Votes

if TYPE_CHECKING:
    import pyarrow as pa

METHODS = ("density-ratio", "relevance")
SWITCHES = ("length", "repetition", "relevance", "branching")
#: ids of contradicted votes that the summary names
_NAMED = 100
#: options of one method alone
_OF = {
    "density-ratio": (
        "strong", "weak", "strong_template", "weak_template", "criteria", "route", "template_on", "reduce", "clip", "cache",
    ),
    "relevance": ("encoder", "without", "qtype", "reference", "relevance_scale", "max_tokens", "negative", "on_missing"),
}  # fmt: skip


@dataclass(frozen=True)
class AnnotateOptions:
    """What `cupel annotate` was asked for; docs/annotate.md says what each means."""

    method: Literal["density-ratio", "relevance"]
    name: str | None = None
    tie: float = 0.0
    calibrate: Literal["temperature", "isotonic"] | None = None
    flip: float | None = None
    only_new: bool = False
    # density-ratio
    strong: str | None = None
    weak: str | None = None
    strong_template: str | None = None
    weak_template: str | None = None
    criteria: Path | None = None
    route: str | None = None
    template_on: Literal["both", "strong"] = "both"
    reduce: Literal["mean", "sum"] = "mean"
    clip: float | None = None
    cache: Path | None = None
    # relevance
    encoder: str = "static"
    without: tuple[str, ...] = ()
    qtype: str | None = None
    reference: str | None = None
    relevance_scale: str | None = None
    max_tokens: int = 512
    negative: Literal["clamp", "keep", "refuse"] = "clamp"
    on_missing: Literal["error", "open"] = "error"
    # both
    device: str = "cpu"
    allow_download: bool = False


def annotate_file(
    file: str, out: Path, options: AnnotateOptions, *, map: Mapping[str, str] | None = None, format: str | None = None,
    max_bad: float = 0.01, dry_run: bool = False, force: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write OUT (votes with one more annotator), OUT's name with .json (what is known about the labels) and .scores.parquet (the parts of
    the score of every response); returns what the JSON holds.

    Raises InputError where OUT exists (unless `force`), for options that belong to the other method, and for what cannot be scored.
    """  # fmt: skip
    check_options(options)
    beside, parts = out.with_suffix(".json"), out.with_suffix(".scores.parquet")
    if out.suffix == ".json" or not out.suffix:
        raise InputError(f"--out {out} is a Parquet file, e.g. --out annotated.parquet")
    taken = [path for path in (out, beside, parts) if path.exists()]
    if taken and not force and not dry_run:
        raise InputError(f"{taken[0]} exists. Name another file with --out, or replace it with --force.")
    votes, labelled = read_pairs(file, map=map, format=format, max_bad=max_bad)
    prompts, responses, sides = nodes(votes)
    if dry_run:
        pairs = len(np.unique(votes.pair))
        words = f"{len(votes):,} rows, {pairs:,} pairs, {len(responses):,} responses to score. Nothing was written (--dry-run)."
        return {"n_votes": len(votes), "n_pairs": pairs, "n_responses": len(responses), "format": votes.source_format, "words": [words]}
    scored = (_relevance if options.method == "relevance" else _density_ratio)(votes, options, prompts, responses)
    labels = pair_labels(votes, scored.score[sides[0]] - scored.score[sides[1]], tie=options.tie)
    name = options.name or options.method
    fitted = calibrate(labels, votes, method=options.calibrate, flip=options.flip) if options.calibrate else None
    both = append_votes(votes, labels, name, p=None if fitted is None else fitted.probability(labels.margin))
    keep = np.arange(len(votes), len(both)) if options.only_new or not labelled else np.arange(len(both))
    facts, words = facts_of(votes, labels, name, fitted, labelled)
    left_out = {"method", "name", *_OF["relevance" if options.method == "density-ratio" else "density-ratio"]}
    asked = {key: value for key, value in vars(options).items() if value not in (None, ()) and key not in left_out}
    summary = {"annotator": name, "method": options.method, "options": asked, "n_written": len(keep), **facts, **scored.facts}
    write_votes(both.take(keep), out)
    write_parts(parts, prompts, responses, scored.parts)
    write_json(beside, summary)
    return {**summary, "words": [*words, *scored.words, f"Written: {out}, {beside}, {parts}."]}


@dataclass(frozen=True)
class _Scored:
    """score [responses]; the table of its parts; what the method has to say beside the labels, as data and in words."""

    score: np.ndarray
    parts: pa.Table
    facts: dict[str, Any]
    words: list[str]


def check_options(options: AnnotateOptions) -> None:
    """InputError for an unknown method or switch, models that are missing, and options of the other method."""
    if options.method not in METHODS:
        raise InputError(
            f"--with {options.method!r} is no annotator.{did_you_mean(options.method, METHODS)} There are {', '.join(METHODS)}"
        )
    other = _OF["relevance" if options.method == "density-ratio" else "density-ratio"]
    plain = AnnotateOptions(options.method)
    foreign = [name for name in other if getattr(options, name) != getattr(plain, name)]
    if foreign:
        raise InputError(f"--{foreign[0].replace('_', '-')} does not go with --with {options.method}")
    if options.flip is not None and options.calibrate is None:
        raise InputError("--flip is the flip rate that --calibrate takes out of the votes: give --calibrate temperature as well")
    if options.method == "density-ratio" and not (options.strong and options.weak):
        raise InputError("a density ratio needs two models: --strong MODEL --weak MODEL")
    if unknown := [switch for switch in options.without if switch not in SWITCHES]:
        raise InputError(f"--without {unknown[0]!r}: the switches are {', '.join(SWITCHES)}")
    if options.method == "relevance" and not options.qtype and not {"branching", "relevance"} & set(options.without):
        raise InputError(
            "which questions are constrained is not guessed: name the column with --qtype COLUMN (OPENENDED or CONSTRAINED; with "
            "--reference COLUMN), or score all as open ended with --without branching"
        )


def read_pairs(file: str, *, map: Mapping[str, str] | None, format: str | None, max_bad: float) -> tuple[Votes, bool]:
    """(the comparisons of a file, whether they are labelled). Pairs without any column of votes are read as skipped."""
    import pyarrow as pa

    from cupel.records import sources
    from cupel.records.columns import kinds
    from cupel.records.reading import read
    from cupel.records.stream import worth_streaming

    options: dict[str, Any] = {"map": map, "format": format, "max_bad": max_bad, "heldout": 0}
    if worth_streaming(file):
        return read(file, **options), True
    rows = sources.load(file, kinds(map))
    frame = Frame(rows.table, map)
    bare = format in (None, "votes") and frame.has("response_a", "response_b") and not frame.has("vote") and not frame.has("chosen")
    bare = bare and "winner_model_a" not in frame.columns
    if not bare:
        return read(file if file != "-" else rows.table, **options), True
    if rows.quarantine:
        raise InputError(f"{rows.name}: {len(rows.quarantine):,} rows cannot be read (first: line {rows.quarantine[0].line}); repair them")
    table = rows.table.append_column("vote", pa.array(["skip"] * rows.table.num_rows, pa.large_string()))
    votes = read(table, **options)
    return votes, bool((votes.outcome != SKIP).any())


# ---- the two methods -----------------------------------------------------------------------------------------------------------------


def _density_ratio(votes: Votes, options: AnnotateOptions, prompts: Sequence[str], responses: Sequence[str]) -> _Scored:
    from cupel.annotate.density_ratio import DensityRatio

    assert options.strong is not None
    assert options.weak is not None
    vocabulary = _vocabulary(options)
    strong, weak = (
        _model(spec, template, votes, options, vocabulary)
        for spec, template in ((options.strong, options.strong_template), (options.weak, options.weak_template))
    )
    criteria, router = _criteria(votes, options, (strong, weak))
    ratio = DensityRatio(
        strong, weak, template=criteria, router=router, template_on=options.template_on, reduce=options.reduce, clip=options.clip
    )
    found = ratio.table(prompts, responses)
    corr = {key: None if np.isnan(value) else value for key, value in found.length_corr().items()}
    facts = {"length_correlation": corr, "empty_responses": int(found.empty.sum()), "clipped_tokens": int(found.clipped.sum())}
    words = [f"Correlation with length: sum {_show(corr['sum'])}, mean {_show(corr['mean'])}; scored by the {options.reduce}."]
    if facts["empty_responses"]:
        words.append(f"{facts['empty_responses']:,} responses are empty; they score 0.")
    return _Scored(found.score, found.table(), facts, words)


def _model(spec: str, template: str | None, votes: Votes, options: AnnotateOptions, vocabulary: frozenset[str]) -> Any:
    """A language model as --strong and --weak name it: columns:NAME, ngram:FILE, bigram:FILE, or a transformers folder or name."""
    kind, colon, value = spec.partition(":")
    if colon and kind == "columns":
        return _columns(votes, value)
    if colon and kind in ("ngram", "bigram"):
        from cupel.annotate.ngram import NGram

        return NGram(_texts(value), order=1 if kind == "ngram" else 2, vocabulary=vocabulary)
    from cupel.annotate.language_models import CausalLM

    return CausalLM.load(spec, template=template, device=options.device, allow_download=options.allow_download, cache=options.cache)


def _vocabulary(options: AnnotateOptions) -> frozenset[str]:
    """Words of all texts that n-gram models are made from: both sides have one vocabulary."""
    from cupel.annotate.ngram import NGram

    files = [spec.partition(":")[2] for spec in (options.strong, options.weak) if spec and spec.partition(":")[0] in ("ngram", "bigram")]
    return frozenset().union(*(NGram.vocabulary(_texts(file)) for file in files))


def _texts(file: str) -> list[str]:
    """Texts to make an n-gram model from: the column `text` of a file, or the lines of a .txt."""
    path = Path(file)
    if path.suffix == ".txt":
        try:
            return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
    from cupel.records import sources

    table = sources.load(path).table
    if "text" not in table.column_names:
        raise InputError(f"{path} has no column text (its columns: {', '.join(table.column_names)})")
    return [text for text in table["text"].to_pylist() if text]


def _columns(votes: Votes, name: str) -> Any:
    from cupel.annotate.density_ratio import Stored

    prompts, responses = votes.prompt_texts(), votes.response_texts()
    asked, said, values = [], [], []
    for side, at in (("a", votes.first), ("b", votes.second)):
        column = _column(votes, f"{name}_{side}")
        missing = [row for row, value in enumerate(column) if value is None]
        if missing:
            raise InputError(f"column {name}_{side} is empty in {len(missing):,} of {len(votes):,} rows (first: row {missing[0] + 1})")
        asked += [prompts[i] for i in votes.prompt.tolist()]
        said += [responses[i] for i in at.tolist()]
        values += column
    return Stored(asked, said, values)


def _criteria(votes: Votes, options: AnnotateOptions, models: Sequence[Any]) -> tuple[Any, Callable[[str], str] | None]:
    from cupel.annotate.criteria import criteria_from

    if options.criteria is None:
        if options.route:
            raise InputError("--route names domains: give their criteria with --criteria FILE")
        return None, None
    try:
        spec = json.loads(options.criteria.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--criteria {options.criteria} cannot be read as JSON: {error}") from error
    chat = all(getattr(getattr(model, "template", None), "text", None) is not None for model in models)
    criteria = criteria_from(spec, chat=chat)
    if options.route is None:
        return criteria, None
    domain = _by_prompt(votes, options.route)
    return criteria, partial(_domain, domain)


def _domain(domain: Mapping[str, Any], prompt: str) -> str:
    return str(domain[prompt])


def _relevance(votes: Votes, options: AnnotateOptions, prompts: Sequence[str], responses: Sequence[str]) -> _Scored:
    import warnings

    from cupel.annotate.probes import contradictions
    from cupel.annotate.whitebox import AnnotationWarning, LengthIncentive, Relevance, RepetitionPenalty, WhiteBox
    from cupel.encode import load_encoder

    off = set(options.without)
    relevance = None
    if "relevance" not in off:
        encoder = load_encoder(options.encoder, device=options.device, allow_download=options.allow_download)
        if options.relevance_scale == "measured":
            there = [row for row, text in enumerate(responses) if text.strip()]
            relevance = Relevance.calibrated(encoder, [responses[row] for row in there], prompts=[prompts[row] for row in there])
        else:
            relevance = Relevance(encoder, _scale(options.relevance_scale))
    known = None
    if "branching" not in off and relevance is not None:
        assert options.qtype is not None
        kinds = _by_prompt(votes, options.qtype)
        references = _by_prompt(votes, options.reference) if options.reference else dict.fromkeys(kinds)
        known = {prompt: (kinds[prompt], references[prompt]) for prompt in kinds}
    reward = WhiteBox(
        relevance, None if "length" in off else LengthIncentive(), None if "repetition" in off else RepetitionPenalty(),
        branching=known is not None, max_tokens=options.max_tokens, negative=options.negative, on_missing=options.on_missing, known=known,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnnotationWarning)
        parts = reward.parts(prompts, responses)
    words = [f"{warning.message}." for warning in caught if issubclass(warning.category, AnnotationWarning)]
    facts: dict[str, Any] = {
        "empty_responses": int(parts.empty.sum()), "constrained": int(parts.constrained.sum()), "clamped": int(parts.clamped.sum()),
        "scale": None if relevance is None else [relevance.low, relevance.high],
        "switches": {switch: switch not in off for switch in SWITCHES},
    }  # fmt: skip
    if relevance is not None and (votes.sign != 0).any():
        found = contradictions(votes, relevance)
        facts["contradictions"] = {"count": len(found.rows), "at_least": found.at_least, "ids": list(found.ids[:_NAMED])}
        words.append(
            f"{len(found.rows):,} votes prefer a side that is less relevant by {found.at_least:.2g} or more: worth a look, no proof."
        )
    return _Scored(parts.score, parts.table(), facts, words)


# ---- columns of the data ---------------------------------------------------------------------------------------------------------------


def _column(votes: Votes, name: str) -> list[Any]:
    """A column of the data, one value per comparison."""
    there = [] if votes.source is None else votes.source.column_names
    if name not in there:
        raise InputError(f"the data has no column {name!r}.{did_you_mean(name, there)} Its columns: {', '.join(there)}")
    assert votes.source is not None
    return votes.source[name].to_pylist()


def _scale(text: str | None) -> tuple[float, float] | None:
    """What --relevance-scale says: HIGH or LOW:HIGH."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        return (float(low), float(high)) if colon else (0.0, float(low))
    except ValueError as error:
        raise InputError(f"--relevance-scale {text!r} is HIGH, LOW:HIGH or measured, e.g. --relevance-scale 0.3:1") from error


def _by_prompt(votes: Votes, name: str) -> dict[str, Any]:
    """What a column says of each prompt. InputError where it says two things of one."""
    prompts = votes.prompt_texts()
    found: dict[str, Any] = {}
    for row, (at, value) in enumerate(zip(votes.prompt.tolist(), _column(votes, name), strict=True)):
        if found.setdefault(prompts[at], value) != value:
            raise InputError(f"column {name} says {value!r} in row {row + 1} and {found[prompts[at]]!r} before, of one prompt")
    return found


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
