"""Treatments against their published formulas, by Monte Carlo and at rate 0, for every objective of the table of names.

The same checks run in the tests; here their numbers are kept. No data set is read.

    python benchmarks/treatments.py
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result

from cupel.noise.chain import chain
from cupel.noise.em import fit_reliability
from cupel.noise.fixed import identity, unbiased
from cupel.noise.loss import check, preference_loss
from cupel.noise.names import TREATMENTS, available
from cupel.noise.propensity import propensity
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives import Side, available_lists, by_name, list_by_name

TESTS = Path(__file__).resolve().parents[1] / "tests" / "noise" / "test_algebra.py"
DRAWS, PAIRS, SEEDS = 4000, 400, (0, 1, 2)


def main() -> int:
    arguments(__doc__, data=False).parse_args()
    torch.set_num_threads(1)
    algebra = SimpleNamespace(**runpy.run_path(str(TESTS)))
    claims = [published(algebra), reductions(algebra), refusals(algebra), *unbiasedness(), propensities(), likelihood(), array_head()]
    write_result("treatments", claims, n=None, seeds=SEEDS, command="python benchmarks/treatments.py")
    return 0 if all(claim["passed"] for claim in claims) else 1


def published(algebra: SimpleNamespace) -> dict:
    """Largest relative difference of gradients: through preference_loss, and of the method's own formula."""
    worst, cells = 0.0, 0
    for objective_name in algebra.SWAPPED:
        objective = by_name(objective_name)
        for seed in SEEDS:
            first, second, tensors, context = algebra.setting(objective, seed=seed)
            for name, formula in algebra.PUBLISHED.items():
                treat = algebra.example(name)
                loss, _ = preference_loss(
                    objective, treat, first, second, algebra.target(), algebra.terms(), treat.init(algebra.SPEC), context
                )
                keep, flip = objective.loss(first, second, context), objective.loss(second, first, context)
                wanted = algebra.slopes(torch.tensor(algebra.W, dtype=torch.float64) * formula(keep, flip), tensors)
                for a, b in zip(algebra.slopes(loss, tensors), wanted, strict=True):
                    worst = max(worst, float(((a - b).abs() / b.abs().clamp(min=1)).max()))
                cells += seed == SEEDS[0]
    size = f"{len(algebra.SWAPPED)} objectives x {len(algebra.PUBLISHED)} treatments of p"
    return {
        "claim": f"gradient of (1) is that of the published formula: {size}",
        "target": "relative difference at most 1e-9 in float64", "measured": worst, "n": cells, "passed": worst <= 1e-9,
    }  # fmt: skip


def reductions(algebra: SimpleNamespace) -> dict:
    """Targets that differ in any bit from the input's, over treatments at their plain arguments and all objectives they take."""
    different, cells = 0, 0
    for name, entry in TREATMENTS.items():
        if entry.plain is None:
            continue
        treat = algebra.factory(name)(**dict(entry.plain))
        state = treat.init(algebra.SPEC)
        rigid = [] if "p" in treat.touches or treat.reads_flip else algebra.RIGID
        for epoch, objective_name in enumerate(algebra.SWAPPED + rigid):
            keep, flip = algebra.both_losses(objective_name)
            seen = algebra.terms(step=epoch, epoch=epoch, given=algebra.target())._replace(keep=keep, flip=flip)
            used = treat.target(algebra.target(), seen, state)
            different += not (torch.equal(used.p, algebra.target().p) and torch.equal(used.w, algebra.target().w))
            state = treat.update(seen, state)
            cells += 1
    return {
        "claim": "at rate 0 every treatment that has one is plain training, bit for bit", "target": "no target differs",
        "measured": f"{different} of {cells}", "n": cells, "seeds": [], "passed": different == 0,
    }  # fmt: skip


def refusals(algebra: SimpleNamespace) -> dict:
    """Pairs that must be refused and are: treatments of p on AOT and lists, chains with two corrections."""
    missed, cells = 0, 0
    rigid = [by_name(name) for name in algebra.RIGID] + [list_by_name(name) for name in available_lists()]
    for name in available():
        treat = algebra.example(name)
        for objective in rigid:
            refused = "p" in treat.touches or treat.reads_flip
            cells += 1
            try:
                check(objective, treat)
                missed += refused
            except ValueError:
                missed += not refused
    correcting = [treat for name in available() if (treat := algebra.example(name)).corrects]
    for one in correcting:
        for two in correcting:
            cells += 1
            try:
                chain(one, two)
                missed += 1
            except ValueError:
                pass
    return {
        "claim": "AOT, lists and two corrections in a chain are refused, and nothing else is", "target": "no mistake",
        "measured": f"{missed} of {cells}", "n": cells, "seeds": [], "passed": missed == 0,
    }  # fmt: skip


def unbiasedness() -> list[dict]:
    """Mean over flips of the corrected loss and of its gradient against the clean ones, in standard errors and shares of the plain bias."""
    claims = []
    for flip in (0.1, 0.3):
        loss, slope = [], []
        for seed in SEEDS:
            rng = np.random.default_rng([seed, round(10 * flip)])
            score = torch.tensor(rng.normal(1, 2, PAIRS), requires_grad=True)
            first, second = Side(score=score), Side(score=torch.zeros(PAIRS, dtype=torch.float64))
            objective, at, w = by_name("bradley_terry"), bare_terms(torch.zeros(PAIRS, dtype=torch.float64)), torch.ones(PAIRS).double()

            def run(p, treat, first=first, second=second, objective=objective, at=at, w=w, score=score):
                value, _ = preference_loss(objective, treat, first, second, Target(p, w), at, {})
                (gradient,) = torch.autograd.grad(value.mean(), score, retain_graph=True)
                return value.mean().item(), gradient.sum().item()

            clean = run(w, identity())
            corrected, plain = np.empty((DRAWS, 2)), np.empty((DRAWS, 2))
            for i in range(DRAWS):
                label = torch.tensor(np.where(rng.random(PAIRS) < flip, 0.0, 1.0))
                corrected[i], plain[i] = run(label, unbiased(flip)), run(label, identity())
            error = corrected.std(axis=0, ddof=1) / np.sqrt(DRAWS)
            off, bias = corrected.mean(axis=0) - clean, np.abs(plain.mean(axis=0) - clean)
            for kind, into in ((0, loss), (1, slope)):
                into.append((float(np.abs(off[kind]) / error[kind]), float(error[kind] / bias[kind])))
        for text, values in (("loss", loss), ("gradient", slope)):
            z, share = max(v[0] for v in values), max(v[1] for v in values)
            claims.append({
                "claim": f"unbiased at rate {flip:g}: mean {text} over flips is the clean one",
                "target": "within 4 standard errors, each at most 2 % of the plain bias, every seed",
                "measured": {"standard errors away": z, "standard error over bias": share}, "n": DRAWS * PAIRS,
                "passed": z <= 4 and share <= 0.02,
            })  # fmt: skip
    return claims


def propensities() -> dict:
    """The same for clicks with known exposure on a 20 x 30 grid (card 32-unbiased-mnar)."""
    worst = []
    for seed in SEEDS:
        rng = np.random.default_rng([32, seed])
        theta, gamma = rng.uniform(0.2, 1, 600), rng.uniform(0, 1, 600)
        x = torch.tensor(rng.normal(-1, 1, 600))
        keep, flip = torch.nn.functional.softplus(-x), torch.nn.functional.softplus(x)
        terms, w = bare_terms(keep, flip), torch.ones(600).double()
        treat = propensity({str(i): t for i, t in enumerate(theta)})
        state = treat.init(DataSpec(records=tuple(str(i) for i in range(600))))
        ideal = float(np.mean(gamma * keep.numpy() + (1 - gamma) * flip.numpy()))
        values, naive = np.empty(4 * DRAWS), np.empty(4 * DRAWS)
        for i in range(4 * DRAWS):
            click = torch.tensor((rng.random(600) < theta * gamma).astype(float))
            p = treat.target(Target(click, w), terms, state).p
            values[i], naive[i] = (p * keep + (1 - p) * flip).mean().item(), (click * keep + (1 - click) * flip).mean().item()
        error = values.std(ddof=1) / np.sqrt(len(values))
        worst.append((abs(values.mean() - ideal) / error, error / abs(naive.mean() - ideal)))
    z, share = max(v[0] for v in worst), max(v[1] for v in worst)
    return {
        "claim": "propensity: mean loss over clicks is the loss on true relevance",
        "target": "within 4 standard errors, each at most 2 % of the naive bias, every seed",
        "measured": {"standard errors away": z, "standard error over bias": share}, "n": 4 * DRAWS * 600,
        "passed": z <= 4 and share <= 0.02,
    }  # fmt: skip


def likelihood() -> dict:
    """Full-batch EM at fixed margins: falls of the (penalised) marginal likelihood over the iterations of 300 runs."""
    falls, steps = 0, 0
    for seed in range(100):
        for prior in (None, (8.0, 2.0), (1.0, 3.0)):
            rng = np.random.default_rng([2, seed])
            n, k = 200, 5
            fit = fit_reliability(
                torch.tensor(rng.normal(0, 3, n)), torch.tensor(rng.integers(k, size=n)), torch.tensor(rng.uniform(0.05, 0.95, k)),
                p=torch.tensor(rng.random(n)), w=torch.tensor(rng.random(n) * 2), prior=prior, iterations=100,
            )  # fmt: skip
            trace = np.array(fit.trace)
            falls += int((np.diff(trace) < -1e-9 * np.abs(trace[1:])).sum())
            steps += len(trace) - 1
    return {
        "claim": "full-batch EM: the penalised marginal likelihood never falls", "target": "0 falls",
        "measured": f"{falls} of {steps:,} iterations", "n": steps, "seeds": list(range(100)), "passed": falls == 0,
    }  # fmt: skip


def array_head() -> dict:
    """The linear head of the main job against preference_loss(Bradley-Terry, treatment): loss and gradient."""
    from cupel.votes.linear_head import objective as array_loss

    worst = 0.0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        x, p, w = rng.normal(size=(500, 20)), rng.normal(0.5, 1, 500), rng.random(500) * 2
        theta = torch.tensor(rng.normal(size=20), requires_grad=True)
        at = bare_terms(torch.zeros(500, dtype=torch.float64))
        sides = Side(score=torch.tensor(x) @ theta), Side(score=torch.zeros(500, dtype=torch.float64))
        loss, _ = preference_loss(by_name("bradley_terry"), identity(), *sides, Target(torch.tensor(p), torch.tensor(w)), at, {})
        (slope,) = torch.autograd.grad(loss.sum(), theta)
        value, gradient = array_loss(theta.detach().numpy(), x, p, w, 0.0)
        far = float(np.abs(slope.numpy() - gradient).max() / np.abs(gradient).max())
        worst = max(worst, abs(loss.sum().item() - value) / abs(value), far)
    return {
        "claim": "the array head of the main job has the loss and gradient of (1)", "target": "relative difference at most 1e-10",
        "measured": worst, "n": 500, "passed": worst <= 1e-10,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
