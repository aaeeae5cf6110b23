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
#: what is known beside the log and is kept, with its kind
VECTORS: dict[str, Any] = {"item_vectors": np.float32, "user_vectors": np.float32, "item_codes": np.int64}


class Saved(NamedTuple):
    """A recommender as a folder holds it: the model, ready to score; what it knows (its training log, vectors); and what is said of it."""

    model: Recommender
    known: Known
    info: Mapping[str, Any]


def save(
    directory: str | Path, model: Recommender, known: Known, *, text: str, seed: int, info: Mapping[str, Any] | None = None,
    peer: Recommender | None = None,
) -> Path:  # fmt: skip
    """Write config.json, ids.json, model.safetensors and known.safetensors into `directory`; the same model gives the same bytes.

    text: the recommender's text, `name:argument=value,...`; peer: the model that was trained beside it (`Fitted.peer`, of seed + 1), into
    the folder `peer`, which is a recommender's like any other. Of the log, users, items, their texts and their order in time are kept; of
    what else is known, what scoring reads: vectors and ids of items, vectors and words of users, not what was said before single events.
    """
    from safetensors.numpy import save as packed

    from cupel.records.files import atomic_write, write_json

    place, log = Path(directory), known.log
    state = {name: np.ascontiguousarray(x.detach().cpu().numpy()) for name, x in sorted(model.state_dict().items())}
    kept: dict[str, np.ndarray] = {"item": log.item.astype(np.int32), "user": log.user.astype(np.int32)}
    if log.time is not None:
        kept["time"] = log.time.astype(np.int64)
    for name, kind in VECTORS.items():
        found = state.get("codes") if name == "item_codes" and known.item_codes is None else getattr(known, name)
        if found is not None:
            kept[name] = np.ascontiguousarray(found, kind)
    for file, tensors in (("model.safetensors", state), ("known.safetensors", kept)):
        data = packed(dict(sorted(tensors.items())))
        with atomic_write(place / file) as temporary:
            temporary.write_bytes(data)
    texts = {name: list(found) for name, found in (("user_texts", known.user_texts), ("texts", log.texts)) if found is not None}
    write_json(place / "ids.json", {"users": log.users.tolist(), "items": log.items.tolist(), **texts})
    about = {"format": FORMAT, "version": VERSION, "model": text, "seed": seed, "info": dict(info or {})}
    write_json(place / "config.json", about)
    if peer is not None:
        save(place / "peer", peer, known, text=text, seed=seed + 1, info=info)
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
        texts, said = (None if name not in ids else tuple(ids[name]) for name in ("texts", "user_texts"))
        users, items = (np.array(ids[name], dtype=str) for name in ("users", "items"))
        log = Log(users, items, kept["user"], kept["item"], time=kept.get("time"), texts=texts)
        vectors: dict[str, Any] = {name: kept.get(name) for name in VECTORS}
        known = Known(log, user_texts=said, **vectors)
        model = build(config["model"], *log.shape, config["seed"])
        model.prepare(known)
        model.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
        info = config["info"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{place} is not a recommender that cupel wrote ({error}); give a folder made by train recommender") from error
    return Saved(model.to(device).requires_grad_(False).eval(), known, info)
