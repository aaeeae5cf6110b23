"""Regenerate the two example files from the votes of UKPConvArg1, byte for byte.

    python examples/make_data.py --data DIR [--out examples/data]

DIR holds `ukp_convarg/votes.parquet` and `ukp_convarg/pairs_strict.parquet`: the crowd votes of UKPConvArg1 (Habernal and Gurevych
2016, CC-BY-4.0) as one row per vote, and the pairs that its authors kept as strictly consistent. The bytes depend on the version of
pyarrow, which `constraints.txt` fixes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEED = 0
VOTE_COLUMNS = ["id", "item_id", "prompt", "response_a", "response_b", "vote", "annotator", "gold"]


def votes_table(votes: pa.Table) -> pa.Table:
    """All votes, one row each, without the written reasons; `topic` names the debate."""
    topics = [json.loads(extra)["topic"] for extra in votes["extra"].to_pylist()]
    return votes.select(VOTE_COLUMNS).append_column("topic", pa.array(topics, pa.string()))


def single_table(votes: pa.Table, strict: pa.Table, seed: int = SEED) -> pa.Table:
    """One random non-tie vote per strict pair in the preference columns of TRL: how most preference files look.

    `consensus` names the side, `chosen` or `rejected`, that the consensus of the crowd prefers on this pair.
    """
    rows_of: dict[str, list[int]] = {pair: [] for pair in strict["id"].to_pylist()}
    for row, (item, vote) in enumerate(zip(votes["item_id"].to_pylist(), votes["vote"].to_pylist(), strict=True)):
        if item in rows_of and vote in ("a", "b"):
            rows_of[item].append(row)
    rng = np.random.default_rng(seed)
    picked = votes.take([int(rng.choice(rows)) for rows in rows_of.values()])
    out: dict[str, list[str]] = {name: [] for name in ("id", "prompt", "chosen", "rejected", "topic", "consensus")}
    better_of = dict(zip(strict["id"].to_pylist(), strict["chosen"].to_pylist(), strict=True))
    for row in picked.to_pylist():
        a_first = row["vote"] == "a"
        chosen, rejected = (row["response_a"], row["response_b"]) if a_first else (row["response_b"], row["response_a"])
        better = better_of[row["item_id"]]
        if better not in (chosen, rejected):
            raise SystemExit(f"pair {row['item_id']}: the strict file and the votes disagree on its texts")
        out["id"].append(row["id"])
        out["prompt"].append(row["prompt"])
        out["chosen"].append(chosen)
        out["rejected"].append(rejected)
        out["topic"].append(json.loads(row["extra"])["topic"])
        out["consensus"].append("chosen" if better == chosen else "rejected")
    return pa.table({name: pa.array(values, pa.string()) for name, values in out.items()})


def write(table: pa.Table, path: Path) -> str:
    """Write one Parquet file (texts as dictionaries, zstd) and return its sha256."""
    repeated = [name for name in table.column_names if name != "id"]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=repeated,
        column_encoding={"id": "DELTA_BYTE_ARRAY"},
        dictionary_pagesize_limit=1 << 24,
        row_group_size=len(table),
    )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Read the source, write both files, print size and sha256 of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory that holds ukp_convarg/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    args = parser.parse_args()
    votes = pq.read_table(args.data / "ukp_convarg" / "votes.parquet")
    strict = pq.read_table(args.data / "ukp_convarg" / "pairs_strict.parquet")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, table in {"ukp_votes.parquet": votes_table(votes), "ukp_single.parquet": single_table(votes, strict)}.items():
        digest = write(table, args.out / name)
        print(f"{name}  {len(table):,} rows  {(args.out / name).stat().st_size:,} bytes  sha256 {digest}")


if __name__ == "__main__":
    main()
