"""Runs as a command line names them: a folder, a folder of folders (one model trained with several seeds), or NAME=FOLDER,FOLDER."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cupel.errors import InputError

#: files of which a folder that holds a model has one
MARKS = ("config.json", "adapter_config.json")


def named_runs(models: Sequence[str | Path]) -> dict[str, list[Path]]:
    """{name: the models of a run, one for each of its training seeds}, in the order given.

    Each of `models` is PATH, or NAME=PATH,PATH,... . A path is a file of scores, a folder that holds a model, or a folder of such folders
    (or of runs with their `model` inside): all of these, in the order of their names. Without a NAME a run is called by the last part of
    its path, or by the whole path where those are not all different. A path that exists is a path, whatever characters it holds.

    InputError for a name or a path that is given twice, and for NAME= without a path.

    >>> named_runs(["out/plain", "robust=out/r0,out/r1"]) == {"plain": [Path("out/plain")], "robust": [Path("out/r0"), Path("out/r1")]}
    True
    """
    split = [_split(str(model)) for model in models]
    places = [Path(paths[0]) for name, paths in split if not name]
    own = [place.name or str(place) for place in places]
    short = iter(own if len(set(own)) == len(own) else [str(place) for place in places])
    names = [name or next(short) for name, _ in split]
    if len(set(names)) < len(names):
        raise InputError(
            f"a model is named twice ({', '.join(names)}); give each once, the training seeds of one run as NAME=FOLDER,FOLDER"
        )
    runs = {name: [found for path in paths for found in _models_in(Path(path))] for name, (_, paths) in zip(names, split, strict=True)}
    for name, found in runs.items():
        if len(set(found)) < len(found):
            twice = next(path for path in found if found.count(path) > 1)
            raise InputError(f"{name} holds {twice} twice: a training seed counts once")
    return runs


def one_by_one(runs: dict[str, list[Path]]) -> dict[str, Path]:
    """Every model by itself: the name of its run, with the number of its seed where the run has several.

    >>> list(one_by_one({"a": [Path("x")], "b": [Path("y"), Path("z")]}))
    ['a', 'b[1]', 'b[2]']
    """
    return {
        name if len(paths) == 1 else f"{name}[{k}]": path for name, paths in runs.items() for k, path in enumerate(paths, 1)
    }  # fmt: skip


def _split(text: str) -> tuple[str, list[str]]:
    """(name or "", paths)."""
    name, sign, rest = text.partition("=")
    if not sign or not name or "/" in name or Path(text).exists():
        return "", [text]
    paths = [rest] if Path(rest).exists() else rest.split(",")
    if not all(paths):
        raise InputError(f"{text!r} names a run and leaves a path out: write NAME=FOLDER, or NAME=FOLDER,FOLDER for its training seeds")
    return name, paths


def _models_in(path: Path) -> list[Path]:
    """The path itself, or the models of the folders in it where it holds none."""
    if not path.is_dir() or _holds_model(path):
        return [path]
    inner = [inside / "model" if _holds_model(inside / "model") else inside for inside in sorted(path.iterdir())]
    return [place for place in inner if _holds_model(place)] or [path]


def _holds_model(path: Path) -> bool:
    return any((path / mark).is_file() for mark in MARKS)
