"""Which comparisons an optimiser step holds, in which order: a pure function of seed, epoch and step, so that resumed runs see the same.

Comparisons of one prompt stand together, because its tokens and those of shared responses are then computed once; prompts and, within a
prompt, comparisons are in random order. A step is `batch_size` consecutive comparisons; micro-batches cut it by tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """Comparisons of one micro-batch on one process: rows, and whether they count (a filler keeps processes in step, at weight 0)."""

    rows: np.ndarray
    counts: bool = True


def epoch_order(prompt: np.ndarray, source: np.ndarray, shares: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """Rows of an epoch, in order: of each data set the share that an epoch takes, without replacement, prompts kept together.

    prompt, source: int [n] prompt and data set of each comparison; shares: for each data set, in (0, 1].

    >>> epoch_order(np.array([0, 1, 0, 2]), np.zeros(4, int), [1.0], seed=0, epoch=0).tolist()
    [3, 0, 2, 1]
    """
    rng = np.random.default_rng([seed, epoch, 7])
    rows = []
    for n, share in enumerate(shares):
        mine = np.flatnonzero(source == n)
        take = taken(len(mine), share)
        rows.append(mine if take == len(mine) else np.sort(rng.permutation(mine)[:take]))
    chosen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    chosen = chosen[rng.permutation(len(chosen))]
    names, at = np.unique(prompt[chosen], return_inverse=True)
    return chosen[np.argsort(rng.permutation(len(names))[at], kind="stable")]


def taken(n: int, share: float) -> int:
    """Rows of a data set of n that an epoch takes: at least one of a set that has any.

    >>> taken(10, 1.0), taken(10, 0.25), taken(10, 0.01), taken(0, 0.5)
    (10, 2, 1, 0)
    """
    return n if share >= 1 or not n else max(1, round(share * n))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Optimiser steps of n comparisons; the last one may be smaller."""
    return -(-n // batch_size)


def parts_of(rows: np.ndarray, prompt: np.ndarray, cost: np.ndarray, prompt_cost: np.ndarray, budget: int, ranks: int) -> list[list[Part]]:
    """Micro-batches of a step for each process: the same number on all, each of at most `budget` tokens where comparisons allow it.

    rows int [n] of the step; prompt, cost: prompt of every comparison of the data and tokens of its responses; prompt_cost: tokens of
    every prompt. Tokens of a prompt count once in a micro-batch. Longer comparisons stand together, so that padding, where a layout has
    any, is small. Where there are fewer micro-batches than processes, a filler of weight 0 keeps them in step.
    """
    order = rows[np.lexsort((rows, prompt[rows], _longest(rows, prompt, cost)))][::-1]
    packed: list[list[int]] = []
    used, inside = 0, -1
    for row in order.tolist():
        size = int(cost[row]) + (0 if prompt[row] == inside else int(prompt_cost[prompt[row]]))
        if not packed or used + size > budget:
            packed.append([])
            used, size = 0, int(cost[row]) + int(prompt_cost[prompt[row]])
        packed[-1].append(row)
        used, inside = used + size, int(prompt[row])
    while len(packed) % ranks and any(len(part) > 1 for part in packed):
        largest = max(range(len(packed)), key=lambda n: (len(packed[n]), -n))
        part = packed[largest]
        packed[largest : largest + 1] = [part[: len(part) // 2], part[len(part) // 2 :]]
    parts = [Part(np.array(part, np.int64)) for part in packed]
    parts += [Part(parts[0].rows[:1], counts=False)] * (-len(parts) % ranks)
    return [parts[rank::ranks] for rank in range(ranks)]


def _longest(rows: np.ndarray, prompt: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """For each row, the largest cost among the rows of its prompt: whole prompts are sorted by it."""
    _, at = np.unique(prompt[rows], return_inverse=True)
    most = np.zeros(int(at.max()) + 1 if len(at) else 0, cost.dtype)
    np.maximum.at(most, at, cost[rows])
    return most[at]
