"""`cupel annotate FILE --with METHOD`: votes of one more annotator, who is no person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("annotate", help="Label pairs by two language models or by relevance, as votes of one more annotator.")(annotate)


_Column = "Column of the data that holds"


def annotate(
    file: Annotated[str, typer.Argument(help="Comparisons, or pairs without votes (prompt, response_a, response_b).")],
    method: Annotated[str, typer.Option("--with", help="density-ratio or relevance.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file of votes to write; a .json and a .scores.parquet beside it.")] = Path(
        "annotated.parquet"
    ),
    strong: Annotated[
        str | None, typer.Option("--strong", help="Better-aligned model: folder or name, columns:NAME, ngram:FILE or bigram:FILE.")
    ] = None,
    weak: Annotated[str | None, typer.Option("--weak", help="Less-aligned model, likewise; best the ancestor of the strong one.")] = None,
    strong_template: Annotated[str | None, typer.Option("--strong-template", help="File of a chat template, or none.")] = None,
    weak_template: Annotated[str | None, typer.Option("--weak-template", help="File of a chat template, or none.")] = None,
    criteria: Annotated[
        Path | None, typer.Option("--criteria", help="JSON {domain: {instruction, exemplars: [{prompt, response}]}}, put before prompts.")
    ] = None,
    route: Annotated[str | None, typer.Option("--route", help=f"{_Column} each prompt's domain, with several domains.")] = None,
    template_on: Annotated[str, typer.Option("--template-on", help="Which models see the criteria: both or strong.")] = "both",
    reduce: Annotated[str, typer.Option("--reduce", help="mean (per token) or sum.")] = "mean",
    clip: Annotated[float | None, typer.Option("--clip", help="Keep log-ratios of tokens within this; needs the same tokens.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of stored log-probabilities of tokens.")] = None,
    encoder: c.EncoderOption = "static",
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Switch off length, repetition, relevance or branching; repeatable.")
    ] = None,
    qtype: Annotated[str | None, typer.Option("--qtype", help=f"{_Column} OPENENDED or CONSTRAINED.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help=f"{_Column} the reference answer of constrained prompts.")] = None,
    relevance_scale: Annotated[
        str | None, typer.Option("--relevance-scale", help="Relevance of an exact copy: HIGH, LOW:HIGH with a floor, or measured.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens that an exact copy of a reference is worth.")] = 512,
    negative: Annotated[str, typer.Option("--negative", help="Negative relevance: clamp, keep or refuse.")] = "clamp",
    on_missing: Annotated[str, typer.Option("--on-missing", help="Constrained prompts without a reference: error or open.")] = "error",
    name: Annotated[str | None, typer.Option("--name", help="Name of the new annotator; by default the method's.")] = None,
    tie: Annotated[float, typer.Option("--tie", help="Margins up to this are ties.")] = 0.0,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="temperature or isotonic: probabilities of the new votes, fitted to the recorded ones."),
    ] = None,
    flip: Annotated[float | None, typer.Option("--flip", help="Known flip rate of the recorded votes, taken out by --calibrate.")] = None,
    only_new: Annotated[bool, typer.Option("--only-new", help="Write the new votes alone.")] = False,
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    device: Annotated[str, typer.Option("--device", help="Device of transformers models.")] = "cpu",
    allow_download: Annotated[bool, typer.Option("--allow-download", help="Allow fetching models from a hub.")] = False,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Label every distinct pair once; the labels are claims, and join the votes under a name of their own."""
    from cupel.annotate.run import AnnotateOptions, annotate_file

    console = c.Console(json=as_json, quiet=quiet)
    asked: Any = AnnotateOptions(
        method=_one("--with", method, ("density-ratio", "relevance")), name=name, tie=tie, flip=flip, only_new=only_new,
        calibrate=_one("--calibrate", calibrate, ("temperature", "isotonic")), strong=strong, weak=weak,
        strong_template=strong_template, weak_template=weak_template, criteria=criteria, route=route,
        template_on=_one("--template-on", template_on, ("both", "strong")), reduce=_one("--reduce", reduce, ("mean", "sum")), clip=clip,
        cache=cache, encoder=encoder, without=tuple(without or ()), qtype=qtype, reference=reference, relevance_scale=relevance_scale,
        max_tokens=max_tokens, negative=_one("--negative", negative, ("clamp", "keep", "refuse")),
        on_missing=_one("--on-missing", on_missing, ("error", "open")), device=device, allow_download=allow_download,
    )  # fmt: skip
    summary = annotate_file(
        file, out, asked, map=c.parse_map(map_), format=format_, max_bad=max_bad, dry_run=dry_run, force=force
    )  # fmt: skip
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)


def _one(option: str, value: str | None, known: tuple[str, ...]) -> Any:
    """A value that is among the known ones; InputError otherwise."""
    from cupel.errors import InputError

    if value is not None and value not in known:
        raise InputError(f"{option} {value!r}: one of {', '.join(known)}")
    return value
