"""How import grows with the file: rows per second, processor time and peak memory of streaming, from ten thousand rows on.

    python benchmarks/scaling_import.py [--data DIR] [--rows 10000 100000 1000000] [--rounds 2]
    python benchmarks/scaling_import.py --rows 100000 1000000 10000000 --row-bytes 2000 --convert kto --name scaling_import_20gb

Rows are real (ukp_convarg votes and gsm8k_solutions pairs as votes); a number at the end of every text makes each repetition of the data
new, so that no text but the prompts of the original recurs: the worst case for finding texts again. Every import is a fresh process with
one thread and ends with ids, groups and the split. Memory is given twice: the largest resident set, in which the kernel also counts pages
of the mapped spool that it could drop, and the largest part of it that belongs to the process alone (anonymous pages, sampled every 10 ms).

`--row-bytes` lengthens rows to that many bytes by joining the texts of rows that follow one another: 10^7 rows of 2,000 bytes are 20 GB.
`--convert` writes the votes in another format too, part by part, in the same process; the split is looked over for leaks before.
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


def lengthened(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The rows with the texts of those after them joined to their own until a row has about `size` bytes."""
    lengths = np.array([len(json.dumps(row, ensure_ascii=False).encode()) for row in rows])
    ends = np.concatenate([[0], np.cumsum(np.concatenate([lengths, lengths]))])
    out = []
    for i, row in enumerate(rows):
        last = max(int(np.searchsorted(ends, ends[i] + size)), i + 1)
        joined = [rows[k % len(rows)] for k in range(i, min(last, i + len(rows)))]
        out.append({**row, **{name: "\n\n".join(r[name] for r in joined) for name in COLUMNS}})
    return out


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


def leaks(votes: Any) -> int:
    """Prompts that are on both sides of the split."""
    sides = np.zeros((2, len(votes.prompts)), dtype=bool)
    for side in (0, 1):
        sides[side][votes.prompt[votes.split == side]] = True
    return int((sides[0] & sides[1]).sum())


def worker(path: Path, stream: bool, to: str) -> dict[str, float]:
    """Import the file once in this process, and convert it where asked."""
    from cupel.records import read
    from cupel.records.stream import convert_stream

    wall = time.perf_counter()
    more: dict[str, float] = {}
    with Memory() as seen:
        votes = read(path, stream=stream, seed=SEED)
        read_cpu, read_wall = time.process_time(), time.perf_counter() - wall
        if to:
            more["leaking_prompts"] = leaks(votes)
            more["rows_out"] = convert_stream(votes, path.with_suffix(".out.jsonl"), to)[0]
            more["convert_cpu"] = time.process_time() - read_cpu
            more["convert_bytes"] = path.with_suffix(".out.jsonl").stat().st_size
            path.with_suffix(".out.jsonl").unlink()
    return {
        **more,
        "rows": len(votes), "texts": len(votes.prompts) + len(votes.responses), "wall": read_wall,
        "cpu": read_cpu, "resident_mib": memory("VmHWM") / 2**20, "anonymous_mib": seen.most / 2**20,
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
    parser.add_argument("--row-bytes", type=int, default=0, help="lengthen rows to this many bytes")
    parser.add_argument("--convert", default="", help="write the votes in this format too")
    parser.add_argument("--name", default="scaling_import", help="name of the result")
    parser.add_argument("--scratch", type=Path, default=None, help="where files and spools go (three to four times the file)")
    parser.add_argument("--worker", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(Path(options.worker[0]), options.worker[1] == "stream", options.worker[2])))
        return
    if sum(n >= 100_000 for n in options.rows) < 2:
        parser.error("--rows needs two sizes from 100,000 on: growth is measured between them")
    rows, found = real_rows(options.data), {}
    if options.row_bytes:
        rows = lengthened(rows, options.row_bytes)
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        os.environ["TMPDIR"] = place
        for n in options.rows:
            path = Path(place) / f"{n}.jsonl"
            size = write_rows(rows, n, path)
            for turn in range(options.rounds if n <= 1_000_000 else 1):
                for way in ("stream", "once") if n <= 200_000 and not options.row_bytes else ("stream",):
                    seen = {**fresh(__file__, "--worker", str(path), way, options.convert), "bytes": size}
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
            "target": f"at most 100 (a row has some {last['bytes'] / last['rows']:.0f} in the file)",
            "measured": grown, "passed": grown <= 100,
        },
    ]  # fmt: skip
    if ("once", 100_000) in best:
        ratio = best["once", 100_000]["anonymous_mib"] / best["stream", 100_000]["anonymous_mib"]
        claims.append(
            {"claim": "own memory of reading 100,000 rows at once against streaming, times", "target": "more than 1", "measured": ratio,
             "passed": ratio > 1}
        )  # fmt: skip
    if options.convert:
        rate = last["rows"] / last["convert_cpu"]
        claims += [
            {"claim": f"own memory of import and conversion, {last['rows']:,} rows in {last['bytes'] / 1e9:.1f} GB, GiB",
             "target": "at most 4", "measured": last["anonymous_mib"] / 1024, "passed": last["anonymous_mib"] <= 4096},
            {"claim": f"conversion to {options.convert} part by part, rows per CPU-second", "target": "at least 5,000", "measured": rate,
             "passed": rate >= 5_000},
            {"claim": "prompts on both sides of the split", "target": "0", "measured": last["leaking_prompts"],
             "passed": last["leaking_prompts"] == 0},
        ]  # fmt: skip
    details = {
        "interval": "exponents between neighbouring sizes, least and greatest; not a confidence interval",
        "runs": {f"{way}, {n} rows": runs for (way, n), runs in sorted(found.items())},
    }
    command = f"python benchmarks/scaling_import.py --rows {' '.join(map(str, options.rows))} --rounds {options.rounds}"
    if options.row_bytes or options.convert:
        command += f" --row-bytes {options.row_bytes} --convert {options.convert or repr('')} --name {options.name}"
    write_result(options.name, claims, n={"rows": options.rows}, seeds=[SEED], command=command, details=details)


if __name__ == "__main__":
    main()
