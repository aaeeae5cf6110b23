"""General preferences (GPM, card 19): a circle in real text, mixed games, and policies that learn to play what goes round.

    python benchmarks/gpm.py [--data DIR] [--seeds 5]

A. `persona` statements that a persona agrees with (CC-BY-4.0), static encoder of cupel (the card had MiniLM); interest in art is not in
this copy of the data, science stands for it: science > math > sports > science. 600 training pairs among the first 400 statements of a
kind, 600 test pairs among the last 100. Vectors of length 1, tau .1, Adam 1e-2, 200 full-batch steps. Then the same with planted flips, of
which the treatments are told the rate; there also with vectors of any length, tau 1 and an l2 of .01, which was chosen, with its claim,
after a look at one seed that is not among those reported.
B. 12 items, S_ij = r_i - r_j + 1.5 c sin(t_i - t_j), 60 labels per pair, free vectors by cross-entropy (tau 1, not normalised, l2 1e-4,
Adam .03, 800 steps): excess log loss over the true game's entropy.
C. 20 responses, S = tanh of a random skew matrix, tabular GPO with 64 sampled opponents, step .1; then a small autoregressive policy
(vocabulary 8, length 3) trained by the objective `gpo` on K = 5 samples, against a preference model's scores.
"""

from __future__ import annotations

import time
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, write_result

from cupel.encode import load_encoder
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.gpm import GeneralPreference
from cupel.learners.models.types import Given, PreferenceModel, Shape
from cupel.noise.names import parse
from cupel.objectives.names import by_name
from cupel.objectives.preference import gpo
from cupel.objectives.types import Side
from cupel.votes.games import exploitability, play, targets

KINDS = ("science", "math", "sports")  # each over the next, the last over the first
TREATMENTS = ("identity", "em", "unbiased")
FLIPS = (0.0, 0.1, 0.2, 0.3)
#: heads of two planes for flipped labels: the card's, and one whose weights are shrunk
FORMS = (("", "gpm:dim=4,bias=false", 0.0), (", shrunk", "gpm:dim=4,bias=false,normalize=false,tau=1", 0.01))


def margins(model: PreferenceModel, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Margins of pairs of rows of x."""
    with torch.no_grad():
        z = model.represent(torch.from_numpy(x))
        return model.margin(z[first], z[second], Given()).numpy()


def right(margin: np.ndarray) -> float:
    """Share above 0, ties one half."""
    return float(np.mean((margin > 0) + 0.5 * (margin == 0)))


# ---- A: a circle in text -----------------------------------------------------------------------------------------------------------------


def statements(data: Path) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Vectors, and the rows of each kind's training and test statements."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "persona" / "statements.parquet", columns=["persona", "statement", "matches_persona"])
    texts: list[str] = []
    train, test = [], []
    for kind in KINDS:
        wanted = (f"interest-in-{kind}", True)
        rows = zip(*(table[name].to_pylist() for name in ("persona", "matches_persona", "statement")), strict=True)
        mine = [text for persona, agrees, text in rows if (persona, agrees) == wanted]
        train.append(len(texts) + np.arange(400))
        test.append(len(texts) + np.arange(len(mine) - 100, len(mine)))
        texts += mine
    return np.asarray(load_encoder("static").encode(texts), dtype=np.float32), train, test


def circle_pairs(rows: list[np.ndarray], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n pairs (better, worse) of statements of different kinds."""
    kind = rng.integers(0, 3, n)
    better = np.array([rng.choice(rows[k]) for k in kind])
    worse = np.array([rng.choice(rows[(k + 1) % 3]) for k in kind])
    return better, worse


def trained(x: np.ndarray, data: Comparisons, head: str, treatment: str, seed: int, **options: Any) -> PreferenceModel:
    """One head; Bradley-Terry's loss on margins, which for gpm is its cross-entropy on s / tau."""
    asked = {"epochs": 200, "batch_size": len(data), "learning_rate": 1e-2, "schedule": "constant", "l2": 0.0, "heldout": 0.0, **options}
    return fit(x, data, by_name("bradley_terry"), parse(treatment), HeadOptions(head=head, seed=seed, **asked)).models[0]


def circle(data: Path, seeds: list[int]) -> dict[str, Any]:
    """Test accuracy per seed: clean labels by head, flipped ones by treatment; for how many seeds the kinds' circle is the planted one."""
    x, train, test = statements(data)
    clean: dict[str, list[float]] = {}
    flipped: dict[str, list[float]] = {}
    turns: dict[str, list[bool]] = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        better, worse = circle_pairs(train, 600, rng)
        held = circle_pairs(test, 600, rng)
        draw = rng.random(600)
        for name, head in (("BT", "scalar"), *((f"k={k}", f"gpm:dim={2 * k},bias=false") for k in (1, 2, 3))):
            model = trained(x, Comparisons.of(better, worse), head, "identity", seed)
            clean.setdefault(name, []).append(right(margins(model, x, *held)))
        middle = np.stack([x[rows].mean(axis=0) for rows in test])
        for rate, treatment, (form, head, l2) in product(FLIPS, TREATMENTS, FORMS):
            told = treatment if treatment == "identity" else f"{treatment}:flip={max(rate, 0.01 if treatment == 'em' else 0.0)}"
            model = trained(x, Comparisons.of(better, worse, 1.0 - (draw < rate)), head, told, seed, l2=l2)
            name = f"{rate:.0%} {treatment}{form}"
            flipped.setdefault(name, []).append(right(margins(model, x, *held)))
            way = margins(model, middle, np.array([0, 1, 2]), np.array([1, 2, 0]))
            turns.setdefault(name, []).append(bool((way > 0).all()))
    return {"clean": clean, "flipped": flipped, "circle kept": {name: sum(kept) for name, kept in turns.items()}}


# ---- B: part order, part circle ----------------------------------------------------------------------------------------------------------


def mixed(seed: int, c: float) -> dict[str, float]:
    """Excess log loss of each head over the entropy of the true game, one draw of labels."""
    rng = np.random.default_rng([seed, 2])
    r, t = rng.normal(size=12), rng.uniform(0, 2 * np.pi, 12)
    first, second = np.array(list(combinations(range(12), 2))).T
    s = r[first] - r[second] + 1.5 * c * np.sin(t[first] - t[second])
    truth = 1 / (1 + np.exp(-s))
    data = Comparisons.of(first, second, rng.binomial(60, truth) / 60)
    x = np.eye(12, dtype=np.float32)
    entropy = -(truth * np.log(truth) + (1 - truth) * np.log(1 - truth)).mean()
    found = {}
    for name, head in (("BT", "scalar"), *((f"k={k}", f"gpm:dim={2 * k},bias=false,normalize=false,tau=1") for k in (1, 2, 3))):
        model = trained(x, data, head, "identity", seed, epochs=800, learning_rate=0.03, l2=1e-4)
        m = margins(model, x, first, second).astype(np.float64)
        found[name] = float((truth * np.logaddexp(0, -m) + (1 - truth) * np.logaddexp(0, m)).mean() - entropy)
    return found


# ---- C: policies -------------------------------------------------------------------------------------------------------------------------


def sampled(seed: int) -> dict[int, float]:
    """Duality gap (twice the exploitability) of the average policy after T steps against 64 sampled opponents, beta = 10."""
    a = np.random.default_rng([seed, 3]).normal(size=(20, 20))
    s = np.tanh((a - a.T) / np.sqrt(2))
    return {t: 2 * exploitability(play(s, steps=t, beta=10.0, opponents=64, seed=seed).average, s) for t in (30, 100, 300, 1000)}


class Writer(torch.nn.Module):
    """An autoregressive policy: three tokens of eight, logits from what was written so far through one hidden layer."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden, self.out = torch.nn.Linear(19, 32), torch.nn.Linear(32, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def step(self, written: torch.Tensor, at: int) -> torch.Tensor:
        """Log-probabilities [B, 8] of the token at a place, from the tokens [B, 3] before it."""
        before = torch.nn.functional.one_hot(written[:, :2], 8).float() * (torch.arange(2) < at)[None, :, None]
        place = torch.zeros(len(written), 3)
        place[:, at] = 1
        return torch.log_softmax(self.out(torch.tanh(self.hidden(torch.cat([before.flatten(1), place], dim=1)))), dim=1)

    def forward(self, written: torch.Tensor) -> torch.Tensor:
        """Log-probability [B] of texts [B, 3]."""
        return sum(self.step(written, at).gather(1, written[:, at : at + 1])[:, 0] for at in range(3))  # pyright: ignore[reportReturnType]

    def write(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n texts, [n, 3]."""
        written = torch.zeros(n, 3, dtype=torch.long)
        for at in range(3):
            written[:, at] = torch.multinomial(self.step(written, at).exp(), 1, generator=generator)[:, 0]
        return written


def written(seed: int, game: str, *, extremes: bool, iterations: int = 100, groups: int = 64, k: int = 5) -> dict[str, float]:
    """Exploitability of the uniform, the last and the average policy of a run of GPO or SPPO on samples, in its own game.

    The judge is a preference model with two planes on which token stands where, so texts go round. An iteration: 64 groups of 5 samples,
    their score matrices, `targets`, 10 steps of Adam 3e-3 on the objective `gpo` with the policy of the iteration's start as reference.
    extremes: the best and the worst of a group are learned from, instead of each with its neighbour.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    every = torch.tensor(list(product(range(8), repeat=3)))
    judge = GeneralPreference(Shape(width=24), dim=4, bias=False, tau=0.5, seed=seed)
    with torch.no_grad():
        z = judge.represent(torch.nn.functional.one_hot(every, 8).flatten(1).float())
        scores = judge.score_matrix(z).double().numpy()
    playing = scores if game == "gpo" else np.tanh(scores / (2 * judge.tau)) / 2
    policy = Writer(generator)
    objective = gpo(beta=3.0 if game == "gpo" else 1.5)  # with tau = 1/2 win rates move half as much as scores
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    total = np.zeros(512)
    for _ in range(iterations):
        with torch.no_grad():
            total += policy(every).double().exp().numpy()
            texts = policy.write(groups * k, generator)
            start = policy(texts)
        number = (texts * torch.tensor([64, 8, 1])).sum(1).numpy().reshape(groups, k)
        rating = targets(scores[number[:, :, None], number[:, None, :]], tau=judge.tau).rating(game)  # pyright: ignore[reportArgumentType]
        if extremes:
            first, second = rating.argmax(1)[:, None], rating.argmin(1)[:, None]
        else:
            first, second = np.tile(np.arange(k), (groups, 1)), np.tile((np.arange(k) + 1) % k, (groups, 1))
        one, other = (torch.from_numpy((at + k * np.arange(groups)[:, None]).ravel()) for at in (first, second))
        rated = torch.from_numpy(rating.ravel()).float()
        for _ in range(10):
            logp = policy(texts)
            up, down = (Side(logp=logp[at], reference_logp=start[at], rating=rated[at]) for at in (one, other))
            loss = objective.loss(up, down, {}).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        last = policy(every).double().exp().numpy()
    uniform = np.full(512, 1 / 512)
    return {
        "uniform": exploitability(uniform, playing), "last": exploitability(last / last.sum(), playing),
        "average": exploitability(total / total.sum(), playing),
    }  # fmt: skip


# ---- the claims --------------------------------------------------------------------------------------------------------------------------


def interval(values: Any) -> list[float]:
    """95 % interval of the mean (Student's t)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return [round(float(values.mean()) - half, 4), round(float(values.mean()) + half, 4)]


def claim(text: str, target: str, values: Any, passed: Any) -> dict[str, Any]:
    """A claim about the mean of values over seeds."""
    mean = round(float(np.mean(values)), 4)
    return {"claim": text, "target": target, "measured": mean, "interval": interval(values), "passed": bool(passed)}


def main() -> None:
    """Run the three parts and write benchmarks/results/gpm.json."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    seeds = list(range(asked.seeds))
    began = time.process_time()
    a = circle(asked.data, seeds)
    print({name: np.round(values, 3).tolist() for name, values in (a["clean"] | a["flipped"]).items()}, a["circle kept"], flush=True)
    text = "circle in text"
    bt = a["clean"]["BT"]
    claims = [claim(f"{text}: test accuracy of Bradley-Terry, every seed", ".42 to .58", bt, min(bt) >= 0.42 and max(bt) <= 0.58)]
    for k in ("k=2", "k=3"):
        values = a["clean"][k]
        claims.append(claim(f"{text}: test accuracy of GPM {k}, every seed", ">= .97", values, min(values) >= 0.97))
    for treatment in ("em", "unbiased"):
        values = np.array(a["flipped"][f"20% {treatment}"])
        claims.append(claim(f"{text}, 20 % flips: test accuracy of GPM k=2 under {treatment}", ">= .95", values, values.mean() >= 0.95))
        gain = values - a["flipped"]["20% identity"]
        claims.append(claim(f"{text}, 20 % flips: {treatment} minus identity", "interval above 0", gain, interval(gain)[0] > 0))
    values = np.array(a["flipped"]["20% identity, shrunk"])
    claims.append(
        claim(f"{text}, 20 % flips: test accuracy of GPM k=2, weights shrunk, labels as given", ">= .9", values, values.mean() >= 0.9)
    )
    gain = np.array(a["flipped"]["20% unbiased, shrunk"]) - values
    claims.append(
        claim(f"{text}, 20 % flips, weights shrunk: unbiased minus labels as given", "interval above 0", gain, interval(gain)[0] > 0)
    )

    b = {c: [mixed(seed, c) for seed in seeds] for c in (0.0, 0.5, 1.0, 2.0)}
    print({c: {name: round(float(np.mean([one[name] for one in rows])), 4) for name in rows[0]} for c, rows in b.items()}, flush=True)
    cost = np.array([one["k=2"] - one["BT"] for one in b[0.0]])
    claims.append(claim("mixed game, c = 0: excess log loss of GPM k=2 minus Bradley-Terry", "<= .008", cost, cost.mean() <= 0.008))
    gain = np.array([one["BT"] - one["k=2"] for one in b[2.0]])
    claims.append(claim("mixed game, c = 2: excess log loss of Bradley-Terry minus GPM k=2", ">= .15", gain, gain.mean() >= 0.15))

    c = [sampled(seed) for seed in seeds]
    gaps = {t: float(np.mean([one[t] for one in c])) for t in c[0]}
    print(gaps, flush=True)
    shrunk = [one[300] / one[30] for one in c]
    claims.append(claim("sampled GPO: gap of the average policy after 300 steps / after 30", "<= 1/3", shrunk, gaps[300] <= gaps[30] / 3))
    wrote = {
        f"{game}, {'extremes' if x else 'all'}": [written(seed, game, extremes=x) for seed in seeds]
        for game in ("gpo", "sppo")
        for x in (False, True)
    }
    print(
        {name: {key: round(float(np.mean([one[key] for one in rows])), 4) for key in rows[0]} for name, rows in wrote.items()}, flush=True
    )
    for game in ("gpo", "sppo"):
        ratio = np.array([one["average"] / one["uniform"] for one in wrote[f"{game}, all"]])
        words = f"autoregressive policy, {game}, K = 5: exploitability of the average policy / of the uniform one, every seed"
        claims.append(claim(words, "<= 1/2", ratio, ratio.max() <= 0.5))
    details = {
        "circle": a, "mixed": {str(c_): rows for c_, rows in b.items()}, "sampled_gap": c, "autoregressive": wrote,
        "cpu_seconds": round(time.process_time() - began, 1),
        "not_shown": "interest in art is not in this copy of persona (science stands for it); the card's transformer reward on a GPU",
    }  # fmt: skip
    write_result("gpm", claims, n=600, seeds=seeds, command="python benchmarks/gpm.py", details=details)


if __name__ == "__main__":
    main()
