"""How long the main job takes and what it needs: the demo from nothing, its second run, and an audit of 60,000 long comparisons.

    python benchmarks/main_job.py [--data DIR] [--rounds 3] [--rows 60000]

Every measurement is a fresh process of the command line with an empty cache and an empty OUT, installed already, on at most two cores.
The first finding is the moment at which the first `warning:`, `error:` or `info:` line stands on standard error. Peak memory is the
largest resident set of the process as the kernel counts it. The long comparisons are real answers of alpaca_eval, from raw text.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import HERE, arguments, write_result

DEMO = HERE.parent / "examples" / "data" / "ukp_votes.parquet"
CORES = 2


class Run(NamedTuple):
    """One process: seconds of wall clock, seconds to its first finding (NaN without one), processor seconds, peak GiB."""

    wall: float
    first: float
    processor: float
    gib: float


def run(arguments: list[str], home: Path) -> Run:
    """`cupel ARGUMENTS` in a fresh process with its cache under `home`; raises where it does not exit 0."""
    began = time.perf_counter()
    first = float("nan")
    words = [sys.executable, "-m", "cupel", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": str(CORES), "TOKENIZERS_PARALLELISM": "true"}
    lines: list[str] = []
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if np.isnan(first) and line.strip().startswith(("warning:", "error:", "info:")):
            first = time.perf_counter() - began
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"cupel {' '.join(arguments)} exited {process.returncode}:\n{''.join(lines[-20:])}")
    return Run(time.perf_counter() - began, first, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def long_comparisons(data: Path, rows: int, path: Path) -> tuple[int, float]:
    """Write `rows` real comparisons of alpaca_eval as JSONL; (rows written, mean tokens of a response)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cupel.encode import load_encoder
    from cupel.records.files import write_lines

    names = ["prompt", "chosen", "rejected"]
    table = pa.concat_tables([pq.read_table(data / "alpaca_eval" / f"pairs_{v}.parquet", columns=names) for v in ("v1", "v2")])
    kept = [row for row in table.to_pylist() if all(row.values())][:rows]
    write_lines(path, kept)
    sample = np.random.default_rng(0).permutation(len(kept))[:2000]
    tokens = load_encoder("static").token_counts([kept[i][side] for i in sample for side in ("chosen", "rejected")])
    return len(kept), float(np.mean(tokens))


def spread(values: list[float]) -> list[float]:
    """Smallest and largest of the rounds."""
    return [round(min(values), 2), round(max(values), 2)]


def main() -> None:
    """Measure and write the claims."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of the demo from nothing")
    parser.add_argument("--rows", type=int, default=60_000, help="long comparisons")
    args = parser.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    cold: list[Run] = []
    warm: list[Run] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            demo = ["refine", str(DEMO), "--map", "group=topic", "--out", str(home / "out"), "--no-progress"]
            cold.append(run(demo, home / "cache"))
            warm.append(run(demo, home / "cache"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        n, tokens = long_comparisons(args.data, args.rows, home / "long.jsonl")
        words = ["audit", str(home / "long.jsonl"), "--out", str(home / "out"), "--max-bad", "0.1", "--no-progress"]
        long = run(words, home / "cache")
    claims = []

    def claim(name: str, values: list[float], limit: float, n: int, unit: str) -> None:
        worst = max(values)
        claims.append({"claim": name, "target": f"at most {limit:g} {unit}", "measured": round(float(np.median(values)), 2),
                       "interval": spread(values), "n": n, "passed": worst <= limit})  # fmt: skip

    claim("demo from nothing, installed (seconds, smallest and largest beside)", [r.wall for r in cold], 120, len(cold), "s")
    claim("its first finding (seconds)", [r.first for r in cold], 10, len(cold), "s")
    claim("its second run (seconds)", [r.wall for r in warm], 20, len(warm), "s")
    claim(f"audit of {n:,} comparisons, {tokens:.0f} tokens a response, from raw text (seconds)", [long.wall], 240, n, "s")
    claim("its peak memory (GiB)", [long.gib], 4, n, "GiB")
    details = {
        "demo_processor_seconds": [round(r.processor, 1) for r in cold],
        "demo_peak_gib": [round(r.gib, 2) for r in cold],
        "long_processor_seconds": round(long.processor, 1),
        "long_first_finding_seconds": round(long.first, 1),
        "cores": CORES,
    }
    command = f"python benchmarks/main_job.py --rounds {args.rounds}"
    write_result("main_job", claims, n=len(cold), seeds=[0], command=command, details=details)


if __name__ == "__main__":
    main()
