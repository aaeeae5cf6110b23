"""Folders of reward models on frozen vectors: config.json and model.safetensors, written and read in one way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cupel.errors import EncoderError, InputError
from cupel.learners.familiar import Familiar
from cupel.learners.sides import Scaling

if TYPE_CHECKING:
    from cupel.encode import Encoder

#: the arrays of a scaling, as they are saved
_SCALING = ("centre", "norm", "mean", "spread")

T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """What a folder holds: its config, its arrays by name, and the parts that every model on frozen vectors has."""

    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    scaling: Scaling
    familiar: Familiar | None
    encoder: Encoder

    @property
    def parts(self) -> dict[str, Any]:
        """Scaling, encoder, how it was trained, and where the training sides lay, as the models' fields are called."""
        return {
            "scaling": self.scaling, "encoder_name": self.encoder.name, "encoder_hash": self.encoder.hash, "info": self.config["info"],
            "familiar": self.familiar, "_loaded": {"encoder": self.encoder},
        }  # fmt: skip


def write_folder(
    directory: str | Path, *, format: str, version: int, scaling: Scaling, encoder: tuple[str, str], familiar: Familiar | None,
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], prefix: str = "",
) -> Path:  # fmt: skip
    """Write model.safetensors and config.json into `directory`; the same contents give the same bytes. InputError on a full disk.

    encoder: its name and hash; prefix: before the names of the scaling's arrays, where a model's own could be called the same.
    """
    from safetensors.numpy import save

    from cupel.records.files import atomic_write, write_json

    place = Path(directory)
    held = dict(tensors) | {prefix + name: np.asarray(getattr(scaling, name), np.float64).reshape(-1) for name in _SCALING}
    told = {"format": format, "version": version, "encoder": {"name": encoder[0], "hash": encoder[1]}, "features": list(scaling.names)}
    if familiar is not None:
        held |= familiar.tensors()
        told["familiar"] = familiar.recorded()
    data = save({name: np.ascontiguousarray(value) for name, value in sorted(held.items())})
    with atomic_write(place / "model.safetensors") as temporary:
        temporary.write_bytes(data)
    write_json(place / "config.json", {**told, **config})
    return place


def read_folder(
    directory: str | Path, make: Callable[[Folder], T], *, format: str, version: int, kind: str, prefix: str = "", device: str = "cpu"
) -> T:  # fmt: skip
    """`make` of the folder that `write_folder` wrote.

    InputError for another format or version, and where something is missing or damaged, in `make` as here; EncoderError where the encoder
    is missing or has changed. kind: what `format` is called in messages.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    place = Path(directory)
    try:
        config = json.loads((place / "config.json").read_text("utf-8"))
        tensors = load_file(place / "model.safetensors")
        if config.get("format") != format or config.get("version") != version:
            raise InputError(
                f"{place} holds {config.get('format')!r} version {config.get('version')!r}; this cupel reads {format} version {version}. "
                "Train it again."
            )
        centre, norm, mean, spread = (tensors[prefix + name] for name in _SCALING)
        scaling = Scaling(centre, float(norm[0]), mean, spread)
        familiar = Familiar.read(config, tensors)
        name, digest, _ = config["encoder"]["name"], config["encoder"]["hash"], config["info"]
        return make(Folder(config, tensors, scaling, familiar, matching_encoder(name, digest, device)))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{place} is not a {kind} that cupel wrote ({said}); give a folder made by train reward") from error


def matching_encoder(name: str, digest: str, device: str = "cpu") -> Encoder:
    """The encoder of that name; EncoderError where it is not the one of that hash."""
    from cupel.encode import load_encoder

    encoder = load_encoder(name, device=device)
    if encoder.hash != digest:
        raise EncoderError(
            f"the reward model was trained with encoder {name} {digest[:12]}..., but {name} is now {encoder.hash[:12]}...: its scores "
            "would mean nothing. Restore that encoder, or train the model again."
        )
    return encoder
