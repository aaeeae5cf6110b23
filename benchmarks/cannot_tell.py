"""When does the audit say that it cannot tell? Where it should (weak labels, coin flips, word order), and rarely where it can see.

The rule: cannot tell if and only if the lower 95 % end of the area for planted flips is below .65, or the interval is wider than .30.

    python benchmarks/cannot_tell.py [--data DIR] [--seeds 5] [--coins 50]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result
from datasets import Labelled, blimp_pairs, pairs, static_features, ukp_strict_single

from cupel.audit.power import measure_power
from cupel.votes.intervals import wilson


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--coins", type=int, default=50)
    options = parser.parse_args()
    seeds, data = list(range(options.seeds)), options.data
    rows, claims = [], []

    def add(name: str, runs: list[dict], target: str, passed: bool, used: list[int]) -> None:
        rows.extend({"case": name, **run} for run in runs)
        blind = sum(run["verdict"] == "cannot_tell" for run in runs)
        claims.append(
            {
                "claim": f"share of runs that cannot tell: {name}",
                "target": target,
                "measured": blind / len(runs),
                "interval": list(wilson(blind, len(runs))),
                "n": len(runs),
                "seeds": used,
                "passed": passed,
            }
        )

    harmless = pairs(data, "hh_harmless")
    features = static_features(harmless)
    found = [run(harmless, features, seed) for seed in seeds]
    add("hh_harmless", found, "> 0.5", share(found) > 0.5, seeds)

    found = []
    for seed in seeds:
        strict = ukp_strict_single(data, seed=seed)
        features = static_features(strict)
        found += [{**run(strict.planted(rate, seed)[0], features, seed), "planted": rate} for rate in (0.0, 0.1, 0.2, 0.3)]
    add("ukp, 0-30 % planted", found, "<= 0.05", share(found) <= 0.05, seeds)

    for name, source in (("ukp texts", strict), ("hh_harmless texts", harmless)):
        features = static_features(source)
        used = list(range(options.coins))
        found = [run(coins(source, seed), features, seed) for seed in used]
        add(f"labels are coin flips, {name}", found, "1", share(found) == 1.0, used)

    for by, name in (("paradigm", "blimp, paradigms held out"), ("id", "blimp, pairs held out (paradigms seen)")):
        found = []
        for seed in seeds:
            minimal = blimp_pairs(data, seed=seed, by=by)
            found.append(run(minimal, static_features(minimal), seed))
        add(name, found, "1", share(found) == 1.0, seeds)

    command = f"python benchmarks/cannot_tell.py --data DIR --seeds {options.seeds} --coins {options.coins}"
    write_result("cannot_tell", claims, n=len(rows), seeds=seeds, command=command, details={"runs": rows})
    return 0 if all(claim["passed"] for claim in claims) else 1


def share(runs: list[dict]) -> float:
    """Share of runs that cannot tell."""
    return float(np.mean([run["verdict"] == "cannot_tell" for run in runs]))


def coins(data: Labelled, seed: int) -> Labelled:
    """The same comparisons with coin tosses for labels."""
    return Labelled(
        data.name,
        data.votes.with_(outcome=np.random.default_rng([seed, 8]).integers(0, 2, size=len(data.votes)).astype(np.int8)),
        data.wrong,
        data.known,
        "none",
    )


def run(data: Labelled, features, seed: int) -> dict:
    """Power of one file."""
    power = measure_power(data.votes, features, seed=seed)
    return {
        "verdict": power.verdict,
        "auc": power.auc,
        "low": power.auc_low,
        "high": power.auc_high,
        "raw": power.raw_auc,
        "length_biased": power.length_biased.get("auc"),
        "seed": seed,
        "n": power.n,
    }


if __name__ == "__main__":
    raise SystemExit(main())
