"""Flip rates recovered from margins: with five objectives at three scales, and per annotator.

Labels are drawn from the likelihood of an objective at known margins and flipped at a known rate; then the model's margins are multiplied
by a scale that the estimator does not know. What is fitted is `estimate_flip_rate(flip - keep)`: rate and slope jointly. Then 50
annotators with 200 votes each. No data set is read.

No unbiased estimator has a smaller standard error than the Cramer-Rao bound of the rate, fitted together with the slope. Where the bound
is half of the tolerance, one fit in twenty misses whatever estimates it; the bound, the misses that it makes likely and the estimator's
error over the bound stand beside the claims, and change none of them.

    python benchmarks/em_recovery.py [--n 100000]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result

from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate

SCALES, RATES = (0.5, 1.0, 2.0), (0.0, 0.1, 0.2, 0.3, 0.4)
SEEDS, ANNOTATOR_SEEDS = (0, 1, 2), tuple(range(20))
#: spread of the true log-odds; 2 is that of the card's oracles, where a single fit at rate .4 has a standard error of .005
SPREADS = (4.0, 2.0)
ANNOTATORS, VOTES, ADVERSARIES = 50, 200, 5
TOLERANCE = 0.01
#: seeds of the comparison with the bound: Bradley-Terry at the smaller spread, rates inside (0, 1/2)
BOUND_SEEDS = tuple(range(100, 200))


def main() -> int:
    parser = arguments(__doc__, data=False)
    parser.add_argument("--n", type=int, default=100_000)
    options = parser.parse_args()
    claims, rows = [], []
    for spread in SPREADS:
        found = [cell(name, spread, scale, rate, options.n) for name in OBJECTIVES for scale in SCALES for rate in RATES]
        rows += found
        for name in OBJECTIVES:
            mine = [row for row in found if row["objective"] == name]
            worst = max(mine, key=lambda row: row["worst"])
            claims.append({
                "claim": f"{name}, log-odds N(0, {spread:g}^2): flip rate from margins scaled by .5, 1, 2 at true rates 0 to .4",
                "target": "within .01, worst single fit",
                "measured": {
                    "worst error": worst["worst"], "Cramer-Rao bound there": worst["bound"], "chance of a miss at the bound": chance(mine),
                },
                "passed": worst["worst"] <= TOLERANCE,
            })  # fmt: skip
    efficiency = against_bound(min(SPREADS), options.n)
    claims.append({
        "claim": f"BT, log-odds N(0, {min(SPREADS):g}^2), rates .1 to .4: root mean square error over the Cramer-Rao bound",
        "target": "at most 1.15", "measured": efficiency["ratio"], "interval": efficiency["interval"],
        "seeds": list(BOUND_SEEDS), "passed": efficiency["ratio"] <= 1.15,
    })  # fmt: skip
    per_annotator = [annotators(seed, adversaries) for adversaries in (0, ADVERSARIES) for seed in ANNOTATOR_SEEDS]
    claims += annotator_claims(per_annotator)
    write_result(
        "em_recovery",
        claims,
        n=options.n,
        seeds=SEEDS,
        command="python benchmarks/em_recovery.py",
        details={"cells": rows, "against_bound": efficiency, "annotators": per_annotator},
    )
    return 0 if all(claim["passed"] for claim in claims) else 1


# ---- one rate ------------------------------------------------------------------------------------------------------------


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


LogOdds = Callable[[np.ndarray], np.ndarray]


def objectives() -> dict[str, LogOdds]:
    """Name -> (margin of the model -> log-odds flip - keep), through the package's own objectives."""
    import torch

    from cupel.objectives import Side, by_name

    def through(name: str, sides: Callable[[torch.Tensor], tuple[Side, Side]], **settings: float | str) -> LogOdds:
        objective = by_name(name, **settings)

        def log_odds(x: np.ndarray) -> np.ndarray:
            first, second = sides(torch.tensor(x))
            with torch.no_grad():
                return (objective.loss(second, first, {}) - objective.loss(first, second, {})).numpy()

        return log_odds

    def policy(x: torch.Tensor) -> tuple[Side, Side]:
        """Sequences of 20 tokens; x is the summed log-ratio of the first side, half of it given to each."""
        zero, count = torch.full_like(x, -500.0), torch.full_like(x, 20).long()
        return tuple(Side(logp=zero + sign * x / 2, reference_logp=zero, n_tokens=count) for sign in (1, -1))  # type: ignore[return-value]

    def scores(x: torch.Tensor) -> tuple[Side, Side]:
        return Side(score=x), Side(score=torch.zeros_like(x))

    return {
        "DPO": through("sigmoid", policy, beta=0.1), "IPO": through("ipo", policy, beta=0.1),
        "SimPO": through("simpo", policy, beta=2.0, gamma=0.5), "CPO": through("cpo", policy, beta=0.1, reduction="sequence"),
        "BT": through("bradley_terry", scores),
    }  # fmt: skip


OBJECTIVES = objectives()


def cell(name: str, spread: float, scale: float, rate: float, n: int) -> dict:
    """Worst absolute error over seeds of one objective, scale and rate."""
    errors, stated, bounds = [], [], []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, sorted(OBJECTIVES).index(name), round(10 * spread), round(10 * rate)])
        unit = float(OBJECTIVES[name](np.ones(1) * 1e-3)[0]) / 1e-3
        x = rng.normal(0, spread, n) / unit  # log-odds of about N(0, spread^2); exactly so where they are linear in the margin
        z = OBJECTIVES[name](x)
        bounds.append(cramer_rao(z, rate))
        right = rng.random(n) < 1 / (1 + np.exp(-z))
        recorded = np.where(right != (rng.random(n) < rate), 1, -1)
        try:
            fit = estimate_flip_rate(OBJECTIVES[name](scale * x) * recorded)
        except NotIdentifiableError as error:
            print(f"{name} {spread} {scale} {rate}: {error}", file=sys.stderr)
            errors.append(1.0)
            stated.append(1.0)
            continue
        errors.append(fit.rate - rate)
        stated.append(fit.error)
    row = {
        "objective": name, "spread": spread, "scale": scale, "rate": rate, "errors": errors, "worst": float(np.max(np.abs(errors))),
        "error": float(np.mean(stated)), "bound": float(np.mean(bounds)),
    }  # fmt: skip
    print(f"{name:6} N(0, {spread:g}^2) x {scale:g}: {rate:.1f} errors {np.round(errors, 4)} (stated {row['error']:.4f})", file=sys.stderr)
    return row


def cramer_rao(z: np.ndarray, rate: float) -> float:
    """Smallest standard error of the rate from labels at log-odds z [n] whose slope is not known either."""
    p = 1 / (1 + np.exp(-z))
    f = p * (1 - rate) + (1 - p) * rate
    slopes = np.stack([1 - 2 * p, (1 - 2 * rate) * p * (1 - p) * z])
    information = (slopes / np.maximum(f * (1 - f), 1e-300)) @ slopes.T
    return float(np.sqrt(np.linalg.inv(information)[0, 0]))


def chance(rows: list[dict]) -> float:
    """Probability that one fit or more misses the tolerance when every one is normal at the bound; the scales share their draws.

    At rate 0 an estimate cannot fall below the truth, so half of the tail counts.
    """
    from scipy.stats import norm

    kept = 1.0
    for row in rows:
        if row["scale"] == 1.0:
            miss = (2 if row["rate"] > 0 else 1) * norm.sf(TOLERANCE / row["bound"])
            kept *= (1 - miss) ** len(SEEDS)
    return float(1 - kept)


def against_bound(spread: float, n: int) -> dict:
    """Root mean square of error over bound, with its 95 % interval (chi squared), and the share of fits past the tolerance."""
    from scipy.stats import chi2, norm

    ratios, missed, expected = [], 0, 0.0
    for seed in BOUND_SEEDS:
        for rate in RATES[1:]:
            rng = np.random.default_rng([seed, round(10 * spread), round(10 * rate)])
            z = rng.normal(0, spread, n)
            right = rng.random(n) < 1 / (1 + np.exp(-z))
            error = estimate_flip_rate(np.where(right != (rng.random(n) < rate), z, -z)).rate - rate
            bound = cramer_rao(z, rate)
            ratios.append(error / bound)
            missed += abs(error) > TOLERANCE
            expected += 2 * float(norm.sf(TOLERANCE / bound))
    count, square = len(ratios), float(np.sum(np.square(ratios)))
    low, high = (float(np.sqrt(square / chi2.ppf(q, count))) for q in (0.975, 0.025))
    return {
        "fits": count, "ratio": float(np.sqrt(square / count)), "interval": [low, high], "past the tolerance": int(missed),
        "expected past it at the bound": expected,
    }  # fmt: skip


# ---- one rate per annotator -------------------------------------------------------------------------------------------------


def annotators(seed: int, adversaries: int) -> dict:
    """50 annotators, 200 votes each, margins N(0, 2^2) of a calibrated model whose scale is not known; some with rate .9."""
    rng = np.random.default_rng([11, seed])
    rates = rng.uniform(0, 0.4, ANNOTATORS)
    rates[:adversaries] = 0.9
    who = np.repeat(np.arange(ANNOTATORS), VOTES)
    z = rng.normal(0, 2, len(who))
    right = rng.random(len(who)) < 1 / (1 + np.exp(-z))
    recorded = np.where(right != (rng.random(len(who)) < rates[who]), 1, -1)
    fit = estimate_flip_rate(z * recorded, who)
    inside = (fit.low_by_annotator <= rates) & (rates <= fit.high_by_annotator)
    last = set(np.argsort(-fit.by_annotator)[:adversaries].tolist()) == set(range(adversaries))
    return {
        "seed": seed, "adversaries": adversaries, "mean_absolute_error": float(np.abs(fit.by_annotator - rates).mean()),
        "covered": int(inside.sum()), "adversaries_last": bool(last), "slope": fit.slope, "rate": fit.rate, "truth": float(rates.mean()),
    }  # fmt: skip


def annotator_claims(rows: list[dict]) -> list[dict]:
    claims, common = [], {"n": ANNOTATORS * VOTES, "seeds": list(ANNOTATOR_SEEDS)}
    for adversaries in (0, ADVERSARIES):
        mine = [row for row in rows if row["adversaries"] == adversaries]
        who = f"50 annotators x 200 votes, {adversaries or 'no'} adversaries"
        errors = np.array([row["mean_absolute_error"] for row in mine])
        covered = np.array([row["covered"] for row in mine]) / ANNOTATORS
        for text, target, values, passed in (
            ("mean absolute error of the flip rates", "at most .045", errors, errors.mean() <= 0.045),
            ("rates inside their 95 % intervals", ".92 to .98", covered, 0.92 <= covered.mean() <= 0.98),
        ):
            half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
            claims.append({
                "claim": f"{who}: {text}", "target": target, "measured": float(values.mean()),
                "interval": [float(values.mean() - half), float(values.mean() + half)], "passed": bool(passed), **common,
            })  # fmt: skip
        if adversaries:
            ranked = sum(row["adversaries_last"] for row in mine)
            claims.append({
                "claim": f"{who}: all five ranked last", "target": "every seed", "measured": f"{ranked} of {len(mine)}",
                "passed": ranked == len(mine), **common,
            })  # fmt: skip
    return claims


if __name__ == "__main__":
    sys.exit(main())
