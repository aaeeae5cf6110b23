"""What a folder of data holds: what `datasets` saves to disk, the layout of a hub repository, or plain files side by side.

`layout` looks at names, at `dataset_dict.json` and `state.json`, and at the `configs` of a README; it opens no data. Several splits are
read together, and a column says which row is of which.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import RecordError

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz")

#: words in names of files and folders that are splits
SPLITS = ("train", "training", "test", "testing", "validation", "valid", "dev", "eval", "heldout")

#: files that say something about the data and are no data
ABOUT = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json", "config.json", "README.md", "meta.json"}


@dataclass(frozen=True)
class Part:
    """One file of a data set and the split that it belongs to ("" where nothing says so)."""

    path: Path
    split: str = ""


def layout(path: Path) -> list[Part]:
    """The data files of a folder, in the order of their splits and names.

    Raises RecordError where there are none, where a file that is named is missing, and where the folder holds several data sets (configs).

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()); (place / "data").mkdir()
    >>> for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
    ...     (place / "data" / name).touch()
    >>> [(part.path.name, part.split) for part in layout(place)]
    [('test-00000-of-00001.parquet', 'test'), ('train-00000-of-00001.parquet', 'train')]
    """
    if (path / "dataset_dict.json").is_file():
        names = _json(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not names:
            raise RecordError(f"{path / 'dataset_dict.json'} names no splits. Save the data set again with save_to_disk.")
        return [Part(part.path, str(name)) for name in names for part in layout(path / str(name))]
    if (path / "state.json").is_file():
        return _saved(path)
    found = _top(path)
    if found:
        return found
    readme = _configs(path)
    if readme:
        return readme
    for inner in ("data", "default"):
        if (path / inner).is_dir():
            return layout(path / inner)
    splits = [place for place in sorted(path.iterdir()) if place.is_dir() and place.name.lower() in SPLITS]
    if splits:
        return [Part(part.path, place.name) for place in splits for part in layout(place)]
    others = [place.name for place in sorted(path.iterdir()) if place.is_dir() and _files(place)]
    if others:
        raise RecordError(f"{path} holds {len(others)} folders with data ({', '.join(others[:8])}). Name one: {path / others[0]}")
    raise RecordError(
        f"{path} is a directory without .parquet or .arrow files, without text files named by splits (train.jsonl, test.csv) and without "
        f"a README that names files. Name a file ({', '.join(SUFFIXES)}) or another folder."
    )


def _top(path: Path) -> list[Part]:
    """The files directly in a folder: Parquet, else Arrow, else text files where every name is that of a split."""
    files = _files(path)
    for suffix in (".parquet", ".arrow"):
        same = [file for file in files if file.suffix == suffix and not file.name.startswith("cache-")]
        if same:
            return [Part(file, _split_of(file.name)) for file in same]
    split = [Part(file, _split_of(file.name)) for file in files]
    return split if split and all(part.split for part in split) else []


def _files(path: Path) -> list[Path]:
    hidden = (".", "_")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith(hidden))
    return [file for file in files if file.name.endswith(SUFFIXES) and file.name not in ABOUT]


def _saved(path: Path) -> list[Part]:
    """What `Dataset.save_to_disk` wrote: the files that state.json lists (others beside them may be caches)."""
    state = _json(path / "state.json")
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(item, dict) and isinstance(item.get("filename"), str) for item in listed):
        raise RecordError(f"{path / 'state.json'} does not list the data files. Save the data set again with save_to_disk.")
    if state.get("_indices_data_files"):
        raise RecordError(f"{path} is a selection of rows (its indices are kept apart). Call flatten_indices() and save it again.")
    split = state.get("_split")
    files = [path / Path(item["filename"]).name for item in listed]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        first = f" (first: {missing[0]})" if missing else ""
        raise RecordError(f"{path}: {len(missing)} of the {len(files)} files that its state.json lists are missing{first}.")
    return [Part(file, str(split) if split else "") for file in files]


def _split_of(name: str) -> str:
    """The split that a file's name begins with, or "".

    >>> _split_of("train_prefs-00000-of-00002.parquet"), _split_of("test.jsonl"), _split_of("trainer.csv"), _split_of("rows.parquet")
    ('train_prefs', 'test', '', '')
    """
    shard = re.match(r"(.+?)-\d{5}-of-\d{5}", name)
    stem = shard[1] if shard else name.split(".")[0]
    first = re.split(r"[-_.]", stem.lower())[0]
    return stem if first in SPLITS else ""


def _configs(path: Path) -> list[Part]:
    """The files that the front matter of a hub README names; nothing where it names none."""
    readme = path / "README.md"
    if not readme.is_file():
        return []
    text = readme.read_text("utf-8", errors="replace")
    if not text.startswith("---"):
        return []
    import yaml

    try:
        facts = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return []
    configs = facts.get("configs") if isinstance(facts, dict) else None
    configs = [c for c in configs if isinstance(c, dict) and c.get("data_files")] if isinstance(configs, list) else []
    if not configs:
        return []
    default = [c for c in configs if c.get("default")] or [c for c in configs if c.get("config_name") == "default"]
    if len(configs) > 1 and not default:
        names = [str(c.get("config_name")) for c in configs]
        first = next(iter(_patterns(configs[0])), ("", "?"))[1]
        raise RecordError(
            f"{path} holds {len(configs)} data sets ({', '.join(names)}), and its README says of none that it is the default. Name the "
            f"file or folder of one, e.g. {path / first}"
        )
    chosen = default[0] if default else configs[0]
    parts = []
    for split, pattern in _patterns(chosen):
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise RecordError(f"{readme} names files outside its folder ({pattern!r}).")
        parts += [Part(file, split) for file in sorted(path.glob(pattern)) if file.is_file()]
    if not parts:
        raise RecordError(f"{readme} names data files that are not there ({', '.join(p for _, p in _patterns(chosen))[:200]}).")
    return parts


def _patterns(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(split, pattern) of the data files of one config: a text, a list of texts, or a list of {split, path}."""
    found: list[tuple[str, str]] = []
    files = config["data_files"]
    for item in files if isinstance(files, list) else [files]:
        if isinstance(item, str):
            found.append((_split_of(Path(item).name), item))
        elif isinstance(item, dict):
            paths = item.get("path")
            found += [(str(item.get("split") or ""), str(path)) for path in (paths if isinstance(paths, list) else [paths]) if path]
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"cannot read {path}: {str(error)[:200]}. Save or download the data set again.") from error
    return found if isinstance(found, dict) else {}
