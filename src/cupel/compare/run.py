"""The comparison of texts, block by block: a block is one seed and one objective with all its treatments, cases and ridges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cupel.compare import data as d
from cupel.compare.blocks import Progress, kept, need_cases, planned, run_blocks, write_comparison
from cupel.compare.corruptions import KINDS, difficulties, plant
from cupel.compare.result import REFUSED, About, Comparison, assemble
from cupel.compare.select import noisy_losses, row_losses, tuned
from cupel.compare.spec import CLEAN, CompareOptions, check, need_torch, objective_of, treatment_of
from cupel.errors import InputError
from cupel.stages import ARRAYS, Stages


def compare(
    data: d.Data, options: CompareOptions, *, stages: Stages | None = None, key: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Comparison:  # fmt: skip
    """The survival table of one data set. Finished blocks are kept in `stages` under the content `key` of the data.

    Raises InputError where torch is missing, where the grid makes no sense, or where the data cannot be split.
    """
    need_torch()
    refused = check(options)
    need_cases(options, "cupel.compare.spec.cases_of")
    stages = stages or Stages(None)
    hard: np.ndarray | None = None
    if any(KINDS[case.corruption].hard for case in options.cases):
        hard = stages.run("compare-difficulty", dict(key or {}), lambda: {"value": difficulties(data, 0)}, ARRAYS)["value"]

    @lru_cache(maxsize=1)  # blocks of one seed follow each other
    def of_seed(seed: int) -> _Seed:
        return _Seed(data, options, seed, hard)

    def work(seed: int, objective: str, without: set[str]) -> dict[str, np.ndarray]:
        return of_seed(seed).block(objective, without)

    blocks = run_blocks(options, refused, work, stages=stages, key=key, progress=progress)
    return assemble(_about(data, options), options, blocks, refused)


def _about(data: d.Data, options: CompareOptions) -> About:
    """The data in words."""
    judged = "the recorded labels before anything was planted" if data.truth is None else "the truth that the data has"
    method = (
        f"Seeds {', '.join(map(str, options.seeds))}; each tests one of {options.parts} parts of the groups, and "
        f"{100 * options.validation:g} % of the rest tune the ridge with labels as corrupt as the training labels."
    )
    return About(data.name, len(data.votes), data.group, judged, method=method)


class _Seed:
    """What all blocks of one seed share: the split, the space and the labels of every case."""

    def __init__(self, data: d.Data, options: CompareOptions, seed: int, hard: np.ndarray | None) -> None:
        from cupel.compare.heads import Rows, Schedule, Space
        from cupel.learners.sides import RawSides, Scaling

        self.data, self.options, self.seed = data, options, seed
        self.split = split = d.split(data, seed, options.parts, options.validation, options.folds)
        sides = data.sides
        used = np.union1d(sides.first[split.train], sides.second[split.train])
        inside = RawSides(sides.embedding[used], sides.facts[used], sides.length[used], sides.first, sides.second)
        features = Scaling.fit(inside).apply(sides.embedding, sides.facts)
        self.space = Space.of(features, data.words, sides.first[split.train], sides.second[split.train])
        self.planted = [plant(data, case, seed, hard) for case in (*options.cases, CLEAN)]
        self.rows = Rows(
            *self._oriented(split.train), weight=data.votes.w[split.train], fold=split.fold,
            annotator=np.stack([p.annotator[split.train] for p in self.planted]), annotators=tuple(p.annotators for p in self.planted),
            group=np.unique(data.group[split.train], return_inverse=True)[1].reshape(-1),
        )  # fmt: skip
        self.ridges = np.array(sorted({1.0 / len(split.train), *options.ridges}))
        self.default = int(np.argmin(np.abs(self.ridges - 1.0 / len(split.train))))
        self.schedule = Schedule(options.steps, options.warm, options.refresh)

    def _oriented(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recorded winner and loser of rows under every case, int [J, n]."""
        first, second = self.data.sides.first[rows], self.data.sides.second[rows]
        up = np.stack([p.sign[rows] > 0 for p in self.planted])
        return np.where(up, first, second), np.where(up, second, first)

    def _longer(self, rows: np.ndarray) -> np.ndarray:
        """Whether the longer side is the better one of each row, in {0, 1/2, 1}."""
        sides = self.data.sides
        return 0.5 + 0.5 * np.sign((sides.length[sides.first] - sides.length[sides.second]) * self.data.reference)[rows]

    def block(self, objective_text: str, refused: set[str]) -> dict[str, np.ndarray]:
        """Hits on test rows (0 wrong, 1 undecided, 2 right), noisy validation losses, ridges and flip rates of one objective."""
        from cupel.compare.heads import crossfits, margins, train

        objective, treatments = objective_of(objective_text), self.options.treatments
        cases, test, validation = len(self.options.cases), self.split.test, self.split.validation
        first, second = self.data.sides.first, self.data.sides.second
        truth = self.data.reference[test]
        noisy = np.stack([p.sign[validation] for p in self.planted])  # [J + 1, n_val]
        out = {
            "hits": np.full((len(treatments), cases, len(test)), REFUSED, dtype=np.uint8),
            "losses": np.full((len(treatments), cases, len(validation)), np.nan, dtype=np.float32),
            "ridge": np.full((len(treatments), cases), np.nan), "flip_rate": np.full((len(treatments), cases), np.nan),
            "diverged": np.zeros(len(treatments), dtype=np.int64), "test": test, "validation": validation,
            "planted": np.array([p.share for p in self.planted[:-1]]), "beside": self._longer(test),
        }  # fmt: skip
        for t, text in enumerate(treatments):
            if text in refused:
                continue
            treatment = treatment_of(text)
            count = cases + 1 if t == 0 else cases  # clean labels are trained on plainly only
            found = train(self.space, self.rows.take(slice(0, count)), objective, treatment, self.ridges, self.schedule)
            inner = margins(self.space, objective, found, first[validation], second[validation]) * noisy[:count, None]
            outer = margins(self.space, objective, found, first[test], second[test]) * truth
            fine = np.asarray(np.isfinite(inner).all(axis=-1) & np.isfinite(outer).all(axis=-1))  # [J, R]
            out["diverged"][t] = int((~fine).sum())
            losses = row_losses(np.where(fine[..., None], inner, 0.0))
            if found.evidence is not None and by_annotator(treatment.settings):
                self._knowing_who(losses, inner, found.evidence.numpy())
            chosen = tuned(np.where(fine, losses.mean(axis=-1), np.inf), self.ridges)
            hits = np.where(fine[..., None], 1 + np.sign(outer), 1).astype(np.uint8)
            at = np.arange(count)
            out["hits"][t], out["losses"][t] = hits[at, chosen][:cases], losses[at, chosen][:cases]
            out["ridge"][t] = self.ridges[chosen[:cases]]
            if t == 0:
                out["untuned"], out["clean"] = hits[:cases, self.default], hits[cases, chosen[cases]]
                out["clean_ridge"] = self.ridges[chosen[cases:]]
            for j in range(cases):
                if t == 0:
                    out["flip_rate"][t, j] = _rate(inner[j, chosen[j]])
                elif crossfits(treatment) and found.evidence is not None:
                    out["flip_rate"][t, j] = _rate(found.evidence[j, chosen[j]].numpy())
        return out

    def _knowing_who(self, losses: np.ndarray, inner: np.ndarray, evidence: np.ndarray) -> None:
        """Validation losses [J, R, n_val] under the flip rates of annotators that training rows show (cross-fitted evidence [J, R, n]);
        left as they are where annotators are unknown or their rates are not identified."""
        from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate

        for j, r in np.ndindex(*evidence.shape[:2]):
            planted = self.planted[j]
            who = np.where(planted.annotator < 0, len(planted.annotators), planted.annotator)
            if not planted.annotators or not np.isfinite(evidence[j, r]).all():
                continue
            try:
                fit = estimate_flip_rate(evidence[j, r].astype(np.float64), who[self.split.train], largest_error=1.0)
            except NotIdentifiableError:
                continue
            rate = np.full(len(planted.annotators) + 1, fit.rate)
            known = np.flatnonzero(~np.isnan(fit.by_annotator))
            rate[known] = fit.by_annotator[known]
            losses[j, r] = noisy_losses(inner[j, r], rate[who[self.split.validation]])


def by_annotator(settings: Mapping[str, Any]) -> bool:
    """Whether a treatment (or one of a chain) keeps a rate per annotator.

    >>> by_annotator({"0.em/by": "annotator"}), by_annotator({"by": "all"})
    (True, False)
    """
    return any(key.split("/")[-1] == "by" and value == "annotator" for key, value in settings.items())


def _rate(margin: np.ndarray) -> float:
    """Flip rate read from margins of labels that the head did not see, rate and slope jointly; NaN where they do not identify it."""
    from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate

    if not np.isfinite(margin).all():
        return float("nan")
    try:
        return estimate_flip_rate(margin.astype(np.float64)).rate
    except NotIdentifiableError:
        return float("nan")


def compare_file(
    source: str, out: Path, options: CompareOptions, *, map: Mapping[str, str] | None = None, format: str | None = None,
    max_bad: float = 0.01, encoder: str = "static", device: str = "cpu", allow_download: bool = False, sample: int | None = None,
    cache: str | None = None, seed: int = 0, force: bool = False, dry_run: bool = False, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare on a file; writes compare.json, compare.md and compare.html into `out`, keeping finished blocks in out/.stages.

    sample: use about N votes (whole groups), chosen by `seed`. Returns the summary for the screen: the JSON and its words.
    """
    from cupel.encode import load_encoder
    from cupel.learners.sides import raw_sides
    from cupel.records.corrupt import gold
    from cupel.records.files import sha256_file
    from cupel.records.reading import read

    need_torch()
    refused = check(options)
    if source != "-" and not Path(source).exists():
        raise InputError(f"there is no file {source}. Give a path to preferences (JSONL, JSON, CSV, Parquet, .gz of them).")
    votes = read(source, map=map, format=format, max_bad=max_bad, heldout=0)
    votes = votes if sample is None else votes.take(sampled(votes.group, sample, seed))
    if dry_run:
        return planned(options, refused, len(votes), "votes")
    loaded = load_encoder(encoder, device=device, allow_download=allow_download)
    truth = gold(votes)
    sides = raw_sides(votes, loaded, cache=cache)
    data = d.prepare(Path(source).name, votes, sides, truth if truth.any() else None)
    with kept(out, force) as stages:
        content = None if source == "-" or Path(source).is_dir() else sha256_file(Path(source))
        key = {
            "input": content, "ids": _digest(votes.ids), "map": dict(map or {}), "format": format, "encoder": loaded.hash,
            "sample": sample, "seed": seed,
        }  # fmt: skip
        return write_comparison(compare(data, options, stages=stages, key=key, progress=progress), out)


def sampled(group: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of about `count` rows, whole groups, chosen by the seed, in the order of the rows.

    >>> sampled(np.array([0, 0, 1, 1, 2, 2]), 4, seed=0).tolist() in ([0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5])
    True
    """
    if count < 1:
        raise InputError(f"--sample {count}: give a number of votes of at least 1")
    label, index, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 15]).permutation(len(label))
    enough = int(np.searchsorted(np.cumsum(size[order]), count)) + 1
    return np.flatnonzero(np.isin(index.reshape(-1), order[:enough]))


def _digest(ids: Any) -> str:
    import hashlib

    return hashlib.sha256("\n".join(ids.to_pylist()).encode("utf-8", "surrogatepass")).hexdigest()
