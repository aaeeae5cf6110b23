"""`cupel compare FILE`: which treatment survives which noise on this data?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli import common as c

ObjectiveOption = Annotated[
    list[str] | None, typer.Option("--objective", help="name or name:argument=value,...; repeatable. Eight by default.")
]
TreatmentOption = Annotated[
    list[str] | None, typer.Option("--treatment", help="name:argument=value,...; chains joined by ' + '; repeatable. Seven by default.")
]
CorruptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--corruption",
        help="none, symmetric, length, position, topics, difficulty, close_calls, annotators, spammers, adversaries, few_bad, many_mild or "
        "judge, with settings as annotators:n=20,random=0.2; of interactions: none, false_positives, missing; repeatable.",
    ),
]
RateOption = Annotated[list[float] | None, typer.Option("--rate", help="Share of labels to exchange, below 0.5; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare", help="The survival table: objectives x treatments x planted noise on this data. Needs cupel[train].")(compare)


def compare(
    file: Annotated[str, typer.Argument(help="A file or folder of preferences, or a log of interactions.")],
    out: c.OutOption = Path("compare"),
    objective: ObjectiveOption = None,
    treatment: TreatmentOption = None,
    corruption: CorruptionOption = None,
    rate: RateOption = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Training seeds 0 ... N-1; each tests another fifth of the groups.")] = 5,
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    encoder: c.EncoderOption = "static",
    device: c.DeviceOption = "cpu",
    allow_download: c.DownloadOption = False,
    sample: Annotated[int | None, typer.Option("--sample", help="Use about N votes (whole groups), chosen by the seed.")] = None,
    seed: c.SeedOption = 0,
    kind: Annotated[str | None, typer.Option("--kind", help="interactions or votes; detected where not given.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of interactions: the recommender that is trained, mf:dim=32.")] = None,
    at_least: Annotated[float | None, typer.Option("--at-least", help="Of interactions: events of a value below are left out.")] = None,
    core: Annotated[int, typer.Option("--core", help="Of interactions: events that users and items need to stay.")] = 0,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    dry_run: c.DryRunOption = False,
    no_progress: c.NoProgressOption = False,
    force: c.ForceOption = False,
) -> None:
    """Plant noise into a copy of the data, train every cell of the grid, and write the table into `--out`."""
    from cupel.compare.run import compare_file
    from cupel.compare.spec import CORRUPTIONS, OBJECTIVES, PLAIN, RATES, TREATMENTS, CompareOptions, cases_of
    from cupel.errors import InputError

    if seeds < 1:
        raise InputError(f"--seeds {seeds}: give the number of training seeds, at least 1 (5 test every row once)")
    console = c.Console(json=as_json, quiet=quiet, no_progress=no_progress)
    from cupel.audit.interactions.files import is_log

    if is_log(file, kind, c.parse_map(map_)):
        from cupel.compare import interactions as log

        given = {"model": model, "treatments": tuple(treatment or ()), "objectives": tuple(objective or ())}
        wanted = log.InteractionOptions(
            **{name: value for name, value in given.items() if value}, seeds=tuple(range(seeds)),
            cases=log.cases_of(corruption or ["none", "false_positives", "missing"], rate or [0.2]),
        )  # fmt: skip
        others = [text for text in wanted.treatments if text != PLAIN]
        with console.progress() as progress:
            summary = log.compare_log_file(
                file, out, replace(wanted, treatments=(PLAIN, *others)), map=c.parse_map(map_), format=format_, max_bad=max_bad,
                at_least=at_least, core=core, force=force, dry_run=dry_run, progress=progress,
            )  # fmt: skip
        _say(console, summary)
        return
    for name, value in (("model", model), ("at-least", at_least), ("core", core)):
        if value:
            raise InputError(f"--{name} belongs to a log of interactions, and {file} holds comparisons (--kind interactions if not)")
    asked = tuple(treatment) if treatment else TREATMENTS
    options = CompareOptions(
        objectives=tuple(objective) if objective else OBJECTIVES,
        treatments=(PLAIN, *[text for text in asked if text != PLAIN]),
        cases=cases_of(corruption or CORRUPTIONS, rate or RATES), seeds=tuple(range(seeds)),
    )  # fmt: skip
    with console.progress() as progress:
        summary = compare_file(
            file, out, options, map=c.parse_map(map_), format=format_, max_bad=max_bad, encoder=encoder, device=device,
            allow_download=allow_download, sample=sample, seed=seed, force=force, dry_run=dry_run, progress=progress,
        )  # fmt: skip
    _say(console, summary)


def _say(console: c.Console, summary: dict[str, Any]) -> None:
    words = summary.pop("words")
    console.emit(summary)
    if not console.json:
        for line in words:
            console.say(line)
