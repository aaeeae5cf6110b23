"""The frame of a comparison, of texts or of interactions: blocks that are kept once they are finished, and the files that it writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.stages import ARRAYS, Stages

if TYPE_CHECKING:
    from cupel.compare.result import Comparison
    from cupel.compare.spec import CompareOptions

Progress = Callable[[str, int, int], None]
#: (seed, objective, treatments that are refused under it) -> the arrays of the block
Work = Callable[[int, str, set[str]], dict[str, np.ndarray]]


def run_blocks(
    options: CompareOptions, refused: Sequence[Mapping[str, str]], work: Work, *, stages: Stages | None, key: Mapping[str, Any] | None,
    progress: Progress | None,
) -> dict[tuple[int, str], dict[str, np.ndarray]]:  # fmt: skip
    """{(seed, objective): arrays} of every block, one seed after another; finished ones are kept in `stages` under the content `key`.

    refused: pairs {"objective", "treatment"} that are left out. A block's key holds the options but for the seeds, the objectives and the
    draws of intervals, so that a grid that grows keeps what it has.
    """
    stages = stages or Stages(None)
    asked = {**options.recorded(), "seeds": None, "objectives": None, "draws": None}
    blocks: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    for seed in options.seeds:
        for objective in options.objectives:
            without = {pair["treatment"] for pair in refused if pair["objective"] == objective}
            parts = {**(key or {}), "options": asked, "seed": seed, "objective": objective}
            blocks[seed, objective] = stages.run("compare-block", parts, partial(work, seed, objective, without), ARRAYS)
            if progress:
                progress("compare", len(blocks), len(options.seeds) * len(options.objectives))
    return blocks


def need_cases(options: CompareOptions, where: str) -> None:
    """InputError where the options name no case; where: the function that makes cases."""
    if not options.cases:
        raise InputError(f"there is nothing to compare: the options name no case ({where})")


def planned(options: CompareOptions, refused: Sequence[Mapping[str, str]], n: int, what: str) -> dict[str, Any]:
    """What a dry run says of `n` votes or events: `n_votes` (`n_events`), cells, refused pairs, words."""
    cells = len(options.objectives) * len(options.treatments) * len(options.cases) * len(options.seeds)
    words = [f"{n:,} {what}, {cells:,} cells, {len(refused)} pairs refused. Nothing was written (--dry-run)."]
    return {f"n_{what}": n, "cells": cells, "refused": list(refused), "words": words}


@contextlib.contextmanager
def kept(out: Path, force: bool) -> Iterator[Stages]:
    """The finished blocks in out/.stages, the folder held by this process alone; with force none is kept from before."""
    import shutil

    from cupel.records.files import lock

    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        if force:
            shutil.rmtree(out / ".stages", ignore_errors=True)
        stages = Stages(out / ".stages")
        stages.prune()
        yield stages


def write_comparison(found: Comparison, out: Path, notes: Sequence[str] | None = None) -> dict[str, Any]:
    """Write compare.json (with notes where given), compare.md and compare.html; the JSON with its `words`."""
    from cupel.compare.page import page
    from cupel.compare.table import markdown
    from cupel.records.files import atomic_write, write_json

    report = found.to_json() if notes is None else {**found.to_json(), "notes": list(notes)}
    write_json(out / "compare.json", report)
    for name, text in (("compare.md", markdown(found)), ("compare.html", page(found))):
        with atomic_write(out / name) as temporary:
            temporary.write_text(text, "utf-8")
    return {**report, "words": [*(notes or ()), *found.lines(), f"Written: {out / 'compare.json'}, compare.md, compare.html."]}
