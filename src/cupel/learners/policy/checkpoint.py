"""Checkpoints: everything a run needs to go on to the same result, without pickle, whole or not at all.

    OUT / checkpoints / step-00000100 /
        model /                  what transformers or peft load
        parameters.safetensors   trained tensors by name, in their own type
        trainer.safetensors      tensors of the optimiser by PARAMETER/KEY, of the step's statistics, of a moving reference, of margins
        treatment.safetensors    the state of the treatment, keyed by ids
        state.json               step, epoch, numbers of the optimiser, evaluations so far, SHA-256 of every other file: written last

A checkpoint is written beside its place and renamed when it is complete and flushed. The last one whose files match is resumed from; one
that does not match is named in a warning and passed over. Random numbers need no state: each step seeds them from seed, step and process.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cupel.errors import InputError
from cupel.learners.policy.model import replace_folder
from cupel.records.files import sha256_file, to_json

STATE = "state.json"


class CheckpointWarning(UserWarning):
    """A checkpoint does not match its checksums and is passed over."""


@dataclass
class Snapshot:
    """What a checkpoint holds besides the model that others load.

    parameters, trainer   tensors by name;  numbers  of the optimiser, by name
    progress    step, best score so far and the like: plain values
    """

    parameters: dict[str, Tensor]
    trainer: dict[str, Tensor]
    numbers: dict[str, Any]
    progress: dict[str, Any]
    folder: Path | None = field(default=None, compare=False)


class Checkpoints:
    """The checkpoints of a run under OUT/checkpoints.

    digest names the run (options, data, model): a folder that holds another run's is refused with InputError.
    """

    def __init__(self, out: Path, digest: str, described: Mapping[str, Any]) -> None:
        self.folder, self.digest, self.described = out / "checkpoints", digest, dict(described)

    def all(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE).is_file())

    def save(self, snapshot: Snapshot, model: Any, treatment: Any) -> Path:
        """Write a checkpoint; `model(folder)` and `treatment(path)` write their parts. InputError where the disk refuses."""
        from safetensors.torch import save

        target = self.folder / f"step-{snapshot.progress['step']:08d}"
        temporary = self.folder / f".{target.name}.tmp"
        with self.refused(f"the checkpoint {target}", temporary):
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            model(temporary / "model")
            treatment(temporary / "treatment.safetensors")
            for name, tensors in (("parameters", snapshot.parameters), ("trainer", snapshot.trainer)):
                (temporary / f"{name}.safetensors").write_bytes(save({key: tensors[key].contiguous() for key in sorted(tensors)}))
            files = {p.relative_to(temporary).as_posix(): sha256_file(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
            state = {"run": self.digest, "numbers": snapshot.numbers, "progress": snapshot.progress, "files": files}
            (temporary / STATE).write_text(to_json({**state, "options": self.described}), "utf-8")
            replace_folder(temporary, target)
        return target

    @contextmanager
    def refused(self, what: str, temporary: Path) -> Iterator[None]:
        """InputError where the disk refuses what the block writes, whichever library says so; the temporary folder is removed."""
        try:
            yield
        except Exception as error:
            raised = _full_disk(error)
            if raised is None:
                raise
            shutil.rmtree(temporary, ignore_errors=True)
            kept = self.all()
            last = f"the last one is {kept[-1].name}" if kept else "there is none yet"
            raise InputError(
                f"cannot write {what}: {raised}. Earlier checkpoints are untouched ({last}): free some space, or keep fewer with keep=1, "
                f"and run the same command again"
            ) from error

    def last(self) -> Snapshot | None:
        """The newest checkpoint whose files are whole; None where there is none. InputError where it is another run's."""
        from safetensors.torch import load_file

        for path in reversed(self.all()):
            problem, state = _check(path)
            if problem:
                warnings.warn(f"the checkpoint {path} is damaged ({problem}) and is passed over", CheckpointWarning, stacklevel=2)
                continue
            if state["run"] != self.digest:
                raise InputError(
                    f"{self.folder.parent} holds a run with other options or data ({_differences(state['options'], self.described)}). "
                    f"Choose another place with --out, or begin anew with --force"
                )
            parameters, trainer = (load_file(path / f"{name}.safetensors") for name in ("parameters", "trainer"))
            return Snapshot(parameters, trainer, state["numbers"], state["progress"], path)
        return None

    def parameters(self, step: int) -> dict[str, Tensor]:
        """The trained parameters of a checkpoint, by name."""
        from safetensors.torch import load_file

        return load_file(self.folder / f"step-{step:08d}" / "parameters.safetensors")

    def rotate(self, keep: int, best: int | None) -> None:
        """Remove all but the newest `keep` checkpoints and the best one."""
        for path in self.all()[:-keep]:
            if best is None or path.name != f"step-{best:08d}":
                shutil.rmtree(path)

    def clear(self) -> None:
        """Remove every checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _check(path: Path) -> tuple[str, dict[str, Any]]:
    """What is wrong with a checkpoint ("" for nothing), and its state."""
    try:
        state = json.loads((path / STATE).read_text("utf-8"))
        for name, digest in state["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing", {}
            if sha256_file(path / name) != digest:
                return f"{name} has changed", {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE} cannot be read: {error}", {}
    return "", state


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    said = [f"{name}: {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here" for name in names[:3]]
    return "; ".join(said) or "the data or the model have changed"


def _full_disk(error: BaseException) -> str | None:
    """The operating system's words for a failed write, also where a library has wrapped them; None for other faults."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen.strerror or str(seen)
        text = str(seen)
        if "os error" in text.lower() or "No space left" in text:
            return text
        seen = seen.__cause__ or seen.__context__
    return None
