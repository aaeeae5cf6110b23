"""`cupel train reward | policy | sft | recommender`: what model does it give?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the group of training commands to the application."""
    group = typer.Typer(help="Train a model from comparisons.", no_args_is_help=True, rich_markup_mode=None)
    group.command("reward", help="A reward model: a head or several on frozen embeddings, or a transformer.")(reward)
    group.command("policy", help="A language model from comparisons: any objective under any treatment of noise.")(policy)
    group.command("recommender", help="A recommender from a log of interactions: any model, objective and treatment of noise.")(recommender)
    group.command("sft", help="A language model that imitates the preferred responses.")(sft)
    app.add_typer(group, name="train")


_File = Annotated[str, typer.Argument(help="A recipe (.yaml), or preferences: a raw file or the train.parquet that curate wrote.")]
_Out = Annotated[Path | None, typer.Option("--out", help="Folder that receives model, log and checkpoints; a run in it is resumed.")]
_Model = Annotated[str | None, typer.Option("--model", help="Folder or name of a causal language model.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any other option of a recipe as name=value, e.g. batch_tokens=4096; repeatable.")
]
_Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the data.")]
_BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Comparisons of an optimiser step, over all processes.")]
_Rate = Annotated[float | None, typer.Option("--learning-rate", help="Largest learning rate of the schedule.")]
_Length = Annotated[int | None, typer.Option("--max-length", help="Tokens of prompt and response together.")]
_Lora = Annotated[int | None, typer.Option("--lora", help="Rank of a low-rank adapter; 0 trains all weights.")]
_Seed = Annotated[int | None, typer.Option("--seed", help="The one seed; same seed, same bytes.")]


def reward(
    file: _File,
    out: _Out = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or name of a transformer to train; without it, a linear head on frozen vectors.")
    ] = None,
    objective: Annotated[str | None, typer.Option("--objective", help="name:argument=value,... of scores, e.g. bradley_terry.")] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="Preference model, name:argument=value,...: scalar, gpm:dim=6, pal:prototypes=3, context, ..."),
    ] = None,
    treatment: Annotated[
        str | None,
        typer.Option("--treatment", help="none, em, em-annotator, conservative or unbiased; any other with --model, --objective or --set."),
    ] = None,
    flip: Annotated[float | None, typer.Option("--flip", help="Known flip rate, for conservative and unbiased.")] = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    max_length: _Length = None,
    lora: _Lora = None,
    set_: _Set = None,
    map_: c.MapOption = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    encoder: c.EncoderOption = "static",
    device: Annotated[str | None, typer.Option("--device", help="Device of a transformer, trained or encoding.")] = None,
    allow_download: c.DownloadOption = False,
    seed: _Seed = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="With --model: begin anew; the checkpoints in OUT are removed.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Train a ridge on every row of the file; with --objective or --set heads by minibatches; with a recipe or --model a transformer."""
    from cupel.training import is_recipe

    loop = {"objective": objective, "head": head, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    transformer = {"model": model, "max_length": max_length, "lora": lora}
    console = c.Console(json=as_json, quiet=quiet, no_progress=no_progress)
    if model is not None or is_recipe(file):
        changes = {**transformer, **loop, "seed": seed, "out": out, "device": device}
        changes |= {"treatment": None if treatment is None else _named(treatment, flip)}
        if not is_recipe(file):
            changes |= {"data": [{"file": file, "map": c.parse_map(map_) or None, "format": format_}], "max_bad": max_bad}
        _train(file, "reward", changes, set_, console, dry_run, force)
        return
    _refuse_alone(transformer)
    read: dict[str, Any] = {"map": c.parse_map(map_), "format": format_, "max_bad": max_bad}
    coded: dict[str, Any] = {"encoder": encoder, "device": device or "cpu", "allow_download": allow_download, "dry_run": dry_run}
    if set_ or any(value is not None for value in loop.values()):
        from cupel.training import train_head_file

        changes = {**loop, "treatment": None if treatment is None else _named(treatment, flip), "seed": seed, **_settings(set_)}
        with console.progress() as progress:
            summary = train_head_file(file, out or Path("reward"), changes, **read, **coded, progress=progress)
    else:
        from cupel.tasks import train_file

        summary = train_file(file, out or Path("reward"), treatment=treatment or "none", flip=flip, seed=seed or 0, **read, **coded)
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)


def _named(treatment: str, flip: float | None) -> str:
    """A treatment's text with the rate of --flip in it, as the learner of transformers reads it."""
    short = {"em-annotator": "em:by=annotator", "none": "identity"}.get(treatment, treatment)
    if flip is None:
        return short
    return f"{short}{',' if ':' in short else ':'}flip={flip}"


def _refuse_alone(options: dict[str, Any]) -> None:
    """InputError for options that only a transformer has, where none is named."""
    from cupel.errors import InputError

    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} belongs to a transformer: name one with --model, or leave it out")


def _settings(entries: list[str] | None) -> dict[str, Any]:
    """What --set says, by name; InputError for entries that are not name=value."""
    from cupel.errors import InputError

    found: dict[str, Any] = {}
    for entry in entries or ():
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {entry!r} is not of the form name=value, e.g. --set batch_size=64")
        found[name.strip()] = value.strip()
    return found


def policy(
    file: _File,
    model: _Model = None,
    out: _Out = None,
    objective: Annotated[str | None, typer.Option("--objective", help="name:argument=value,... e.g. sigmoid:beta=0.1, simpo, kto.")] = None,
    treatment: Annotated[str | None, typer.Option("--treatment", help="name:argument=value,... e.g. em:flip=0.2,by=annotator.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="start, live, refresh:N, ema:D, none, or a folder.")] = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    max_length: _Length = None,
    lora: _Lora = None,
    seed: _Seed = None,
    set_: _Set = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew: the checkpoints in OUT are removed.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Train a policy; running again with the same OUT resumes."""
    changes = {
        "model": model, "out": out, "objective": objective, "treatment": treatment, "reference": reference, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length, "lora": lora, "seed": seed,
    }  # fmt: skip
    _train(file, "policy", changes, set_, c.Console(json=as_json, quiet=quiet, no_progress=no_progress), dry_run, force)


def sft(
    file: _File,
    model: _Model = None,
    out: _Out = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    max_length: _Length = None,
    lora: _Lora = None,
    seed: _Seed = None,
    set_: _Set = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew: the checkpoints in OUT are removed.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Imitate the preferred responses; running again with the same OUT resumes."""
    changes = {
        "model": model, "out": out, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length,
        "lora": lora, "seed": seed,
    }  # fmt: skip
    _train(file, "sft", changes, set_, c.Console(json=as_json, quiet=quiet, no_progress=no_progress), dry_run, force)


def recommender(
    file: Annotated[str, typer.Argument(help="A log of interactions: a file, the folder of a released data set, or a recipe (.yaml).")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder that receives the model, the parts of the log and metrics.")
    ] = Path("recommender"),
    model: Annotated[str | None, typer.Option("--model", help="name:argument=value,...: mf, ease, lightgcn, sasrec, ... (mf).")] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="name:argument=value,... bradley_terry is BPR; bpo judges each item alone.")
    ] = None,
    treatment: Annotated[
        str | None, typer.Option("--treatment", help="name:argument=value,... e.g. missed:rate=0.5,form=surrogate, propensity, em.")
    ] = None,
    epochs: _Epochs = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Events of a step; users, for models of sequences.")] = None,
    learning_rate: _Rate = None,
    split: Annotated[str | None, typer.Option("--split", help="random, leave_one_out, temporal or none.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="A log of its own to test on, e.g. of items shown at random.")] = None,
    at_least: Annotated[float | None, typer.Option("--at-least", help="Leave out events of a value below, e.g. ratings below 4.")] = None,
    core: Annotated[int | None, typer.Option("--core", help="Leave out users and items of fewer events, until none is left.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Encoder of the items' texts, for models that read them, e.g. static.")] = None,
    set_: _Set = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="new=column, e.g. user=customer_id; repeatable.")] = None,
    format_: c.FormatOption = None,
    max_bad: c.MaxBadOption = 0.01,
    allow_download: c.DownloadOption = False,
    seed: _Seed = None,
    as_json: c.JsonOption = False,
    quiet: c.QuietOption = False,
    no_progress: c.NoProgressOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that OUT holds.")] = False,
    dry_run: c.DryRunOption = False,
) -> None:
    """Train a recommender; the best state by the validation part is kept."""
    from cupel.recommending import train_recommender_file

    changes = {
        "model": model, "objective": objective, "treatment": treatment, "epochs": epochs, "batch_size": batch_size, "seed": seed,
        "learning_rate": learning_rate, "split": split, "at_least": at_least, "core": core, **_settings(set_),
    }  # fmt: skip
    console = c.Console(json=as_json, quiet=quiet, no_progress=no_progress)
    with console.progress() as progress:
        summary = train_recommender_file(
            file, out, changes, map=c.parse_map(map_, empty=True), format=format_, max_bad=max_bad, test=test, text=text,
            dry_run=dry_run, force=force, allow_download=allow_download, progress=progress,
        )  # fmt: skip
    console.emit(summary)
    if not as_json:
        for line in summary["words"]:
            console.say(line)


def _train(file: str, kind: str, changes: dict[str, Any], more: list[str] | None, console: c.Console, dry_run: bool, force: bool) -> None:
    from cupel.training import train_policy_file

    changes |= _settings(more)
    with console.progress() as progress:
        summary = train_policy_file(file, kind, changes, dry_run=dry_run, force=force, progress=progress)
    console.emit(summary)
    if not console.json:
        for line in summary["words"]:
            console.say(line)
