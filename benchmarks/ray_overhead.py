"""What Ray Data costs on one machine: encoding and near-duplicates of 100,000 texts, in one process and with local workers.

    python benchmarks/ray_overhead.py [--rows 100000] [--workers 2]

Needs `cupel[ray]`. Texts are the arguments of the bundled data, made distinct by a number. Both sides run in turn in one process; the
start of the local Ray is timed apart. What is claimed is that the results are the same; the overhead is stated.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import HERE, arguments, stopwatch, write_result

from cupel.adapters.ray import encode, near_duplicates
from cupel.encode import load_encoder
from cupel.records.near_duplicates import near_duplicates as search


def texts_of(n: int) -> list[str]:
    """n distinct texts: real arguments, every one of them with a number; neighbours in the list are near-duplicates."""
    table = pq.read_table(HERE.parent / "examples" / "data" / "ukp_single.parquet", columns=["chosen", "rejected"])
    real = sorted({text for column in table.column_names for text in table[column].to_pylist()})
    return [f"{real[i % len(real)]} {i // len(real)}" for i in range(n)]


def main() -> None:
    """Measure and write the claims."""
    parser = arguments(__doc__, data=False)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    import ray

    texts = texts_of(args.rows)
    with stopwatch() as start:
        ray.init(num_cpus=args.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=10**9)
        ray.data.DataContext.get_current().enable_progress_bars = False
        dataset = ray.data.from_arrow(pa.table({"row": np.arange(len(texts)), "text": texts})).repartition(4 * args.workers).materialize()
    encoder = load_encoder("static")
    with stopwatch() as here:
        vectors = encoder.encode(texts)
    with stopwatch() as there:
        table = pa.concat_tables(ray.get(encode(dataset, "text", workers=args.workers).to_arrow_refs()))
    order = np.argsort(table["row"].to_numpy())
    same = bool((np.stack(table["vector"].to_numpy())[order] == vectors).all())
    # repartitioning need not keep the order of rows, and near-duplicates are counted in the order of the dataset
    as_it_lies = pa.concat_tables(ray.get(dataset.to_arrow_refs()))["text"].cast(pa.large_string()).combine_chunks()
    with stopwatch() as near_here:
        found = search(pa.concat_arrays(as_it_lies.chunks) if isinstance(as_it_lies, pa.ChunkedArray) else as_it_lies)
    with stopwatch() as near_there:
        other = near_duplicates(dataset, "text", workers=args.workers)
    alike = np.array_equal(found.cluster, other.cluster) and np.array_equal(found.pairs, other.pairs)
    ray.shutdown()
    seconds = {
        "start of a local Ray": start[0], "encode, one process": here[0], "encode, Ray": there[0],
        "near-duplicates, one process": near_here[0], "near-duplicates, Ray": near_there[0],
    }  # fmt: skip
    claims = [
        {"claim": "vectors of Ray's workers are those of one process, byte for byte", "target": "all", "measured": same, "passed": same},
        {"claim": f"near-duplicates ({len(found.pairs):,} pairs) are those of one process", "target": "all", "measured": alike,
         "passed": alike},
    ]  # fmt: skip
    details = {
        "seconds": {name: round(value, 2) for name, value in seconds.items()}, "workers": args.workers,
        "times the wall clock of one process": {"encode": round(there[0] / here[0], 2), "near": round(near_there[0] / near_here[0], 2)},
    }  # fmt: skip
    write_result("ray_overhead", claims, n=len(texts), seeds=[0], command="python benchmarks/ray_overhead.py", details=details)
    for name, value in details["seconds"].items():
        print(f"{name}: {value} s")


if __name__ == "__main__":
    main()
