"""Label error from repeats and from a blind re-check, against the truth of ukp_convarg and blimp.

Repeats: bounds and points from m votes per pair against the share of votes that disagree with the reference. Trusted: coverage, width
and error of the stratified estimate over many draws of the rows to re-check, beside uniform sampling.

    python benchmarks/label_error.py [--data DIR] [--draws 1000]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result
from datasets import Labelled, blimp_human, ukp_strict_single, ukp_votes

from cupel.audit.features import side_features
from cupel.audit.suspicion import suspicion
from cupel.encode.cache import encode_cached
from cupel.encode.load import load_encoder
from cupel.records.corrupt import flip_length_biased, flip_symmetric
from cupel.votes.annotators import dawid_skene, one_coin, vote_table
from cupel.votes.label_error import repeats, trusted, trusted_plan, trusted_uniform
from cupel.votes.repeats import folded_interval

SIZES = (50, 100, 200, 400)
WIDTHS = {50: 0.19, 100: 0.13, 200: 0.09, 400: 0.065}
SEEDS = (0, 1, 2, 3, 4)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    claims, details = [], {}
    for step in (repeats_table(options.data), trusted_table(options.data, options.draws)):
        claims += step[0]
        details |= step[1]
    command = "python benchmarks/label_error.py --data DIR"
    write_result("label_error", claims, n=None, seeds=SEEDS, command=command, details=details)
    return 0 if all(c["passed"] for c in claims) else 1


# ---- repeats -----------------------------------------------------------------------------------------------------------------


def repeats_table(data: Path) -> tuple[list[dict], dict]:
    """Rows: data set, planted rate, votes per pair, and every estimator, averaged over seeds of the votes drawn and planted."""
    rows, claims = [], []
    for name, source in (("ukp", strict_votes(data)), ("blimp", blimp_human(data))):
        votes = source.votes
        keep = np.flatnonzero(source.known & (votes.sign != 0))
        pair, sign = votes.pair[keep], votes.pair_sign[keep].astype(int)
        who, wrong, group = votes.annotator[keep], source.wrong[keep], votes.group[keep]
        for planted in (0.0, 0.2):
            for m in (2, 3, 5):
                runs = [repeats_run(pair, sign, who, wrong, group, m, planted, seed) for seed in SEEDS]
                row = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
                rows.append({"data": name, "planted": planted, "m": m, **row})
                shown = "  ".join(f"{key} {value:.3f}" for key, value in row.items())
                print(f"{name} planted {planted} m {m}: {shown}", file=sys.stderr)
                if m == 2:
                    inside = [run["lower"] <= run["truth"] <= run["upper"] for run in runs]
                    printed = [run["low"] <= run["truth"] <= run["high"] for run in runs]
                    claims.append({
                        "claim": f"{name}, {planted:.0%} planted: error of a vote inside the printed two-vote bounds",
                        "target": "every seed", "measured": f"{sum(printed)} of {len(runs)} (without their interval {sum(inside)})",
                        "n": int(row["votes"]), "passed": all(printed),
                    })  # fmt: skip
                if m == 5 and name == "blimp":
                    miss = abs(row["point"] - row["truth"])
                    claims.append({
                        "claim": f"blimp, {planted:.0%} planted, 5 votes: the point is near the truth",
                        "target": "within .02, mean of seeds",
                        "measured": f"{row['point']:.3f} for {row['truth']:.3f}", "n": int(row["votes"]), "passed": miss <= 0.02,
                    })  # fmt: skip
    return claims, {"repeats": rows}


def strict_votes(data: Path) -> Labelled:
    """All votes of ukp_convarg on strict pairs, wrong where they disagree with the consensus."""
    import pyarrow.parquet as pq

    source = ukp_votes(data)
    strict = set(pq.read_table(data / "ukp_convarg/pairs_strict.parquet", columns=["id"])["id"].to_pylist())
    known = np.array([name.rsplit("-", 1)[0] in strict for name in source.votes.ids.to_pylist()])
    return Labelled("ukp_strict", source.votes, source.wrong, source.known & known, source.reference)


def repeats_run(
    pair: np.ndarray, sign: np.ndarray, who: np.ndarray, wrong: np.ndarray, group: np.ndarray, m: int, planted: float, seed: int
) -> dict[str, float]:
    """All estimators on m random votes of each pair that has as many."""
    rng = np.random.default_rng([seed, m, round(100 * planted)])
    rows = some_votes(pair, m, rng)
    flipped = rng.random(len(rows)) < planted
    pair, who, group = pair[rows], who[rows], group[rows]
    sign, wrong = np.where(flipped, -sign[rows], sign[rows]), wrong[rows] ^ flipped
    found = repeats(pair, sign, group, who, seed=seed, draws=300)
    item = np.unique(pair, return_inverse=True)[1].reshape(-1)
    table = vote_table(item, who, (sign > 0).astype(int), keep="all")
    up, down = (np.bincount(item, weights=sign * side > 0) for side in (1, -1))
    folded = folded_interval(up, down, np.zeros(len(up)), np.arange(len(up)), seed=seed, draws=2).estimate if m > 3 else float("nan")
    net = (up - down)[item] * sign
    coin = one_coin(table, tolerance=1e-6)
    skene = dawid_skene(table)
    return {
        "votes": len(rows), "truth": float(wrong.mean()), "lower": found.details["bound_low"],
        "one_coin": float(1 - coin.clean_probability(table.item, table.label).mean()),
        "dawid_skene": float(1 - skene.clean_probability(table.item, table.label).mean()),
        "majority": float(((net < 0) + 0.5 * (net == 0)).mean()), "folded": folded, "upper": found.details["bound_high"],
        "point": float("nan") if found.estimate is None else found.estimate, "low": found.low, "high": found.high,
    }  # fmt: skip


def some_votes(pair: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """m random rows of each pair that has m or more."""
    shuffled = rng.permutation(len(pair))
    order = shuffled[np.argsort(pair[shuffled], kind="stable")]
    rank = np.arange(len(pair)) - np.searchsorted(pair[order], pair[order])
    enough = np.bincount(pair)[pair[order]] >= m
    return np.sort(order[(rank < m) & enough])


# ---- trusted -----------------------------------------------------------------------------------------------------------------


def trusted_table(data: Path, draws: int) -> tuple[list[dict], dict]:
    """Coverage, width and root mean square error per cell, over draws of the rows to re-check."""
    rows, claims = [], []
    for name, source, wrong in cells(data):
        margin = scored(source)
        for n in SIZES:
            row = {"cell": name, "n": n, "truth": float(wrong.mean()), **recheck(-margin, wrong, n, draws)}
            rows.append(row)
            print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), file=sys.stderr)
            claims.append({
                "claim": f"trusted, {name}, n = {n}: the interval covers the truth", "target": "93 to 98.5 % of draws",
                "measured": row["coverage"], "n": draws, "seeds": [0], "passed": 0.93 <= row["coverage"] <= 0.985,
            })  # fmt: skip
            if name == "ukp 20 %":
                claims.append({
                    "claim": f"trusted, ukp 20 %, n = {n}: mean width of the interval", "target": f"at most {WIDTHS[n]}",
                    "measured": row["width"], "n": draws, "seeds": [0], "passed": row["width"] <= WIDTHS[n],
                })  # fmt: skip
            if name.startswith("ukp") and n == 100:
                ratio = row["rmse"] / row["rmse_uniform"]
                judged = name in ("ukp 0 %", "ukp 20 %")
                claims.append({
                    "claim": f"trusted, {name}, n = 100: root mean square error relative to uniform sampling",
                    "target": "at most .80" if judged else "below 1", "measured": ratio, "n": draws, "seeds": [0],
                    "passed": ratio <= (0.80 if judged else 1.0),
                })  # fmt: skip
    return claims, {"trusted": rows}


def cells(data: Path):
    """(name, source, wrong): recorded votes as they are, with symmetric and with length-biased errors planted."""
    for name, source in (("ukp", ukp_strict_single(data)), ("blimp", blimp_human(data))):
        yield f"{name} 0 %", source, source.wrong
        votes, flipped = flip_symmetric(source.votes, 0.2, 0)
        yield f"{name} 20 %", Labelled(name, votes, source.wrong ^ flipped, source.known, source.reference), source.wrong ^ flipped
        votes, flipped = flip_length_biased(source.votes, 0.1, 0)
        yield f"{name} length-biased 10 %", Labelled(name, votes, source.wrong ^ flipped, source.known, ""), source.wrong ^ flipped


def scored(source: Labelled) -> np.ndarray:
    """Out-of-fold margin of every recorded label by the audit's own scorer."""
    encoder = load_encoder("static")
    prompts = encode_cached(encoder, source.votes.prompt_texts())
    features = side_features(source.votes, prompts, encode_cached(encoder, source.votes.response_texts()))
    return suspicion(source.votes, features, seed=0).margin


def recheck(suspicious: np.ndarray, wrong: np.ndarray, n: int, draws: int) -> dict[str, float]:
    """Figures of the stratified estimate and of uniform sampling over draws of n rows, all judged against all rows."""
    truth, rng = wrong.mean(), np.random.default_rng(n)
    found, plain = np.empty((draws, 3)), np.empty((draws, 3))
    for seed in range(draws):
        plan = trusted_plan(suspicious, n, seed)
        rate = trusted(wrong[plan.rows], plan.stratum, plan.sizes)
        found[seed] = rate.estimate, rate.low, rate.high
        uniform = trusted_uniform(wrong[rng.choice(len(wrong), n, replace=False)])
        plain[seed] = uniform.estimate, uniform.low, uniform.high
    out = {}
    for name, x in (("", found), ("_uniform", plain)):
        out |= {
            f"coverage{name}": float(np.mean((x[:, 1] <= truth) & (truth <= x[:, 2]))), f"width{name}": float(np.mean(x[:, 2] - x[:, 1])),
            f"rmse{name}": float(np.sqrt(np.mean((x[:, 0] - truth) ** 2))), f"bias{name}": float(np.mean(x[:, 0] - truth)),
        }  # fmt: skip
    return out


if __name__ == "__main__":
    raise SystemExit(main())
