"""Ranking every item for every user: time per user, memory, growth with users and items, and the distance from the bound of the products.

    python benchmarks/full_ranking.py [--users 1024] [--all]

`Index.search` on random vectors (d = 64, k = 20, one thread; 32 items left out per user), exact: all scores are computed, 1,024 users
against 8,192 items at a time. The bound is that of the products alone, 2 d U I operations at the speed of this machine's matrix product
(float32, measured on blocks of the same shape in the same process). Only --users of the users are ranked, and the time for all is their
time per user times U: users are independent, which two numbers of users check; --all ranks all 10^5 among 10^5 items. On a machine that
others use, the speed of the product varies between processes, and with it the bound. Memory is the largest resident size of a process of
its own, less what it had with tables and index loaded.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from common import arguments, write_result

DIM, K, SEEN = 64, 20, 32
ITEMS, USERS = (10_000, 20_000, 50_000, 100_000), (10_000, 100_000)


def measure(users: int, items: int, ranked: int, seed: int) -> dict[str, float]:
    """CPU-seconds of the search and of the products alone for `ranked` users of an index of users x items, and megabytes."""
    import torch

    from cupel.interactions.log import Rows
    from cupel.learners.recommenders.index import Index

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    draw = torch.Generator().manual_seed(seed)
    seen = Rows(np.arange(users + 1) * SEEN, rng.integers(0, items, users * SEEN).astype(np.int32), np.arange(users * SEEN))
    index = Index(
        torch.randn(users, DIM, generator=draw), torch.randn(items, DIM, generator=draw), torch.randn(items, generator=draw) * 0.1,
        np.arange(users).astype(str), np.arange(items).astype(str), seen,
    )  # fmt: skip
    asked = rng.choice(users, ranked, replace=False)
    index.search(asked[:64], K, seen=seen)  # the first call loads code
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    index.search(asked, K, seen=seen)
    spent, after = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    query, table = index.user[torch.from_numpy(asked[:1024])], index.item[:8192].T.contiguous()
    blocks = max(1, round(2e10 / (2 * DIM * len(query) * table.shape[1])))
    _ = query @ table
    began = time.process_time()
    for _ in range(blocks):
        _ = query @ table
    product = (time.process_time() - began) / (blocks * len(query) * table.shape[1])
    return {
        "seconds_per_user": spent / ranked, "products_per_user": product * items, "gflops": 2 * DIM / product / 1e9,
        "megabytes": (after - before) / 1024, "tables_megabytes": (users + items) * DIM * 4 / 2**20,
        "all_scores_megabytes": users * items * 4 / 2**20,
    }  # fmt: skip


def apart(*arguments: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    found = subprocess.run([sys.executable, __file__, "--one", *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def slope(x: list[float], y: list[float]) -> float:
    """Exponent of growth: the slope of log y on log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def main() -> None:
    """Measure every size and write benchmarks/results/full_ranking.json."""
    parser = arguments(__doc__, data=False)
    parser.add_argument("--users", type=int, default=1024, help="users that are ranked at each size")
    parser.add_argument("--all", action="store_true", help="also rank all 100,000 users, some minutes")
    parser.add_argument("--one", type=int, nargs=4, help="users, items, ranked, seed: measure this and print it")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    rows: list[dict[str, Any]] = [
        {"users": 10_000, "items": items, "ranked": given.users, **apart(10_000, items, given.users, 0)} for items in ITEMS
    ]
    largest: list[dict[str, Any]] = [
        {"users": 100_000, "items": 100_000, "ranked": ranked, **apart(100_000, 100_000, ranked, 1)}
        for ranked in (given.users, 4 * given.users, *([100_000] if given.all else []))
    ]
    for row in (*rows, *largest):
        row["all_users_seconds"] = row["seconds_per_user"] * row["users"]
        print({key: round(value, 5) for key, value in row.items()}, flush=True)
    by_items = slope([row["items"] for row in rows], [row["seconds_per_user"] for row in rows])
    more, most, everyone = largest[0], largest[1], largest[-1]
    ratio = more["seconds_per_user"] / most["seconds_per_user"]
    gap = everyone["seconds_per_user"] / everyone["products_per_user"]
    how = "" if given.all else " (extrapolated)"
    claims = [
        {"claim": "100,000 x 100,000: memory of the search beyond the tables", "target": "<= 500 MB", "measured": everyone["megabytes"],
         "passed": everyone["megabytes"] <= 500},
        {"claim": "memory at 4 times as many users ranked, 100,000 items", "target": "<= 1.2 times",
         "measured": most["megabytes"] / max(more["megabytes"], 1e-9), "passed": most["megabytes"] <= 1.2 * more["megabytes"]},
        {"claim": "time per user grows with items", "target": "exponent <= 1.1", "measured": by_items, "passed": by_items <= 1.1},
        {"claim": "time per user at 1,024 users against 4,096", "target": "0.8 to 1.25", "measured": ratio, "passed": 0.8 <= ratio <= 1.25},
        {"claim": "100,000 items: time over that of the products alone", "target": "<= 2.5", "measured": gap, "passed": gap <= 2.5},
        {"claim": f"100,000 x 100,000, all users{how}", "target": "<= 300 CPU-seconds", "measured": everyone["all_users_seconds"],
         "passed": everyone["all_users_seconds"] <= 300},
    ]  # fmt: skip
    details = {
        "sizes": [*rows, *largest],
        "exponent_items": by_items,
        "extrapolated": "time of all users is time per ranked user times users",
    }
    write_result("full_ranking", claims, n=everyone["ranked"], seeds=[0, 1], command="python benchmarks/full_ranking.py", details=details)


if __name__ == "__main__":
    main()
