"""The audit, step by step: checks, vectors, suspicion, label error, power, a verdict for each row and one for the file.

Only rows of the training split are looked at together with their labels. Held-out rows get a suspicion from the head that the training
rows gave, are always kept, and enter no estimate: permuting their labels changes nothing that is trained (benchmarks/false_gain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cupel.audit.annotators import annotator_table
from cupel.audit.label_error import from_repeats, from_single, p_correct_from_repeats, repeated_pairs
from cupel.audit.result import Audit, Scores
from cupel.audit.rows import calibrated, row_verdicts
from cupel.audit.types import Finding, FlipRate, Power
from cupel.audit.verdict import decide
from cupel.environment import versions
from cupel.errors import InputError
from cupel.records.schema import TRAIN, Votes
from cupel.stages import ARRAYS, FINDINGS, JSON, Stages

Progress = Callable[[str, int, int], None]

#: from this many pairs with votes of two or more people on, the label error is estimated from repeats
MIN_REPEATED_PAIRS = 50


@dataclass(frozen=True)
class AuditOptions:
    """What changes an audit's result."""

    encoder: str = "static"
    only: tuple[str, ...] | None = None
    against: tuple[str, ...] | None = None
    sample: int | None = None
    device: str = "cpu"
    context: int | None = None
    allow_download: bool = False
    seed: int = 0


def run_audit(
    votes: Votes,
    options: AuditOptions,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    stages: Stages | None = None,
    votes_key: Any = None,
    on_findings: Callable[[list[Finding]], None] | None = None,
) -> Audit:
    """Audit `votes` (with their split assigned).

    cache        folder of encoded texts; None is `cupel.encode.cache.default_cache_dir()`
    stages       where finished stages are kept; with `votes_key` naming the content of `votes`
    on_findings  called with the findings as soon as they are known, long before the rest
    Raises InputError where there is nothing to audit, EncoderError for a missing encoder.
    """
    from cupel.encode import load_encoder

    stages = stages or Stages()
    if len(votes) == 0:
        raise InputError("there are no comparisons to audit: every row was set aside or the file has none")
    encoder = load_encoder(options.encoder, device=options.device, allow_download=options.allow_download)
    if options.sample is not None:
        votes = sample_votes(votes, options.sample, options.seed)
    bare = votes.with_(source=None)  # the rows as they came may lie on disk: taking some of them would read these into memory
    base = {"votes": votes_key, "sample": options.sample, "seed": options.seed}
    parts = {**base, "only": options.only, "against": options.against, "context": options.context, "encoder": encoder.hash}
    findings = stages.run("checks", parts, lambda: _checks(bare, options, encoder, progress), FINDINGS)
    if on_findings:
        on_findings(findings)
    scored = {**base, "encoder": encoder.hash}
    features = _Once(bare, encoder, cache, progress)
    rows = stages.run("suspicion", scored, lambda: _score(bare, features(), options, progress), ARRAYS)
    power = Power(**stages.run("power", scored, lambda: _power(bare, features(), options, progress), JSON))
    features.forget()
    rate = _flip_rate(stages.run("label-error", scored, lambda: _label_error(bare, rows, options.seed), JSON))
    return assemble(votes, options, findings, rows, power, rate, {"name": encoder.name, "hash": encoder.hash, "dim": encoder.dim})


def assemble(
    votes: Votes,
    options: AuditOptions,
    findings: list[Finding],
    rows: dict[str, np.ndarray],
    power: Power,
    rate: FlipRate,
    encoder: dict[str, Any],
    trusted: dict[str, Any] | None = None,
    p_correct: np.ndarray | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> Audit:
    """An Audit from its measured parts: the row verdicts and the file's verdict are pure functions of them.

    recorded: options as an earlier audit recorded them, instead of `options`.
    """
    known = _known(votes, rows, rate) if p_correct is None else p_correct
    scores = Scores(
        suspicion=rows["suspicion"],
        label_predictability=rows["label_predictability"],
        p_correct=known,
        verdict=row_verdicts(votes, rows["suspicion"], known, findings, power),
        content_margin=rows["content_margin"],
    )
    stated = int((votes.sign[votes.split == TRAIN] != 0).sum())
    return Audit(
        votes=votes,
        verdict=decide(findings, rate, power, n_votes=stated),
        flip_rate=rate,
        power=power,
        findings=tuple(findings),
        scores=scores,
        annotators=tuple(annotator_table(votes)),
        seed=options.seed,
        encoder=encoder,
        versions=versions(),
        options=_recorded(options) if recorded is None else recorded,
        trusted=trusted,
    )


def _recorded(options: AuditOptions) -> dict[str, Any]:
    """The options as `audit.json` holds them; of the texts to look for, their number and hash."""
    import hashlib

    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}
    if options.against is not None:
        content = "\0".join(options.against).encode("utf-8", "surrogatepass")
        values["against"] = {"texts": len(options.against), "sha256": hashlib.sha256(content).hexdigest()}
    return values


def sample_votes(votes: Votes, n: int, seed: int) -> Votes:
    """About `n` votes, by whole pairs in seeded order, so that repeats stay together. Raises InputError for n < 1."""
    if n < 1:
        raise InputError(f"--sample {n} asks for no votes; give a number from 1 up")
    if n >= len(votes):
        return votes
    order = np.random.default_rng(seed).permutation(int(votes.pair.max()) + 1)
    counts = np.bincount(votes.pair)[order]
    chosen = order[: int(np.searchsorted(np.cumsum(counts), n)) + 1]
    return votes.take(np.isin(votes.pair, chosen))


# ---- the steps ------------------------------------------------------------------------------------------------------------------


def _stage_progress(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)


def _checks(votes: Votes, options: AuditOptions, encoder: Any, progress: Progress | None) -> list[Finding]:
    from cupel.audit.checks import run_checks
    from cupel.audit.checks.context import Context

    context = Context(against=options.against, context_tokens=options.context, token_counts=encoder.token_counts, seed=options.seed)
    return run_checks(votes, context, only=options.only, progress=_stage_progress(progress, "checks"))


class _Once:
    """The features of the sides: computed when first asked for, used by the stages that need them, and let go."""

    def __init__(self, votes: Votes, encoder: Any, cache: Path | None, progress: Progress | None) -> None:
        self._given = (votes, encoder, cache, progress)
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            self._made = _features(*self._given)
        return self._made

    def forget(self) -> None:
        """Let the vectors go."""
        self._made = None


def _features(votes: Votes, encoder: Any, cache: Path | None, progress: Progress | None) -> Any:
    from cupel.audit.features import side_features
    from cupel.encode.base import Texts
    from cupel.encode.cache import encode_cached
    from cupel.records.text import render

    prompts = encode_cached(encoder, Texts(votes.prompts, render), cache, _stage_progress(progress, "encode prompts"))
    responses = encode_cached(encoder, Texts(votes.responses), cache, _stage_progress(progress, "encode"))
    return side_features(votes, prompts, responses, progress=_stage_progress(progress, "surface"))


def _score(votes: Votes, features: Any, options: AuditOptions, progress: Progress | None) -> dict[str, np.ndarray]:
    from cupel.audit.heldout import heldout_margin
    from cupel.audit.suspicion import suspicion

    train = np.flatnonzero(votes.split == TRAIN)
    rest = np.flatnonzero(votes.split != TRAIN)
    inside = votes.take(train)
    told = _stage_progress(progress, "suspicion")
    found = suspicion(inside, features.take(train), seed=options.seed, progress=told)
    margin, content, bound = np.zeros(len(votes)), np.zeros(len(votes)), np.zeros(len(votes))
    margin[train] = found.margin
    content[train] = found.content_margin
    bound[train] = found.pair_excluded
    if len(rest):
        outside = heldout_margin(inside, features.take(train), votes.take(rest), features.take(rest), seed=options.seed)
        margin[rest] = outside
        content[rest] = outside
    used = np.zeros(len(votes), dtype=np.uint8)
    used[train] = found.used_graph
    return {
        "suspicion": 0.0 - margin,
        "content_margin": content,
        "bound_margin": bound,
        "used_graph": used,
        "label_predictability": calibrated(margin, votes.sign, votes.split == TRAIN),
    }


def _power(votes: Votes, features: Any, options: AuditOptions, progress: Progress | None) -> dict[str, Any]:
    from cupel.audit.power import measure_power

    train = np.flatnonzero(votes.split == TRAIN)
    told = _stage_progress(progress, "power")
    return asdict(measure_power(votes.take(train), features.take(train), seed=options.seed, progress=told))


def _label_error(votes: Votes, rows: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    train = votes.split == TRAIN
    inside = votes.take(train)
    if repeated_pairs(inside) >= MIN_REPEATED_PAIRS:
        return asdict(from_repeats(inside, seed))
    return asdict(from_single(inside, rows["bound_margin"][train], seed))


def _known(votes: Votes, rows: dict[str, np.ndarray], rate: FlipRate) -> np.ndarray:
    """P(right) of each row where the basis allows one, NaN where it does not."""
    if rate.basis == "single":
        return np.full(len(votes), np.nan)
    return p_correct_from_repeats(votes, rows["suspicion"], votes.split == TRAIN, rate)


def _flip_rate(value: dict[str, Any]) -> FlipRate:
    return FlipRate(**{**value, "assumptions": tuple(value["assumptions"])})


# ---- a person's answers ---------------------------------------------------------------------------------------------------------


def apply_trusted(audit: Audit, path: Path) -> Audit:
    """Re-estimate the label error from a person's answers (basis `trusted`); the verdicts follow, no text is encoded."""
    from cupel.audit.bridge import estimate_trusted
    from cupel.curate.review import read_reviewed

    answers = read_reviewed(path)
    rate, known = estimate_trusted(audit.votes, audit.scores.suspicion, answers)
    rows = {
        "suspicion": audit.scores.suspicion,
        "content_margin": audit.scores.content_margin,
        "label_predictability": audit.scores.label_predictability,
    }
    again = assemble(
        audit.votes, AuditOptions(seed=audit.seed), list(audit.findings), rows, audit.power, rate, dict(audit.encoder), answers.to_json(),
        p_correct=known, recorded=audit.options,
    )  # fmt: skip
    return again.with_(answers=answers, trusted_path=str(path))
