"""`cupel evaluate [recommender] MODEL... FILE`: is it better, and how sure are we?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate", help="Reward models or recommenders: how good, and paired differences to the first, with intervals.")(evaluate)


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="[recommender] MODEL... FILE: model folders (with a suite also files of scores), or NAME=FOLDER,FOLDER for the training "
            "seeds of one run; then the data."
        ),
    ],
    out: c.OutOption = Path("evaluation"),
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    trusted: c.TrustedOption = None,
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", help="temperature or isotonic: write calibration.json into each MODEL folder.")
    ] = None,
    flip: Annotated[float | None, typer.Option("--flip", help="Flip rate of the file's votes: probabilities are of the truth.")] = None,
    k: Annotated[str | None, typer.Option("--k", help="Recommenders: lengths of lists, e.g. 10,20 (the default).")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Recommenders: ndcg, recall, map, f1, precision, mrr or hit; repeatable.")
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="Recommenders: file of events left out of rankings (validation); repeatable.")
    ] = None,
    propensity: Annotated[
        str | None, typer.Option("--propensity", help="Recommenders: log, or popularity:POWER; adds weighted metrics.")
    ] = None,
    clip: Annotated[float | None, typer.Option("--clip", help="Smallest propensity that is used (0.01).")] = None,
    rare: Annotated[int | None, typer.Option("--rare", help="Items with at most so many training events are judged by themselves.")] = None,
    at_least: Annotated[float | None, typer.Option("--at-least", help="Recommenders: smallest value that counts as a preference.")] = None,
    drop_seen: Annotated[bool, typer.Option("--drop-seen", help="Recommenders: leave test events out that training holds.")] = False,
    reference: Annotated[str | None, typer.Option("--reference", help="Recommenders: the model that differences are taken to.")] = None,
    recommendations: Annotated[
        int | None, typer.Option("--recommendations", help="Recommenders: write so many items for each user of the test.")
    ] = None,
    seed: c.SeedOption = 0,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Evaluate models on a file of comparisons, on a benchmark (--format rewardbench2), or recommenders on a log of events."""
    from cupel.errors import InputError
    from cupel.evaluate.recommending.files import evaluate_recommender_files, holds_recommenders
    from cupel.tasks import evaluate_file

    if calibrate not in (None, "temperature", "isotonic"):
        raise InputError(f"--calibrate is temperature or isotonic, not {calibrate!r}")
    console = c.Console(json=as_json, quiet=quiet)
    read: dict[str, Any] = {"map": c.parse_map(map_), "format": format_, "max_bad": max_bad, "seed": seed, "dry_run": dry_run}
    comparisons = {"--trusted": trusted, "--calibrate": calibrate, "--flip": flip}
    listed: dict[str, Any] = {"propensity": propensity, "clip": clip, "rare": rare, "at_least": at_least, "reference": reference}
    listed |= {"ks": _lengths(k), "metrics": metric, "masks": mask, "drop_seen": drop_seen or None, "recommendations": recommendations}
    given = {name: value for name, value in listed.items() if value is not None}
    said = paths[0] == "recommender" and not holds_recommenders(paths[0])  # a folder of that name is a model
    models = [Path(p) for p in paths[1 if said else 0 : -1]]
    if said or any(holds_recommenders(model) for model in models):
        if wrong := [option for option, value in comparisons.items() if value is not None]:
            raise InputError(f"{wrong[0]} belongs to comparisons: it says nothing about recommenders")
        summary = evaluate_recommender_files(models, paths[-1], out, **given, **read)
    elif given:
        option = {"ks": "k", "metrics": "metric", "masks": "mask"}.get(first := next(iter(given)), first).replace("_", "-")
        raise InputError(f"--{option} belongs to recommenders, but none of the folders holds one")
    else:
        summary = evaluate_file(models, paths[-1], out, trusted=trusted, calibrate=calibrate, flip=flip, **read)  # type: ignore[arg-type]
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)


def _lengths(text: str | None) -> list[int] | None:
    """`"10,20"` as [10, 20]; InputError for anything else."""
    from cupel.errors import InputError

    if text is None:
        return None
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise InputError(f"--k {text!r} is not lengths of lists, e.g. --k 10,20") from None
