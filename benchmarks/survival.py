"""The survival table: objectives x treatments x corruption x rate with heads on frozen embeddings, on real data whose truth is known.

    python benchmarks/survival.py [--data DIR] [--seeds 5] [--sets blimp_annotators,gsm8k,...] [--cache DIR] [--work DIR] [--quick]

Two kinds of sets. `*_annotators`: 20 planted annotators (with and without their names shuffled), length-biased and difficulty-dependent
flips at 30 %, two objectives and nine treatments. The others: symmetric flips of 0 to 40 %, eight objectives and eight treatments. Every
group is held out once over five seeds; ridges and recommendations see noisy validation labels only; test rows are judged by the truth
(blimp: by construction; gsm8k: the answer; ukp: the consensus). With --work finished blocks are kept there and a killed run resumes.
About 25 minutes of one processor; with --quick the two required gains alone, in about two.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, write_result
from datasets import Labelled, blimp_pairs, pairs, ukp_strict_single, ukp_votes

from cupel.compare.data import Data, prepare
from cupel.compare.intervals import differences
from cupel.compare.result import Comparison
from cupel.compare.run import compare
from cupel.compare.spec import BY_ANNOTATOR, TREATMENTS, CompareOptions, cases_of
from cupel.compare.table import markdown
from cupel.encode import load_encoder
from cupel.learners.sides import raw_sides
from cupel.stages import Stages

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
#: per set: shares of random and adversarial annotators, and the required points over tuned plain and over shuffled names
ANNOTATORS = {
    "blimp_annotators": (0.2, 0.1, 2.5, 1.5),
    "ukp_single_annotators": (0.25, 0.3, 4.0, None),
}
SYMMETRIC = ("gsm8k", "blimp", "ukp_single", "ukp_votes")
PLAIN, FIRST = "identity", "sigmoid:beta=1"


def some(data: Labelled, n: int) -> Labelled:
    """A random part of n rows, the same for every seed."""
    if len(data.votes) <= n:
        return data
    rows = np.sort(np.random.default_rng(16).permutation(len(data.votes))[:n])
    return Labelled(data.name, data.votes.take(rows), data.wrong[rows], data.known[rows], data.reference)


def load(name: str, directory: Path, cache: str | None) -> Data:
    """The data of a set, encoded: MiniLM where word order matters (blimp), static vectors elsewhere."""
    if name.startswith("blimp"):
        data = blimp_pairs(directory, n=5500, by="id")
        data = data if name == "blimp_annotators" else some(data, 3000)
    elif name == "gsm8k":
        data = pairs(directory, "gsm8k")
    elif name == "ukp_votes":
        data = some(ukp_votes(directory, consensus=True), 5000)
    else:
        data = some(ukp_strict_single(directory), 9500 if name == "ukp_single_annotators" else 4000)
    encoder = load_encoder("minilm" if name.startswith("blimp") else "static")
    truth = np.where(data.known, np.where(data.wrong, -data.votes.sign, data.votes.sign), 0)
    return prepare(name, data.votes, raw_sides(data.votes, encoder, cache=cache), truth)


def options(name: str, seeds: list[int], quick: bool = False) -> CompareOptions:
    """The grid of a set; quick: only the cells that the required gains of per-annotator EM need."""
    if name not in ANNOTATORS:
        return CompareOptions(cases=cases_of(["symmetric"], RATES), seeds=tuple(seeds))
    random, adversarial, *_ = ANNOTATORS[name]
    pool = f"annotators:n=20,random={random},adversarial={adversarial}"
    cases = cases_of([pool, f"{pool},shuffled=true", "length", "difficulty"], [0.3])
    if quick:
        return CompareOptions(objectives=(FIRST,), treatments=(PLAIN, BY_ANNOTATOR), cases=cases[:2], seeds=tuple(seeds))
    treatments = (*TREATMENTS[:4], BY_ANNOTATOR, *TREATMENTS[4:])
    return CompareOptions(objectives=(FIRST, "hinge:beta=1"), treatments=treatments, cases=cases, seeds=tuple(seeds))


def points(found: Comparison, one: tuple[str, str, str], other: tuple[str, str, str]) -> tuple[float, list[float]]:
    """Difference of two cells in points, with its 95 % interval."""
    hits = found.hits
    gain = differences((hits.value[one] - hits.value[other])[None], hits.group, hits.seed_of)
    return 100 * float(gain.estimate[0]), [100 * float(gain.low[0]), 100 * float(gain.high[0])]


def annotator_claims(name: str, found: Comparison, seeds: list[int]) -> list[dict[str, Any]]:
    """The required gains of per-annotator EM, and that it costs nothing where there is no annotator structure."""
    random, adversarial, over_plain, over_shuffled = ANNOTATORS[name]
    common = {"n": found.n_test, "seeds": seeds}
    case, shuffled = (c.label for c in found.options.cases[:2])
    words = f"{name.removesuffix('_annotators')}, 20 annotators, {random:g} random and {adversarial:g} adversarial"
    value, interval = points(found, (FIRST, BY_ANNOTATOR, case), (FIRST, PLAIN, case))
    claims = [
        {"claim": f"{words}: EM per annotator minus tuned plain, points", "target": f">= {over_plain:g}", "measured": value,
         "interval": interval, "passed": value >= over_plain, **common}
    ]  # fmt: skip
    value, interval = points(found, (FIRST, BY_ANNOTATOR, case), (FIRST, BY_ANNOTATOR, shuffled))
    target = 0.0 if over_shuffled is None else over_shuffled
    claims.append(
        {"claim": f"{words}: EM per annotator minus itself with names shuffled, points", "target": f">= {target:g}", "measured": value,
         "interval": interval, "passed": value >= target, **common}
    )  # fmt: skip
    for case in (c.label for c in found.options.cases[2:]):
        claims += non_inferior(f"{name.removesuffix('_annotators')}, {case}", found, case, seeds)
    return claims


def non_inferior(words: str, found: Comparison, case: str, seeds: list[int]) -> list[dict[str, Any]]:
    """What noisy validation recommends over the whole grid loses less than a point against tuned plain training."""
    value, interval = points(found, ("any", "recommended", case), (FIRST, PLAIN, case))
    return [
        {"claim": f"{words}: recommended treatment minus tuned plain, points", "target": "lower end > -1.0", "measured": value,
         "interval": interval, "passed": interval[0] > -1.0, "n": found.n_test, "seeds": seeds}
    ]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default=",".join([*ANNOTATORS, *SYMMETRIC]))
    parser.add_argument("--cache", default=None, help="directory of encoded vectors")
    parser.add_argument("--work", type=Path, default=None, help="directory of finished blocks")
    parser.add_argument("--quick", action="store_true", help="only plain training and EM per annotator, of sets with annotators")
    parser.add_argument("--only", action="store_true", help="compute and keep the blocks of --sets, write no result")
    given = parser.parse_args()
    seeds, claims, details = list(range(given.seeds)), [], {}
    for name in given.sets.split(","):
        data = load(name, given.data, given.cache)

        def say(stage: str, done: int, total: int, name: str = name) -> None:
            print(f"{name}: {done} of {total} blocks", flush=True)

        found = compare(data, options(name, seeds, given.quick), stages=Stages(given.work), key={"set": name}, progress=say)
        print("\n".join(found.lines()), flush=True)
        if name in ANNOTATORS:
            claims += annotator_claims(name, found, seeds)
        else:
            for case in (c.label for c in found.options.cases):
                claims += non_inferior(f"{name}, {case}", found, case, seeds)
        report = found.to_json()
        sizes = {key: report[key] for key in ("n", "n_test", "groups", "diverged_columns")}
        details[name] = {"markdown": markdown(found), "summary": summary(found), **sizes}
    if given.only:
        return
    part = "" if given.sets == parser.get_default("sets") else f" --sets {given.sets}"
    command = f"python benchmarks/survival.py --seeds {given.seeds}{part}" + (" --quick" if given.quick else "")
    write_result("survival", claims, n={k: v["n_test"] for k, v in details.items()}, seeds=seeds, command=command, details=details)
    sys.exit(0 if all(claim["passed"] for claim in claims) else 1)


def summary(found: Comparison) -> dict[str, Any]:
    """Per treatment and case over all objectives: mean gain in points, share of seeds won and lost, cells surely better and worse."""
    out: dict[str, Any] = {}
    for treatment in found.options.treatments[1:]:
        for case in (c.label for c in found.options.cases):
            cells = [c for c in found.cells if (c.treatment, c.case) == (treatment, case)]
            out.setdefault(treatment, {})[case] = {
                "mean_gain": round(100 * float(np.mean([c.gain for c in cells])), 2), "objectives": len(cells),
                "seeds_won": sum(c.wins for c in cells), "seeds_lost": sum(c.losses for c in cells),
                "surely_better": sum(c.all_low > 0 for c in cells), "surely_worse": sum(c.all_high < 0 for c in cells),
                "flip_rate": None if cells[0].flip_rate is None else round(cells[0].flip_rate, 3),
            }  # fmt: skip
    return out


if __name__ == "__main__":
    main()
