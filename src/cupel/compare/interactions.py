"""The survival table of interactions: objectives x treatments x planted errors of a log, judged by what users really took.

What is planted is what goes wrong with clicks: events that say nothing (false positives: clicks by mistake, bots) and likes that were
never recorded (missing: nothing was shown). Training and validation are corrupt alike, the test is left as it is; per user and seed, all
items are ranked. The table, its intervals and its recommendation are those of comparisons of texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cupel.compare.blocks import Progress, kept, need_cases, planned, run_blocks, write_comparison
from cupel.compare.result import About, Comparison, assemble
from cupel.compare.spec import PLAIN, Case, CompareOptions, need_torch, split_text, treatment_of
from cupel.errors import InputError
from cupel.interactions.log import Log, Rows, Split, by_user
from cupel.interactions.planted import drop, inject
from cupel.interactions.splits import random_split
from cupel.stages import Stages

OBJECTIVES = ("bradley_terry", "bpo")
TREATMENTS = (
    PLAIN, "missed:rate=0.5,form=surrogate", "missed:rate=0.3,form=exact", "em:flip=0.1,by=annotator", "tempered:power=0.7",
    "trimmed:share=0.1",
)  # fmt: skip
#: what is planted: name -> (has a rate, settings with their defaults)
KINDS: dict[str, tuple[bool, dict[str, Any]]] = {
    "none": (False, {}),
    "false_positives": (True, {}),
    "missing": (True, {"by": "uniform"}),
}
#: penalties of what a step touches; the middle one is that of untuned training
STRENGTHS = (1e-3, 1e-2, 5e-2)


@dataclass(frozen=True)
class InteractionOptions(CompareOptions):
    """The grid and how it is trained; every field changes results. `parts`, `folds`, `steps`, `warm`, `refresh` are not read.

    model       text of a recommender that is trained
    ridges      values of `l2` that noisy validation chooses from
    validation  share of each user's events that tunes, as corrupt as the training events; test: share that is tested, left as it is
    k           NDCG at k is what a cell reaches; epochs, batch_size, learning_rate, negatives of the loop
    """

    objectives: tuple[str, ...] = OBJECTIVES
    treatments: tuple[str, ...] = TREATMENTS
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: float = 0.1
    ridges: tuple[float, ...] = STRENGTHS
    model: str = "mf:dim=32"
    test: float = 0.1
    k: int = 20
    epochs: int = 60
    batch_size: int = 2048
    learning_rate: float = 5e-3
    negatives: int = 2


def cases_of(corruptions: list[str] | tuple[str, ...], rates: list[float] | tuple[float, ...]) -> tuple[Case, ...]:
    """Every corruption at every rate. InputError for unknown names, arguments or rates.

    >>> [case.label for case in cases_of(["none", "missing:by=popularity"], [0.2])]
    ['none', 'missing 20 % by=popularity']
    """
    found: list[Case] = []
    for text in corruptions:
        name, settings = split_text(text)
        if name not in KINDS:
            raise InputError(f"there is no corruption {name!r} of interactions; choose one of {', '.join(KINDS)}")
        rated, defaults = KINDS[name]
        unknown = sorted(set(settings) - set(defaults))
        if unknown:
            raise InputError(f"corruption {name} takes no {', '.join(unknown)}; it takes {', '.join(defaults) or 'nothing but --rate'}")
        for rate in rates if rated else [None]:
            if rate is not None and not 0 <= rate < 1:
                raise InputError(f"--rate {rate} is not in [0, 1): a share of the events")
            case = Case(name, rate, tuple({**defaults, **settings}.items()))
            if case not in found:
                found.append(case)
    if not found:
        raise InputError("there is nothing to compare: give at least one --corruption, and a --rate where it takes one")
    return tuple(found)


def compare_log(
    name: str, log: Log, options: InteractionOptions, *, stages: Stages | None = None, key: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Comparison:  # fmt: skip
    """The survival table of a log of likes (one event per user and item). Finished blocks are kept in `stages` under the content `key`.

    InputError where torch is missing, where the grid makes no sense, or where the log cannot be split.
    """
    need_torch()
    refused = check(options)
    need_cases(options, "cupel.compare.interactions.cases_of")
    key = {**(key or {}), "of": "interactions"}
    blocks = run_blocks(options, refused, partial(_block, log, options), stages=stages, key=key, progress=progress)
    method = (
        f"Seeds {', '.join(map(str, options.seeds))}; each splits every user's events anew: {100 * options.test:g} % are tested as they "
        f"are, of the rest {100 * options.validation:g} % tune l2, as corrupt as the training events. {options.model}, all items ranked."
    )
    about = About(
        name, len(log), np.arange(len(log.users)), f"NDCG@{options.k} on events left as they are", "events", "users", f"NDCG@{options.k}",
        "popularity", "l2", method,
    )  # fmt: skip
    return assemble(about, options, blocks, refused)


def check(options: InteractionOptions) -> list[dict[str, str]]:
    """The (objective, treatment) pairs that are refused, each with its reason. InputError where the grid as a whole makes no sense."""
    from cupel.learners.recommenders.fit import check_fit
    from cupel.learners.recommenders.names import settings_of
    from cupel.objectives.names import parse

    if settings_of(options.model)[0].kind == "solved":
        raise InputError(
            f"{options.model} is solved at once: no objective and no treatment enters it. Take a model that is trained"
        )
    for what, values in (("objective", options.objectives), ("treatment", options.treatments), ("seed", options.seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"give at least one {what}, each once")
    if options.treatments[0] != PLAIN:
        raise InputError(f"the first treatment is what the others are compared with: it has to be {PLAIN}, not {options.treatments[0]}")
    refused = []
    treatments = {text: treatment_of(text) for text in options.treatments}
    for text in options.objectives:
        try:
            objective = parse(text)
            check_fit(objective, treatments[PLAIN], _loop(options, text, options.ridges[0], 0))
        except ValueError as error:
            raise InputError(f"--objective {text}: {error}") from error
        for name, treatment in treatments.items():
            try:
                check_fit(objective, treatment, _loop(options, text, options.ridges[0], 0))
            except InputError as error:
                refused.append({"objective": text, "treatment": name, "reason": str(error)})
    return refused


def planted(split: Split, case: Case, seed: int) -> tuple[Log, Log, float]:
    """(training, validation, what was planted as a share of their events) of a split, its test left as it is."""
    if case.corruption == "none" or not case.rate:
        return split.train, split.validation, 0.0
    settings = dict(case.settings)
    if case.corruption == "false_positives":
        avoid = (split.train, split.validation, split.test)
        train = inject(split.train, case.rate, seed=seed, avoid=avoid)
        validation = inject(split.validation, case.rate, seed=seed + 1, avoid=(*avoid, train))
    else:
        train = drop(split.train, case.rate, seed=seed, by=settings["by"])
        validation = drop(split.validation, case.rate, seed=seed + 1, by=settings["by"])
    before, after = (len(a) + len(b) for a, b in ((split.train, split.validation), (train, validation)))
    return train, validation, abs(after - before) / before


def _block(log: Log, o: InteractionOptions, seed: int, text: str, refused: set[str]) -> dict[str, np.ndarray]:
    """NDCG per user of every treatment in every case under one objective and seed, with what noisy validation chose."""
    from cupel.learners.recommenders.fit import fit
    from cupel.learners.recommenders.types import Known
    from cupel.objectives.names import parse

    split = random_split(log, test=o.test, validation=(1 - o.test) * o.validation, seed=seed)
    relevant = by_user(split.test)
    users = np.flatnonzero(relevant.counts)
    cases = [planted(split, case, seed) for case in (*o.cases, Case("none", None))]
    shape = len(o.treatments), len(o.cases)
    held = np.flatnonzero(np.all([np.bincount(v.user, minlength=len(log.users)) > 0 for _, v, _ in cases], axis=0))
    if not len(users) or not len(held):
        raise InputError("no user has events in all parts of the split: give a log with more events per user, or lower rates")
    out = {
        "hits": np.full((*shape, len(users)), np.nan), "losses": np.full((*shape, len(held)), np.nan), "ridge": np.full(shape, np.nan),
        "flip_rate": np.full(shape, np.nan), "untuned": np.full((len(o.cases), len(users)), np.nan),
        "diverged": np.zeros(1, dtype=np.int64),
        "planted": np.array([share for *_, share in cases[:-1]]), "test": users, "validation": held,
    }  # fmt: skip
    objective = parse(text)
    for t, name in enumerate(o.treatments):
        if name in refused:
            continue
        for j, (train, validation, _) in enumerate(cases if t == 0 else cases[:-1]):
            tried = []
            for l2 in sorted(o.ridges):
                found = fit(Known(train), objective, treatment_of(name), _loop(o, text, l2, seed), validation=validation)
                inner = _ndcg(found.model, train, by_user(validation), held, o.k)
                outer = _ndcg(found.model, _joined(train, validation), relevant, users, o.k)
                tried.append((inner, outer, _rate(found.state)))
            best = int(np.argmax([inner.mean() for inner, *_ in tried]))
            if j == len(o.cases):
                out["clean"] = tried[best][1]
                continue
            out["hits"][t, j], out["losses"][t, j] = tried[best][1], 1 - tried[best][0]
            out["ridge"][t, j], out["flip_rate"][t, j] = sorted(o.ridges)[best], tried[best][2]
            if t == 0:
                out["untuned"][j] = tried[len(o.ridges) // 2][1]
    popular = fit(Known(split.train), objective, treatment_of(PLAIN), _loop(o, text, 0.0, seed, model="popularity")).model
    out["beside"] = _ndcg(popular, _joined(split.train, split.validation), relevant, users, o.k)
    return out


def _loop(o: InteractionOptions, objective: str, l2: float, seed: int, model: str = "") -> Any:
    from cupel.learners.recommenders.options import RecommenderOptions

    return RecommenderOptions(
        model=model or o.model, objective=objective, l2=l2, epochs=o.epochs, batch_size=o.batch_size, learning_rate=o.learning_rate,
        negatives=o.negatives, select=f"ndcg@{o.k}", seed=seed,
    )  # fmt: skip


def _ndcg(model: Any, seen: Log, relevant: Rows, users: np.ndarray, k: int) -> np.ndarray:
    from cupel.interactions.metrics import ranked
    from cupel.learners.recommenders.types import top

    k = min(k, model.n_items)
    return ranked(top(model, users, k, seen=by_user(seen)), relevant, users, [k])[f"ndcg@{k}"]


def _joined(one: Log, two: Log) -> Log:
    return Log(one.users, one.items, np.concatenate([one.user, two.user]), np.concatenate([one.item, two.item]))


def _rate(state: Mapping[str, Any]) -> float:
    """The learned rate of all, where the treatment's state has one."""
    if "reliability" in state:
        return 1 - float(state["reliability"][0])
    return float(state["missed"][0]) if "missed" in state else float("nan")


def compare_log_file(
    source: str, out: Path, options: InteractionOptions, *, map: Mapping[str, str] | None = None, format: str | None = None,
    max_bad: float = 0.01, at_least: float | None = None, core: int = 0, force: bool = False, dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare on a log in a file; writes compare.json, compare.md and compare.html into `out`, keeping finished blocks in out/.stages.

    at_least, core: what is a like, and how many events a user and an item need (`cupel.interactions.preparing`).
    """
    from cupel.interactions.filters import deduplicated, k_core, positives
    from cupel.interactions.reading import read_log

    need_torch()
    refused = check(options)
    log = deduplicated(positives(read_log(source, map=map, format=format, max_bad=max_bad), at_least))
    log = k_core(log, core, core) if core else log
    if dry_run:
        return planned(options, refused, len(log), "events")
    with kept(out, force) as stages:
        found = compare_log(Path(source).name, log, options, stages=stages, key={"log": _digest(log)}, progress=progress)
        return write_comparison(found, out, log.notes)


def _digest(log: Log) -> str:
    import hashlib

    found = hashlib.sha256("\n".join([*log.users.tolist(), "", *log.items.tolist()]).encode("utf-8", "surrogatepass"))
    found.update(log.user.tobytes())
    found.update(log.item.tobytes())
    return found.hexdigest()
