"""Can suspicion find labels that disagree with the consensus? Out of fold on ukp_convarg, natural and planted errors, static encoder.

The reference is the consensus of a pair's annotators (see `datasets.py`); the authors chose the strict pairs for consistency of their
graph, which flatters a scorer that reads the graph; so all pairs that have a consensus stand beside them. A length-only scorer stands
beside everything. Intervals: debates resampled, seeds averaged within each resample.

    python benchmarks/detection.py [--data DIR] [--seeds 3]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result
from datasets import Labelled, static_features, ukp_strict_single, ukp_votes

from cupel.audit.areas import area, areas
from cupel.audit.suspicion import suspicion
from cupel.votes.intervals import expanded_percentile

RATES = (0.0, 0.2, 0.3, 0.4)
CONTENT = {0.0: 0.85, 0.2: 0.87, 0.3: 0.87, 0.4: 0.84}
STRICT = {0.0: 0.945, 0.2: 0.93, 0.3: 0.91, 0.4: 0.86}
CONSENSUS = {0.0: 0.88, 0.2: 0.88}
DRAWS = 300


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = list(range(options.seeds))
    claims, tables = [], {}
    for name, rates, load in (
        ("strict pairs", RATES, lambda seed: ukp_strict_single(options.data, seed=seed)),
        ("all pairs with a consensus", tuple(CONSENSUS), lambda seed: ukp_votes(options.data, single=True, consensus=True, seed=seed)),
        ("all votes", (0.0, 0.2), lambda seed: ukp_votes(options.data, seed=seed)),
    ):
        runs = {rate: [] for rate in rates}
        for seed in seeds if name != "all votes" else seeds[:1]:
            data = load(seed)
            features = static_features(data)
            for rate in rates:
                runs[rate].append(one(data, features, rate, seed))
        tables[name] = {f"{rate:g}": summary(found) for rate, found in runs.items()}
        for rate in rates:
            claims += claims_of(name, rate, runs[rate], tables[name][f"{rate:g}"], seeds)
    write_result(
        "detection",
        claims,
        n=None,
        seeds=seeds,
        command=f"python benchmarks/detection.py --data DIR --seeds {options.seeds}",
        details=tables,
    )
    return 0 if all(claim["passed"] for claim in claims) else 1


def one(data: Labelled, features, rate: float, seed: int) -> dict:
    """Scores and truth of one seed and rate, rows with a reference only."""
    noisy, planted = data.planted(rate, seed)
    found = suspicion(noisy.votes, features, seed=seed)
    keep = np.flatnonzero(noisy.known & (noisy.votes.sign != 0))
    longer = (features.length_first - features.length_second) * noisy.votes.sign
    scores = {
        "everything": found.suspicion,
        "pair excluded": -found.pair_excluded,
        "content": -found.content,
        "length": -longer,
    }
    return {
        "scores": {key: value[keep] for key, value in scores.items()},
        "wrong": noisy.wrong[keep],
        "planted": planted[keep],
        "group": noisy.votes.group[keep],
        "seed": seed,
    }


def summary(runs: list[dict]) -> dict:
    """Means over seeds: truth, areas (all, natural, planted errors), precision in the worst 5 %, first 100 and random 100."""
    rows = []
    for run in runs:
        score, wrong, planted = run["scores"]["everything"], run["wrong"], run["planted"]
        order = np.argsort(-score, kind="stable")
        row = {f"auc {key}": area(value, wrong) for key, value in run["scores"].items()}
        for kind, mask in (("natural", wrong & ~planted), ("planted", wrong & planted)):
            keep = mask | ~wrong
            if mask.any():
                row |= {f"auc {key}, {kind} errors": area(run["scores"][key][keep], mask[keep]) for key in ("everything", "content")}
        chance = np.random.default_rng([run["seed"], 5]).choice(len(wrong), size=100, replace=False)
        row |= {
            "wrong": wrong.mean(),
            "precision in the worst 5 %": wrong[order[: round(0.05 * len(wrong))]].mean(),
            "wrong in the first 100": float(wrong[order[:100]].sum()),
            "wrong in 100 at random": float(wrong[chance].sum()),
            "n": float(len(wrong)),
        }
        rows.append(row)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def interval(runs: list[dict], key: str) -> list[float]:
    """95 % interval of the mean area over seeds: debates resampled, the same ones in every seed."""
    names = np.unique(runs[0]["group"])
    counts = np.random.default_rng(6).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS).astype(float)
    drawn = [areas(run["scores"][key], run["wrong"], np.searchsorted(names, run["group"]), counts) for run in runs]
    centre = float(np.mean([area(run["scores"][key], run["wrong"]) for run in runs]))
    found = expanded_percentile(centre, np.mean(drawn, axis=0), len(names), clip=(0, 1))
    return [found.low, found.high]


def claims_of(name: str, rate: float, runs: list[dict], table: dict, seeds: list[int]) -> list[dict]:
    """The claims with a target, and beside them what was measured without one."""
    n = int(table["n"])
    said = f"{100 * rate:g} % planted, {name}"
    used = seeds if name != "all votes" else seeds[:1]
    out = []

    def add(label: str, key: str, target: float) -> None:
        value = table[f"auc {key}"]
        out.append(
            {
                "claim": f"AUC, {label}, {said}",
                "target": f">= {target:g}",
                "measured": value,
                "interval": interval(runs, key),
                "n": n,
                "seeds": used,
                "passed": value >= target,
            }
        )

    if name == "strict pairs":
        add("content only", "content", CONTENT[rate])
        add("graph and content", "everything", STRICT[rate])
    elif name == "all pairs with a consensus":
        add("graph and content", "everything", CONSENSUS[rate])
    first, chance = table["wrong in the first 100"], table["wrong in 100 at random"]
    out.append(
        {
            "claim": f"wrong labels in the first 100 of the worklist / in 100 at random, {said}",
            "target": "more than at random",
            "measured": [first, chance],
            "n": n,
            "seeds": used,
            "passed": first > chance,
        }
    )
    out.append(
        {
            "claim": f"AUC above length only, {said}",
            "target": "> 0",
            "measured": table["auc everything"] - table["auc length"],
            "n": n,
            "seeds": used,
            "passed": table["auc everything"] > table["auc length"],
        }
    )
    return out


if __name__ == "__main__":
    raise SystemExit(main())
