"""The verbs on files that are not the main job: review, curate, train, evaluate, score, convert. Each returns a JSON-able summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.evaluate.calibration import Calibration, Method
    from cupel.evaluate.outside import Part
    from cupel.records.schema import Votes


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


@contextmanager
def reading(
    file: str, out: Path | None, map: Mapping[str, str] | None, format: str | None, max_bad: float, *, keep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Votes]:  # fmt: skip
    """The votes of a file, none held out. What a large file needs on disk lies beside the result `out` (None: where temporary files go)
    and is gone afterwards; with `keep` it is a stage in the folder `out`, and found there the next time."""
    from cupel.records.files import lock
    from cupel.records.reading import read
    from cupel.records.stream import worth_streaming
    from cupel.records.stream.scratch import scratch

    options: dict[str, Any] = {"map": map, "format": format, "max_bad": max_bad, "heldout": 0}
    if not worth_streaming(file):
        yield read(file, **options)
    elif keep and out is not None:
        from cupel.pipeline import open_stages, read_stage
        from cupel.runs import RefineOptions

        with lock(out):
            asked = RefineOptions(**options)
            yield read_stage(file, asked, open_stages(out, asked, None, None))[0]
    else:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        with scratch(None if out is None else out.parent) as place:
            yield read(file, **options, spool=place / "votes", progress=progress)


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
    with reading(file, None if dry_run else out, map, format, max_bad, keep=True) as votes:
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
    calibrate: Method | None = None,
    flip: float | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Evaluate models on a file and write evaluation.json, trust.json and trust.html; the others are compared with the first model.

    models: folders, or runs of several training seeds as `cupel.evaluate.named.named_runs` reads them.

    calibrate: write the calibration that was fitted to this file into each model's folder; flip: flip rate of the file's votes.
    With the format of a suite (docs/suites.md) also leaderboard.html and requests.parquet; a model may then be a file of scores.
    """
    from cupel.curate.review import read_reviewed
    from cupel.evaluate.named import named_runs, one_by_one
    from cupel.evaluate.outside import outside_of
    from cupel.evaluate.paired import evaluate
    from cupel.evaluate.suites import suites
    from cupel.evaluate.trust import margins_of, save_calibrations, trust
    from cupel.learners.reward import load_reward
    from cupel.records.files import atomic_write, write_json
    from cupel.report.trust import page

    if format in suites():
        given = {"--map": map, "--trusted": trusted, "--calibrate": calibrate, "--flip": flip}
        if wrong := [option for option, value in given.items() if value]:
            raise InputError(f"--format {format} is read as published: {wrong[0]} does not go with it")
        return _evaluate_suite(models, file, out, format, seed=seed, dry_run=dry_run)
    if not models:
        raise InputError("evaluate needs at least one MODEL folder and a FILE, e.g. cupel evaluate out/reward-plain out/heldout.parquet")
    runs = named_runs(models)
    folders = one_by_one(runs)
    named = {name: load_reward(path) for name, path in folders.items()}
    with reading(file, None if dry_run else out, map, format, max_bad, keep=True) as votes:
        if dry_run:
            return {"n": len(votes), "words": [f"{len(named)} models, {len(votes):,} votes. Nothing was written (--dry-run)."]}
        reviewed = read_reviewed(trusted) if trusted else None
        sides: dict[str, Any] = {}
        margins = margins_of(named, votes, sides=sides)
        seeds = {name: [margins[one] for one in one_by_one({name: paths})] for name, paths in runs.items()}
        result = evaluate(*[np.stack(several) for several in seeds.values()], names=list(runs), on=votes, reviewed=reviewed, seed=seed)
        unlike = outside_of(named, votes, sides=sides, seed=seed)
        trusted_so_far = trust(margins, votes, method=calibrate or "temperature", flip=flip, outside=unlike, seed=seed)
    write_json(out / "evaluation.json", result.to_json())
    write_json(out / "trust.json", trusted_so_far.to_json())
    with atomic_write(out / "trust.html") as temporary:
        temporary.write_text(page(trusted_so_far.to_json(), trusted_so_far.figures(), title=Path(file).name), "utf-8")
    written = ", ".join(str(out / name) for name in ("evaluation.json", "trust.json", "trust.html"))
    several = [f"{name}: the mean over {len(paths)} training seeds." for name, paths in runs.items() if len(paths) > 1]
    words = [*several, *result.lines(), *trusted_so_far.words, f"Written: {written}."]
    if calibrate is not None:
        words += save_calibrations(trusted_so_far, folders)
    return {**result.to_json(), "trust": trusted_so_far.to_json(), "words": words}


def _evaluate_suite(models: Sequence[Path], file: str, out: Path, name: str, *, seed: int, dry_run: bool) -> dict[str, Any]:
    """Runs on a benchmark in its own format; a folder is a model (or holds one for each training seed), a file another tool's scores."""
    from cupel.evaluate.named import named_runs
    from cupel.evaluate.suites import read_suite
    from cupel.evaluate.suites.items import score_requests
    from cupel.evaluate.suites.scores import evaluate_suite, write_requests
    from cupel.learners.reward import load_reward
    from cupel.records.files import atomic_write, write_json
    from cupel.report.leaderboard import page

    named = named_runs(models)
    loaded = {run: [path if path.is_file() else load_reward(path) for path in paths] for run, paths in named.items()}
    runs = {run: several[0] if len(several) == 1 else several for run, several in loaded.items()}
    if dry_run:
        items = read_suite(name, file)
        count = sum(map(len, named.values()))
        words = f"{count} models, {len(items):,} items of {name}, {len(score_requests(items)):,} responses to score."
        return {"n": len(items), "words": [f"{words} Nothing was written (--dry-run)."]}
    result, requests, scores = evaluate_suite(name, file, runs, seed=seed)
    found = result.to_json()
    write_json(out / "evaluation.json", found)
    write_requests(out / "requests.parquet", requests, scores)
    with atomic_write(out / "leaderboard.html") as temporary:
        temporary.write_text(page(found, title=f"{name}: {Path(file).name}"), "utf-8")
    written = ", ".join(str(out / file) for file in ("evaluation.json", "leaderboard.html", "requests.parquet"))
    return {**found, "words": [*result.lines(), f"Written: {written}."]}


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

    margin is oriented to the recorded label (null without a preference); p_correct is what the model gives the recorded label: by the
    calibration that lies in its folder (docs/trust.md), else sigmoid(margin), which is as good as the margins' scale happens to be. A
    preference model scores as the row's annotator, in the row's context; scores are null where it has none for a response alone.
    Says so where the rows are surely unlike those that the model was trained on, and where its folder does not tell (docs/score.md).
    """
    from cupel.evaluate.calibration import Calibration
    from cupel.evaluate.outside import not_known, outside
    from cupel.learners.reward import load_reward
    from cupel.records.files import atomic_write
    from cupel.records.stream import batches
    from cupel.records.stream.writing import ParquetParts

    loaded, calibration = load_reward(model), Calibration.load(model)
    basis = "sigmoid of the margin, not calibrated" if calibration is None else str(calibration)
    right = known = 0
    seen: list[Part] = []
    with reading(file, None if dry_run else out, map, format, max_bad) as votes:
        n = len(votes)
        if dry_run:
            return {"n": n, "words": [f"{n:,} votes would be scored. Nothing was written (--dry-run)."]}
        with atomic_write(out) as temporary, closing(ParquetParts(temporary)) as writer:
            for part in batches(votes):
                table, margin, found = _scored(loaded, part, calibration)
                seen += [] if found is None else [found]
                writer.write(table)
                right, known = right + int((margin[part.sign != 0] > 0).sum()), known + int((part.sign != 0).sum())
    agrees = right / known if known else float("nan")
    unlike = outside(seen)
    words = [f"{n:,} votes scored; the model agrees with {100 * agrees:.1f} % of the recorded labels.", f"p_correct: {basis}."]
    words += not_known(["the model"]) if unlike is None else unlike.words
    told = None if unlike is None else unlike.to_json()
    return {
        "n": n, "agrees": agrees, "p_correct": basis, "outside": told, "path": str(out), "words": [*words, f"Written: {out}."],
    }  # fmt: skip


def _scored(model: Any, votes: Votes, calibration: Calibration | None) -> tuple[Any, np.ndarray, Part | None]:
    """(the rows with their scores, the margin of the recorded label, whether the sides are like the model's training sides)."""
    import pyarrow as pa

    from cupel.evaluate.outside import Part

    sides = model.sides(votes) if hasattr(model, "sides") else None  # of a model on frozen vectors: each text is encoded once
    given = {} if sides is None else {"sides": sides}
    if hasattr(model, "matrix"):  # a preference model: who compares, and in which context, stands in the votes
        found = model.scores(votes, **given)
        first, second = (pa.nulls(len(votes), pa.float64()),) * 2 if found is None else map(pa.array, found)
        margin = model.margin(votes, **given) * votes.sign
    else:
        one, two = model.side_scores(votes, sides=sides) if sides is not None else _text_scores(model, votes)
        first, second, margin = pa.array(one), pa.array(two), (one - two) * votes.sign
    unlike = model.unlike(votes, **given)
    undecided = votes.sign == 0
    table = votes.source if votes.source is not None else pa.table({"id": votes.ids})
    columns = {
        "score_first": first,
        "score_second": second,
        "margin": pa.array(margin, mask=undecided),
        "p_correct": pa.array(0.5 * (1 + np.tanh(margin / 2)) if calibration is None else calibration.probability(margin), mask=undecided),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
    return table, margin, None if unlike is None else Part.of(unlike, votes)


def _text_scores(model: Any, votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the first and of the second side of each comparison, from their texts."""
    prompts, responses = votes.prompt_texts(), votes.response_texts()
    asked = [prompts[i] for i in votes.prompt.tolist()]
    one, two = (model.score(asked, [responses[i] for i in side.tolist()]) for side in (votes.first, votes.second))
    return one, two


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
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """The same data in another format; what it cannot hold is counted in `losses`. OUT's ending decides how it is written.

    `losses_on_reading` says what pairs of comparisons cannot hold of the source itself (ratings, rankings, choices among several).
    """
    from cupel.records.convert import TARGETS
    from cupel.records.exports import writers
    from cupel.records.stream import convert_stream
    from cupel.records.stream.writing import check_ending

    if to not in TARGETS:
        raise InputError(f"--to {to!r} is not a format that cupel writes; choose one of {', '.join(TARGETS)}")
    if target.exists() and not (force or dry_run):
        raise InputError(f"{target} exists; give another name, or --force to replace it")
    check_ending(target)
    told = {name: partial(progress, name) if progress else None for name in ("read", "convert")}
    with reading(source, None if dry_run else target, map, format, max_bad, progress=told["read"]) as votes:
        n_out, losses = convert_stream(votes, None if dry_run else target, to, progress=told["convert"])
    words = [f"{len(votes):,} votes read as {votes.source_format}, {n_out:,} rows as {to}."]
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
        "n_in": len(votes), "n_rows": votes.meta.get("n_rows"), "n_out": n_out, "format": votes.source_format,
        "detection": votes.meta.get("detection"), "to": to, "losses": losses, "losses_on_reading": on_reading,
        "n_quarantined": len(votes.quarantine), "how": writers()[to].HOW, "words": words,
    }  # fmt: skip
