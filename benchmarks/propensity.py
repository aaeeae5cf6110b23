"""Missing not at random: averages by inverse propensity, clipped and self-normalised, against known truth, and on a real log of actions.

Known truth: 4,000 rows whose chance of being seen goes with their value. The clip's trade of bias for variance: the grid of the card,
200 x 100 clicks, in closed form and by Monte Carlo. Real propensities: 20,000 recommendations of the Open Bandit data, made by a policy
that learns; every item has known features, so their mean over items chosen evenly is known, and so is what the log should weigh.

    python benchmarks/propensity.py [--data DIR]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result

from cupel.noise.exposure import average, clipping

SEEDS = (0, 1, 2)
DRAWS, ROWS = 2500, 4000
CLIPS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
#: mean square errors of the card at these clips
CARD = (9.72e-4, 7.15e-4, 1.61e-3, 7.17e-3, 2.70e-2, 1.06e-1)


def main() -> int:
    options = arguments(__doc__).parse_args()
    known = [forms(seed) for seed in SEEDS]
    trade = tradeoff()
    bandit = [log(options.data, campaign) for campaign in ("men", "women")]
    claims = [*known_claims(known), *trade_claims(trade), *bandit_claims(bandit)]
    n = {"rows": ROWS, "draws": DRAWS, "logged actions": 20_000}
    write_result(
        "propensity", claims, n=n, seeds=SEEDS, command="python benchmarks/propensity.py",
        details={"known truth": known, "clipping": trade, "open bandit": bandit},
    )  # fmt: skip
    return 0 if all(claim["passed"] for claim in claims) else 1


# ---- known truth -----------------------------------------------------------------------------------------------------------


def forms(seed: int) -> dict:
    """Bias, variance and error of every form over draws of what is seen; value 5 + U(0, 1), theta = .05 + .9 u^2."""
    rng = np.random.default_rng([seed, 32])
    u = rng.uniform(0, 1, ROWS)
    value, theta = 5 + u, 0.05 + 0.9 * u**2
    asked = {f"{label}{form}": (form, clip) for label, clip in (("", 0.0), ("clipped ", 0.15)) for form in ("ips", "snips")}
    asked["naive"] = ("naive", 0.0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    sizes: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(DRAWS):
        seen = rng.random(ROWS) < theta
        for name, (form, clip) in asked.items():
            fit = average(value[seen], theta[seen], form=form, clip=clip, total=ROWS)  # type: ignore[arg-type]
            found[name].append((fit.value, fit.error))
            sizes[name].append(fit.effective)
    truth, out = float(value.mean()), {}
    for name, rows in found.items():
        values, stated = np.array(rows).T
        bias = float(values.mean()) - truth
        out[name] = {
            "bias": bias, "standard error of the bias": float(values.std(ddof=1) / np.sqrt(DRAWS)), "variance": float(values.var(ddof=1)),
            "mean square error": float(((values - truth) ** 2).mean()), "covered": float((np.abs(values - truth) < 1.96 * stated).mean()),
            "effective size": float(np.mean(sizes[name])),
        }  # fmt: skip
    return {"seed": seed, "truth": truth, "seen": float(theta.sum()), "forms": out}


def known_claims(rows: list[dict]) -> list[dict]:
    away = [abs(row["forms"]["ips"]["bias"]) / row["forms"]["ips"]["standard error of the bias"] for row in rows]
    share = [row["forms"]["ips"]["standard error of the bias"] / abs(row["forms"]["naive"]["bias"]) for row in rows]
    left = [abs(row["forms"]["snips"]["bias"]) / abs(row["forms"]["naive"]["bias"]) for row in rows]
    ratio = [row["forms"]["snips"]["mean square error"] / row["forms"]["ips"]["mean square error"] for row in rows]
    covered = [row["forms"]["snips"]["covered"] for row in rows]
    return [
        {
            "claim": "known truth: the mean by inverse propensity is unbiased",
            "target": "within 4 standard errors, each at most 2 % of the naive bias, every seed",
            "measured": {"standard errors away": max(away), "standard error over naive bias": max(share)},
            "passed": max(away) < 4 and max(share) <= 0.02,
        },
        {
            "claim": "known truth: bias of the self-normalised mean over that of the naive one", "target": "at most .02, every seed",
            "measured": max(left), "passed": max(left) <= 0.02,
        },
        {
            "claim": "known truth, values far from 0: mean square error of the self-normalised mean over the unnormalised one",
            "target": "below .2, every seed", "measured": max(ratio), "passed": max(ratio) < 0.2,
        },
        {
            "claim": "known truth: self-normalised mean inside its 95 % interval", "target": ".93 to .99, every seed", "measured": covered,
            "passed": min(covered) >= 0.93 and max(covered) <= 0.99,
        },
    ]  # fmt: skip


# ---- the clip --------------------------------------------------------------------------------------------------------------


def tradeoff() -> list[dict]:
    """Closed form and 2,000 draws of the mean loss on clicks for every clip; the grid is the card's."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.05, 1, 20_000) ** 2
    gamma, x = rng.uniform(0, 1, 20_000), rng.normal(size=20_000) - 1
    d1, d0 = np.logaddexp(0, -x), np.logaddexp(0, x)
    ideal = float(np.mean(gamma * d1 + (1 - gamma) * d0))
    clicks = [rng.random(20_000) < theta * gamma for _ in range(2000)]
    out = []
    for row in clipping(theta, gamma, d1 - d0, CLIPS):
        slope = (d1 - d0) / np.maximum(theta, row.clip) / 20_000
        values = np.array([slope[y].sum() for y in clicks]) + d0.mean()
        out.append({
            "clip": row.clip, "bias": row.bias, "variance": row.variance, "mean square error": row.error,
            "effective clicks": row.effective, "top 1 % of weight": row.top, "drawn bias": float(values.mean()) - ideal,
            "drawn variance": float(values.var()),
            "standard errors away": float(abs(values.mean() - ideal - row.bias) / (values.std() / np.sqrt(len(values)))),
        })  # fmt: skip
    return out


def trade_claims(rows: list[dict]) -> list[dict]:
    error = [row["mean square error"] for row in rows]
    best = int(np.argmin(error))
    off = max(abs(found / card - 1) for found, card in zip(error, CARD, strict=True))
    away, spread = (
        max(row["standard errors away"] for row in rows), max(abs(row["drawn variance"] / row["variance"] - 1) for row in rows),
    )  # fmt: skip
    return [
        {
            "claim": "clipping, 200 x 100 clicks: bias and variance in closed form against 2,000 draws",
            "target": "bias within 4 standard errors, variance within 15 %, every clip",
            "measured": {"standard errors away": away, "variance off by": spread}, "passed": away < 4 and spread < 0.15, "seeds": [0],
        },
        {
            "claim": "clipping: mean square error has its minimum between no clip and all clipped", "target": "a clip inside, strictly",
            "measured": {"clip": CLIPS[best], "error": error[best], "unclipped": error[0], "naive": error[-1]},
            "passed": 0 < best < len(error) - 1, "seeds": [0],
        },
        {
            "claim": "clipping: mean square errors are those of the card", "target": "within 10 %, every clip", "measured": off,
            "passed": off < 0.1, "seeds": [0],
        },
    ]  # fmt: skip


# ---- a real log ------------------------------------------------------------------------------------------------------------


def log(data: Path, campaign: str) -> dict:
    """The features of items and the click rate under even choice, from the actions of the learning policy; truth or even actions beside."""
    table = pq.read_table(data / "open_bandit/log.parquet").to_pylist()
    items = [row for row in pq.read_table(data / "open_bandit/items.parquet").to_pylist() if row["campaign"] == campaign]
    rows = [row for row in table if row["campaign"] == campaign]
    bts, even = ([row for row in rows if row["policy"] == policy] for policy in ("bts", "random"))
    theta, clicks = np.array([row["propensity"] for row in bts]), np.array([float(row["click"]) for row in bts])
    at = {row["item_id"]: row for row in items}
    wanted = 1 / len(items)
    out: dict = {"campaign": campaign, "actions": len(bts), "smallest propensity": float(theta.min()), "features": {}}
    fit = average(clicks, theta, wanted=wanted)
    out |= {"effective size": fit.effective, "top 1 % of weight": fit.top, "mean weight": float((wanted / theta).mean())}
    out["standard error of the mean weight"] = float((wanted / theta).std(ddof=1) / np.sqrt(len(theta)))
    rank = {item: i / (len(at) - 1) for i, item in enumerate(sorted(at, key=lambda item: float(at[item]["item_feature_0"])))}
    truth = 0.5  # the mean rank of items chosen evenly
    for form, clip in (("naive", 0.0), ("ips", 0.0), ("ips", 0.01), ("snips", 0.0), ("snips", 0.01)):
        found = average([rank[row["item_id"]] for row in bts], theta, form=form, clip=clip, wanted=wanted)  # type: ignore[arg-type]
        clicked = average(clicks, theta, form=form, clip=clip, wanted=wanted)  # type: ignore[arg-type]
        name = form + (f" clipped at {clip:g}" if clip else "")
        out["features"][name] = {"value": found.value, "error": found.error, "standard errors away": abs(found.value - truth) / found.error}
        out.setdefault("click rate", {})[name] = {"value": clicked.value, "error": clicked.error}
    rate = np.mean([row["click"] for row in even])
    out["click rate"]["even choice, as logged"] = {"value": float(rate), "error": float(np.sqrt(rate * (1 - rate) / len(even)))}
    return out


def bandit_claims(rows: list[dict]) -> list[dict]:
    out = []
    for row in rows:
        found = row["features"]
        out.append({
            "claim": f"open_bandit {row['campaign']}: mean rank of an item feature under even choice, from the learning policy's log",
            "target": "snips within 4 standard errors of the truth .5 and its error at most .05, naive more than 4 away",
            "measured": {"snips away": found["snips"]["standard errors away"], "naive away": found["naive"]["standard errors away"],
                         "snips": found["snips"]["value"], "its error": found["snips"]["error"], "effective size": row["effective size"]},
            # an estimate whose error is a fifth of the range of the feature says nothing, wherever it lies
            "passed": found["snips"]["error"] <= 0.05
            and found["snips"]["standard errors away"] < 4 < found["naive"]["standard errors away"],
            "n": row["actions"], "seeds": [0],
        })  # fmt: skip
        rate = row["click rate"]
        gap = abs(rate["snips"]["value"] - rate["even choice, as logged"]["value"])
        error = float(np.hypot(rate["snips"]["error"], rate["even choice, as logged"]["error"]))
        out.append({
            "claim": f"open_bandit {row['campaign']}: click rate under even choice, from the learning policy's log and as logged",
            "target": "snips within 2 standard errors of the difference (few clicks: a weak test)",
            "measured": {"snips": rate["snips"]["value"], "as logged": rate["even choice, as logged"]["value"], "away": gap / error},
            "passed": gap < 2 * error, "n": row["actions"], "seeds": [0],
        })  # fmt: skip
    return out


if __name__ == "__main__":
    sys.exit(main())
