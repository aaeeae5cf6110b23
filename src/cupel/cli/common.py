"""What every verb shares: options, words to standard error, JSON to standard output, progress, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Standard output carries JSON only.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Format, counts and estimated time; nothing is written.")]
NoProgressOption = Annotated[bool, typer.Option("--no-progress", help="No progress bars (by itself off a terminal).")]
ForceOption = Annotated[bool, typer.Option("--force", help="Compute every stage again.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder that receives the results.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The one seed; same seed, same bytes.")]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="new=column, e.g. prompt=question or group=topic; repeatable.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="Name of the input format; detected where not given.")]
MaxBadOption = Annotated[float, typer.Option("--max-bad", help="Largest share of rows that may be set aside.")]
HeldoutOption = Annotated[float, typer.Option("--heldout", help="Share of rows frozen for evaluation, by whole prompts.")]
EncoderOption = Annotated[
    str, typer.Option("--encoder", help="static (embedded), a model2vec folder, minilm, or a transformers name or path.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="Device of a transformers encoder.")]
DownloadOption = Annotated[bool, typer.Option("--allow-download", help="Allow fetching the encoder from a hub.")]
TrustedOption = Annotated[Path | None, typer.Option("--trusted", help="Answers of a person: review.csv or a file of id, label.")]
SampleOption = Annotated[int | None, typer.Option("--sample", help="Audit about N votes (whole pairs), chosen by the seed.")]
AgainstOption = Annotated[list[Path] | None, typer.Option("--against", help="Texts to look for (an evaluation set); repeatable.")]
ContextOption = Annotated[int | None, typer.Option("--context", help="Context length in tokens, to count truncated rows.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Run only this check; repeatable.")]
RedactOption = Annotated[bool, typer.Option("--redact", help="Leave all texts out of the report.")]
FailOnOption = Annotated[
    list[str] | None,
    typer.Option("--fail-on", help="Exit 3 on a verdict code, a finding's name, or flip-rate>X; repeatable."),
]
FlipAboveOption = Annotated[float | None, typer.Option("--flip-above", help="Flip labels whose P(wrong) is above this.")]
DropOption = Annotated[list[str] | None, typer.Option("--drop", help="Also drop the rows that this check found; repeatable.")]


@dataclass
class Console:
    """Where words, JSON and progress go."""

    json: bool = False
    quiet: bool = False
    no_progress: bool = False

    def say(self, text: str = "") -> None:
        """A line for people, on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def emit(self, value: Any) -> None:
        """The result for programs, on standard output, only with --json."""
        if self.json:
            from cupel.records.files import to_json

            sys.stdout.write(to_json(value))

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A callable (stage, done, total) that draws bars with the time left; silent off a terminal."""
        if self.quiet or self.no_progress or not sys.stderr.isatty():
            yield lambda stage, done, total: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=max(total, 1))
                bars.update(tasks[stage], completed=done, total=max(total, 1))

            yield report


def parse_map(entries: Sequence[str] | None, *, empty: bool = False) -> dict[str, str] | None:
    """`["prompt=question"]` as `{"prompt": "question"}`; anything else is an InputError. empty: `time=` leaves a column out.

    >>> parse_map(["prompt=question"])
    {'prompt': 'question'}
    """
    from cupel.errors import InputError

    if not entries:
        return None
    renames: dict[str, str] = {}
    for entry in entries:
        new, equals, column = entry.partition("=")
        if not equals or not new.strip() or not (column.strip() or empty):
            raise InputError(f"--map {entry!r} is not of the form new=column, e.g. --map prompt=question")
        renames[new.strip()] = column.strip()
    return renames


def check_thresholds(conditions: Sequence[str] | None, audit: dict[str, Any]) -> None:
    """Raise ThresholdError (exit 3) if the audit meets one of the user's `--fail-on` conditions; InputError if one is malformed."""
    from cupel.errors import InputError, ThresholdError

    codes = {"train", "train_curated", "recheck", "do_not_train", "cannot_tell"}
    names = {finding["name"]: finding for finding in audit["findings"]}
    crossed = []
    for condition in conditions or ():
        if condition in codes:
            if audit["verdict"]["code"] == condition:
                crossed.append(f"the verdict is {condition}")
        elif condition.startswith("flip-rate>"):
            try:
                limit = float(condition.removeprefix("flip-rate>"))
            except ValueError as error:
                raise InputError(
                    f"--fail-on {condition!r}: the limit is not a number; write e.g. --fail-on 'flip-rate>0.2'"
                ) from error
            if audit["flip_rate"]["low"] > limit:
                crossed.append(f"the lower end of the label error, {audit['flip_rate']['low']:.3f}, is above {limit}")
        elif condition in names:
            if names[condition]["status"] == "finding":
                crossed.append(f"{condition}: {names[condition]['count']:,} found")
        else:
            known = ", ".join(sorted(codes | set(names)))
            raise InputError(f"--fail-on {condition!r} is neither a verdict code, nor a check, nor flip-rate>X. Known: {known}")
    if crossed:
        raise ThresholdError("A threshold of --fail-on was crossed: " + "; ".join(crossed) + ".")


def estimate_words(n_votes: int, n_texts: int) -> str:
    """A rough time for an audit of this size with the embedded encoder, from the measured rates in benchmarks/README.md."""
    seconds = 5 + n_texts / 4000 + n_votes / 2500
    return f"about {seconds:.0f} s on two cores with the embedded encoder"
