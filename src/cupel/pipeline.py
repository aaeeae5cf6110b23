"""The main job: read -> audit -> curate -> train plain and robust -> evaluate -> report, in stages that resume.

`audit_file` is its first half. Both write only finished files into OUT, atomically, and keep their stages in OUT/.stages; running again
with the same OUT computes only what changed. Outputs carry no clock times: the same input, options and seed give the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.runs import RefineOptions, input_key, run_record
from cupel.stages import JSON, VOTES, Codec, Stages

if TYPE_CHECKING:
    from cupel.audit.result import Audit
    from cupel.curate.policy import Curated
    from cupel.records.schema import Votes

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]

#: seeds of the plain and the robust model; the interval crosses them with the held-out prompts
TRAINING_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Refined:
    """What `refine` returns: the audit, the curated data, and the evaluation of the two models."""

    audit: Audit
    curated: Curated
    evaluation: Mapping[str, Any]
    out: Path

    def to_json(self) -> dict[str, Any]:
        """Audit, curation and evaluation, as the files hold them."""
        return {"audit": self.audit.to_json(), "curation": dict(self.curated.summary), "evaluation": dict(self.evaluation)}


# ---- reading and auditing -------------------------------------------------------------------------------------------------------


def open_stages(out: Path, options: RefineOptions, progress: Progress | None, say: Say | None) -> Stages:
    """The stage folder of OUT; with `force` it is emptied first."""
    directory = out / ".stages"
    if options.force:
        shutil.rmtree(directory, ignore_errors=True)

    def started(name: str) -> None:
        if progress:
            progress(name, 0, 1)

    def done(name: str, reused: bool) -> None:
        if progress:
            progress(name, 1, 1)

    stages = Stages(directory, on_start=started, on_done=done)
    stages.prune()
    return stages


def spool(source: Any, out: Path) -> Any:
    """Standard input is kept once as OUT/.stages/stdin, so that an interrupted run can resume without it."""
    import os
    import sys

    if source != "-":
        return source
    kept = out / ".stages" / "stdin"
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}")
    with temporary.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    os.replace(temporary, kept)
    return str(kept)


def read_stage(
    source: str, options: RefineOptions, stages: Stages, progress: Progress | None = None, known: Mapping[str, Any] | None = None
) -> tuple[Votes, dict[str, Any]]:
    """The votes with their split, and the key of their content; `known` is the source's `input_key` where it was computed before.

    A file that streams (`records.stream`) is read into a spool beside the stages; the stage keeps its very files, and maps them when it is
    read back.
    """
    from cupel.records.reading import read

    key = {**(known or input_key(source)), "path": None, "map": dict(options.map or {}), "format": options.format,
           "max_bad": options.max_bad, "heldout": options.heldout, "seed": options.seed}  # fmt: skip
    spool = stages.scratch("spool")
    try:
        votes = stages.run(
            "read",
            key,
            lambda: read(
                source, map=options.map, format=options.format, max_bad=options.max_bad, heldout=options.heldout, seed=options.seed,
                spool=spool, progress=None if progress is None else partial(progress, "read"),
            ),
            VOTES,
        )  # fmt: skip
    finally:
        if spool is not None:
            shutil.rmtree(spool, ignore_errors=True)
    return votes, key


def audit_file(
    source: str, out: Path, options: RefineOptions, *, progress: Progress | None = None, say: Say | None = None, write: bool = True
) -> Audit:
    """Audit a file; writes audit.json, verdicts.parquet, report.html, quarantine.jsonl and run.json into `out`."""
    key = None if source == "-" else input_key(source)  # a missing file is said before OUT is made
    return _audit_file(source, out, options, key, progress, say, write)[0]


def _audit_file(
    source: str, out: Path, options: RefineOptions, key: dict[str, Any] | None, progress: Progress | None, say: Say | None, write: bool
) -> tuple[Audit, dict[str, Any]]:
    """The audit, and the key of the votes' content."""
    from cupel.audit.run import AuditOptions, run_audit
    from cupel.records.files import lock
    from cupel.report.assemble import save_audit

    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        source = spool(source, out)
        stages = open_stages(out, options, progress, say)
        votes, votes_key = read_stage(source, options, stages, progress, key)
        if say:
            say(_read_words(votes))
        audit_options = AuditOptions(
            encoder=options.encoder, only=options.only, against=_against_texts(options.against), sample=options.sample,
            device=options.device, context=options.context, allow_download=options.allow_download, seed=options.seed,
        )  # fmt: skip
        result = run_audit(
            votes, audit_options, cache=Path(options.cache) if options.cache else None, progress=progress, stages=stages,
            votes_key=votes_key, on_findings=_first_findings(say),
        )  # fmt: skip
        if options.trusted:
            result = result.with_trusted(options.trusted)
        if write:
            save_audit(result, out, redact=options.redact, run=run_record("audit", source, key, options, result))
    return result, votes_key


def _against_texts(paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The texts of the files to look for: prompts and responses of preference files, else the lines of a text file."""
    from cupel.records.reading import read

    if not paths:
        return None
    texts: dict[str, None] = {}
    for path in paths:
        if path.endswith(".txt"):
            try:
                lines = Path(path).read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"--against {path} cannot be read as UTF-8 text: {error}") from error
            texts.update(dict.fromkeys(line for line in lines if line.strip()))
        else:
            other = read(path, heldout=0)
            texts.update(dict.fromkeys(text for text in other.prompt_texts() + other.response_texts() if text.strip()))
    return tuple(texts)


def _read_words(votes: Votes) -> str:
    words = f"{len(votes):,} votes on {int(votes.pair.max(initial=-1)) + 1:,} pairs ({votes.source_format})"
    if votes.quarantine:
        first = votes.quarantine[0]
        words += f"; {len(votes.quarantine):,} rows set aside (first: line {first.line}, {first.reason}), see quarantine.jsonl"
    return words + "."


def _first_findings(say: Say | None) -> Callable[[Any], None] | None:
    if say is None:
        return None

    def tell(findings: Any) -> None:
        found = [f for f in findings if f.status == "finding"]
        clean = sum(f.status == "clean" for f in findings)
        order = {"error": 0, "warning": 1, "info": 2}
        for finding in sorted(found, key=lambda f: (order[f.severity], f.name))[:6]:
            say(f"  {finding.severity}: {finding.message or finding.name}")
        say(f"  {len(found)} findings, {clean} checks clean.")

    return tell


# ---- the whole job --------------------------------------------------------------------------------------------------------------


def refine(source: Any, out: Path, options: RefineOptions, *, progress: Progress | None = None, say: Say | None = None) -> Refined:
    """The main job. `source` is a path or "-"; raises CupelError with the way out, KeyboardInterrupt leaves finished stages."""
    from cupel.records.files import lock
    from cupel.report.assemble import save_refined

    source = str(source)
    key = None if source == "-" else input_key(source)  # what was read, should the file change meanwhile
    audit, votes_key = _audit_file(source, out, options, key, progress, say, write=False)
    with lock(out):
        spooled = str(out / ".stages" / "stdin") if source == "-" else source
        stages = open_stages(out, RefineOptions(), progress, say)
        curated = audit.curate(flip_above=options.flip_above, drop=options.drop)
        models, trained = train_both(audit, curated, options, stages, votes_key, out, progress)
        evaluation = stages.run("evaluate", trained, lambda: _evaluate(audit, models, options), JSON)
        run = run_record("refine", spooled, key, options, audit)
        save_refined(audit, curated, evaluation, out, redact=options.redact, run=run)
    return Refined(audit, curated, evaluation, out)


def train_both(
    audit: Audit,
    curated: Curated,
    options: RefineOptions,
    stages: Stages,
    votes_key: Mapping[str, Any],
    out: Path,
    progress: Progress | None,
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The plain model on the votes as recorded and the robust one on the curated votes, for each training seed; and what they depend on.

    The robust treatment is EM per annotator where annotators recur, else EM with one flip rate. The models of the first seed are also
    written to OUT/reward-plain and OUT/reward-robust. A model is trained again where its rows or how it is trained have changed, and not
    where another option has.
    """
    from cupel.learners.reward import RewardModel, train_reward
    from cupel.learners.treatments import default_treatment

    robust = default_treatment(curated.train)
    cache = Path(options.cache) if options.cache else None
    models: dict[str, list[Any]] = {"plain": [], "robust": []}
    codec = Codec(save=lambda path, model: model.save(path / "model"), load=lambda path: RewardModel.load(path / "model"))
    plan = [(kind, seed) for seed in TRAINING_SEEDS for kind in models]
    rows = {"plain": (audit.votes.train, "none"), "robust": (curated.train, robust)}
    keys = {
        kind: {"votes": votes_key, "rows": _content(data), "encoder": audit.encoder["hash"], "treatment": treatment}
        for kind, (data, treatment) in rows.items()
    }
    for done, (kind, seed) in enumerate(plan):
        data, treatment = rows[kind]
        if progress:
            progress("train", done, len(plan))

        def compute(data: Any = data, treatment: str = treatment, seed: int = seed) -> Any:
            return train_reward(
                data, encoder=options.encoder, treatment=treatment, seed=options.seed + seed, cache=cache, device=options.device
            )

        model = stages.run(f"train-{kind}-{seed}", {**keys[kind], "seed": options.seed + seed}, compute, codec)
        models[kind].append(model)
        if seed == TRAINING_SEEDS[0]:
            model.save(out / f"reward-{kind}")
    if progress:
        progress("train", len(plan), len(plan))
    return models, {**keys, "seed": options.seed}


def _content(votes: Votes) -> str:
    """SHA-256 of which rows these are and what is believed of them; their texts are those of the votes that were read."""
    digest = hashlib.sha256()
    for name in ("prompt", "first", "second", "outcome", "annotator", "group", "p", "w"):
        digest.update(np.ascontiguousarray(getattr(votes, name)).tobytes())
    digest.update(repr(votes.meta.get("target")).encode())
    return digest.hexdigest()


def _evaluate(audit: Audit, models: Mapping[str, list[Any]], options: RefineOptions) -> dict[str, Any]:
    from cupel.evaluate.paired import evaluate

    result = evaluate(models["plain"], models["robust"], names=("plain", "robust"), on=audit.votes.heldout, seed=options.seed)
    return result.to_json()
