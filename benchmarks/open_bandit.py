"""Does a biased log, weighed by its propensities, say what a uniform log says? Open Bandit (small version): Thompson against uniform.

    python benchmarks/open_bandit.py [--data DIR]

Two campaigns; in each a log of a Thompson policy (`bts`) with the true propensity of what it showed, and a log in which every item was
equally likely (`random`). From the Thompson log alone, what would the uniform policy have given? naive mean, inverse propensity (ips),
self-normalised (snips), doubly robust (dr: means by item and position, cross-fitted). Asked of two values of a display: the click (half a
per cent: little can be told), and item_feature_0, a number of the item shown that has no noise of its own, and whose mean under the uniform
policy is known exactly. The claims were written before any value was computed from the clicks, but for those that say "after the first
look": one propensity of the women's log is 1e-6, and its row alone outweighs all others.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

from cupel.evaluate.recommending.policy import cell_means, doubly_robust
from cupel.noise.exposure import Average, average
from cupel.noise.propensities import display_frequency, popularity_propensity
from cupel.votes.intervals import agresti_coull, normal_quantile

Z = normal_quantile(0.95)
FORMS = ("naive", "ips", "snips", "dr")
CLIPS = (0.0, 1e-4, 1e-3, 3e-3, 1e-2)


class Campaign:
    """The two logs of a campaign as arrays, and what its items are."""

    def __init__(self, name: str, log: Any, items: Any) -> None:
        mine = items.filter([campaign == name for campaign in items.column("campaign").to_pylist()])
        feature = dict(zip(mine.column("item_id").to_pylist(), mine.column("item_feature_0").to_pylist(), strict=True))
        self.name, self.items = name, sorted(feature)
        self.number = {item: k for k, item in enumerate(self.items)}
        self.feature = np.array([feature[item] for item in self.items], dtype=np.float64)
        keep = [campaign == name for campaign in log.column("campaign").to_pylist()]
        self.logs = {policy: self._part(log.filter(keep), policy) for policy in ("bts", "random")}

    def _part(self, log: Any, policy: str) -> dict[str, np.ndarray]:
        rows = log.filter([one == policy for one in log.column("policy").to_pylist()])
        item = np.array([self.number[i] for i in rows.column("item_id").to_pylist()])
        columns = {name: rows.column(name).to_numpy().astype(np.float64) for name in ("click", "propensity")}
        return {"item": item, "position": rows.column("position").to_numpy() - 1, "feature": self.feature[item], **columns}

    def estimates(
        self, value: str, theta: np.ndarray | None = None, seed: int = 0, prior: float = 20.0, clip: float = 0.0
    ) -> dict[str, Average]:
        """Each form from the Thompson log, of the uniform policy."""
        log, wanted = self.logs["bts"], 1 / len(self.items)
        theta = log["propensity"] if theta is None else theta
        out = {form: average(log[value], theta, form=form, wanted=wanted, clip=clip) for form in ("naive", "ips", "snips")}  # type: ignore[arg-type]
        cell = log["item"] * 3 + log["position"]
        means, fold = cell_means(log[value], cell, 3 * len(self.items), prior=prior, seed=seed)
        mean = means.reshape(len(means), -1, 3).mean(axis=1)[fold, log["position"]]
        out["dr"] = doubly_robust(log[value], theta, wanted=wanted, predicted=means[fold, cell], mean=mean, clip=clip)
        return out

    def uniform(self, value: str) -> tuple[float, float]:
        """(mean in the uniform log, its standard error)."""
        seen = self.logs["random"][value]
        return float(seen.mean()), float(seen.std(ddof=1) / np.sqrt(len(seen)))


def gap(found: Average, truth: tuple[float, float]) -> list[float]:
    """[estimate minus uniform, low, high], independent logs."""
    half = Z * float(np.hypot(found.error, truth[1]))
    return [found.value - truth[0], found.value - truth[0] - half, found.value - truth[0] + half]


def claim(text: str, target: str, measured: Any, passed: bool, n: int, interval: list[float] | None = None) -> dict[str, Any]:
    return {"claim": text, "target": target, "measured": measured, "interval": interval, "n": n, "passed": bool(passed)}


def pooled(campaigns: list[Campaign], value: str, form: str, theta: dict[str, np.ndarray] | None = None) -> list[float]:
    """The gap averaged over campaigns."""
    parts = [(c.estimates(value, None if theta is None else theta[c.name])[form], c.uniform(value)) for c in campaigns]
    middle = float(np.mean([found.value - truth[0] for found, truth in parts]))
    half = Z * float(np.sqrt(sum(found.error**2 + truth[1] ** 2 for found, truth in parts))) / len(parts)
    return [middle, middle - half, middle + half]


def estimated(campaign: Campaign) -> dict[str, np.ndarray]:
    """Propensities of the Thompson log's rows without the stated ones: frequency by item and position, by item, popularity of clicks."""
    log = campaign.logs["bts"]
    item, position = log["item"].tolist(), log["position"].tolist()
    catalogue = list(range(len(campaign.items)))
    by_position = display_frequency(item, position, catalogue=catalogue).of(item, position)
    by_item = display_frequency(item, catalogue=catalogue, occasions=len(item)).of(item)
    clicks = np.bincount(log["item"], log["click"], len(catalogue))
    power = popularity_propensity({str(k): float(n) for k, n in enumerate(clicks)}, 0.5, 0.01)
    return {"item and position": by_position, "item": by_item, "popularity of clicks, power 0.5": np.array([power[str(k)] for k in item])}


def main() -> None:
    """Estimate, compare and write benchmarks/results/open_bandit.json."""
    data = arguments(__doc__).parse_args().data / "open_bandit"
    began = time.process_time()
    log, items = pq.read_table(data / "log.parquet"), pq.read_table(data / "items.parquet")
    campaigns = [Campaign(name, log, items) for name in ("men", "women")]
    claims: list[dict[str, Any]] = []
    details: dict[str, Any] = {"campaigns": {}}
    for c in campaigns:
        bts, n = c.logs["bts"], len(c.logs["bts"]["item"])
        w = 1 / len(c.items) / bts["propensity"]
        error = float(w.std(ddof=1) / np.sqrt(n))
        claims.append(
            claim(f"{c.name}: weights of the Thompson log average 1", "within 4 errors", float(w.mean()), abs(w.mean() - 1) < 4 * error, n,
                  [float(w.mean()) - Z * error, float(w.mean()) + Z * error])
        )  # fmt: skip
        exact = (float(c.feature.mean()), 0.0)
        features, clicks, truth = c.estimates("feature", prior=1.0), c.estimates("click"), c.uniform("click")
        naive = gap(features["naive"], exact)
        claims.append(
            claim(f"{c.name}, item feature: naive minus uniform", "0 outside", naive[0], not naive[1] <= 0 <= naive[2], n, naive[1:])
        )
        for form in ("ips", "snips"):
            found = gap(features[form], exact)
            claims.append(
                claim(f"{c.name}, item feature: {form} minus uniform", "0 inside", found[0], found[1] <= 0 <= found[2], n, found[1:])
            )
        for form in ("ips", "snips", "dr"):
            found = gap(clicks[form], truth)
            claims.append(
                claim(f"{c.name}, clicks: {form} minus the uniform log", "0 inside", found[0], found[1] <= 0 <= found[2], n, found[1:])
            )
        rate = c.logs["random"]["click"]
        sources = estimated(c)
        details["campaigns"][c.name] = {
            "items": len(c.items), "rows": {policy: len(part["item"]) for policy, part in c.logs.items()},
            "clicks": {policy: int(part["click"].sum()) for policy, part in c.logs.items()},
            "uniform_click_rate": [float(rate.mean()), *agresti_coull(float(rate.sum()), len(rate))],
            "smallest_propensity": float(bts["propensity"].min()), "effective_rows": clicks["ips"].effective,
            "feature_exact": exact[0],
            "feature": {form: [features[form].value, features[form].error] for form in FORMS},
            "click": {form: [clicks[form].value, clicks[form].error] for form in FORMS},
            "click_minus_uniform": {form: gap(clicks[form], truth) for form in FORMS},
            "by_clip": {str(clip): clipped(c, clip, exact, truth) for clip in CLIPS},
            "click_by_position": {str(k + 1): by_position(c, k) for k in range(3)},
            "propensity_sources": {
                name: {
                    "correlation": float(np.corrcoef(theta, bts["propensity"])[0, 1]),
                    "mean_weight": float((1 / len(c.items) / theta).mean()),
                    "feature_minus_uniform": {form: gap(c.estimates("feature", theta)[form], exact) for form in ("ips", "snips")},
                    "click_minus_uniform": {form: gap(c.estimates("click", theta)[form], truth) for form in ("ips", "snips")},
                }
                for name, theta in sources.items()
            },
        }  # fmt: skip
        both = sources["item and position"]
        claims.append(
            claim(f"{c.name}: frequency by item and position against the true propensity", "correlation >= 0.9",
                  float(np.corrcoef(both, bts["propensity"])[0, 1]), np.corrcoef(both, bts["propensity"])[0, 1] >= 0.9, n)
        )  # fmt: skip
        found = gap(c.estimates("feature", both)["snips"], exact)
        claims.append(
            claim(f"{c.name}, item feature: snips with estimated propensities minus uniform", "0 inside", found[0],
                  found[1] <= 0 <= found[2], n, found[1:])
        )  # fmt: skip
    total = sum(len(c.logs["bts"]["item"]) for c in campaigns)
    naive = pooled(campaigns, "click", "naive")
    claims.append(
        claim("both campaigns, clicks: naive minus the uniform log", "0 outside", naive[0], not naive[1] <= 0 <= naive[2], total, naive[1:])
    )
    for form in ("snips", "dr"):
        found = pooled(campaigns, "click", form)
        claims.append(
            claim(
                f"both campaigns, clicks: {form} minus the uniform log", "0 inside", found[0], found[1] <= 0 <= found[2], total, found[1:]
            )
        )
    claims += after_the_first_look(campaigns)
    details["clicks_that_could_be_told_apart"] = {
        c.name: 2.8 * float(np.hypot(c.estimates("click")["snips"].error, c.uniform("click")[1])) for c in campaigns
    }
    details["cpu_seconds"] = round(time.process_time() - began, 1)
    write_result("open_bandit", claims, n=total, seeds=[0], command="python benchmarks/open_bandit.py", details=details)


def clipped(c: Campaign, clip: float, exact: tuple[float, float], truth: tuple[float, float]) -> dict[str, Any]:
    """What a clip does: share of rows below it, mean weight, effective rows, differences to the uniform policy."""
    clicks, features = c.estimates("click", clip=clip), c.estimates("feature", prior=1.0, clip=clip)
    w = 1 / len(c.items) / np.maximum(c.logs["bts"]["propensity"], clip)
    return {
        "rows_below": int((c.logs["bts"]["propensity"] < clip).sum()), "mean_weight": float(w.mean()), "effective": clicks["ips"].effective,
        "click_minus_uniform": {form: gap(clicks[form], truth) for form in FORMS},
        "feature_minus_uniform": {form: gap(features[form], exact) for form in FORMS},
    }  # fmt: skip


def after_the_first_look(campaigns: list[Campaign]) -> list[dict[str, Any]]:
    """Naive clicks by campaign, and the women's log with a clip of 1e-4, below which one row lies."""
    out = []
    for c in campaigns:
        found = gap(c.estimates("click")["naive"], c.uniform("click"))
        n = len(c.logs["bts"]["item"])
        text = f"{c.name}, clicks: naive minus the uniform log (after the first look)"
        out.append(claim(text, "0 outside", found[0], not found[1] <= 0 <= found[2], n, found[1:]))
    women = campaigns[1]
    n, exact = len(women.logs["bts"]["item"]), (float(women.feature.mean()), 0.0)
    for value, truth in (("feature", exact), ("click", women.uniform("click"))):
        found = gap(women.estimates(value, clip=1e-4)["snips"], truth)
        text = f"women, {value}: snips with clip 1e-4, one row clipped, minus uniform (after the first look)"
        out.append(claim(text, "0 inside", found[0], found[1] <= 0 <= found[2], n, found[1:]))
    return out


def by_position(c: Campaign, k: int) -> dict[str, list[float]]:
    """Click rates at a position: [estimate, error] of each form, and of the uniform log."""
    log, random = c.logs["bts"], c.logs["random"]
    here, there = log["position"] == k, random["position"] == k
    out = {}
    for form in ("naive", "ips", "snips"):
        found = average(log["click"][here], log["propensity"][here], form=form, wanted=1 / len(c.items))  # type: ignore[arg-type]
        out[form] = [found.value, found.error]
    seen = random["click"][there]
    return {**out, "uniform": [float(seen.mean()), float(seen.std(ddof=1) / np.sqrt(len(seen)))]}


if __name__ == "__main__":
    main()
