"""How import grows with the file: rows per second, processor time and peak memory of streaming, from ten thousand rows on.

    python benchmarks/scaling_import.py [--data DIR] [--rows 10000 100000 1000000] [--rounds 2]

Rows are real (ukp_convarg votes and gsm8k_solutions pairs as votes); a number at the end of every text makes each repetition of the data
new, so that no text but the prompts of the original recurs: the worst case for finding texts again. Every import is a fresh process with
one thread and ends with ids, groups and the split. Memory is given twice: the largest resident set, in which the kernel also counts pages
of the mapped spool that it could drop, and the largest part of it that belongs to the process alone (anonymous pages, sampled every 10 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, write_result

SEED = 0
COLUMNS = ("prompt", "response_a", "response_b")


def real_rows(data: Path) -> list[dict[str, Any]]:
    """Votes with texts of both sources, in a fixed random order."""
    import pyarrow.parquet as pq

    names = ["prompt", "response_a", "response_b", "vote", "annotator"]
    rows = pq.read_table(data / "ukp_convarg" / "votes.parquet", columns=names).to_pylist()
    pairs = pq.read_table(data / "gsm8k_solutions" / "pairs.parquet", columns=["prompt", "chosen", "rejected"]).to_pylist()
    rows += [
        {"prompt": r["prompt"], "response_a": r["chosen"], "response_b": r["rejected"], "vote": "a", "annotator": "gold"} for r in pairs
    ]
    return [rows[i] for i in np.random.default_rng(SEED).permutation(len(rows))]


def write_rows(rows: list[dict[str, Any]], n: int, path: Path) -> int:
    """n rows as JSON Lines; the texts of every repetition end in its number. Returns the bytes written."""
    head = [json.dumps({k: v for k, v in row.items() if k not in COLUMNS}, ensure_ascii=False)[:-1] for row in rows]
    texts = [[json.dumps(row[k], ensure_ascii=False)[:-1] for k in COLUMNS] for row in rows]
    with open(path, "w", encoding="utf-8", buffering=1 << 22) as file:
        for i in range(n):
            at, turn = i % len(rows), f' {i // len(rows)}"' if i >= len(rows) else '"'
            p, a, b = texts[at]
            file.write(f'{head[at]}, "prompt": {p}{turn}, "response_a": {a}{turn}, "response_b": {b}{turn}}}\n')
    return path.stat().st_size


def memory(name: str) -> int:
    """Bytes of this process: "RssAnon", what no file stands behind now; "VmHWM", the largest resident set since it began."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise SystemExit(f"this system does not tell memory (no {name} in /proc/self/status)")


class Memory(threading.Thread):
    """The largest anonymous memory while the block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._over = 0, threading.Event()

    def run(self) -> None:
        """Look every 10 ms."""
        while not self._over.wait(0.01):
            self.most = max(self.most, memory("RssAnon"))

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def worker(path: Path, stream: bool) -> dict[str, float]:
    """Import the file once in this process."""
    from cupel.records import read

    wall = time.perf_counter()
    with Memory() as seen:
        votes = read(path, stream=stream, seed=SEED)
    return {
        "rows": len(votes), "texts": len(votes.prompts) + len(votes.responses), "wall": time.perf_counter() - wall,
        "cpu": time.process_time(), "resident_mib": memory("VmHWM") / 2**20, "anonymous_mib": seen.most / 2**20,
        "heldout": float((votes.split == 1).mean()),
    }  # fmt: skip


def fresh(script: str, *words: str) -> dict[str, float]:
    """What a script says in a fresh process with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, script, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def slopes(sizes: list[int], values: list[float]) -> Iterator[float]:
    """Exponents between neighbouring sizes."""
    for i in range(len(sizes) - 1):
        yield float(np.log(values[i + 1] / values[i]) / np.log(sizes[i + 1] / sizes[i]))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=None, help="where files and spools go (needs about 2.5 KB per row)")
    parser.add_argument("--worker", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(Path(options.worker[0]), options.worker[1] == "stream")))
        return
    rows, found = real_rows(options.data), {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        os.environ["TMPDIR"] = place
        for n in options.rows:
            path = Path(place) / f"{n}.jsonl"
            size = write_rows(rows, n, path)
            for turn in range(options.rounds if n <= 1_000_000 else 1):
                for way in ("stream", "once") if n <= 200_000 else ("stream",):
                    seen = {**fresh(__file__, "--worker", str(path), way), "bytes": size}
                    found.setdefault((way, n), []).append(seen)
                    print(f"{n:>10,} rows, {way}, round {turn + 1}: {seen['cpu']:.1f} CPU-s, {seen['wall']:.1f} s, "
                          f"{seen['anonymous_mib']:.0f} MiB own, {seen['resident_mib']:.0f} MiB resident", file=sys.stderr)  # fmt: skip
            path.unlink()
    best = {key: min(runs, key=lambda run: run["cpu"]) for key, runs in found.items()}
    sizes = [n for n in options.rows if n >= 100_000]
    cpu = [best["stream", n]["cpu"] for n in sizes]
    start = best["stream", min(sizes)]
    exponents = list(slopes(sizes, cpu))
    last = best["stream", max(sizes)]
    grown = (last["anonymous_mib"] - start["anonymous_mib"]) * 2**20 / (last["rows"] - start["rows"])
    claims = [
        {
            "claim": f"streamed import, exponent of processor time from {sizes[0]:,} to {sizes[-1]:,} rows", "target": "at most 1.05",
            "measured": max(exponents), "interval": [min(exponents), max(exponents)], "passed": max(exponents) <= 1.05,
        },
        {
            "claim": f"streamed import, rows per CPU-second at {last['rows']:,} rows, every text new", "target": "at least 20,000",
            "measured": last["rows"] / last["cpu"], "passed": last["rows"] / last["cpu"] >= 20_000,
        },
        {
            "claim": f"streamed import, bytes of own memory per further row from {sizes[0]:,} on",
            "target": "at most 100 (a row has some 740 in the file)",
            "measured": grown, "passed": grown <= 100,
        },
    ]  # fmt: skip
    if ("once", 100_000) in best:
        ratio = best["once", 100_000]["anonymous_mib"] / best["stream", 100_000]["anonymous_mib"]
        claims.append(
            {"claim": "own memory of reading 100,000 rows at once against streaming, times", "target": "more than 1", "measured": ratio,
             "passed": ratio > 1}
        )  # fmt: skip
    details = {
        "interval": "exponents between neighbouring sizes, least and greatest; not a confidence interval",
        "runs": {f"{way}, {n} rows": runs for (way, n), runs in sorted(found.items())},
    }
    command = f"python benchmarks/scaling_import.py --rows {' '.join(map(str, options.rows))} --rounds {options.rounds}"
    write_result("scaling_import", claims, n={"rows": options.rows}, seeds=[SEED], command=command, details=details)


if __name__ == "__main__":
    main()
