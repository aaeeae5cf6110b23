"""Near-duplicates: texts per second, memory, recall and precision against datasketch, rensa and the exact pairs.

    python benchmarks/near_duplicates.py [--data DIR] [--texts 10000 100000 1000000] [--quality 20000] [--rounds 2]

Texts are made of real sentences (hh_harmless, ukp_convarg, gsm8k_solutions, dove), three to eight at random each; a fifth are copies of an
earlier text with words replaced, one to a fifth of all, so that similarities around the bar of .8 abound. Shingles are runs of 5 words.
Exact pairs: all pairs of the first texts, from the product of the sparse sets. datasketch 2.0.0 and rensa 0.5.0 (neither is a dependency;
install both to run this) get the same word shingles as sets of strings, 64 permutations in 16 bands of 4, and keep candidates whose
estimated similarity is .8. Every measurement is a fresh process with one thread; processor time counts everything from texts to pairs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import arguments, write_result
from scaling_import import Memory, fresh, memory, slopes

SEED, WORDS, BAR = 0, 5, 0.8
SOURCES = {
    "hh_harmless": ("pairs*.parquet", ("chosen", "rejected")),
    "ukp_convarg": ("votes.parquet", ("response_a", "response_b")),
    "gsm8k_solutions": ("pairs.parquet", ("chosen", "rejected")),
    "dove": ("*.parquet", ("chosen", "rejected", "response_a", "response_b")),
}


def sentences(data: Path) -> list[str]:
    """Real sentences of at least six words, each once, sorted."""
    import re

    import pyarrow.parquet as pq

    found: set[str] = set()
    for name, (pattern, columns) in SOURCES.items():
        for file in sorted((data / name).glob(pattern)):
            table = pq.read_table(file)
            for column in set(columns) & set(table.column_names):
                for text in table[column].unique().to_pylist():
                    found.update(s.strip() for s in re.split(r"(?<=[.!?])\s+", text or "") if len(s.split()) >= 6)
    return sorted(found)


def make(data: Path, n: int) -> pa.Array:
    """n texts; every fifth is an edited copy of an earlier one."""
    pool = sentences(data)
    words = [s.split() for s in pool]
    rng = np.random.default_rng(SEED)
    out: list[str] = []
    for i in range(n):
        if i % 5 == 4:
            copied = out[int(rng.integers(i))].split()
            for at in rng.choice(len(copied), max(1, int(len(copied) * rng.uniform(0, 0.06))), replace=False).tolist():
                copied[at] = f"w{int(rng.integers(10**6))}"
            out.append(" ".join(copied))
        else:
            out.append(" ".join(pool[k] for k in rng.integers(len(words), size=int(rng.integers(3, 9))).tolist()))
    return pa.array(out, pa.large_string())


def load(path: str) -> pa.Array:
    return pa.ipc.open_stream(pa.memory_map(path)).read_all()["text"].chunk(0)


def exact(texts: pa.Array) -> set[tuple[int, int]]:
    """All pairs of similarity .8: products of sparse sets, a block of rows at a time."""
    from scipy.sparse import csr_matrix

    from cupel.records.minhash import shingles

    hashes, starts = shingles(texts, WORDS)
    column = np.unique(hashes, return_inverse=True)[1].reshape(-1)
    sets = csr_matrix((np.ones(len(hashes), dtype=np.int32), column, starts), shape=(len(texts), int(column.max()) + 1))
    sets.sum_duplicates()
    sets.data[:] = 1
    size, turned = np.diff(sets.indptr), sets.T.tocsr()
    out: set[tuple[int, int]] = set()
    for low in range(0, len(texts), 1000):
        block = (sets[low : low + 1000] @ turned).tocoo()
        i, j = block.row + low, block.col
        keep = (i < j) & (block.data >= BAR * (size[i] + size[j] - block.data))
        out.update(zip(i[keep].tolist(), j[keep].tolist(), strict=True))
    return out


def token_sets(texts: pa.Array) -> list[list[str]]:
    """Runs of 5 words as strings: letters and digits in lower case, as cupel has them."""
    import re

    split = re.compile(r"[^\W_]+")
    out = []
    for text in texts.to_pylist():
        words = split.findall(text.lower())
        out.append([" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))])
    return out


def by_cupel(texts: pa.Array) -> list[tuple[int, int]]:
    from cupel.records.near_duplicates import near_duplicates

    return [(i, j) for i, j in near_duplicates(texts, words=WORDS, at_least=BAR, seed=SEED, every=True).pairs.tolist()]


def by_cupel_sets(texts: pa.Array) -> list[tuple[int, int]]:
    from cupel.records.near_duplicates import near_duplicates

    return [(i, j) for i, j in near_duplicates(texts, words=WORDS, at_least=BAR, seed=SEED).pairs.tolist()]


def by_rensa(texts: pa.Array) -> list[tuple[int, int]]:
    import rensa

    hashed = []
    for tokens in token_sets(texts):
        one = rensa.RMinHash(num_perm=64, seed=SEED)
        one.update(tokens)
        hashed.append(one)
    index = rensa.RMinHashLSH(threshold=BAR, num_perm=64, num_bands=16)
    for i, one in enumerate(hashed):
        index.insert(i, one)
    return [(i, j) for j, one in enumerate(hashed) for i in index.query(one) if i < j and hashed[i].jaccard(one) >= BAR]


def rensa_signatures(texts: pa.Array) -> list[tuple[int, int]]:
    """Only signatures, from shingles that cupel hashed: what rensa would take over."""
    import rensa

    from cupel.records.minhash import chunks, shingles

    for low, high in chunks(texts):
        hashes, starts = shingles(texts.slice(low, high - low), WORDS)
        rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts.astype(np.uint64), 64, SEED)
    return []


def cupel_signatures(texts: pa.Array) -> list[tuple[int, int]]:
    from cupel.records.minhash import Signer, chunks

    signer = Signer(WORDS, SEED)
    for low, high in chunks(texts):
        signer(texts.slice(low, high - low))
    return []


def by_datasketch(texts: pa.Array) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    hashed = []
    for tokens in token_sets(texts):
        one = MinHash(num_perm=64, seed=SEED + 1)
        one.update_batch([token.encode() for token in tokens])
        hashed.append(one)
    index = MinHashLSH(num_perm=64, params=(16, 4))
    for i, one in enumerate(hashed):
        index.insert(i, one)
    return [(i, j) for j, one in enumerate(hashed) for i in index.query(one) if i < j and hashed[i].jaccard(one) >= BAR]


WAYS: dict[str, Callable[[pa.Array], list[tuple[int, int]]]] = {
    "cupel": by_cupel, "cupel, sets": by_cupel_sets, "rensa": by_rensa, "datasketch": by_datasketch,
    "signatures: cupel": cupel_signatures, "signatures: rensa from cupel's shingles": rensa_signatures,
}  # fmt: skip
PEERS = ("rensa", "datasketch")


def worker(way: str, path: str, count: str, out: str) -> dict[str, float]:
    """One search in this process, its pairs into a file."""
    texts = load(path).slice(0, int(count))
    WAYS[way](texts.slice(0, 50))  # imports and tables are made
    wall, cpu = time.perf_counter(), time.process_time()
    with Memory() as seen:
        pairs = WAYS[way](texts)
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    Path(out).write_text(json.dumps(sorted(pairs)))
    return {**used, "texts": int(count), "anonymous_mib": seen.most / 2**20, "resident_mib": memory("VmHWM") / 2**20, "pairs": len(pairs)}


def connected(pairs: list[tuple[int, int]], n: int) -> np.ndarray:
    from cupel.records.groups import by_appearance, join, roots

    parent = np.arange(n, dtype=np.int32)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    join(parent, ends[:, 0], ends[:, 1])
    return by_appearance(roots(parent, np.arange(n)), n)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--texts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--quality", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--worker", nargs=4, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*options.worker)))
        return
    import tempfile

    runs: dict[str, list[dict[str, float]]] = {}
    pairs: dict[str, set[tuple[int, int]]] = {}
    with tempfile.TemporaryDirectory() as place:
        texts = make(options.data, max([*options.texts, options.quality]))
        path, out = f"{place}/texts.arrows", f"{place}/pairs.json"
        with open(path, "wb") as file, pa.ipc.new_stream(file, pa.schema([("text", texts.type)])) as stream:
            stream.write_table(pa.table({"text": texts}))

        def run(way: str, count: int) -> None:
            seen = fresh(__file__, "--worker", way, path, str(count), out)
            runs.setdefault(f"{way}, {count} texts", []).append(seen)
            pairs[way, count] = {(i, j) for i, j in json.loads(Path(out).read_text())}  # type: ignore[index]
            rate = count / seen["cpu"]
            print(f"{way}, {count:,} texts: {rate:,.0f} texts per CPU-second, {seen['anonymous_mib']:.0f} MiB own", file=sys.stderr)

        for _ in range(options.rounds):
            for way in WAYS:
                run(way, options.quality)
        for count in options.texts:
            run("cupel, sets", count)
        truth = exact(texts.slice(0, options.quality))
        sample = texts.slice(0, options.quality)
        mean_words = float(np.mean([len(text.split()) for text in sample.slice(0, 2000).to_pylist()]))
    rate = {way: options.quality / min(r["cpu"] for r in runs[f"{way}, {options.quality} texts"]) for way in WAYS}
    quality = {}
    for way in ("cupel", *PEERS):
        found = pairs[way, options.quality]  # type: ignore[index]
        quality[way] = {
            "recall": len(found & truth) / len(truth),
            "precision": len(found & truth) / max(len(found), 1),
            "pairs": len(found),
        }
    whole = connected(sorted(truth), options.quality)
    same = connected(sorted(pairs["cupel, sets", options.quality]), options.quality)  # type: ignore[index]
    sizes = options.texts
    last = runs[f"cupel, sets, {sizes[-1]} texts"][0]
    first = runs[f"cupel, sets, {sizes[0]} texts"][0]
    grown = (last["anonymous_mib"] - first["anonymous_mib"]) * 2**20 / (sizes[-1] - sizes[0])
    exponents = list(slopes(sizes, [runs[f"cupel, sets, {n} texts"][0]["cpu"] for n in sizes]))
    kernel = rate["signatures: rensa from cupel's shingles"] / rate["signatures: cupel"]

    def faster(other: str, target: float) -> dict[str, Any]:
        value = rate["cupel"] / rate[other]
        return {"claim": f"all pairs, times faster than {other} (text to pairs, processor time)", "target": f"at least {target}",
                "measured": value, "passed": value >= target}  # fmt: skip

    claims = [
        {"claim": f"recall of the {len(truth):,} exact pairs of similarity .8", "target": "at least 0.999",
         "measured": quality["cupel"]["recall"], "passed": quality["cupel"]["recall"] >= 0.999},
        {"claim": "precision (similarities are exact)", "target": "1", "measured": quality["cupel"]["precision"],
         "passed": quality["cupel"]["precision"] == 1},
        {"claim": "texts that the cheaper search puts into the set that the exact pairs connect, share", "target": "at least 0.999",
         "measured": float((whole == same).mean()), "passed": bool((whole == same).mean() >= 0.999)},
        faster("datasketch", 10),
        faster("rensa", 1),
        {"claim": "signatures by rensa from the same shingles, times as fast as ours (a reason to depend on it)", "target": "less than 1.5",
         "measured": kernel, "passed": kernel < 1.5},
        {"claim": f"texts per CPU-second at {sizes[-1]:,} texts", "target": "at least 20,000", "measured": sizes[-1] / last["cpu"],
         "passed": sizes[-1] / last["cpu"] >= 20_000},
        {"claim": f"exponent of processor time, {sizes[0]:,} to {sizes[-1]:,} texts", "target": "at most 1.1", "measured": max(exponents),
         "interval": [min(exponents), max(exponents)], "passed": max(exponents) <= 1.1},
        {"claim": "bytes of the process's own memory per further text", "target": "at most 120 (a text has some 500)", "measured": grown,
         "passed": grown <= 120},
    ]  # fmt: skip
    details = {
        "mean_words": mean_words, "texts_per_cpu_second": rate, "quality": quality, "runs": runs,
        "versions": {name: importlib.metadata.version(name) for name in PEERS},
    }  # fmt: skip
    command = (
        f"python benchmarks/near_duplicates.py --texts {' '.join(map(str, sizes))} --quality {options.quality} --rounds {options.rounds}"
    )
    write_result("near_duplicates", claims, n={"texts": sizes, "exact": options.quality}, seeds=[SEED], command=command, details=details)


if __name__ == "__main__":
    main()
