"""Coverage of every kind of interval that cupel prints, over simulated sets whose truth is known.

Each kind is drawn anew in every set, with groups (prompts) that differ, and its nominal 95 % interval is checked against the value
of the population that the set was drawn from.

    python benchmarks/coverage.py [--sets 500]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result

from cupel.compare.intervals import differences
from cupel.evaluate.crossed import crossed_interval
from cupel.votes.agreement import krippendorff_alpha, pairwise_agreement
from cupel.votes.intervals import cluster_bootstrap, wilson
from cupel.votes.label_error import repeats, trusted, trusted_plan, trusted_uniform

Ends = tuple[float, float, float]  # low, high, truth


def main() -> int:
    parser = arguments(__doc__, data=False)
    parser.add_argument("--sets", type=int, default=500)
    parser.add_argument("--stream", type=int, default=5, help="another number draws other sets")
    options = parser.parse_args()
    claims = []
    for name, kind in KINDS.items():
        ends = np.array([kind(np.random.default_rng([seed, options.stream]), seed) for seed in range(options.sets)])
        inside = (ends[:, 0] <= ends[:, 2]) & (ends[:, 2] <= ends[:, 1])
        covered = float(inside.mean())
        claims.append({
            "claim": f"{name}: 95 % intervals cover the truth", "target": "93 to 98.5 % of sets", "measured": covered,
            "interval": list(wilson(float(inside.sum()), len(inside))), "n": options.sets, "seeds": [0, options.sets - 1],
            "passed": 0.93 <= covered <= 0.985,
        })  # fmt: skip
        print(f"{name}: {covered:.3f}, mean width {np.mean(ends[:, 1] - ends[:, 0]):.3f}", file=sys.stderr)
    write_result("coverage", claims, n=options.sets, seeds=[0, options.sets - 1], command="python benchmarks/coverage.py")
    return 0 if all(c["passed"] for c in claims) else 1


def share(rng: np.random.Generator, seed: int) -> Ends:
    """Wilson's interval of a share of independent rows."""
    truth = rng.uniform(0.05, 0.6)
    return (*wilson(float(rng.binomial(200, truth)), 200), truth)


def grouped(rng: np.random.Generator, groups: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """(group of each row, effect of the row's group): groups of unequal size."""
    group = np.repeat(np.arange(groups), rng.integers(5, 25, groups))
    return group, (spread * rng.normal(size=groups))[group]


def grouped_mean(rng: np.random.Generator, seed: int, groups: int = 26) -> Ends:
    """Bootstrap over prompts of a share whose level differs between prompts."""
    group, effect = grouped(rng, groups, 0.1)
    hit = (rng.random(len(group)) < np.clip(0.3 + effect, 0, 1)).astype(float)
    found = cluster_bootstrap(hit, group, seed=seed, clip=(0, 1))
    return found.low, found.high, 0.3


def voted(rng: np.random.Generator, rho: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """(pair, sign) of m votes per pair that are wrong with the probability of the pair."""
    truth = rng.choice([-1, 1], len(rho))
    wrong = rng.random((len(rho), m)) < rho[:, None]
    return np.repeat(np.arange(len(rho)), m), np.where(wrong, -truth[:, None], truth[:, None]).reshape(-1)


def alpha(rng: np.random.Generator, seed: int) -> Ends:
    """Krippendorff's alpha: with balanced labels it is 1 - 4 E[rho (1 - rho)], rho uniform on [0, .4] here."""
    pair, sign = voted(rng, rng.uniform(0, 0.4, 200), 4)
    found = krippendorff_alpha(pair, sign, seed=seed)
    return found.low, found.high, 1 - 4 * (0.2 - 0.4**2 / 3)


def agreement(rng: np.random.Generator, seed: int) -> Ends:
    """Agreement of two random votes, prompts differing in difficulty: 1 - 2 E[rho (1 - rho)]."""
    prompt = np.repeat(np.arange(30), 10)
    pair, sign = voted(rng, rng.uniform(0, 0.4, 30)[prompt], 3)
    found = pairwise_agreement(pair, sign, groups=prompt[pair], seed=seed)
    return found.low, found.high, 1 - 2 * (0.2 - 0.4**2 / 3)


def folded(rng: np.random.Generator, seed: int) -> Ends:
    """The point from repeats, folded beta-binomial, five votes."""
    pair, sign = voted(rng, rng.beta(1.5, 4.5, 600) / 2, 5)
    rate = repeats(pair, sign, seed=seed, draws=400)
    return rate.details["point_low"], rate.details["point_high"], 0.125


def one_coin(rng: np.random.Generator, seed: int) -> Ends:
    """The point from repeats, one coin per annotator, three votes by 25 people of whom each errs at a fixed rate."""
    who = np.argsort(rng.random((500, 25)), axis=1)[:, :3]
    rates = np.linspace(0.02, 0.35, 25)
    truth = rng.choice([-1, 1], (500, 1))
    sign = np.where(rng.random((500, 3)) < rates[who], -truth, truth)
    rate = repeats(np.repeat(np.arange(500), 3), sign.reshape(-1), annotator=who.reshape(-1), seed=seed, draws=200)
    return rate.details["point_low"], rate.details["point_high"], float(rates.mean())


def rechecked(rng: np.random.Generator, informative: float, rate: float, n: int, recheck: float = 0.0) -> tuple:
    """(answers, plan, truth, double checks) of a re-check of n of 3,000 rows by a person who errs with rate `recheck`."""
    wrong = rng.random(3000) < rate
    plan = trusted_plan(informative * wrong + rng.normal(size=3000), n, int(rng.integers(1 << 30)))
    answer = wrong[plan.rows] ^ (rng.random(n) < recheck)
    return answer, plan, float(wrong.mean()), (int(rng.binomial(200, 2 * recheck * (1 - recheck))), 200)


def stratified(rng: np.random.Generator, seed: int) -> Ends:
    """The estimate from a blind re-check of 100 rows, suspicion informative."""
    answer, plan, truth, _ = rechecked(rng, 1.5, 0.15, 100)
    rate = trusted(answer, plan.stratum, plan.sizes)
    return rate.low, rate.high, truth


def stratified_fallible(rng: np.random.Generator, seed: int) -> Ends:
    """The same with 200 rows, by a person who errs at 6 %, known from 200 rows that were checked twice."""
    answer, plan, truth, double = rechecked(rng, 1.5, 0.2, 200, recheck=0.06)
    rate = trusted(answer, plan.stratum, plan.sizes, double=double)
    return rate.low, rate.high, truth


def uniform(rng: np.random.Generator, seed: int) -> Ends:
    """The estimate from 100 rows re-checked uniformly at random."""
    answer, _, truth, _ = rechecked(rng, 0.0, rng.uniform(0.05, 0.4), 100)
    rate = trusted_uniform(answer)
    return rate.low, rate.high, truth


def uniform_fixed(rng: np.random.Generator, seed: int) -> Ends:
    """The same at one rate, .15: binomial counts jump, and the coverage of an interval with them (Wilson's would be .933 there)."""
    answer, _, _, _ = rechecked(rng, 0.0, 0.15, 100)
    rate = trusted_uniform(answer)
    return rate.low, rate.high, 0.15


def paired(rng: np.random.Generator, seed: int) -> Ends:
    """Difference of the accuracy of two models on the same pairs, prompts differing in both level and difference."""
    group, effect = grouped(rng, 26, 0.1)
    gain = (0.04 * rng.normal(size=26))[group]
    common = rng.random(len(group))
    plain = common < 0.75 + effect
    other = np.where(rng.random(len(group)) < 0.8, common, rng.random(len(group))) < 0.78 + effect + gain
    found = cluster_bootstrap(other.astype(float) - plain, group, seed=seed)
    return found.low, found.high, 0.03


def crossed(rng: np.random.Generator, seed: int) -> Ends:
    """The same difference over four training seeds, prompts crossed with seeds, as `cupel evaluate` prints it."""
    group, effect = grouped(rng, 26, 0.08)
    noise = 0.005 * rng.normal(size=(2, 4, 1))
    hard = rng.random((2, 1, len(group)))  # seeds of one model mostly agree on a row, as they do after training on the same rows
    redrawn = rng.random((2, 4, len(group))) < 0.1
    hard = np.where(redrawn, rng.random((2, 4, len(group))), hard)
    right = hard < np.array([0.7, 0.73])[:, None, None] + effect + noise
    low, high, _, _ = crossed_interval(right[1].astype(float), right[0].astype(float), group, seed=seed, draws=1000)
    return *(np.nan if x is None else x for x in (low, high)), 0.03


def crossed_independent(rng: np.random.Generator, seed: int) -> Ends:
    """The same with seeds that share nothing on a row: the case in which a bootstrap of both factors counts the row noise three times."""
    group, effect = grouped(rng, 26, 0.08)
    noise = 0.01 * rng.normal(size=(2, 4, 1))
    right = rng.random((2, 4, len(group))) < np.array([0.7, 0.73])[:, None, None] + effect + noise
    low, high, _, _ = crossed_interval(right[1].astype(float), right[0].astype(float), group, seed=seed, draws=1000)
    return *(np.nan if x is None else x for x in (low, high)), 0.03


def crossed_seeds(seeds: int) -> Callable[[np.random.Generator, int], Ends]:
    """Few seeds that differ from each other by more than prompts do."""

    def one(rng: np.random.Generator, seed: int) -> Ends:
        group, effect = grouped(rng, 26, 0.08)
        noise = 0.08 * rng.normal(size=(2, seeds, 1))
        right = rng.random((2, seeds, len(group))) < np.array([0.6, 0.63])[:, None, None] + effect + noise
        low, high, _, _ = crossed_interval(right[1].astype(float), right[0].astype(float), group, seed=seed, draws=1000)
        return *(np.nan if x is None else x for x in (low, high)), 0.03

    return one


def compared(seeds: int, all_test: bool) -> Callable[[np.random.Generator, int], Ends]:
    """A difference of a survival table: 60 groups, each tested by one of the seeds or by all of them; seeds differ as groups do."""

    def one(rng: np.random.Generator, seed: int) -> Ends:
        group = np.repeat(np.arange(60), 20)
        seed_of = np.tile(np.arange(20) % seeds, 60) if all_test else group % seeds
        moved = 0.05 * rng.normal(size=60)[group] + 0.03 * rng.normal(size=seeds)[seed_of]
        found = differences((0.03 + moved + 0.5 * rng.normal(size=len(group)))[None], group, seed_of, draws=200, seed=seed)
        return float(found.low[0]), float(found.high[0]), 0.03

    return one


KINDS: dict[str, Callable[[np.random.Generator, int], Ends]] = {
    "share of rows (Wilson)": share,
    "mean over prompts (cluster bootstrap)": grouped_mean,
    "Krippendorff's alpha": alpha,
    "agreement of two votes": agreement,
    "label error, repeats, folded beta-binomial": folded,
    "label error, repeats, one coin": one_coin,
    "label error, re-check, stratified": stratified,
    "label error, re-check by a fallible person": stratified_fallible,
    "label error, re-check, uniform, rates .05 to .40": uniform,
    "label error, re-check, uniform, rate .15": uniform_fixed,
    "paired difference (prompts)": paired,
    "paired difference (prompts crossed with seeds that mostly agree)": crossed,
    "paired difference (prompts crossed with seeds, independent on a row)": crossed_independent,
    "paired difference (prompts crossed with five seeds that differ most)": crossed_seeds(5),
    "paired difference (prompts crossed with three seeds that differ most)": crossed_seeds(3),
    "difference in a survival table, each prompt tested by one of five seeds": compared(5, all_test=False),
    "difference in a survival table, each prompt tested by one of three seeds": compared(3, all_test=False),
    "difference in a survival table, each user tested by all of five seeds": compared(5, all_test=True),
    "difference in a survival table, each user tested by all of three seeds": compared(3, all_test=True),
}


if __name__ == "__main__":
    raise SystemExit(main())
