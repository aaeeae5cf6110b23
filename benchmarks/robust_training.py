"""Robust against plain training of the linear head, on held-out debates: bad annotators, and symmetric flips.

    python benchmarks/robust_training.py [--data DIR] [--seeds 3] [--part annotators|symmetric]

Debates (the 13 topics of ukp_convarg) are held out in turn, in 5 folds; whatever looks at labels, tuning, suspicion, curation and EM
included, sees the other debates only. In the symmetric part robust is what `refine` trains (curated weights, then em), in the
annotators' part em-annotator alone. Judged by the consensus of the pairs, which no treatment sees. Intervals: bootstrap over debates
crossed with seeds.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from common import arguments, write_result
from datasets import Labelled, ukp_strict_single, ukp_votes

from cupel.audit.features import side_features
from cupel.audit.suspicion import suspicion
from cupel.curate.policy import curate
from cupel.encode import encode_cached, load_encoder
from cupel.evaluate.crossed import crossed_interval
from cupel.learners.reward import train_reward
from cupel.learners.sides import RawSides, raw_sides
from cupel.records.corrupt import corrupt_annotators
from cupel.records.schema import TRAIN, Votes
from cupel.votes.folds import group_folds

FOLDS = 5
RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
POOL, RANDOM, ADVERSARIAL = 20, 0.25, 0.3


def bad_annotators(data: Labelled, seed: int) -> Labelled:
    """Each vote is given to one of 20 annotators; 5 answer at random, 6 always the reverse, 9 as the vote was."""
    votes, planted = corrupt_annotators(data.votes, POOL, random=RANDOM, adversarial=ADVERSARIAL, seed=seed)
    return replace(data, votes=votes, wrong=data.wrong ^ planted)


def flipped(data: Labelled, rate: float, seed: int) -> Labelled:
    """The data with each label swapped with probability `rate`."""
    planted, _ = data.planted(rate, seed)
    p = np.array([1.0, 0.0, 0.5, 0.5, 0.5])[planted.votes.outcome]
    return replace(planted, votes=planted.votes.with_(p=p))


def part(sides: RawSides, rows: np.ndarray) -> RawSides:
    return RawSides(sides.embedding, sides.facts, sides.length, sides.first[rows], sides.second[rows])


def judged(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """(rows, truth): one row of each pair that has a consensus, and +1 where the consensus is its first side, -1 the second."""
    known = np.flatnonzero(data.known & (data.votes.sign != 0))
    rows = known[np.sort(np.unique(data.votes.pair[known], return_index=True)[1])]
    return rows, np.where(data.wrong[rows], -data.votes.sign[rows], data.votes.sign[rows]).astype(float)


def fold_hits(
    data: Labelled, sides: RawSides, recipes: dict[str, tuple], test: np.ndarray, truth: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """0/1 (1/2 undecided) for each judged pair and recipe; recipes: name -> (votes to train on, treatment[, features to curate with])."""
    fold = group_folds(data.votes.group, FOLDS, seed)
    hits = {name: np.full(len(test), np.nan) for name in recipes}
    for k in range(FOLDS):
        train, at = np.flatnonzero(fold != k), fold[test] == k
        held = data.votes.take(test[at])
        for name, (votes, treatment, *features) in recipes.items():
            inside = votes.take(train)
            if features:
                inside = curated(inside, features[0].take(train), seed)
            model = train_reward(inside, treatment=treatment, seed=seed, sides=part(sides, train))
            margin = model.margin(held, sides=part(sides, test[at]))
            hits[name][at] = 0.5 + 0.5 * np.sign(margin * truth[at])
    return hits


def curated(votes: Votes, features, seed: int) -> Votes:
    """Training rows as `curate` leaves them by default with one vote per pair: the most suspect tenth weighed down."""
    votes = votes.with_(split=np.full(len(votes), TRAIN, dtype=np.int8))
    return curate(votes, -suspicion(votes, features, seed=seed).margin, seed=seed).votes


def gain(one: np.ndarray, other: np.ndarray, group: np.ndarray) -> tuple[float, list[float]]:
    """Difference in points with its 95 % interval; hits [seeds, n]."""
    low, high, estimate, _ = crossed_interval(one, other, group, seed=0, draws=2000)
    return 100 * estimate, [100 * low, 100 * high]


def annotators_part(data_dir, seeds: list[int], cache: str | None) -> tuple[list[dict], dict]:
    data = ukp_votes(data_dir)
    decided = data.votes.first != data.votes.second
    data = replace(data, votes=data.votes.take(decided), wrong=data.wrong[decided], known=data.known[decided])
    sides = raw_sides(data.votes, load_encoder("static"), cache=cache)
    test, truth = judged(data)
    found: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        bad = bad_annotators(data, seed)
        shuffled = bad.votes.with_(annotator=np.random.default_rng([seed, 42]).permutation(bad.votes.annotator))
        recipes = {
            "plain": (bad.votes, "none"), "robust": (bad.votes, "em-annotator"), "ids shuffled": (shuffled, "em-annotator"),
            "clean": (data.votes, "none"),
        }  # fmt: skip
        for name, hit in fold_hits(bad, sides, recipes, test, truth, seed).items():
            found.setdefault(name, []).append(hit)
        print(f"annotators, seed {seed}:", {name: round(float(hits[-1].mean()), 4) for name, hits in found.items()}, flush=True)
    hits = {name: np.stack(h) for name, h in found.items()}
    group, n = data.votes.group[test], len(test)
    setting = "ukp all votes, 20 annotators, a quarter random and .3 adversarial"
    over_plain, plain_interval = gain(hits["robust"], hits["plain"], group)
    over_shuffled, shuffled_interval = gain(hits["robust"], hits["ids shuffled"], group)
    common = {"n": n, "seeds": seeds}
    claims = [
        {"claim": f"{setting}: robust minus tuned plain, points", "target": ">= 4", "measured": over_plain, "interval": plain_interval,
         "passed": over_plain >= 4, **common},
        {"claim": f"{setting}: robust minus itself with annotator ids shuffled, points", "target": ">= 1.5", "measured": over_shuffled,
         "interval": shuffled_interval, "passed": over_shuffled >= 1.5, **common},
    ]  # fmt: skip
    return claims, {
        "accuracy": {name: float(h.mean()) for name, h in hits.items()},
        "by_seed": {name: h.mean(axis=1) for name, h in hits.items()},
    }


def symmetric_part(data_dir, seeds: list[int], cache: str | None) -> tuple[list[dict], dict]:
    claims, table = [], {}
    found: dict[float, dict[str, list[np.ndarray]]] = {rate: {} for rate in RATES}
    for seed in seeds:
        data = ukp_strict_single(data_dir, seed=0)  # the same votes for every seed; flips and folds change
        encoder = load_encoder("static")
        sides = raw_sides(data.votes, encoder, cache=cache)
        texts = [encode_cached(encoder, table.to_pylist(), cache) for table in (data.votes.prompts, data.votes.responses)]
        features = side_features(data.votes, *texts)
        test, truth = judged(data)
        outcome = np.where(data.wrong, 1 - data.votes.outcome, data.votes.outcome).astype(np.int8)
        clean = data.votes.with_(outcome=outcome, p=1.0 - outcome)
        reference = fold_hits(data, sides, {"clean": (clean, "none")}, test, truth, seed)["clean"]
        for rate in RATES:
            noisy = flipped(data, rate, seed)
            recipes = {"plain": (noisy.votes, "none"), "em": (noisy.votes, "em"), "robust": (noisy.votes, "em", features)}
            hits = {**fold_hits(noisy, sides, recipes, test, truth, seed), "clean": reference}
            for name, hit in hits.items():
                found[rate].setdefault(name, []).append(hit)
            print(f"symmetric {rate}, seed {seed}:", {name: round(float(h.mean()), 4) for name, h in hits.items()}, flush=True)
    for rate in RATES:
        hits = {name: np.stack(h) for name, h in found[rate].items()}
        group, n = data.votes.group[test], len(test)
        value, interval = gain(hits["robust"], hits["plain"], group)
        room, room_interval = gain(hits["clean"], hits["plain"], group)
        alone, alone_interval = gain(hits["em"], hits["plain"], group)
        claims.append(
            {"claim": f"ukp single vote, {100 * rate:.0f} % symmetric flips: robust minus plain, points", "target": "lower end > -1.0",
             "measured": value, "interval": interval, "n": n, "seeds": seeds, "passed": interval[0] > -1.0}
        )  # fmt: skip
        table[str(rate)] = {
            "accuracy": {name: float(h.mean()) for name, h in hits.items()},
            "clean_minus_plain_points": room, "clean_minus_plain_interval": room_interval,
            "em_without_curation_minus_plain_points": alone, "em_without_curation_interval": alone_interval,
        }  # fmt: skip
    return claims, table


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=["annotators", "symmetric"], default=None)
    parser.add_argument("--cache", default=None)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    claims, details = [], {}
    for name, run in (("annotators", annotators_part), ("symmetric", symmetric_part)):
        if given.part in (None, name):
            more, table = run(given.data, seeds, given.cache)
            claims += more
            details[name] = table
    command = f"python benchmarks/robust_training.py --seeds {given.seeds}" + (f" --part {given.part}" if given.part else "")
    suffix = f"_{given.part}" if given.part else ""
    write_result(f"robust_training{suffix}", claims, n=claims[0]["n"], seeds=seeds, command=command, details=details)
    sys.exit(0 if all(claim["passed"] for claim in claims) else 1)


if __name__ == "__main__":
    main()
