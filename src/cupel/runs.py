"""What a run was asked for, and what repeats it: the options, `run.json`, and the command line that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.errors import InputError

if TYPE_CHECKING:
    from cupel.audit.result import Audit


@dataclass(frozen=True)
class RefineOptions:
    """What a run may be asked for; `run.json` holds these and repeats the run."""

    map: Mapping[str, str] | None = None
    format: str | None = None
    max_bad: float = 0.01
    heldout: float = 0.2
    encoder: str = "static"
    device: str = "cpu"
    allow_download: bool = False
    only: tuple[str, ...] | None = None
    against: tuple[str, ...] | None = None
    trusted: str | None = None
    sample: int | None = None
    context: int | None = None
    flip_above: float | None = None
    drop: tuple[str, ...] = ()
    redact: bool = False
    seed: int = 0
    force: bool = False
    cache: str | None = field(default=None, compare=False)

    def recorded(self) -> dict[str, Any]:
        """The options that change results, as `run.json` records them."""
        values = asdict(self)
        for name in ("force", "cache", "device"):
            values.pop(name)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def options_from_run(path: Path, file: str | None) -> tuple[str, RefineOptions]:
    """Input and options of the run that `run.json` describes; `file` overrides where the input lies now.

    Raises InputError if the file is not a run.json or if the input's bytes have changed.
    """
    from cupel.records.files import sha256_file

    try:
        run = json.loads(path.read_text("utf-8"))
        recorded, source, expected = dict(run["options"]), run["input"]["path"], run["input"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a run.json that cupel wrote ({error}); give the one in the OUT of the run to repeat"
        ) from error
    chosen = file or source
    if expected and Path(chosen).is_file() and sha256_file(Path(chosen)) != expected:
        raise InputError(f"{chosen} is not the file of that run: its SHA-256 differs from the {expected[:12]}... in {path}. "
                         "Give the original file, or run without --from.")  # fmt: skip
    known = {f.name for f in fields(RefineOptions)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items() if k in known}
    return chosen, RefineOptions(**values)


def input_key(source: Any) -> dict[str, Any]:
    """What identifies the input's content: path and SHA-256 of a file or of the files of a folder."""
    from cupel.records.files import sha256_file

    if source == "-":
        return {"path": "-", "sha256": None}
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"there is no file {source}. Give a path to preferences (JSONL, JSON, CSV, Parquet, .gz of them) or - for standard input."
        )
    return {"path": str(source), "sha256": sha256_file(path)}


def run_record(verb: str, source: str, key: dict[str, Any] | None, options: RefineOptions, audit: Audit) -> dict[str, Any]:
    """`run.json`: input hash, options, seed, encoder hash and versions: what repeats the run."""
    return {
        "command": command_line(f"cupel {verb}", source, options),
        "input": key or input_key(source),
        "options": options.recorded(),
        "seed": options.seed,
        "encoder": dict(audit.encoder),
        "versions": dict(audit.versions),
    }


def command_line(start: str, source: str, options: RefineOptions) -> str:
    """`start` ("cupel refine") with the words that repeat a run, without the folder it writes into."""
    import shlex

    words = [*start.split(), source]
    defaults = RefineOptions()
    for f in fields(RefineOptions):
        value = getattr(options, f.name)
        if f.name in ("cache", "force", "device") or value == getattr(defaults, f.name):
            continue
        flag = "--" + f.name.replace("_", "-")
        if isinstance(value, Mapping):
            words += [part for k, v in value.items() for part in (flag, f"{k}={v}")]
        elif isinstance(value, tuple):
            words += [part for v in value for part in (flag, str(v))]
        else:
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def record_of(audit: Audit) -> dict[str, Any] | None:
    """`run.json` of an audit made in Python, as the command line would write it; None where no command repeats it.

    That is where the votes did not come from a file by `cupel.read`, or where texts to look for were given without a file.
    """
    asked = audit.votes.meta.get("read")
    if asked is None or audit.options.get("against") is not None:
        return None
    given = {**asked["options"], **{k: v for k, v in audit.options.items() if k not in ("device", "against")}}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return run_record("audit", asked["path"], dict(asked["input"]), RefineOptions(**values, trusted=audit.trusted_path), audit)
