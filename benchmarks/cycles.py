"""Cycles in real votes: is there more than noise explains, and does a model that can hold them predict better?

    python benchmarks/cycles.py [--data DIR] [--draws 199]

`cycle_test` (Bradley-Terry by parametric bootstrap) on `ukp_convarg` (CC-BY-4.0: five votes on every pair of a topic's arguments), on
people's votes between models in `llmfao`, and on `football` matches since 2010 that were not on neutral ground, with the home side's
advantage in the null. `alpaca_eval` (not for commercial use; read here only) compares all models with one and cannot show a cycle. Its
level: votes drawn from Bradley-Terry with ukp's counts. Then held-out log loss of free vectors on ukp, Bradley-Terry against GPM.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result
from gpm import interval, margins, trained

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.votes.counts import PairCounts, count_votes
from cupel.votes.cycle_test import cycle_test


def tournament(first: list[Any], second: list[Any], outcome: list[int]) -> PairCounts:
    """Counts of votes on named items."""
    number = {name: i for i, name in enumerate(sorted(set(first) | set(second)))}
    return count_votes([number[x] for x in first], [number[x] for x in second], outcome, len(number))


def arguments_of(data: Path) -> dict[str, tuple[list[str], list[str], list[int]]]:
    """Votes of ukp_convarg by topic: first, second, outcome (0 first, 1 second, 2 tie)."""
    table = pq.read_table(data / "ukp_convarg" / "votes.parquet", columns=["prompt", "response_a", "response_b", "vote"])
    topics: dict[str, tuple[list[str], list[str], list[int]]] = {}
    for prompt, a, b, vote in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        if a == b:  # ten rows compare a text with itself
            continue
        one = topics.setdefault(prompt, ([], [], []))
        one[0].append(a)
        one[1].append(b)
        one[2].append({"a": 0, "b": 1, "tie": 2}[vote])
    return dict(sorted(topics.items()))


def battles(data: Path, name: str, keep: Any) -> PairCounts:
    """Votes between models or teams, of the rows that `keep` wants."""
    rows = [row for row in pq.read_table(data / name, columns=None).to_pylist() if keep(row)]
    key = "winner" if "winner" in rows[0] else "vote"
    word = {"a": 0, "b": 1, "tie": 2}
    return tournament([row["model_a"] for row in rows], [row["model_b"] for row in rows], [word[row[key]] for row in rows])


def real(data: Path, draws: int) -> dict[str, Any]:
    """`cycle_test` on each real set."""
    topics = {name: cycle_test(tournament(*votes), draws=draws) for name, votes in arguments_of(data).items()}
    found: dict[str, Any] = {"ukp": {name: test.recorded() for name, test in topics.items()}}
    human = battles(data, "llmfao/votes.parquet", lambda row: row["label_source"] == "human")
    found["llmfao"] = cycle_test(human, draws=draws).recorded()
    matches = battles(data, "football/battles.parquet", lambda row: not row["neutral"] and row["date"] >= "2010")
    found["football"] = cycle_test(matches, slot=True, draws=min(draws, 99)).recorded()
    found["football, home ignored"] = cycle_test(matches, draws=min(draws, 99)).recorded()
    try:
        table = pq.read_table(data / "alpaca_eval" / "pairs_v2.parquet", columns=["chosen_model", "rejected_model"])
        names = [table[name].to_pylist() for name in table.column_names]
        cycle_test(tournament(names[0], names[1], [0] * len(names[0])))
        found["alpaca_eval"] = "tested"
    except InputError as error:
        found["alpaca_eval"] = str(error)
    return found


def level(data: Path, draws: int) -> float:
    """Share of p <= .05 when the votes of each ukp topic are drawn from Bradley-Terry with its own counts, strengths of deviation 1."""
    rejected = []
    for at, votes in enumerate(arguments_of(data).values()):
        cells = tournament(*votes).unordered()
        rng = np.random.default_rng([at, 4])
        r = rng.normal(size=cells.n_items)
        n = cells.votes[:, :2].sum(axis=1)
        drawn = np.zeros_like(cells.votes)
        drawn[:, 0] = rng.binomial(n.astype(int), 1 / (1 + np.exp(r[cells.second] - r[cells.first])))
        drawn[:, 1] = n - drawn[:, 0]
        rejected.append(cycle_test(PairCounts(cells.n_items, cells.first, cells.second, drawn, drawn, int(n.sum())), draws=draws).p <= 0.05)
    return float(np.mean(rejected))


def predicted(data: Path, seed: int) -> dict[str, Any]:
    """Held-out log loss on decided ukp votes, 70 / 10 / 20 by vote: Bradley-Terry and GPM with free vectors, l2 chosen on the 10 %."""
    first, second, p, topic = [], [], [], []
    number: dict[tuple[str, str], int] = {}
    for at, (name, votes) in enumerate(arguments_of(data).items()):
        for a, b, outcome in zip(*votes, strict=True):
            if outcome < 2:
                first.append(number.setdefault((name, a), len(number)))
                second.append(number.setdefault((name, b), len(number)))
                p.append(1.0 - outcome)
                topic.append(at)
    first, second, p, topic = (np.array(x) for x in (first, second, p, topic))
    part = np.random.default_rng([seed, 5]).random(len(p))
    train, choose, test = part < 0.7, (part >= 0.7) & (part < 0.8), part >= 0.8
    x = np.eye(len(number), dtype=np.float32)
    found: dict[str, Any] = {"votes": len(p)}
    losses = {}
    for name, head in (("BT", "scalar"), ("k=1", "gpm:dim=2,normalize=false,tau=1"), ("k=2", "gpm:dim=4,normalize=false,tau=1")):
        best = (np.inf, 0.0, np.zeros(0))
        for l2 in (1e-5, 1e-4, 3e-4, 1e-3):
            data_ = Comparisons.of(first[train], second[train], p[train])
            model = trained(x, data_, head, "identity", seed, epochs=12, batch_size=1024, learning_rate=0.05, l2=l2, schedule="linear")
            m = margins(model, x, first, second).astype(np.float64)
            loss = p * np.logaddexp(0, -m) + (1 - p) * np.logaddexp(0, m)
            best = min(best, (float(loss[choose].mean()), l2, loss), key=lambda one: one[0])
        losses[name] = best[2]
        found[name] = {"log loss": float(best[2][test].mean()), "l2": best[1]}
    for name in ("k=1", "k=2"):
        by_topic = np.array([(losses[name] - losses["BT"])[test & (topic == t)].mean() for t in range(max(topic) + 1)])
        found[name]["minus BT by topic"] = interval(by_topic)
        found[name]["mean difference"] = float(by_topic.mean())
    return found


def main() -> None:
    """Run the tests and write benchmarks/results/cycles.json."""
    from scipy.stats import binom

    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=199)
    asked = parser.parse_args()
    began = time.process_time()
    found = real(asked.data, asked.draws)
    p = np.array([one["p"] for one in found["ukp"].values()])
    print("ukp", np.sort(p), {name: value for name, value in found.items() if name != "ukp"}, flush=True)
    size = level(asked.data, min(asked.draws, 99))
    hits = int((p <= 0.05).sum())
    chance = float(binom.sf(hits - 1, len(p), 0.05))
    held = predicted(asked.data, 0)
    print(size, chance, held, flush=True)
    human, ball, gain = found["llmfao"], found["football"], held["k=2"]
    refused = "form no loop" in found["alpaca_eval"]
    claims = [
        _claim("cycle test on Bradley-Terry votes with ukp's counts: share of topics with p <= .05", "<= .15", size, size <= 0.15, len(p)),
        _claim("ukp_convarg: topics of 26 with p <= .05", "more than chance (binomial p <= .05)", hits, chance <= 0.05, len(p)),
        _claim("llmfao, people's votes between models: p of the cycle test", "> .05", human["p"], human["p"] > 0.05, human["votes"]),
        _claim("football since 2010, home side in the null: p of the cycle test", "<= .05", ball["p"], ball["p"] <= 0.05, ball["votes"]),
        _claim("alpaca_eval compares all with one model: no cycle can be seen, and that is said", "refused", refused, refused, None),
        _claim("ukp_convarg, held-out log loss of GPM k=2 minus Bradley-Terry, mean over topics", "interval below 0",
               gain["mean difference"], gain["minus BT by topic"][1] < 0, held["votes"], gain["minus BT by topic"]),
    ]  # fmt: skip
    details = {"cycle_tests": found, "held_out": held, "binomial_p": chance, "cpu_seconds": round(time.process_time() - began, 1)}
    write_result("cycles", claims, n=len(p), seeds=[0], command="python benchmarks/cycles.py", details=details)


def _claim(text: str, target: str, measured: Any, passed: Any, n: Any, interval: Any = None) -> dict[str, Any]:
    return {"claim": text, "target": target, "measured": measured, "interval": interval, "passed": bool(passed), "n": n}


if __name__ == "__main__":
    main()
