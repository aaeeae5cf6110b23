"""Import speed on one JSON Lines file: cupel (streamed, at once) against datasets, pandas, and the fastest reader as the bound.

    python benchmarks/import_speed.py [--data DIR] [--rows 100000] [--rounds 3]

The same file for all (rows as in scaling_import.py), each in a fresh process with one thread, taking turns. pandas and datasets parse the
rows into a table; cupel also finds equal texts, makes ids from content, connects rows into groups and splits them. The bound is pyarrow's
JSON reader alone: bytes parsed per CPU-second, nothing else done. Imports of libraries are not counted; datasets begins with an empty
cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, write_result
from scaling_import import SEED, fresh, memory, real_rows, write_rows


def by_pyarrow(path: Path) -> Callable[[], Any]:
    import pyarrow.json as reader

    return lambda: reader.read_json(path, read_options=reader.ReadOptions(use_threads=False, block_size=8 << 20))


def by_pandas(path: Path) -> Callable[[], Any]:
    import pandas as pd

    return lambda: pd.read_json(path, lines=True)


def by_datasets(path: Path) -> Callable[[], Any]:
    sys.path.remove(str(HERE))  # benchmarks/datasets.py is another
    import datasets

    datasets.utils.logging.disable_progress_bar()
    cache = tempfile.mkdtemp()
    return lambda: datasets.load_dataset("json", data_files=str(path), cache_dir=cache, split="train")


def by_stream(path: Path) -> Callable[[], Any]:
    import pandas  # noqa: F401 - which pyarrow imports by itself where it is installed (the base installation does without)

    import cupel.records.stream.importer  # noqa: F401 - imports are not counted
    from cupel.records import read

    return lambda: read(path, stream=True, seed=SEED)


def at_once(path: Path) -> Callable[[], Any]:
    import pandas  # noqa: F401 - as above

    from cupel.records import read

    return lambda: read(path, stream=False, seed=SEED)


WAYS = {"pyarrow": by_pyarrow, "pandas": by_pandas, "datasets": by_datasets, "cupel, streamed": by_stream, "cupel, at once": at_once}


def worker(way: str, path: Path) -> dict[str, float]:
    """Read the file once in this process."""
    run = WAYS[way](path)
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return {
        "rows": len(found), "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
        "resident_mib": memory("VmHWM") / 2**20,
    }  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker[0], Path(options.worker[1]))))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"TMPDIR": place, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_CACHE": place}
        path = Path(place) / "rows.jsonl"
        size = write_rows(real_rows(options.data), options.rows, path)
        for turn in range(options.rounds):
            for way in WAYS:
                seen = fresh(__file__, "--worker", way, str(path))
                assert seen["rows"] > 0.999 * options.rows, (way, seen)  # cupel sets aside what is the same on both sides
                found[way].append(seen)
                print(
                    f"round {turn + 1}, {way}: {seen['cpu']:.2f} CPU-s, {seen['wall']:.2f} s, {seen['resident_mib']:.0f} MiB",
                    file=sys.stderr,
                )
    cpu = {way: np.array([run["cpu"] for run in runs]) for way, runs in found.items()}
    resident = {way: float(np.median([run["resident_mib"] for run in runs])) for way, runs in found.items()}

    def times(other: str, target: float) -> dict[str, Any]:
        ratio = cpu[other] / cpu["cupel, streamed"]
        return {
            "claim": f"streamed import against {other}, times less processor time", "target": f"at least {target}",
            "measured": float(np.median(ratio)), "interval": [float(ratio.min()), float(ratio.max())],
            "passed": bool(ratio.min() >= target),
        }  # fmt: skip

    share = cpu["pyarrow"] / cpu["cupel, streamed"]
    claims = [
        times("datasets", 1.0),
        times("pandas", 1.0),
        times("cupel, at once", 1.0),
        {
            "claim": "streamed import: megabytes per CPU-second (texts numbered, ids, groups, split included)", "target": "at least 20",
            "measured": float(np.median(size / 1e6 / cpu["cupel, streamed"])),
            "interval": [float(x) for x in size / 1e6 / np.sort(cpu["cupel, streamed"])[[-1, 0]]],
            "passed": bool((size / 1e6 / cpu["cupel, streamed"]).min() >= 20),
        },
        {
            "claim": "share of the bound (pyarrow's JSON reader alone) that streamed import reaches", "target": "at least 0.2",
            "measured": float(np.median(share)), "interval": [float(share.min()), float(share.max())], "passed": bool(share.min() >= 0.2),
        },
        {
            "claim": "peak resident memory, pandas over streamed import", "target": "more than 1",
            "measured": resident["pandas"] / resident["cupel, streamed"], "passed": resident["pandas"] > resident["cupel, streamed"],
        },
    ]  # fmt: skip
    details = {
        "bytes": size,
        "interval": "least and greatest of the rounds, not a confidence interval",
        "megabytes_per_cpu_second": {way: size / 1e6 / float(np.median(values)) for way, values in cpu.items()},
        "resident_mib": resident,
        "runs": found,
    }
    command = f"python benchmarks/import_speed.py --rows {options.rows} --rounds {options.rounds}"
    write_result("import_speed", claims, n={"rows": options.rows}, seeds=[SEED], command=command, details=details)


if __name__ == "__main__":
    main()
