"""Texts per second: the embedded static encoder against MiniLM, the model2vec library and TF-IDF with an SVD, in one run.

    python benchmarks/encoder_speed.py [--data DIR] [--rounds 3] [--threads 1 2]

Real answers (alpaca_eval; their mean number of tokens is in the result). Each measurement is a fresh process, its threads limited;
the encoders take turns within a round, so a busy machine slows all of them, and ratios are taken within a round. The time is that
of encoding alone: nothing is remembered from before, imports and loading are not counted. TF-IDF is fitted on the texts that it
encodes. MiniLM reads 256 tokens of a text; the others read all. Processor time per text, which a busy machine changes little, is
given beside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import arguments, write_result

SIZES = {"static": 8000, "model2vec": 4000, "tfidf": 2000, "minilm": 96}  # texts per measurement
SEED = 0


def real_texts(data: Path, n: int, seed: int) -> list[str]:
    """n answers of alpaca_eval, in random order."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "alpaca_eval" / "pairs_v2.parquet", columns=["chosen", "rejected"])
    texts = sorted({text for name in table.column_names for text in table[name].to_pylist() if len(text) >= 300})
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:n]]


def tfidf(texts: list[str]) -> Callable[[], object]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    return lambda: TruncatedSVD(256, random_state=SEED).fit_transform(TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts))


def library(texts: list[str]) -> Callable[[], object]:
    import model2vec

    from cupel.encode.static_vectors import EMBEDDED

    model = model2vec.StaticModel.from_pretrained(EMBEDDED)
    return lambda: model.encode(texts, use_multiprocessing=False)


def static(texts: list[str]) -> Callable[[], object]:
    from cupel.encode import load_encoder

    encoder = load_encoder("static")
    encoder.encode(["one text, so that imports are done"])
    return lambda: encoder.encode(texts)


def minilm(texts: list[str]) -> Callable[[], object]:
    import torch

    from cupel.encode import load_encoder

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    encoder = load_encoder("minilm")
    encoder.encode(["one text, so that imports are done"])
    return lambda: encoder.encode(texts)


PREPARE = {"static": static, "model2vec": library, "tfidf": tfidf, "minilm": minilm}


def worker(name: str, texts: list[str]) -> dict[str, float]:
    """Encode the texts once in this process; texts per second of wall clock and seconds of processor time."""
    run = PREPARE[name](texts)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return {
        "per_second": len(texts) / (time.perf_counter() - wall),
        "cpu_ms_per_text": 1000 * (time.process_time() - processor) / len(texts),
    }


def measure(name: str, threads: int, data: Path, seed: int) -> dict[str, float]:
    """One fresh process."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }  # fmt: skip
    command = [sys.executable, __file__, "--data", str(data), "--worker", name, "--seed", str(seed)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--worker", choices=sorted(SIZES), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=SEED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, real_texts(options.data, SIZES[options.worker], options.seed))))
        return
    from cupel.encode import load_encoder

    texts = real_texts(options.data, max(SIZES.values()), SEED)
    tokens = load_encoder("static").token_counts(texts)
    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(options.rounds):
        for threads in options.threads:
            for name in SIZES:
                found = measure(name, threads, options.data, SEED + turn)
                seen.setdefault((name, threads), []).append(found)
                print(f"round {turn + 1}, {threads} thread(s), {name}: {found['per_second']:,.0f} texts/s", file=sys.stderr)
    seeds = [SEED + turn for turn in range(options.rounds)]
    claims = []
    for threads in options.threads:
        rates = {name: np.array([found["per_second"] for found in seen[name, threads]]) for name in SIZES}
        processor = {name: np.median([found["cpu_ms_per_text"] for found in seen[name, threads]]) for name in SIZES}
        ratio = rates["static"] / rates["minilm"]
        twin = rates["static"] / rates["model2vec"]
        claims += [
            {
                "claim": f"static against MiniLM, times faster, {threads} thread(s)", "target": "at least 100 in every round",
                "measured": float(np.median(ratio)), "interval": [float(ratio.min()), float(ratio.max())],
                "passed": bool(ratio.min() >= 100),
            },
            {
                "claim": f"static against MiniLM, times less processor time, {threads} thread(s)", "target": "at least 100",
                "measured": float(processor["minilm"] / processor["static"]),
                "passed": bool(processor["minilm"] / processor["static"] >= 100),
            },
            {
                "claim": f"static texts per second, {threads} thread(s)", "target": "120,000 texts within 4 minutes: at least 500",
                "measured": float(np.median(rates["static"])),
                "interval": [float(rates["static"].min()), float(rates["static"].max())],
                "passed": bool(rates["static"].min() >= 500),
            },
            {
                "claim": f"static against the model2vec library (same vectors), times faster, {threads} thread(s)",
                "target": "not slower in any round", "measured": float(np.median(twin)),
                "interval": [float(twin.min()), float(twin.max())], "passed": bool(twin.min() >= 1),
            },
        ]  # fmt: skip
    details = {
        "mean_tokens": float(tokens.mean()),
        "texts_per_measurement": SIZES,
        "interval": "least and greatest of the rounds, not a confidence interval",
        "rounds": {f"{name}, {threads} thread(s)": found for (name, threads), found in sorted(seen.items())},
    }
    command = f"python benchmarks/encoder_speed.py --rounds {options.rounds} --threads {' '.join(map(str, options.threads))}"
    write_result("encoder_speed", claims, n=SIZES, seeds=seeds, command=command, details=details)
    for (name, threads), found in sorted(seen.items()):
        rates = sorted(each["per_second"] for each in found)
        print(f"{name:10} {threads} thread(s): {np.median(rates):8,.0f} texts/s  ({rates[0]:,.0f} - {rates[-1]:,.0f})")


if __name__ == "__main__":
    main()
