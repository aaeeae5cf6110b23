"""PAL (card 13) on persona statements and planted ideal points: seen and new people, reversed tastes, recovered mixtures.

    python benchmarks/pal.py [--data DIR] [--seeds 3]

A, interests: a group is a file of persona statements; a person of a group prefers a statement of its file that the persona agrees with
to one of another file. First 400 statements of a file for training, the last 100 for tests; 15 people per group with 30 pairs each; new
people: 8 per group, fitted on n pairs of the training statements. The card's encoder was MiniLM and its interests were six: here it is the
package's static encoder (256-d, unit norm), and art, literature and music are not in the data. So K* = 2 and 3 are math, science, sports,
and K* = 4 is four religions (Buddhism, Christianity, Hinduism, Islam).
B, reversal: the prompt is a statement, the responses are "Yes" and "No" as two learned vectors; 20 people in two opposed groups, 50
prompts each of the first 400 of each kind, tests on the others. politically-conservative is not in the data: its group answers the reverse
of the liberal one.
C, planted: items and prototypes N(0, I/16) times 5 (the noise of a label is of unit scale), f the identity, K* = 3, 60 people with one
prototype each or a Dirichlet(1) mixture, 200 pairs each, labels from the squared distances without noise, tests on other items.

Kind A with squared distance, `Pw`, d = 16, Adam with full batches, 200 steps. A is run twice: at the card's rates (0.02 for all, no l2) and
at ours (0.005, omega and prototypes 10 times that, l2 1e-3 on f); B at ours; C at 0.05 for all, 400 steps, tight 2e-3, without which any
larger triangle of prototypes predicts as well. Claims are the card's. Settings were tried on two seeds of A (K* = 3) and of C and on one of
B; the claims of A at ours and at the card's rates both stand here, after K* = 2 was seen to reach 0.999 from one vote at ours.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, write_result

from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import Fitted, fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.pal import PAL
from cupel.learners.models.pal_users import fit_new_users, mixed_margins
from cupel.noise.fixed import identity
from cupel.objectives.reward import bradley_terry

INTERESTS = ("interest-in-math", "interest-in-science", "interest-in-sports")
RELIGIONS = ("subscribes-to-Buddhism", "subscribes-to-Christianity", "subscribes-to-Hinduism", "subscribes-to-Islam")
FILES = {2: INTERESTS[:2], 3: INTERESTS, 4: RELIGIONS}
VOTES = (1, 2, 5, 10, 20)
RATES = {"ours": (0.005, 10.0, 1e-3), "card's": (0.02, 1.0, 0.0)}  #: rate of f, factor for people and prototypes, l2


def trained(x: np.ndarray, data: Comparisons, head: str, seed: int, rate: float, l2: float, steps: int) -> Fitted:
    """Full batches of Bradley-Terry."""
    options = HeadOptions(head=head, epochs=steps, batch_size=len(data), learning_rate=rate, schedule="constant", l2=l2, seed=seed)
    return fit(x, data, bradley_terry(), identity(), options)


def right(m: np.ndarray, p: np.ndarray) -> np.ndarray:
    """1 where the margin has the label's sign, 1/2 where it is 0."""
    return np.where(m == 0, 0.5, (m > 0) == (p > 0.5))


def unit(texts: list[str]) -> np.ndarray:
    """Vectors of unit length, float32."""
    from cupel.encode import load_encoder

    vectors = load_encoder("static").encode(texts)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def statements(folder: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    """Texts of each persona and which of them the persona agrees with, in the order of the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "persona" / "statements.parquet").to_pydict()
    names = np.array(table["persona"])
    agrees = np.array(table["matches_persona"])
    return {
        str(name): ([table["statement"][i] for i in np.flatnonzero(names == name)], agrees[names == name]) for name in np.unique(names)
    }  # fmt: skip


def group_pairs(rng: np.random.Generator, pools: list[np.ndarray], people: int, n: int) -> Comparisons:
    """n comparisons of each of `people` people per group: one statement of the own pool, preferred, and one of another; sides at random."""
    k = len(pools)
    who = np.repeat(np.arange(k * people), n)
    own = who // people
    other = (own + rng.integers(1, k, len(who))) % k
    liked, left = (np.array([rng.choice(pools[g]) for g in groups]) for groups in (own, other))
    swap = rng.random(len(who)) < 0.5
    return Comparisons.of(np.where(swap, left, liked), np.where(swap, liked, left), (~swap).astype(float), annotator=who)


def interests(texts: dict[str, tuple[list[str], np.ndarray]], k_true: int, seed: int, rates: str) -> dict[str, float]:
    """Accuracy on unseen statements by K for seen people, with shuffled people, and for new people by number of votes at K = K*."""
    rate, pace, l2 = RATES[rates]
    agreed = [[t for t, yes in zip(*texts[name], strict=True) if yes] for name in FILES[k_true]]
    x = unit(list(itertools.chain(*agreed)))
    start = np.cumsum([0, *map(len, agreed)])
    learn = [np.arange(a, a + 400) for a in start[:-1]]
    test = [np.arange(b - 100, b) for b in start[1:]]
    rng = np.random.default_rng([seed, k_true, 13])
    data, judge = group_pairs(rng, learn, 15, 30), group_pairs(rng, test, 15, 30)
    found = {}
    for k in range(1, k_true + 2):
        models = trained(x, data, f"pal:prototypes={k},pace_users={pace}", seed, rate, l2, 200).models
        found[f"K={k}"] = float(right(margins(models, x, judge)[0], judge.p).mean())
        if k != k_true:
            continue
        assert isinstance(models[0], PAL)
        later, later_judge = group_pairs(rng, learn, 8, max(VOTES)), group_pairs(rng, test, 8, 30)
        for n in VOTES:
            some = later.take(np.flatnonzero(np.arange(len(later)) % max(VOTES) < n))
            w = fit_new_users(models[0], x, some).weights
            found[f"new n={n}"] = float(right(mixed_margins(models[0], x, later_judge, w), later_judge.p).mean())
        mixed = Comparisons.of(data.first, data.second, data.p, annotator=rng.permutation(data.annotator))
        models = trained(x, mixed, f"pal:prototypes={k},pace_users={pace}", seed, rate, l2, 200).models
        found["shuffled"] = float(right(margins(models, x, judge)[0], judge.p).mean())
    return found


def reversal(texts: dict[str, tuple[list[str], np.ndarray]], names: tuple[str, ...], seed: int) -> dict[str, float]:
    """Accuracy on unseen prompts of two groups that answer the same prompts in opposite ways, by K; new people at K = 2."""
    rate, pace, l2 = RATES["ours"]
    q = unit(list(itertools.chain(*(texts[name][0] for name in names))))
    yes = np.concatenate([texts[name][1] == (j == 0) for j, name in enumerate(names)])  # what the first group answers
    kind = np.concatenate([2 * j + texts[name][1] for j, name in enumerate(names)])
    rank = np.empty(len(kind), int)
    for value in np.unique(kind):
        rank[kind == value] = np.arange((kind == value).sum())
    rng = np.random.default_rng([seed, 14])

    def asked(pool: np.ndarray, n: int) -> Comparisons:
        who = np.repeat(np.arange(20), n)
        prompt = rng.choice(pool, len(who))
        p = (yes[prompt] == (who % 2 == 0)).astype(float)
        return Comparisons.of(np.zeros(len(who), int), np.ones(len(who), int), p, annotator=who, prompt=prompt, prompts=q)

    learn, test, x = np.flatnonzero(rank < 400), np.flatnonzero(rank >= 400), np.eye(2, dtype=np.float32)
    data, judge, later = asked(learn, 50), asked(test, 50), asked(learn, 20)
    found = {}
    for k in (1, 2, 3):
        models = trained(x, data, f"pal:kind=B,prototypes={k},pace_users={pace}", seed, rate, l2, 200).models
        found[f"K={k}"] = float(right(margins(models, x, judge)[0], judge.p).mean())
        if k == 2:
            assert isinstance(models[0], PAL)
            w = fit_new_users(models[0], x, later).weights
            found["new n=20"] = float(right(mixed_margins(models[0], x, judge, w), judge.p).mean())
    return found


def planted(kind: str, seed: int, k_true: int = 3, people: int = 60, n: int = 200, dim: int = 16, scale: float = 5.0) -> dict[str, float]:
    """Accuracy on unseen items by K, and mean total variation of the mixtures to the planted ones, prototypes matched by distance."""
    import torch

    rng = np.random.default_rng([seed, 15])
    items = scale * rng.normal(size=(1000, dim)) / np.sqrt(dim)
    centres = scale * rng.normal(size=(k_true, dim)) / np.sqrt(dim)
    w = np.eye(k_true)[np.arange(people) % k_true] if kind == "one-hot" else rng.dirichlet(np.ones(k_true), people)

    def drawn(low: int, high: int, count: int) -> Comparisons:
        who = np.repeat(np.arange(people), count)
        one, two = rng.integers(low, high, len(who)), rng.integers(low, high, len(who))
        ideal = (w @ centres)[who]
        far = [((items[side] - ideal) ** 2).sum(axis=1) for side in (one, two)]
        return Comparisons.of(one, two, np.where(far[0] == far[1], 0.5, far[0] < far[1]), annotator=who)

    data, judge, x = drawn(0, 800, n), drawn(800, 1000, 100), items.astype(np.float32)
    keep = np.flatnonzero(judge.p != 0.5)
    judge, found = judge.take(keep), {}
    for k in (1, k_true, k_true + 1):
        options = HeadOptions(
            head=f"pal:dim=0,prototypes={k},pace_users=1,tight=0.002", epochs=400, batch_size=len(data), learning_rate=0.05, l2=0.0,
            seed=seed,
        )  # fmt: skip
        models = fit(x, data, bradley_terry(), identity(), options).models
        found[f"K={k}"] = float(right(margins(models, x, judge)[0], judge.p).mean())
        if k == k_true:
            model = models[0]
            assert isinstance(model, PAL)
            mine, points = torch.softmax(model.omega, dim=1).numpy(), model.prototypes.numpy()
            order = min(itertools.permutations(range(k)), key=lambda o: ((points[list(o)] - centres) ** 2).sum())
            found["total variation"] = float(np.abs(mine[:, list(order)] - w).sum(axis=1).mean() / 2)
    return found


def main() -> None:
    """Run the three experiments and write benchmarks/results/pal.json."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    began = time.process_time()
    texts = statements(given.data)
    cells: dict[str, list[dict[str, float]]] = {}

    def run(
        name: str, call: Callable[..., dict[str, float]], before: tuple[Any, ...], after: tuple[Any, ...] = ()
    ) -> dict[str, np.ndarray]:
        cells[name] = [call(*before, seed, *after) for seed in seeds]
        found = {key: np.array([one[key] for one in cells[name]]) for key in cells[name][0]}
        print(f"{name:34}", {key: round(float(value.mean()), 3) for key, value in found.items()}, flush=True)
        return found

    claims = []

    def claim(text: str, target: str, values: np.ndarray, passed: bool) -> None:
        claims.append(
            {
                "claim": text,
                "target": target,
                "measured": round(float(values.mean()), 4),
                "interval": interval(values),
                "passed": bool(passed),
            }
        )

    for k, rates in itertools.product(FILES, RATES):
        name = f"interests, K* = {k}, {rates} rates"
        found = run(f"A, K* = {k}, {rates} rates", interests, (texts, k), (rates,))
        claim(f"{name}: one ideal point for all", "within .46-.54", found["K=1"], 0.46 <= found["K=1"].mean() <= 0.54)
        claim(f"{name}: K = K*", ">= 0.93", found[f"K={k}"], found[f"K={k}"].mean() >= 0.93)
        claim(f"{name}: new people, 20 votes", ">= 0.95", found["new n=20"], found["new n=20"].mean() >= 0.95)
        gain = found["new n=20"] - found["new n=1"]
        claim(f"{name}: new people, 20 votes minus 1", ">= 0.05", gain, gain.mean() >= 0.05)
        gain = found["shuffled"] - found["K=1"]
        claim(f"{name}: K = K* on shuffled people minus K = 1", "<= 0.03", gain, gain.mean() <= 0.03)
    for names in (("politically-liberal",), ("risk-averse", "risk-seeking")):
        found = run(f"B, {' / '.join(names)}", reversal, (texts, names))
        gain = found["K=2"] - found["K=1"]
        claim(f"reversal, {' / '.join(names)}: K = 2 minus K = 1", ">= 0.25", gain, gain.mean() >= 0.25)
    for kind in ("one-hot", "Dirichlet(1)"):
        found = run(f"C, {kind}", planted, (kind,))
        gain = found["K=3"] - found["K=1"]
        claim(f"planted, {kind}: K = K* minus K = 1", ">= 0.15", gain, gain.mean() >= 0.15)
        apart = found["total variation"]
        claim(f"planted, {kind}: total variation of w from the truth", "<= 0.1", apart, apart.mean() <= 0.1)
    details = {"cells": cells, "cpu_seconds": round(time.process_time() - began, 1)}
    write_result("pal", claims, n=15 * 30, seeds=seeds, command="python benchmarks/pal.py", details=details)


def interval(values: np.ndarray) -> list[float] | None:
    """95 % interval of the mean over seeds (Student's t)."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return [round(float(values.mean()) - half, 4), round(float(values.mean()) + half, 4)]


if __name__ == "__main__":
    main()
