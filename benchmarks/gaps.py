"""What the fast paths could at best reach, and how far from it they are: one table from the results, for benchmarks/README.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Details = Mapping[str, Any]


def _votes(d: Details) -> tuple[float, float]:
    return 1.0, d["nanoseconds per vote, counting"]


def _head(d: Details) -> tuple[float, float]:
    return d["methods"]["bound"]["cpu"], d["methods"]["cupel"]["cpu"]


def _reading(d: Details) -> tuple[float, float]:
    return d["megabytes_per_cpu_second"]["pyarrow"], d["megabytes_per_cpu_second"]["cupel, streamed"]


def _groups(d: Details) -> tuple[float, float]:
    found = d["groups of 8"]
    return found["bound"], found["seconds"]["pair rows"] / found["seconds"]["auto"]


def _triplets(d: Details) -> tuple[float, float]:
    return d["million_triplets_per_second_at_the_bound"], d["million_triplets_per_cpu_second"]["BPR"]


def _ranking(d: Details) -> tuple[float, float]:
    found = max((size for size in d["sizes"] if size["items"] == 100_000), key=lambda size: size["ranked"])
    return 1e6 * found["products_per_user"], 1e6 * found["seconds_per_user"]


#: result, what is done, unit, what bounds it, (bound, measured) out of the details
GAPS: tuple[tuple[str, str, str, str, Callable[[Details], tuple[float, float]]], ...] = (
    (
        "bradley_terry", "count a vote", "ns",
        "9 bytes of a vote are read once, 1 ns at 10 GB/s; the rest makes one key of the two items and adds to a table of 1.6 MB", _votes,
    ),
    (
        "head_speed", "train a head on 10^6 comparisons of cached vectors", "CPU s",
        "copying both rows of each comparison out of the file once per pass, as any minibatch method on them must", _head,
    ),
    ("import_speed", "import JSON lines", "MB per CPU s", "pyarrow's JSON reader alone: no ids, no checks, no split", _reading),
    (
        "policy_step", "a step on 8 responses of a prompt, all pairs: times faster than rows of pairs", "x",
        "operations: prompt and responses once each instead of once per pair", _groups,
    ),
    (
        "recsys_cost", "train matrix factorisation on triplets, 64 columns", "million per CPU s",
        "memory: three rows of 256 bytes are read and three written, at the measured rate of random rows; what is lost are the passes of "
        "a general objective over rows that a fused kernel holds in registers", _triplets,
    ),
    (
        "full_ranking", "rank 100,000 items for a user", "us", "the products of the user's vector with all items; the rest keeps the best",
        _ranking,
    ),
)  # fmt: skip


def gaps(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table: what, bound, measured, gap, why; of the results there are."""
    by_name = {result["name"]: result["details"] for result in results}
    rows = []
    for name, what, unit, why, read in GAPS:
        if name in by_name:
            bound, found = read(by_name[name])
            said = (f"{x:,.0f} {unit}" if x >= 1000 else f"{x:.3g} {unit}" for x in (bound, found))
            rows.append([what, *said, f"{max(bound / found, found / bound):.2g}", why, name])
    return rows
