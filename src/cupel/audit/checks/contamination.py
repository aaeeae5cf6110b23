"""Texts of a benchmark (`--against`) that occur in the data."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._bytes import normalise
from cupel.audit.checks._table import Table, plain
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.minhash import runs, words
from cupel.records.schema import Votes

NAME = "contamination"
SCOPE: Scope = "row"
COST = 2

WIDTH = 13
_MIN_WORDS = 5
_OVERLAP = 0.5
_PART = 1024  # texts looked for that are hashed at a time


class Overlap:
    """13-word shingles of the texts to look for (the width of Brown et al. 2020, appendix C), and which texts hold half of one."""

    def __init__(self, against: list[str]) -> None:
        normal = [normalise(plain(t)) for t in against]
        self.exact = {t: i for i, t in reversed(list(enumerate(normal))) if t.count(" ") + 1 >= _MIN_WORDS}
        hashes, owner = [], []
        self.size = np.zeros(len(against), dtype=np.int64)
        for start in range(0, len(normal), _PART):
            h, o = self._shingles(normal[start : start + _PART])
            hashes.append(h)
            owner.append(o + start)
        h = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
        o = np.concatenate(owner) if owner else np.zeros(0, dtype=np.int64)
        order = np.lexsort((o, h))
        self._h, self._o = h[order], o[order]
        self.size += np.bincount(o, minlength=len(against))

    def _shingles(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, owner): the *different* shingles of each text that has at least 13 words."""
        hashed, starts = words(pa.array(texts, pa.large_string()))
        hashes, at = runs(hashed, starts, WIDTH)
        owner = np.repeat(np.arange(len(texts)), np.diff(at))
        keep = np.diff(starts)[owner] >= WIDTH
        hashes, owner = hashes[keep], owner[keep]
        order = np.lexsort((hashes, owner))
        hashes, owner = hashes[order], owner[order]
        new = np.ones(len(hashes), dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
        return hashes[new], owner[new]

    def find(self, texts: Table) -> np.ndarray:
        """int64 [len(texts)]: position of a text looked for that each text equals or overlaps by half, -1 for none.

        Overlap = shared 13-word shingles over those of the shorter of the two, so that a question inside a long prompt is found.
        """
        out = np.full(len(texts), -1, dtype=np.int64)
        for start, part in texts.normal_parts():
            if len(self._h):
                self._overlaps(part, out[start : start + len(part)])
            for i, text in enumerate(part):
                equal = self.exact.get(text)
                if equal is not None:
                    out[start + i] = equal
        return out

    def _overlaps(self, texts: list[str], out: np.ndarray) -> None:
        """Fill in the first text looked for that each normalised text overlaps by half."""
        hashes, owner = self._shingles(texts)
        sizes = np.bincount(owner, minlength=len(texts))
        low = np.searchsorted(self._h, hashes, side="left")
        hit = np.flatnonzero(self._h[np.minimum(low, len(self._h) - 1)] == hashes)
        low, high = low[hit], np.searchsorted(self._h, hashes[hit], side="right")
        times = np.minimum(high - low, 50)  # a shingle that more than 50 of them share is boilerplate
        where = np.repeat(low, times) + np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        pair, shared = np.unique(np.repeat(owner[hit], times) * np.int64(len(self.size)) + self._o[where], return_counts=True)
        mine, theirs = pair // max(len(self.size), 1), pair % max(len(self.size), 1)
        for i, j in zip(*(x[shared >= _OVERLAP * np.minimum(sizes[mine], self.size[theirs])] for x in (mine, theirs)), strict=True):
            if out[i] < 0:
                out[i] = j


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows whose prompt or response occurs among the texts to look for: equal after normalising, or sharing half of the
    13-word runs.

    Texts of fewer than 5 words are not looked for, since they occur everywhere. Severity: error from the first row on: a benchmark
    score of a model that saw the question is not a score.
    """
    if context.against is None:
        return not_applicable(NAME, SCOPE, "no file to compare with was given (--against FILE)")
    shared = context.shared(votes)
    overlap = Overlap(list(context.against))
    prompt, response = overlap.find(shared.prompts), overlap.find(shared.responses)
    rows = (prompt >= 0)[shared.prompt] | shared.either(response >= 0)
    n, count = len(votes), int(rows.sum())
    if not count:
        return clean(NAME, SCOPE, n, f"none of {len(context.against):,} texts occurs in the data")
    hit = np.unique(np.concatenate([prompt[prompt >= 0], response[response >= 0]]))
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="error",
        message=(
            f"{count:,} of {n:,} rows ({percent(count / n)}) contain {len(hit):,} of the "
            f"{len(context.against):,} texts compared with "
            f"(in the prompt of {int((prompt >= 0)[shared.prompt].sum()):,} rows)"
        ),
        remedy="--drop contamination",
        details={
            "against": len(context.against),
            "against_found": len(hit),
            "prompts": int((prompt >= 0).sum()),
            "responses": int((response >= 0).sum()),
        },
    )
