"""`cupel evaluate` on recommenders: folders and a file of test events in; evaluation.json, evaluation.html and lists out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.named import named_runs
from cupel.evaluate.recommending.lists import Top
from cupel.evaluate.recommending.run import evaluate_recommenders
from cupel.interactions.log import Log


def evaluate_recommender_files(
    models: Sequence[str | Path],
    file: str,
    out: Path,
    *,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    ks: Sequence[int] = (10, 20),
    metrics: Sequence[str] = ("ndcg", "recall", "map", "f1"),
    masks: Sequence[str] = (),
    propensity: str | None = None,
    clip: float = 0.01,
    rare: int | None = None,
    at_least: float | None = None,
    drop_seen: bool = False,
    reference: str | None = None,
    recommendations: int | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Judge folders of recommenders by the events of a file and write evaluation.json and evaluation.html; as a mapping with `words`.

    models: folders that `train recommender` wrote; a folder of such folders, or NAME=FOLDER,FOLDER, is one model trained with several
    seeds (`cupel.evaluate.named.named_runs`). All know the same users and items. What any of them was trained on, and the events of the
    files in `masks`, are left out of rankings.
    recommendations: also write recommendations.parquet, so many items for each user of the test (of the first seed of each model).

    Events of users and items that the models do not know are counted and left out. InputError where nothing can be judged.
    """
    from cupel.interactions.reading import read_log
    from cupel.records.files import atomic_write, write_json
    from cupel.report.recommending import page

    if not models:
        raise InputError("evaluate needs at least one MODEL folder and a FILE of events, e.g. cupel evaluate out/mf out/ease test.csv")
    found = {name: [_loaded(path) for path in paths] for name, paths in named_runs(models).items()}
    trained = [(name, saved) for name, several in found.items() for saved in several]
    first, train = trained[0][0], trained[0][1].known.log
    other = list[Log]()
    for name, saved in trained[1:]:
        log = saved.known.log
        for kind, one, two in (("users", train.users, log.users), ("items", train.items, log.items)):
            if not np.array_equal(one, two):
                raise InputError(
                    f"{first} knows {len(one):,} {kind} and {name} {len(two):,} or others: lists of different catalogues are not compared. "
                    f"Train both on one log"
                )
        if not np.array_equal(np.unique(log.pairs()), np.unique(train.pairs())):
            other.append(log)
    test = aligned(read_log(file, map=map, format=format, max_bad=max_bad), train, file)
    hidden = [aligned(read_log(mask, map=map, format=format, max_bad=max_bad), train, mask) for mask in masks]
    notes = list(test.notes)
    if other:
        notes.append("The models were trained on different events: those of any of them are left out of all rankings.")
    if dry_run:
        words = f"{len(found)} models, {len(test):,} test events of {len(np.unique(test.user)):,} users, {len(train.items):,} items."
        return {"n": len(test), "words": [f"{words} Nothing was written (--dry-run)."]}
    result = evaluate_recommenders(
        {name: [_top(saved.model) for saved in several] for name, several in found.items()}, test, train, ks=ks, metrics=metrics,
        masks=[*hidden, *other], propensity=propensity, clip=clip, rare=rare, at_least=at_least, drop_seen=drop_seen, reference=reference,
        seed=seed,
    )  # fmt: skip
    content = {**result.to_json(), "notes": [*notes, *result.notes]}
    write_json(out / "evaluation.json", content)
    with atomic_write(out / "evaluation.html") as temporary:
        temporary.write_text(page(content, title=Path(file).name), "utf-8")
    written = ["evaluation.json", "evaluation.html"]
    if recommendations is not None:
        _write_lists(out / "recommendations.parquet", found, np.unique(test.user), train, [*hidden, *other], recommendations)
        written.append("recommendations.parquet")
    words = [*notes, *result.lines(), f"Written: {', '.join(str(out / name) for name in written)}."]
    return {**content, "words": words}


def holds_recommenders(path: str | Path) -> bool:
    """Whether a folder holds a recommender, or folders of them; NAME=FOLDER,FOLDER too."""
    from cupel.learners.recommenders.saved import is_recommender

    return any(is_recommender(place) for places in named_runs([path]).values() for place in places)


def aligned(log: Log, like: Log, what: str) -> Log:
    """The events of a log under the indices of another; those of users or items that the other does not know are left out and counted.

    >>> found = aligned(Log.of(["b", "x", "b"], ["q", "q", "p"]), Log.of(["a", "b"], ["q", "r"]), "test.csv")
    >>> found.user.tolist(), found.item.tolist(), found.notes
    ([1], [0], ('2 of 3 events of test.csv are of 1 users or 1 items that the models do not know: left out.',))
    """
    user, item = _places(log.users, like.users), _places(log.items, like.items)
    inside = (user[log.user] >= 0) & (item[log.item] >= 0)
    notes = log.notes
    if not inside.all():
        users, items = (int((place[np.unique(index)] < 0).sum()) for place, index in ((user, log.user), (item, log.item)))
        lost = (
            f"{int((~inside).sum()):,} of {len(log):,} events of {what} are of {users:,} users or {items:,} items that the models do "
            f"not know"
        )
        if not inside.any():
            raise InputError(f"{lost}: nothing is left. Ids are compared as text; name the columns with --map if others were read")
        notes = (*notes, f"{lost}: left out.")
    kept = log.take(inside)
    return Log(
        like.users, like.items, user[kept.user].astype(np.int32), item[kept.item].astype(np.int32), kept.value, kept.time,
        kept.propensity, kept.event, notes=notes,
    )  # fmt: skip


def _places(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Index of each id among the known ones, -1 where it is not."""
    place = {str(name): k for k, name in enumerate(known)}
    return np.array([place.get(str(name), -1) for name in ids], dtype=np.int64)


def _loaded(path: Path) -> Any:
    from cupel.learners.recommenders.saved import is_recommender, load

    if path.is_dir() and not is_recommender(path):
        raise InputError(f"{path} holds no recommender, nor folders of them: give folders that train recommender wrote")
    return load(path)


def _top(model: Any) -> Top:
    from cupel.learners.recommenders.types import top

    return lambda users, k, seen: top(model, users, k, seen=seen)


def _write_lists(path: Path, found: Mapping[str, list[Any]], users: np.ndarray, train: Log, masks: Sequence[Log], k: int) -> None:
    """Lists of every model as rows of model, user, item, rank, score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cupel.evaluate.recommending.relevant import left_out
    from cupel.learners.recommenders.index import ranked_with_scores, table
    from cupel.records.files import atomic_write

    seen, parts = left_out(train, masks), []
    for name, several in found.items():
        rows = table(train.users[users], train.items, *ranked_with_scores(several[0].model, users, k, seen))
        parts.append(rows.add_column(0, "model", pa.array([name] * len(rows), pa.string())))
    with atomic_write(path) as temporary:
        pq.write_table(pa.concat_tables(parts), temporary)
