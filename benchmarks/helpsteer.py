"""HelpSteer2 (card 46): what the annotation rules are worth, SteerLM 2.0 steps to their target, attribute regression against Bradley-Terry.

    python benchmarks/helpsteer.py [--data DIR] [--splits 10]

A. 3,000 prompts with two responses each, rated as the card's simulation rates them (round(true + N(0, .75)) clipped, 20 % of ratings
uniform), through `rating_protocol`. A further rater who had no part in anything says what the selection is worth to others.
B. Tabular policies over 12 responses, and bigram policies over all 3,125 texts of five tokens, told one of two attribute values: every
expectation is exact. SteerLM 1 is the policy fitted to texts whose attribute label is wrong in 3 of 10.
C. OpinPref (MIT; 800 of the card's 940 pairs): ridge regression of the seven attributes on static vectors of summary and reviews (the card:
MiniLM), brought to 100 principal components without labels, against Bradley-Terry on the preference; 300 test pairs, penalties by
cross-validation within the training part. Claims are the card's, with 500 in place of 600 labels.
"""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from common import arguments, write_result
from opinpref import NAMES, paired, splits, spread

import cupel
from cupel.curate.rating_protocol import rating_protocol
from cupel.encode import load_encoder
from cupel.learners.heads.data import Comparisons
from cupel.learners.models.feature_report import accuracy
from cupel.learners.models.ratings import fit_goal, fit_ratings
from cupel.objectives import list_by_name, rating_probabilities, steer_list, steer_weights
from cupel.records.features import feature_columns
from cupel.votes.linear_head import fit_tuned
from cupel.votes.ratings import qwk

TRUE = (0.08, 0.12, 0.17, 0.28, 0.35)
SETTINGS = {"noise .75, 20 % uniform": (0.75, 0.2), "noise 1": (1.0, 0.2), "35 % uniform": (0.75, 0.35)}
SIZES = (25, 50, 100, 200, 500)
V, L = 5, 5


def protocol(noise: float, careless: float, seed: int, prompts: int = 3000) -> dict[str, float]:
    """One simulation: kappas by stage, RMSE of item means against the truth, what is kept, and the view of an outside rater."""
    rng = np.random.default_rng([46, seed])
    truth = rng.choice(5, 2 * prompts, p=TRUE)

    def rate(k: int) -> np.ndarray:
        drawn = np.clip(np.rint(truth[:, None] + rng.normal(0, noise, (len(truth), k))), 0, 4)
        return np.where(rng.random(drawn.shape) < careless, rng.integers(0, 5, drawn.shape), drawn).astype(int)

    ratings, outside = rate(5), rate(1)[:, 0]
    number = np.where(np.ptp(ratings[:, :3], axis=1) > 2, 5, 3)
    item, annotator = np.repeat(np.arange(len(truth)), number), np.concatenate([np.arange(m) for m in number])
    value = np.concatenate([row[:m] for row, m in zip(ratings, number, strict=True)])
    found = rating_protocol(item, annotator, ["helpfulness"] * len(item), value, prompt=item // 2, draws=10)
    every = rating_protocol(item, annotator, ["helpfulness"] * len(item), value, prompt=item // 2, draws=10, contested="mark")
    stages = found.agreement["helpfulness"]

    def rmse(scores: dict) -> float:
        rows = np.array(scores["item"], int)
        return float(np.sqrt(np.mean((np.array(scores["mean"]) - truth[rows]) ** 2)))

    chosen = every.kept
    return {
        "kappa first": stages["first"].kappa, "kappa selected": stages["selected"].kappa, "kappa final": stages["final"].kappa,
        "exact first": stages["first"].exact, "exact final": stages["final"].exact,
        "rmse first": float(np.sqrt(np.mean((ratings[:, :3].mean(axis=1) - truth) ** 2))), "rmse selected": rmse(dict(every.scores)),
        "rmse final": rmse(dict(found.scores)), "kept": 1 - len(found.contested) / len(truth), "ratings per item": float(number.mean()),
        "outside first": qwk(np.repeat(outside, 3), ratings[:, :3].reshape(-1)),
        "outside selected": qwk(outside[item[chosen]], value[chosen]),
        "held out, all": found.held_out.all, "held out, selected": found.held_out.selected,
    }  # fmt: skip


def tabular(n: int, baseline: bool, seeds: int = 5, steps: int = 75, at_once: int = 40) -> float:
    """Mean KL(target || policy) after 3,000 groups at rate .05, 40 at a time, over 12 responses with Q' = P(y)."""
    draw = torch.Generator().manual_seed(46)
    prior = torch.log_softmax(torch.randn(seeds, 12, generator=draw, dtype=torch.float64), dim=1)
    said = torch.randn(seeds, 12, generator=draw, dtype=torch.float64) * 0.6
    target, logits = torch.log_softmax(prior + said, dim=1), prior.clone().requires_grad_()
    objective = list_by_name("steer", baseline=baseline)
    for _ in range(steps):
        drawn = torch.multinomial(prior.exp(), n * at_once, replacement=True, generator=draw)
        policy = torch.log_softmax(logits, dim=1)
        lists = steer_list(*(x.gather(1, drawn).view(-1, n) for x in (policy, said, prior, prior)))
        (grad,) = torch.autograd.grad(objective.loss(lists).sum(), logits)
        with torch.no_grad():
            logits -= 0.05 * grad
    return float((target.exp() * (target - torch.log_softmax(logits.detach(), dim=1))).sum(dim=1).mean())


class Texts:
    """All texts of five tokens, a bigram model P(y) of them, and a rating model that says from 0 to 1 how much a text has the attribute."""

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.texts = torch.tensor(list(product(range(V), repeat=L)))
        self.before = torch.cat([torch.full((len(self.texts), 1), V), self.texts[:, :-1]], dim=1)
        self.prior = self.log_prob(torch.randn(V + 1, V, generator=self.draw, dtype=torch.float64))
        worth = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.float64)
        self.rating = torch.sigmoid(0.5 * worth[self.texts].sum(dim=1))
        self.attribute = rating_probabilities(self.rating, levels=2).clamp(min=1e-30).log().T  # [2, texts]
        self.hit = torch.stack([self.rating < 0.5, self.rating > 0.5]).double()

    def log_prob(self, table: torch.Tensor) -> torch.Tensor:
        """[texts] log-probability of every text under a table [V + 1, V] of logits by the token before."""
        return torch.log_softmax(table, dim=1)[self.before, self.texts].sum(dim=1)

    def policy(self, tables: torch.Tensor) -> torch.Tensor:
        """[2, texts] log Q(y | a)."""
        return torch.stack([self.log_prob(tables[0]), self.log_prob(tables[1])])


def steerlm(seed: int, n: int, baseline: bool, steps: int = 300, groups: int = 32) -> dict[str, float]:
    """SteerLM 1, then 2.0 steps on groups drawn from it: hit rate, D on unseen groups, KL from the target, before and after."""
    world = Texts(seed)
    label = (world.rating > 0.5).double()
    wrong = 0.3
    share = torch.stack(
        [world.prior.exp() * ((1 - label) * (1 - wrong) + label * wrong), world.prior.exp() * (label * (1 - wrong) + (1 - label) * wrong)]
    )
    share /= share.sum(dim=1, keepdim=True)
    tables = torch.zeros(2, V + 1, V, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([tables], lr=0.1)
    for _ in range(200):  # imitation of the labelled texts, by their exact shares
        optimiser.zero_grad()
        (-(share * world.policy(tables)).sum()).backward()
        optimiser.step()
    first = world.policy(tables).detach()
    target = torch.log_softmax(world.attribute + world.prior, dim=1)

    def lists(policy: torch.Tensor, number: int, size: int):
        drawn = torch.multinomial(first.exp(), number * size, replacement=True, generator=world.draw)
        columns = (policy, world.attribute, world.prior.expand(2, -1), first)
        return steer_list(*(x.gather(1, drawn).view(-1, size) for x in columns))

    def measure() -> dict[str, float]:
        now = world.policy(tables).detach()
        state = world.draw.get_state()
        world.draw.manual_seed(1)
        unseen = lists(now, 200, 10)
        world.draw.set_state(state)
        wanted, have = steer_weights(unseen)
        return {
            "hits": float((now.exp() * world.hit).sum(dim=1).mean()), "D": float((wanted * (wanted / have).log()).sum(dim=1).mean()),
            "KL": float((target.exp() * (target - now)).sum(dim=1).mean()), "effective size": float((1 / (wanted**2).sum(dim=1)).mean()),
        }  # fmt: skip

    before = measure()
    optimiser = torch.optim.Adam([tables], lr=0.03)
    objective = list_by_name("steer", baseline=baseline)
    for step in range(steps):
        for part in optimiser.param_groups:
            part["lr"] = 0.03 * (1 - step / steps)
        optimiser.zero_grad()
        objective.loss(lists(world.policy(tables), groups, n)).mean().backward()
        optimiser.step()
    after = measure()
    ceiling = float((target.exp() * world.hit).sum(dim=1).mean())
    return {**{f"{k} before": v for k, v in before.items()}, **{f"{k} after": v for k, v in after.items()}, "hits of the target": ceiling}


def regression(directory: Path, number: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Test accuracies [splits, sizes] of Bradley-Terry, attributes with equal weights, attributes with fitted weights; and R^2."""
    votes = cupel.read(str(directory / "opinpref" / "pairs.parquet"), heldout=0)
    columns = feature_columns(votes, NAMES, low=0, high=5)
    encoder = load_encoder("static")
    texts, prompts = encoder.encode(votes.response_texts()), encoder.encode(votes.prompt_texts())
    s, p = texts[np.concatenate([votes.first, votes.second])], prompts[np.concatenate([votes.prompt, votes.prompt])]
    x = np.concatenate([s, s * p * np.sqrt(s.shape[1]), np.abs(s - p)], axis=1).astype(np.float64)
    x -= x.mean(axis=0)
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    x = left[:, :100] * values[:100]
    x *= 4 / np.sqrt((x * x).sum(axis=1).mean())
    data = Comparisons.of(columns.first, columns.second)
    names = ("Bradley-Terry", "attributes, mean", "attributes, fitted weights")
    found, r2 = {name: np.empty((number, len(SIZES))) for name in names}, np.empty((number, len(SIZES)))
    for k, (train, test) in enumerate(splits(len(data), number)):
        held = data.take(test)
        for j, n in enumerate(SIZES):
            some = data.take(train[:n])
            head = fit_tuned(x[some.first], x[some.second], some.p, ridges=(0.3, 1.0, 3.0, 10.0, 30.0), seed=k)
            rows = np.concatenate([some.first, some.second])
            models = [
                fit_ratings(x[rows], columns.values[rows], names=NAMES, l2=l2, high=5, whole=False, group=np.tile(np.arange(n), 2))
                for l2 in (1.0, 5.0, 25.0, 125.0)
            ]
            model = max(models, key=lambda m: float(m.r2.mean()))
            r2[k, j] = float(model.r2.mean())
            weight, bias = (v.detach().double().numpy() for v in (model.head.weight, model.head.bias))
            attributes = x @ weight.T + bias
            found[names[0]][k, j] = accuracy(head.margin(x[held.first], x[held.second]), held)
            found[names[1]][k, j] = accuracy((attributes[held.first] - attributes[held.second]).mean(axis=1), held)
            goal = fit_goal(model, x, some, l2=1.0, draws=0).weights.value
            found[names[2]][k, j] = accuracy((attributes[held.first] - attributes[held.second]) @ goal, held)
    return found, r2


def main() -> None:
    """Measure, and write benchmarks/results/helpsteer.json."""
    parser = arguments(__doc__)
    parser.add_argument("--splits", type=int, default=10)
    asked = parser.parse_args()
    began = time.process_time()
    torch.set_num_threads(1)
    seeds = range(3)
    rules = {name: [protocol(*values, seed) for seed in seeds] for name, values in SETTINGS.items()}
    simulated = {name: {k: round(float(np.mean([one[k] for one in runs])), 4) for k in runs[0]} for name, runs in rules.items()}
    for name, values in simulated.items():
        print(name, values, flush=True)
    twelve = {f"n={n}, {'with' if b else 'without'} b'": round(tabular(n, b), 4) for b in (True, False) for n in (2, 5, 10, 50)}
    print(twelve, flush=True)
    cells = [(2, True), (10, True), (2, False), (10, False)]
    policies = {cell: [steerlm(seed, *cell) for seed in seeds] for cell in cells}
    steered = {f"n={n}, {'with' if b else 'without'} b'": {k: round(float(np.mean([r[k] for r in runs])), 4) for k in runs[0]}
               for (n, b), runs in policies.items()}  # fmt: skip
    print(steered, flush=True)
    found, r2 = regression(asked.data, asked.splits)
    curve = {name: {n: spread(list(values[:, j])) for j, n in enumerate(SIZES)} for name, values in found.items()}
    print(curve, r2.mean(axis=0).round(3).tolist(), flush=True)

    main_ = rules["noise .75, 20 % uniform"]
    gain = float(np.mean([r["kappa final"] - r["kappa first"] for r in main_]))
    better = float(np.mean([1 - r["rmse final"] / r["rmse first"] for r in main_]))
    outside = float(np.mean([(r["outside selected"] - r["outside first"]) / (r["kappa selected"] - r["kappa first"]) for r in main_]))
    full = policies[10, True]
    hits = float(np.mean([r["hits after"] - r["hits before"] for r in full]))
    down = max(r["D after"] - r["D before"] for r in full)
    apart = {
        b: float(np.mean([x["KL after"] - y["KL after"] for x, y in zip(policies[2, b], policies[10, b], strict=True)]))
        for b in (True, False)
    }
    bt, mean = found["Bradley-Terry"], found["attributes, mean"]

    def claim(what: str, target: str, measured: float, passed: object, n: int, interval: list[float] | None = None) -> dict[str, object]:
        return {"claim": what, "target": target, "measured": round(measured, 4), "passed": bool(passed), "n": n, "interval": interval}

    early, late = float((mean - bt)[:, 0].mean()), float((bt - mean)[:, -1].mean())
    claims = [
        claim("rules: kappa of what is kept minus of the first ratings", ">= 0.2", gain, gain >= 0.2, 6000),
        claim("rules: RMSE of item means falls by", ">= 0.08", better, better >= 0.08, 6000),
        claim("rules: share of the kappa gain that an outside rater sees", "< 0.5", outside, outside < 0.5, 6000),
        claim("SteerLM 2.0 from SteerLM 1: gain in attribute hits", ">= 0.10", hits, hits >= 0.10, V**L),
        claim("SteerLM 2.0: change of D on unseen groups, worst seed", "< 0", down, down < 0, V**L),
        claim("without b': KL from the target, n = 2 minus n = 10", "> 0.02", apart[False], apart[False] > 0.02, V**L),
        claim("with b': KL from the target, n = 2 minus n = 10", "< 0.01", apart[True], apart[True] < 0.01, V**L),
        claim("25 labels: attribute regression minus Bradley-Terry", ">= 0", early, early >= 0, 800, paired(mean[:, 0], bt[:, 0]))
        | {"seeds": range(asked.splits)},
        claim("500 labels: Bradley-Terry minus attribute regression", ">= 0", late, late >= 0, 800, paired(bt[:, -1], mean[:, -1]))
        | {"seeds": range(asked.splits)},
    ]
    details = {
        "protocol": simulated, "tabular_kl": twelve, "steerlm": steered, "regression": curve, "r2": r2.mean(axis=0).round(4).tolist(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip
    write_result("helpsteer", claims, n=800, seeds=seeds, command="python benchmarks/helpsteer.py", details=details)


if __name__ == "__main__":
    main()
