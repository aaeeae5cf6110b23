"""The verb `train recommender`: a log of interactions in, a folder with the model, the parts of the log, and metrics out."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError

Progress = Callable[[str, int, int], None]
#: metrics that the verb says when it ends
SAID = ("recall@20", "ndcg@20")


def train_recommender_file(
    file: str, out: Path, changes: Mapping[str, Any], *, map: Mapping[str, str] | None = None, format: str | None = None,
    max_bad: float = 0.01, test: str | None = None, text: str | None = None, dry_run: bool = False, force: bool = False,
    allow_download: bool = False, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train a recommender on the log in `file`; returns its metrics and the sentences to say.

    changes  options of the log (`LogOptions`) and of the run (`RecommenderOptions`) by name
    test     another log whose likes are the test; text: an encoder by name, whose vectors of the items' texts the model may read

    Writes model, ids and known log (`learners.recommenders.saved`), train/validation/test.parquet, metrics.json and run.json into `out`. A
    finished run in `out` with the same run.json is not repeated, an interrupted one goes on where it was; one of other options or data is
    refused but for `force`.
    """
    missing = [name for name in ("torch", "jaxtyping") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"training a recommender needs {' and '.join(missing)}. Run: python -m pip install 'cupel[train]'")
    file, changes, extra = _recipe(file, changes, {"map": map, "format": format, "test": test, "text": text})
    map, format, test, text = extra["map"], extra["format"], extra["test"], extra["text"]

    from cupel.interactions.preparing import parted, prepared
    from cupel.interactions.reading import read_log
    from cupel.learners.recommenders.options import RecommenderOptions, recommender_options

    asked, rest = parted(changes, [field.name for field in fields(RecommenderOptions)])
    options = recommender_options(rest)
    record = _record(file, test, {**asked.recorded(), **options.recorded()}, map, format, text)
    done = None if dry_run else _finished(out, record, force)
    if done is not None:
        return done
    from cupel.learners.recommenders.fit import check_fit, fit
    from cupel.learners.recommenders.saved import save
    from cupel.learners.recommenders.types import Known
    from cupel.noise.names import parse as treatment_of
    from cupel.objectives.names import parse as objective_of

    objective, treatment = objective_of(options.objective), treatment_of(options.treatment)
    check_fit(objective, treatment, options)
    log = read_log(file, map=map, format=format, max_bad=max_bad)
    split = prepared(log, asked, test=None if test is None else read_log(test, map=map, format=format, max_bad=max_bad))
    users, items = split.train.shape
    counts = {"n_users": users, "n_items": items, **{f"n_{name}": len(getattr(split, name)) for name in ("train", "validation", "test")}}
    said = [
        f"{len(split.train):,} events of {users:,} users and {items:,} items to train on, {len(split.validation):,} for validation, "
        f"{len(split.test):,} for the test ({split.how}).",
        *dict.fromkeys(note for part in (split.train, split.validation, split.test) for note in part.notes),
    ]
    if dry_run:
        return {**counts, "options": {**asked.recorded(), **options.recorded()}, "words": [*said, "Nothing was written (--dry-run)."]}
    known = Known(split.train, item_vectors=_vectors(split.train.texts, text, options.device, allow_download))
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "unfinished.safetensors"
    if force:
        unfinished.unlink(missing_ok=True)
    found = fit(
        known, objective, treatment, options, validation=split.validation, progress=progress, resume=(unfinished, digest_of(record))
    )
    metrics: dict[str, Any] = {
        **counts, "model": options.model, "objective": options.objective, "treatment": options.treatment, "seed": options.seed,
        "best_epoch": found.best_epoch, "epochs": found.epochs, "notes": [*said[1:], *found.notes],
        "state": {name: x.tolist() for name, x in found.state.items() if x.numel() <= 8},
    }  # fmt: skip
    metrics |= {name: _measured(found.model, split, name) for name in ("validation", "test")}
    info = {"metrics": metrics["test"], "how": split.how}
    save(out, found.model, known, text=options.model, seed=options.seed, info=info, peer=found.peer)
    if found.peer is not None and found.kept is not None:
        from cupel.learners.recommenders.peers import Both, write_kept

        others = {"peer": found.peer, "both": Both([found.model, found.peer])}
        metrics |= {who: {name: _measured(one, split, name) for name in ("validation", "test")} for who, one in others.items()}
        write_kept(out, split.train, found.kept)
    else:
        _without_peer(out)
    from cupel.interactions.writing import write_log
    from cupel.records.files import write_json

    for name in ("train", "validation", "test"):
        if len(getattr(split, name)):
            write_log(getattr(split, name), out / f"{name}.parquet")
    write_json(out / "metrics.json", metrics)
    write_json(out / "run.json", record)  # last: a folder with it is finished
    words = [*said, *found.notes, *_words(options.model, found.best_epoch, metrics), f"Written: {out}."]
    return {**metrics, "path": str(out), "words": words}


def _measured(model: Any, split: Any, name: str) -> dict[str, Any] | None:
    """Means over users of the metrics of a held-out part, all items ranked but those of training (and validation, at the test)."""
    from cupel.interactions.log import Log, by_user
    from cupel.interactions.metrics import ranked
    from cupel.learners.recommenders.types import top

    part = getattr(split, name)
    if not len(part):
        return None
    seen = split.train
    if name == "test" and len(split.validation):
        one, two = split.train, split.validation
        seen = Log(one.users, one.items, np.concatenate([one.user, two.user]), np.concatenate([one.item, two.item]))
    relevant = by_user(part)
    users = np.flatnonzero(relevant.counts)
    ks = [k for k in (10, 20) if k <= model.n_items] or [model.n_items]
    found = ranked(top(model, users, max(ks), seen=by_user(seen)), relevant, users, ks)
    return {"n_users": len(users), **{metric: float(value.mean()) for metric, value in found.items()}}


def _words(model: str, best: int, metrics: Mapping[str, Any]) -> list[str]:
    words = [] if not best else [f"Kept: pass {best} of {len(metrics['epochs'])}."]
    for name in ("validation", "test"):
        found = metrics[name]
        if found is not None:
            numbers = ", ".join(f"{metric} {found[metric]:.4f}" for metric in SAID if metric in found)
            words.append(f"{model} on the {name} part, {found['n_users']:,} users, all items ranked: {numbers}.")
    if metrics["test"] is not None:
        words.append("Intervals, rare items and other models beside it: cupel evaluate OUT OUT/test.parquet.")
    return words


def _vectors(texts: tuple[str, ...] | None, encoder: str | None, device: str, allow_download: bool) -> np.ndarray | None:
    """Vectors of the items' texts, float32 [I, d]; zeros where an item has none; None where no encoder is named."""
    if encoder is None:
        return None
    if texts is None:
        raise InputError(
            f"--text {encoder} reads what is said about items, and the log has no texts: use a format that has them, or leave it out"
        )
    from cupel.encode import load_encoder

    found = load_encoder(encoder, device=device, allow_download=allow_download).encode(list(texts)).astype(np.float32)
    found[[not text.strip() for text in texts]] = 0
    return found


def _recipe(file: str, changes: Mapping[str, Any], extra: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The file, options and reading options of a run: of a recipe (a .yaml with `data:`), or of a file; what the command line says wins."""
    given = {name: value for name, value in changes.items() if value is not None}
    if Path(file).suffix not in (".yaml", ".yml"):
        return file, given, extra
    import yaml

    try:
        found = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {file} cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("data"), str):
        raise InputError(f"the recipe {file} is not a mapping of options that names a log, e.g. `data: ratings.csv`")
    data = found.pop("data")
    stated = {name: found.pop(name, None) for name in extra}
    return data, {**found, **given}, {name: stated[name] if value is None else value for name, value in extra.items()}


def _record(file: str, test: str | None, options: Mapping[str, Any], map: Any, format: Any, text: str | None) -> dict[str, Any]:
    """What a run was asked for: it repeats the run, and says whether a folder holds the same one."""
    from cupel import __version__
    from cupel.records.files import sha256_file

    def key(path: str) -> dict[str, Any]:
        place = Path(path)
        if not place.exists():
            raise InputError(f"there is no file or folder {path}: give the path of a log of interactions")
        files = [place] if place.is_file() else sorted(found for found in place.iterdir() if found.is_file())
        return {"path": str(path), "sha256": {found.name: sha256_file(found) for found in files}}

    return {
        "verb": "train recommender", "input": key(file), "test": None if test is None else key(test), "map": dict(map or {}),
        "format": format, "text": text, "options": dict(options), "version": __version__,
    }  # fmt: skip


def digest_of(record: Mapping[str, Any]) -> str:
    """What names a run: the SHA-256 of its record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode("utf-8")).hexdigest()


def _without_peer(out: Path) -> None:
    """Remove what a pair of models that was here before left beside its first one: it would be read as the peer of this model.

    Files by other names stay where they are."""
    from cupel.learners.recommenders.saved import is_recommender

    place = out / "peer"
    if is_recommender(place):
        written = [place / name for name in ("model.safetensors", "known.safetensors", "ids.json", "config.json")]
        for file in (out / "kept.parquet", *written):
            file.unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()


def _finished(out: Path, record: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The metrics of a finished run of the same record in `out`; InputError for one of another, unless it is to be replaced."""
    place = out / "run.json"
    if force or not place.is_file():
        return None
    try:
        before = json.loads(place.read_text("utf-8"))
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{out} holds a run that cannot be read ({error}): name another --out, or --force to replace it") from error
    if before != record:
        other = sorted(name for name in record if before.get(name) != record[name])
        raise InputError(f"{out} holds a run of another {', '.join(other)}: name another --out, or --force to replace it")
    return {**metrics, "path": str(out), "words": [f"{out} holds this run, finished: nothing was done. --force repeats it."]}
