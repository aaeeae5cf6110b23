"""Prompt-aware weights over several rewards (PRO, card 30): a simulation, its failure mode, real scores, and policies.

    python benchmarks/orchestrator.py [--data DIR] [--seeds 5]

A. Prompts x ~ N(0, I_8), true weights w(x) = softmax(1.5 x N), 3 rewards U(0, 1) of each of 16 candidates, one pair per prompt labelled by
Bradley-Terry on the true utility (scale 20); 2,000 training and 1,000 test prompts. Targets use T = .1 on raw rewards, as the card does.
B. The same, but where the true weight of objective 1 exceeds .5 all its rewards are multiplied by .3.
C. OpinPref: 7 scores per summary are the objectives, the vector of the reviews (encoder inside cupel) is the prompt; 545 pairs train and
255 test (the card had 940 pairs), 10 splits.
D. Policies over the 16 candidates of 100 test prompts of A, uniform reference, beta .1: optimum of each weighting of a grid, Rewarded Soups
(interpolated logits), MODPO trained on preferences under objective 0, and prompt-aware weights.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from common import arguments, write_result

from cupel.encode import load_encoder
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models import simplex
from cupel.learners.models.orchestrator import Orchestrator, fit_targets
from cupel.learners.models.scalarise import best_fixed, front, grid, hypervolume, modpo_rating, morlhf, pareto, scalarised, utility_regret
from cupel.learners.models.types import Shape
from cupel.noise.fixed import identity
from cupel.objectives.margin import modpo
from cupel.objectives.reward import bradley_terry
from cupel.objectives.types import Side

TRAIN, TEST, CANDIDATES, SCALE = 2000, 1000, 16, 20.0
PROMPTS, BETA = 100, 0.1
OPTIONS = HeadOptions(head="orchestrator:normalise=raw", epochs=400, batch_size=TRAIN, learning_rate=0.05, schedule="constant", l2=0.0)
NAMES = tuple(f"objective {k}" for k in range(3))


class World:
    """Prompts, true weights, rewards of candidates, and one labelled pair per prompt."""

    def __init__(self, seed: int, suppressed: bool) -> None:
        rng = np.random.default_rng([seed, 30])
        n = TRAIN + TEST
        self.x = rng.normal(size=(n, 8))
        self.w = simplex.softmax(1.5 * self.x @ rng.normal(size=(8, 3)))
        self.r = rng.random((n, CANDIDATES, 3))
        self.hit = self.w[:, 1] > 0.5
        if suppressed:
            self.r[:, :, 1] *= np.where(self.hit, 0.3, 1.0)[:, None]
        self.utility = (self.r * self.w[:, None]).sum(axis=2)
        gap = SCALE * (self.utility[:, 0] - self.utility[:, 1])  # the first two candidates are the pair
        self.p = (rng.random(n) < 1 / (1 + np.exp(-gap))).astype(float)
        self.test = np.arange(TRAIN, n)

    def comparisons(self) -> tuple[np.ndarray, Comparisons]:
        """Rewards of the training pairs as features, and the pairs."""
        at = np.arange(TRAIN)
        features = self.r[:TRAIN, :2].reshape(-1, 3).astype(np.float32)
        return features, Comparisons.of(
            2 * at, 2 * at + 1, self.p[:TRAIN], prompt=at, prompts=self.x[:TRAIN].astype(np.float32), columns=NAMES
        )  # fmt: skip


def weightings(world: World, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Orchestrator]]:
    """Weights of all prompts under each method, and the adapters."""
    features, data = world.comparisons()
    made = {f"eq. 7{how}": fit_targets(features, data, target="winner", normalise=norm, l2=0.0)
            for how, norm in (("", "raw"), (" on z-scores", "zscore"))}  # fmt: skip
    made["difference"] = fit_targets(features, data, target="difference", normalise="raw", l2=0.0)
    fitted = fit(features, data, bradley_terry(), identity(), HeadOptions(**{**OPTIONS.recorded(), "seed": seed})).models[0]
    assert isinstance(fitted, Orchestrator)
    made["preference"] = fitted
    one = best_fixed(world.r[:TRAIN, 0] - world.r[:TRAIN, 1], world.p[:TRAIN])
    found = {"oracle": world.w, "uniform": np.full_like(world.w, 1 / 3), "best fixed": np.tile(one, (len(world.w), 1))}
    with torch.no_grad():
        x = torch.from_numpy(world.x.astype(np.float32))
        found |= {name: model.weights(x).double().numpy() for name, model in made.items()}
    return {name: w / w.sum(axis=1, keepdims=True) for name, w in found.items()}, made


def simulation(seed: int, suppressed: bool) -> dict[str, dict[str, float]]:
    """Regret, pair accuracy, KL to the true weights, entropy and specialisation on test prompts, and on those that are suppressed."""
    world = World(seed, suppressed)
    found, made = weightings(world, seed)
    test, hit = world.test, world.test[world.hit[world.test]]
    features, data = world.comparisons()
    out: dict[str, dict[str, float]] = {}
    for name, w in found.items():
        score = scalarised(world.r, w[:, None])
        regret = utility_regret(world.utility[test], score[test])
        right = (score[test, 0] > score[test, 1]) == (world.p[test] > 0.5)
        out[name] = {
            "regret": float(regret.mean()), "accuracy": float(right.mean()), "kl": float(simplex.divergence(world.w[test], w[test]).mean()),
            "entropy": float(simplex.entropy(w[test]).mean()), "specialised": simplex.specialisation(w[test]),
            "regret where hit": float(utility_regret(world.utility[hit], score[hit]).mean()), "weight where hit": float(w[hit, 1].mean()),
        }  # fmt: skip
    for name, model in made.items():
        model.audit(features, data, reference=made["preference"])
        table = model.explain().tables["weights"]
        out[name] |= {"flagged": float(table["flagged"][1]), "others flagged": float(table["flagged"][0] or table["flagged"][2]),
                      "level correlation": float(table["level_correlation"][1])}  # fmt: skip
    return out


# ---- C: real scores ---------------------------------------------------------------------------------------------------------------


def opinions(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """(vectors of the reviews, scores of the chosen, of the rejected summary, names of the scores)."""
    table = pq.read_table(data / "opinpref" / "pairs.parquet", columns=["prompt", "extra"]).to_pylist()
    extra = [json.loads(row["extra"]) for row in table]
    names = tuple(sorted(extra[0]["scores_chosen"]))
    chosen, rejected = (np.array([[one[key][name] for name in names] for one in extra]) for key in ("scores_chosen", "scores_rejected"))
    return np.asarray(load_encoder("static").encode([row["prompt"] for row in table]), np.float32), chosen, rejected, names


def split(seed: int, vectors: np.ndarray, chosen: np.ndarray, rejected: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Accuracy on 255 test pairs of each weighting learned from 545."""
    rng = np.random.default_rng([seed, 31])
    order, n = rng.permutation(len(chosen)), 545
    train, test = order[:n], order[n:]
    features = np.concatenate([chosen, rejected]).astype(np.float32)
    data = Comparisons.of(train, train + len(chosen), prompt=train, prompts=vectors, columns=names)
    shape = Shape(len(names), prompt=vectors.shape[1], names=names)
    uniform = Orchestrator(shape, normalise="raw")
    uniform.use(np.full(len(names), 1 / len(names)))
    fixed = Orchestrator(shape, normalise="raw")
    fixed.use(best_fixed(chosen[train] - rejected[train], np.ones(n)))
    options = HeadOptions(head="orchestrator", epochs=60, batch_size=64, learning_rate=0.02, l2=1e-2, seed=seed)
    models = {
        "uniform": uniform, "best fixed": fixed, "eq. 7, raw, T = .1": fit_targets(features, data, normalise="raw", l2=1e-3),
        "eq. 7, z-scores, T = 1": fit_targets(features, data, temperature=1.0, l2=1e-3),
        "difference, z-scores, T = 1": fit_targets(features, data, target="difference", temperature=1.0, l2=1e-3),
        "preference": fit(features, data, bradley_terry(), identity(), options).models[0],
    }  # fmt: skip
    asked = Comparisons.of(test, test + len(chosen), prompt=test, prompts=vectors)
    return {name: float(((np.sign(margins([model], features, asked)[0]) + 1) / 2).mean()) for name, model in models.items()}


# ---- D: policies ------------------------------------------------------------------------------------------------------------------


def trained_modpo(rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Policies [n, C] that minimise the objective `modpo` over all pairs of candidates, labelled by Bradley-Terry on objective 0."""
    n, c = rewards.shape[:2]
    i, j = (torch.from_numpy(index) for index in np.triu_indices(c, 1))
    rating, weight = modpo_rating(rewards, weights)
    offset, first = torch.from_numpy(rating), torch.from_numpy(rewards[:, :, 0])
    p = torch.sigmoid(first[:, i] - first[:, j]).reshape(-1)
    objective = modpo(beta=BETA, weight=weight)
    logits = torch.zeros((n, c), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-11, tolerance_change=1e-16, line_search_fn="strong_wolfe")
    flat = -np.log(c) * torch.ones(n * len(i), dtype=torch.float64)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logs = torch.log_softmax(logits, dim=1)
        one, two = (Side(logp=logs[:, k].reshape(-1), reference_logp=flat, rating=offset[:, k].reshape(-1)) for k in (i, j))
        value = (p * objective.loss(one, two, {}) + (1 - p) * objective.loss(two, one, {})).mean() * len(i)
        value.backward()
        return value

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    return torch.softmax(logits.detach(), dim=1).numpy()


def policies(seed: int) -> dict[str, float]:
    """How far soups and MODPO are from the optimum of each weighting, hypervolumes, and true utility of one or of many weightings."""
    world = World(seed, False)
    found, _ = weightings(world, seed)
    at = world.test[:PROMPTS]
    rewards, utility, reference = world.r[at], world.utility[at], np.full((PROMPTS, CANDIDATES), 1 / CANDIDATES)
    every = grid(3, 4)
    best = [morlhf(reference, rewards, w, BETA) for w in every]
    alone = [np.log(morlhf(reference, rewards, np.eye(3)[k], BETA)) for k in range(3)]
    soups = [simplex.softmax(sum(w[k] * alone[k] for k in range(3))) for w in every]
    fixed = [morlhf(reference, rewards, found[name][at], BETA) for name in ("uniform", "best fixed")]
    some = [k for k, w in enumerate(every) if w[0] > 0]
    tuned = [trained_modpo(rewards, every[k]) for k in some]
    base = rewards.mean(axis=(0, 1)) - 1e-9
    points = {"optimum": front(best, rewards), "soups": front(soups, rewards), "modpo": front(tuned, rewards)}

    def worth(policy: np.ndarray) -> float:
        return float((policy * utility).sum(axis=1).mean())

    out = {
        "soups off": float(max(np.abs(a - b).sum(axis=1).max() / 2 for a, b in zip(soups, best, strict=True))),
        "modpo off": float(max(np.abs(a - best[k]).sum(axis=1).max() / 2 for a, k in zip(tuned, some, strict=True))),
        "on the front": float(pareto(points["optimum"]).mean()), "best single weighting": max(worth(one) for one in [*best, *fixed]),
        **{f"hypervolume {name}": hypervolume(x, base) for name, x in points.items()},
    }  # fmt: skip
    return out | {f"utility {name}": worth(morlhf(reference, rewards, w[at], BETA)) for name, w in found.items()}


# ---- claims -----------------------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> list[float]:
    """95 % interval of the mean over seeds (Student's t)."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return [round(float(values.mean()) - half, 4), round(float(values.mean()) + half, 4)]


def claim(text: str, target: str, values: np.ndarray, passed: object) -> dict[str, object]:
    """A claim on the mean over seeds."""
    return {
        "claim": text,
        "target": target,
        "measured": round(float(values.mean()), 4),
        "interval": interval(values),
        "passed": bool(passed),
    }


def main() -> None:
    """Run everything and write benchmarks/results/orchestrator.json."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    seeds, began = list(range(args.seeds)), time.process_time()
    runs = {part: [simulation(seed, part == "B") for seed in seeds] for part in "AB"}
    cells = {part: {name: {key: np.array([one[name][key] for one in found]) for key in found[0][name]} for name in found[0]}
             for part, found in runs.items()}  # fmt: skip
    real = opinions(args.data)
    splits = [split(seed, *real) for seed in range(10)]
    shown = [policies(seed) for seed in seeds]
    c, d = ({key: np.array([one[key] for one in found]) for key in found[0]} for found in (splits, shown))
    for part, table in cells.items():
        for name, values in table.items():
            print(part, f"{name:20}", {key: round(float(value.mean()), 4) for key, value in values.items()}, flush=True)
    for part, values in (("C", c), ("D", d)):
        for key, value in values.items():
            print(part, f"{key:30} {value.mean():.4g}")

    a, b = cells["A"], cells["B"]
    cut = 1 - a["eq. 7"]["regret"] / a["uniform"]["regret"]
    ahead = a["best fixed"]["regret"] - a["eq. 7"]["regret"]
    fold = a["eq. 7"]["regret"] / a["preference"]["regret"]
    worse = b["eq. 7"]["regret where hit"] - b["uniform"]["regret where hit"]
    single = d["best single weighting"]
    others = {name: c[name] - c["uniform"] for name in ("eq. 7, raw, T = .1", "eq. 7, z-scores, T = 1", "difference, z-scores, T = 1")}
    claims = [
        claim("A: share of the uniform weights' regret that eq. 7 removes", ">= .25", cut, cut.mean() >= 0.25),
        claim("A: regret of the best fixed weights minus that of eq. 7", "> 0", ahead, ahead.mean() > 0),
        claim("A: regret of eq. 7 in multiples of the preference-fitted one's", ">= 5", fold, fold.mean() >= 5),
        claim("B: weight that eq. 7 gives the suppressed objective where it matters", "< 1/3", b["eq. 7"]["weight where hit"],
              b["eq. 7"]["weight where hit"].mean() < 1 / 3),
        claim("B: regret of eq. 7 minus uniform's on those prompts", "> 0", worse, worse.mean() > 0),
        claim("B: preference-fitted weight and score level of the suppressed objective, correlation", "< 0",
              b["preference"]["level correlation"], b["preference"]["level correlation"].mean() < 0),
        claim("B: share of runs in which explain flags the suppressed objective of eq. 7", "1", b["eq. 7"]["flagged"],
              b["eq. 7"]["flagged"].min() == 1),
        claim("A: share of runs in which explain flags an objective of eq. 7", "0", np.maximum(a["eq. 7"]["flagged"],
              a["eq. 7"]["others flagged"]), max(a["eq. 7"]["flagged"].max(), a["eq. 7"]["others flagged"].max()) == 0),
        *({**claim(f"C: OpinPref, {name}, minus uniform, accuracy (no gain)", "within .02", x, abs(x.mean()) <= 0.02), "n": 255,
           "seeds": list(range(10))} for name, x in others.items()),
        {**claim("C: OpinPref, preference-fitted minus best fixed, accuracy (no gain)", "<= .02", c["preference"] - c["best fixed"],
                 (c["preference"] - c["best fixed"]).mean() <= 0.02), "n": 255, "seeds": list(range(10))},
        claim("D: soups against the optimum, largest total variation", "<= 1e-9", d["soups off"], d["soups off"].max() <= 1e-9),
        claim("D: trained MODPO against the optimum, largest total variation", "<= .01", d["modpo off"], d["modpo off"].max() <= 0.01),
        claim("D: true utility under eq. 7 minus the best single weighting", "> 0", d["utility eq. 7"] - single,
              (d["utility eq. 7"] - single).mean() > 0),
        claim("D: true utility under preference-fitted weights minus the best single weighting", "> 0", d["utility preference"] - single,
              (d["utility preference"] - single).mean() > 0),
    ]  # fmt: skip

    claims = [{**one, "n": PROMPTS} if str(one["claim"]).startswith("D:") else one for one in claims]

    def kept(values: dict[str, np.ndarray]) -> dict[str, object]:
        return {key: {"mean": round(float(x.mean()), 5), "seeds": np.round(x, 5).tolist()} for key, x in values.items()}

    details = {
        **{part: {name: kept(values) for name, values in table.items()} for part, table in cells.items()}, "C": kept(c), "D": kept(d),
        "objectives": real[3], "cpu_seconds": round(time.process_time() - began, 1),
        "encoder": "static (inside cupel), 256 components; the card measured all-MiniLM-L6-v2 and 940 pairs",
    }  # fmt: skip
    write_result("orchestrator", claims, n=TEST, seeds=seeds, command="python benchmarks/orchestrator.py", details=details)


if __name__ == "__main__":
    main()
