"""The verbs on files that are not the main job: review, curate, train, evaluate, score, convert. Each returns a JSON-able summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError


def _audited(out: Path, file: str | None = None) -> Any:
    """The audit that OUT holds, from its stages; computed again where the code or the input has changed."""
    from cupel.pipeline import audit_file
    from cupel.runs import options_from_run

    if not (out / "run.json").is_file():
        raise InputError(
            f"{out} holds no run.json: it is not a folder that audit or refine wrote. Run cupel audit FILE --out {out} first."
        )
    source, options = options_from_run(out / "run.json", file)
    return audit_file(source, out, options, write=False)


def write_review(out: Path, *, n: int = 100, force: bool = False, dry_run: bool = False) -> dict[str, Any]:
    """Write OUT/review.csv and its key. InputError where a sheet is there already (answers are never overwritten) unless `force`."""
    path = out / "review.csv"
    if path.exists() and not force and not dry_run:
        raise InputError(f"{path} exists and may hold answers. Feed it back with --trusted {path}, move it away, or give --force.")
    audit = _audited(out)
    disagreement = _disagreement(audit, out)
    sheet = audit.review(n, disagreement=disagreement)
    if not dry_run:
        sheet.to_csv(path)
    parts = ", ".join(f"{count} {part}" for part, count in sheet.parts.items())
    return {"path": str(path), "n": len(sheet), "parts": parts, "command": f"{_command(out)} --out {out} --trusted {path}"}


def _command(out: Path) -> str:
    """The command that wrote `out`, without an earlier --trusted."""
    import json

    from cupel.runs import command_line, options_from_run

    source, options = options_from_run(out / "run.json", None)
    verb = json.loads((out / "run.json").read_text("utf-8"))["command"].split()[1]
    return command_line(f"cupel {verb}", source, replace(options, trusted=None))


def _disagreement(audit: Any, out: Path) -> np.ndarray | None:
    """Held-out rows on which the plain and the robust model disagree, where refine has trained them."""
    from cupel.evaluate.paired import evaluate
    from cupel.learners.reward import RewardModel

    places = [out / "reward-plain", out / "reward-robust"]
    if not all((place / "config.json").is_file() for place in places):
        return None
    rows = np.flatnonzero(audit.votes.split == 1)
    result = evaluate(*[RewardModel.load(place) for place in places], on=audit.votes.take(rows), seed=audit.seed, draws=50)
    return rows[np.asarray(result.disagreement, dtype=np.int64)]


def curate_file(
    file: str,
    out: Path,
    *,
    flip_above: float | None = None,
    drop: Sequence[str] = (),
    replay: Path | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write train.parquet, heldout.parquet and ledger.jsonl into `out`; with `replay` apply that ledger instead of deciding."""
    from cupel.curate.ledger import read_ledger
    from cupel.curate.policy import recreate
    from cupel.report.assemble import save_curated

    audit = _audited(out, file)
    if replay is not None:
        curated = recreate(audit.votes, read_ledger(replay))
        words = [f"{len(curated.ledger):,} changes of {replay} applied."]
    else:
        curated = audit.curate(flip_above=flip_above, drop=drop)
        words = [f"{kind}: {count:,} rows" for kind, count in curated.summary["actions"].items()] or ["No row was changed."]
        words += list(curated.summary["notes"])
    if not dry_run:
        save_curated(curated, out)
    words.append(
        "Nothing was written (--dry-run)."
        if dry_run
        else f"Written: {out / 'train.parquet'}, {out / 'heldout.parquet'}, ledger.jsonl."
    )
    return {**curated.summary, "words": words}


def _read_training(file: str, map: Mapping[str, str] | None, format: str | None, max_bad: float) -> Any:
    from cupel.records.reading import read

    return read(file, map=map, format=format, max_bad=max_bad, heldout=0)


def train_file(
    file: str,
    out: Path,
    *,
    treatment: str = "none",
    flip: float | None = None,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    encoder: str = "static",
    device: str = "cpu",
    allow_download: bool = False,
    seed: int = 0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train a reward head on every row of `file` and write model.safetensors, config.json and metrics.json."""
    from cupel.learners.reward import train_reward
    from cupel.learners.treatments import check_treatment
    from cupel.records.files import write_json

    check_treatment(treatment, flip)
    votes = _read_training(file, map, format, max_bad)
    if dry_run:
        return {"n_votes": len(votes), "words": [f"{len(votes):,} votes would be trained on. Nothing was written (--dry-run)."]}
    model = train_reward(
        votes, encoder=encoder, treatment=treatment, flip=flip, seed=seed, device=device, allow_download=allow_download
    )
    model.save(out)
    metrics = dict(model.info)
    write_json(out / "metrics.json", metrics)
    words = [f"{name}: {value}" for name, value in metrics.items() if isinstance(value, str | int | float)]
    return {**metrics, "words": [*words, f"Written: {out}."]}


def evaluate_file(
    models: Sequence[Path],
    file: str,
    out: Path,
    *,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    trusted: Path | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Evaluate models on a file and write evaluation.json; the first model is the one that the others are compared with."""
    from cupel.curate.review import read_reviewed
    from cupel.evaluate.paired import evaluate
    from cupel.learners.reward import RewardModel
    from cupel.records.files import write_json

    loaded = [RewardModel.load(path) for path in models]
    votes = _read_training(file, map, format, max_bad)
    if dry_run:
        return {"n": len(votes), "words": [f"{len(loaded)} models, {len(votes):,} votes. Nothing was written (--dry-run)."]}
    names = [path.name or str(path) for path in models]
    if len(set(names)) < len(names):
        names = [str(path) for path in models]
    reviewed = read_reviewed(trusted) if trusted else None
    result = evaluate(*loaded, names=names, on=votes, reviewed=reviewed, seed=seed)
    write_json(out / "evaluation.json", result.to_json())
    return {**result.to_json(), "words": [*result.lines(), f"Written: {out / 'evaluation.json'}."]}


def score_file(
    model: Path,
    file: str,
    out: Path,
    *,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    dry_run: bool = False,
) -> dict[str, Any]:
    """The file's rows with score_first, score_second, margin and p_correct, as Parquet.

    margin is oriented to the recorded label (null without a preference); p_correct = sigmoid(margin) is what the model gives the
    recorded label, and is as good as the model is calibrated.
    """
    import pyarrow as pa

    from cupel.learners.reward import RewardModel
    from cupel.records.files import write_parquet
    from cupel.records.text import render

    loaded = RewardModel.load(model)
    votes = _read_training(file, map, format, max_bad)
    if dry_run:
        return {"n": len(votes), "words": [f"{len(votes):,} votes would be scored. Nothing was written (--dry-run)."]}
    prompts = [render(text) for text in votes.prompt_texts()]
    responses = votes.response_texts()
    at = votes.prompt.tolist()
    first = loaded.score([prompts[i] for i in at], [responses[i] for i in votes.first.tolist()])
    second = loaded.score([prompts[i] for i in at], [responses[i] for i in votes.second.tolist()])
    margin = (first - second) * votes.sign
    undecided = votes.sign == 0
    table = votes.source if votes.source is not None else pa.table({"id": votes.ids})
    columns = {
        "score_first": pa.array(first),
        "score_second": pa.array(second),
        "margin": pa.array(margin, mask=undecided),
        "p_correct": pa.array(0.5 * (1 + np.tanh(margin / 2)), mask=undecided),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
    write_parquet(out, table)
    agrees = float((margin[~undecided] > 0).mean()) if (~undecided).any() else float("nan")
    words = [f"{len(votes):,} votes scored; the model agrees with {100 * agrees:.1f} % of the recorded labels.", f"Written: {out}."]
    return {"n": len(votes), "agrees": agrees, "path": str(out), "words": words}


def convert_file(
    source: str,
    target: Path,
    *,
    to: str = "trl",
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    dry_run: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """The same data in another format; what it cannot hold is counted in `losses`. OUT's ending decides how it is written.

    `losses_on_reading` says what pairs of comparisons cannot hold of the source itself (ratings, rankings, choices among several).
    """
    from cupel.records.convert import TARGETS, to_rows
    from cupel.records.exports import writers
    from cupel.records.reading import read

    if to not in TARGETS:
        raise InputError(f"--to {to!r} is not a format that cupel writes; choose one of {', '.join(TARGETS)}")
    if target.exists() and not (force or dry_run):
        raise InputError(f"{target} exists; give another name, or --force to replace it")
    writer = _writer(target, to)
    votes = read(source, map=map, format=format, max_bad=max_bad, heldout=0)
    table, losses = to_rows(votes, to)
    nested = [name for name in table.column_names if table.schema.field(name).type.num_fields]
    if target.suffix == ".csv" and nested:
        raise InputError(f"a .csv file cannot hold lists ({len(nested)} columns, first: {nested[0]}). Name OUT .jsonl or .parquet.")
    if not dry_run:
        writer(table, target)
    words = [f"{len(votes):,} votes read as {votes.source_format}, {table.num_rows:,} rows as {to}."]
    on_reading = list(votes.meta.get("losses", ()))
    words += [f"Lost on reading: {loss}" for loss in on_reading] + [f"Lost: {loss}" for loss in losses]
    words += [f"In doubt: {doubt}" for doubt in votes.meta.get("doubts", ())]
    if votes.quarantine:
        words.append(
            f"{len(votes.quarantine):,} rows were set aside (first: line {votes.quarantine[0].line}, {votes.quarantine[0].reason})."
        )
    words.append("Nothing was written (--dry-run)." if dry_run else f"Written: {target}.")
    if not dry_run:
        words.append(f"Read by {writers()[to].HOW}.")
    return {
        "n_in": len(votes), "n_rows": votes.meta.get("n_rows"), "n_out": table.num_rows, "format": votes.source_format,
        "detection": votes.meta.get("detection"), "to": to, "losses": losses, "losses_on_reading": on_reading,
        "n_quarantined": len(votes.quarantine), "how": writers()[to].HOW, "words": words,
    }  # fmt: skip


def _writer(target: Path, to: str) -> Any:
    from cupel.records.exports import json_rows
    from cupel.records.files import atomic_write, write_json, write_lines, write_parquet

    def csv(table: Any, path: Path) -> None:
        from pyarrow import csv as arrow_csv

        with atomic_write(path) as temporary:
            arrow_csv.write_csv(table, temporary)

    writers = {
        ".parquet": lambda table, path: write_parquet(path, table),
        ".jsonl": lambda table, path: write_lines(path, json_rows(table, to)),
        ".json": lambda table, path: write_json(path, json_rows(table, to)),
        ".csv": csv,
    }
    if target.suffix not in writers:
        raise InputError(f"cannot tell how to write {target}: its name should end in one of {', '.join(writers)}")
    return writers[target.suffix]
