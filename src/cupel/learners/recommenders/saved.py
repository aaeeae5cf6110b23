"""Folders of recommenders: the state, the ids, and the log that they know, in safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.learners.recommenders.names import build
from cupel.learners.recommenders.types import Known, Recommender

FORMAT, VERSION = "cupel-recommender", 1


class Saved(NamedTuple):
    """A recommender as a folder holds it: the model, ready to score; what it knows (its training log, vectors); and what is said of it."""

    model: Recommender
    known: Known
    info: Mapping[str, Any]


def save(directory: str | Path, model: Recommender, known: Known, *, text: str, seed: int, info: Mapping[str, Any] | None = None) -> Path:
    """Write config.json, ids.json, model.safetensors and known.safetensors into `directory`; the same model gives the same bytes.

    text: the recommender's text, `name:argument=value,...`. What `known` says beside users, items and their order in time is not kept.
    """
    from safetensors.numpy import save as packed

    from cupel.records.files import atomic_write, write_json

    place, log = Path(directory), known.log
    state = {name: np.ascontiguousarray(x.detach().cpu().numpy()) for name, x in sorted(model.state_dict().items())}
    kept: dict[str, np.ndarray] = {"item": log.item.astype(np.int32), "user": log.user.astype(np.int32)}
    if log.time is not None:
        kept["time"] = log.time.astype(np.int64)
    for name in ("item_vectors", "user_vectors"):
        found = getattr(known, name)
        if found is not None:
            kept[name] = np.ascontiguousarray(found, np.float32)
    for file, tensors in (("model.safetensors", state), ("known.safetensors", kept)):
        data = packed(dict(sorted(tensors.items())))
        with atomic_write(place / file) as temporary:
            temporary.write_bytes(data)
    write_json(place / "ids.json", {"users": log.users.tolist(), "items": log.items.tolist()})
    about = {"format": FORMAT, "version": VERSION, "model": text, "seed": seed, "info": dict(info or {})}
    write_json(place / "config.json", about)
    return place


def is_recommender(directory: str | Path) -> bool:
    """Whether a folder's config says that it holds a recommender."""
    try:
        return json.loads((Path(directory) / "config.json").read_text("utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def load(directory: str | Path, *, device: str = "cpu") -> Saved:
    """The recommender that `save` wrote. InputError for another folder, or one whose files do not go together."""
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    place = Path(directory)
    try:
        config = json.loads((place / "config.json").read_text("utf-8"))
        if config.get("format") != FORMAT or config.get("version") != VERSION:
            raise InputError(
                f"{place} holds {config.get('format')!r} version {config.get('version')!r}; this cupel reads {FORMAT} version {VERSION}. "
                f"Train it again."
            )
        ids = json.loads((place / "ids.json").read_text("utf-8"))
        kept, state = load_file(place / "known.safetensors"), load_file(place / "model.safetensors")
        log = Log(np.array(ids["users"], dtype=str), np.array(ids["items"], dtype=str), kept["user"], kept["item"], time=kept.get("time"))
        known = Known(log, kept.get("item_vectors"), kept.get("user_vectors"))
        model = build(config["model"], *log.shape, config["seed"])
        model.prepare(known)
        model.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
        info = config["info"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{place} is not a recommender that cupel wrote ({error}); give a folder made by train recommender") from error
    return Saved(model.to(device).requires_grad_(False).eval(), known, info)
