"""Basis `single`: does the true label error lie inside the printed bounds, and how wide are they?

ukp_convarg (one random vote per strict pair; truth: disagreement with the consensus), blimp (paradigms held out) and gsm8k_solutions
(truth: planted flips), 0 to 40 % symmetric flips. The bounds are those that the audit prints. A run whose power verdict is "cannot tell"
makes no claim about rows; its bounds are still printed, so it is counted here too, and once more apart. Flips toward the longer side break
the assumption under which the upper end holds; those runs are kept in the details and enter no claim.

    python benchmarks/bounds.py [--data DIR] [--seeds 5]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result
from datasets import Labelled, blimp_pairs, pairs, static_features, ukp_strict_single

from cupel.audit.power import measure_power
from cupel.audit.suspicion import suspicion
from cupel.records.corrupt import flip_length_biased
from cupel.votes.intervals import wilson
from cupel.votes.label_error import single

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    seeds = list(range(options.seeds))
    sources = {
        "ukp": lambda seed: ukp_strict_single(options.data, seed=seed),
        "blimp": lambda seed: blimp_pairs(options.data, seed=seed),
        "gsm8k": lambda seed: pairs(options.data, "gsm8k", seed=seed),
    }
    rows = []
    for name, load in sources.items():
        for seed in seeds:
            data = load(seed)
            features = static_features(data)
            for rate in RATES:
                noisy = data.planted(rate, seed)[0]
                rows.append({"data": name, "planted": rate, "seed": seed, **run(noisy, features, seed)})
            if name == "ukp":
                votes, flipped = flip_length_biased(data.votes, 0.2, seed)
                biased = Labelled(data.name, votes, data.wrong ^ flipped, data.known, data.reference)
                rows.append({"data": "ukp, flips toward the longer side", "planted": 0.2, "seed": seed, **run(biased, features, seed)})
    claims = judge(rows, seeds)
    write_result(
        "bounds",
        claims,
        n=len(rows),
        seeds=seeds,
        command=f"python benchmarks/bounds.py --data DIR --seeds {options.seeds}",
        details={"runs": rows},
    )
    return 0 if all(claim["passed"] for claim in claims) else 1


def run(data: Labelled, features, seed: int) -> dict:
    """Truth, bounds and power verdict of one file."""
    votes = data.votes
    found = suspicion(votes, features, seed=seed)
    rate = single(votes.node[0], votes.node[1], votes.sign, found.pair_excluded, votes.group, seed=seed)
    power = measure_power(votes, features, seed=seed)
    truth = float(data.wrong[data.known].mean())
    return {
        "truth": truth,
        "low": rate.low,
        "high": rate.high,
        "inside": bool(rate.low <= truth <= rate.high),
        "width": rate.high - rate.low,
        "power": power.auc,
        "verdict": power.verdict,
        "n": len(votes),
    }


def judge(rows: list[dict], seeds: list[int]) -> list[dict]:
    """Coverage over all runs, over those that make a claim and those that do not, and the mean width on ukp."""
    symmetric = [row for row in rows if "longer" not in row["data"]]
    groups = {
        "all runs (ukp, blimp, gsm8k x 0-40 %)": symmetric,
        "runs that can see": [row for row in symmetric if row["verdict"] == "can_see"],
        "runs that cannot tell": [row for row in symmetric if row["verdict"] == "cannot_tell"],
    }
    claims = []
    for name, chosen in groups.items():
        if chosen:
            inside = sum(row["inside"] for row in chosen)
            claims.append(
                {
                    "claim": f"truth inside the bounds of basis single, {name}",
                    "target": ">= 0.95",
                    "measured": inside / len(chosen),
                    "interval": list(wilson(inside, len(chosen))),
                    "n": len(chosen),
                    "seeds": seeds,
                    "passed": inside / len(chosen) >= 0.95,
                }
            )
    width = [row["width"] for row in symmetric if row["data"] == "ukp" and row["planted"] <= 0.3]
    claims.append(
        {
            "claim": "mean width of the bounds on ukp at 0-30 %",
            "target": "<= 0.20",
            "measured": float(np.mean(width)),
            "interval": [min(width), max(width)],
            "n": len(width),
            "seeds": seeds,
            "passed": bool(np.mean(width) <= 0.2),
        }
    )
    return claims


if __name__ == "__main__":
    raise SystemExit(main())
