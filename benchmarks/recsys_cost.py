"""What training on triplets costs: any pairwise objective and treatment against dedicated C++ (implicit, cornac), and growth with the data.

python benchmarks/recsys_cost.py [--data DIR] [--peers PYTHON]

speed    50,000 users, 20,000 items, 0.92 million events drawn from log-normal activity and popularity, 64 columns, one thread: triplets
         per CPU-second of one pass, the best of three in turns, ours by rows_adagrad at several objectives and treatments, and of the
         peers in the same run. PYTHON is an interpreter that has implicit and cornac (they are no dependency); without it the peers'
         claims are not made
quality  the standard split of MovieLens: test NDCG@20 of the same learner and of the peers at their tuned settings
growth   10^4 to 10^7 events whose users and items grow with them, marginals resampled from MovieLens: CPU-seconds per pass and peak memory

The bound: a triplet reads and writes three rows of 256 bytes, and its optimiser's numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, versions, write_result

from cupel.interactions.log import Log, Rows, by_user

DIM = 64
#: every rate is measured this often, in turns, and the best is taken: the machine is not always as fast
ROUNDS = 3
PEERS = r"""
import json, sys, time
import numpy as np, scipy.sparse as sp
data = np.load(sys.argv[1]); quality = sys.argv[2] == "quality"
users, items, n_users, n_items = data["user"], data["item"], int(data["n_users"]), int(data["n_items"])
out = {}
import os; os.environ["OPENBLAS_NUM_THREADS"] = "1"
from implicit.bpr import BayesianPersonalizedRanking
m = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(n_users, n_items))
def fit(epochs, rate, reg):
    made = dict(factors=64, learning_rate=rate, regularization=reg, iterations=epochs, num_threads=1, random_state=0)
    model = BayesianPersonalizedRanking(**made)
    began = time.process_time(); model.fit(m, show_progress=False); return model, time.process_time() - began
if quality:
    best = None
    for rate, reg in ((.01, .01), (.02, .005), (.05, .01)):
        model, _ = fit(100, rate, reg)
        scores = np.asarray(model.user_factors[:, :]) @ np.asarray(model.item_factors).T
        np.save(sys.argv[3] + f"-implicit-{rate}-{reg}.npy", scores)
    import cornac
    s = cornac.data.Dataset.from_uir([(int(u), int(i), 1.0) for u, i in zip(users, items)], seed=0)
    for rate, reg in ((.01, .01), (.02, .005), (.05, .01)):
        model = cornac.models.BPR(k=64, max_iter=200, learning_rate=rate, lambda_reg=reg, num_threads=1, verbose=False, seed=0).fit(s)
        full = np.full((n_users, n_items), -np.inf, np.float32)
        iid = np.array([s.iid_map[i] if i in s.iid_map else -1 for i in range(n_items)])
        for u in range(n_users):
            if u in s.uid_map:
                found = model.score(s.uid_map[u]); full[u, iid >= 0] = found[iid[iid >= 0]]
        np.save(sys.argv[3] + f"-cornac-{rate}-{reg}.npy", full)
else:
    _, one = fit(2, .05, .01); _, two = fit(6, .05, .01)
    out["implicit"] = 4 * len(users) / (two - one) / 1e6
    import cornac
    s = cornac.data.Dataset.from_uir([(int(u), int(i), 1.0) for u, i in zip(users, items)], seed=0)
    def fit2(epochs):
        model = cornac.models.BPR(k=64, max_iter=epochs, learning_rate=.05, lambda_reg=.01, num_threads=1, verbose=False, seed=0)
        began = time.process_time(); model.fit(s); return time.process_time() - began
    one, two = fit2(2), fit2(6)
    out["cornac"] = 4 * len(users) / (two - one) / 1e6
print(json.dumps(out))
"""
GROWTH = r"""
import json, resource, sys, time
import numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from recsys_cost import world
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Known
from cupel.noise.names import parse as treatment_of
from cupel.objectives.names import parse as objective_of
n = int(sys.argv[1])
log = world(n)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def run(epochs):
    o = RecommenderOptions(epochs=epochs, batch_size=8192, optimiser="rows_adagrad", learning_rate=0.05)
    began = time.process_time(); fit(Known(log), objective_of("bradley_terry"), treatment_of("identity"), o)
    return time.process_time() - began
more = max(1, 2_000_000 // n)
one = run(1); two = one + (run(1 + more) - one) / more
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"n": len(log), "users": log.shape[0], "items": log.shape[1], "seconds": max(two - one, 1e-9), "setup": 2 * one - two,
                  "log_mib": base / 1024, "peak_mib": peak / 1024}))
"""


def world(n: int, seed: int = 0, users: int | None = None, items: int | None = None) -> Log:
    """A log of about n distinct events: log-normal activity (deviation 1) and popularity (1.5), as those of MovieLens; users and items grow
    as n^0.75 and n^0.6."""  # fmt: skip
    users = users or int(1.7 * n**0.75)
    items = items or int(5.2 * n**0.6)
    rng = np.random.default_rng(seed)
    active, popular = rng.lognormal(0, 1, users), rng.lognormal(0, 1.5, items)
    user = rng.choice(users, n, p=active / active.sum()).astype(np.int64)
    item = rng.choice(items, n, p=popular / popular.sum())
    keys = np.sort(user * items + item)
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    names = [np.arange(count).astype(str) for count in (users, items)]
    return Log(*names, (keys // items).astype(np.int32), (keys % items).astype(np.int32))


def ours(log: Log, objective: str, treatment: str, batch: int) -> float:
    """Million triplets per CPU-second: one pass, as the difference of three passes and one."""
    from cupel.learners.recommenders.fit import fit
    from cupel.learners.recommenders.options import RecommenderOptions
    from cupel.learners.recommenders.types import Known
    from cupel.noise.names import parse as treatment_of
    from cupel.objectives.names import parse as objective_of

    def run(epochs: int) -> float:
        o = RecommenderOptions(epochs=epochs, batch_size=batch, optimiser="rows_adagrad", learning_rate=0.05, l2=1e-3)
        began = time.process_time()
        fit(Known(log), objective_of(objective), treatment_of(treatment), o)
        return time.process_time() - began

    one = run(1)
    return 2 * len(log) / (run(3) - one) / 1e6


def bandwidth(rows: int = 70_000, draws: int = 400_000) -> float:
    """Random rows of 256 bytes read and written per second on one thread, in GB/s of traffic: `index_select` and a write back."""
    import torch

    table, at = torch.zeros(rows, DIM), torch.randint(rows, (draws,), generator=torch.Generator().manual_seed(0))
    best = 0.0
    for _ in range(5):
        began = time.process_time()
        found = table.index_select(0, at)
        table.index_copy_(0, at, found)
        best = max(best, 4 * found.numel() * 4 / (time.process_time() - began) / 1e9)
    return best


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__)
    parser.add_argument("--peers", default=None, help="a Python that has implicit and cornac")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    log = world(920_000, users=50_000, items=20_000)
    bound = bandwidth()
    cells: dict[str, Any] = {
        "BPR": ("bradley_terry", "identity"), "hinge": ("reward_hinge", "identity"),
        "BPR, em by user": ("bradley_terry", "em:flip=0.1,by=annotator"),
        "BPR, unbiased": ("bradley_terry", "unbiased:flip=0.1"), "BPR, tempered": ("bradley_terry", "tempered:power=0.7"),
        "BPR, Dr. DPO": ("bradley_terry", "distributionally_robust:temperature=1"),
    }  # fmt: skip
    cells = {name: (*cell, 8192) for name, cell in cells.items()} | {"BPR, batch 2,048": ("bradley_terry", "identity", 2048)}
    rounds: list[dict[str, float]] = []
    limit = bound * 1e9 / (6 * 4 * DIM) / 1e6
    claims, details = [], {"random_rows_gb_per_second": bound, "million_triplets_per_second_at_the_bound": limit}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "log.npz"
        np.savez(file, user=log.user, item=log.item, n_users=log.shape[0], n_items=log.shape[1])
        for _ in range(ROUNDS):
            rounds.append({name: ours(log, *cell) for name, cell in cells.items()})
            if given.peers:
                said = subprocess.run([given.peers, "-c", PEERS, str(file), "speed"], capture_output=True, text=True, check=True)
                rounds[-1] |= json.loads(said.stdout.strip().splitlines()[-1])
            print(rounds[-1], flush=True)
        speed = {name: max(found[name] for found in rounds) for name in rounds[0]}
        details |= {"million_triplets_per_cpu_second": speed, "rounds": rounds}
        if given.peers:
            peers = {name: speed[name] for name in ("implicit", "cornac")}
            for name, rate in peers.items():
                slowest = min(value for key, value in speed.items() if key in cells and "2,048" not in key)
                claims += [
                    {
                        "claim": f"BPR here against {name}, triplets per CPU-second, one thread", "target": ">= 1/2",
                        "measured": f"{speed['BPR']:.2f} / {rate:.2f} million = {speed['BPR'] / rate:.2f}",
                        "passed": speed["BPR"] / rate >= 0.5,
                    },
                    {
                        "claim": f"the slowest of {len(cells) - 1} objectives and treatments against {name}", "target": ">= 1/3",
                        "measured": slowest / rate, "passed": slowest / rate >= 1 / 3,
                    },
                ]  # fmt: skip
            quality(given, Path(place), claims, details)
        growth(claims, details)
    write_result(
        "recsys_cost", claims, n=len(log), seeds=[0], command="python benchmarks/recsys_cost.py --peers PYTHON",
        details={**details, "versions": versions()},
    )  # fmt: skip


def quality(given: argparse.Namespace, place: Path, claims: list[Any], details: dict[str, Any]) -> None:
    """Test NDCG@20 on the standard split: the learner above and the peers' best of three settings by validation."""
    from recsys_data import paired, standard

    from cupel.interactions.metrics import best, ranked, tie_order
    from cupel.learners.recommenders.fit import fit
    from cupel.learners.recommenders.options import RecommenderOptions
    from cupel.learners.recommenders.types import Known
    from cupel.noise.names import parse as treatment_of
    from cupel.objectives.names import parse as objective_of

    split = standard(given.data).split
    train, both = by_user(split.train), by_user(
        Log(
            split.train.users, split.train.items, np.concatenate([split.train.user, split.validation.user]),
            np.concatenate([split.train.item, split.validation.item]),
        )
    )  # fmt: skip

    def score(scores: np.ndarray, part: Log, seen: Rows) -> np.ndarray:
        scores = scores.copy()
        for u in range(len(scores)):
            scores[u, seen.of(u)] = -np.inf
        users = np.arange(len(scores))
        return ranked(best(scores, 20, tie_order(scores.shape[1])), by_user(part), users, [20])["ndcg@20"]

    found: dict[str, tuple[float, np.ndarray]] = {}
    for l2, rate in ((1e-3, 0.05), (1e-2, 0.05), (3e-2, 0.05)):
        o = RecommenderOptions(
            optimiser="rows_adagrad", learning_rate=rate, l2=l2, batch_size=2048, epochs=100, select="ndcg@20", negatives=1
        )
        model = fit(Known(split.train), objective_of("bradley_terry"), treatment_of("identity"), o, validation=split.validation).model
        import torch

        scores = model.scores(torch.arange(split.train.shape[0])).numpy()
        found[f"ours l2={l2}"] = (float(score(scores, split.validation, train).mean()), score(scores, split.test, both))
    file = place / "ml.npz"
    np.savez(file, user=split.train.user, item=split.train.item, n_users=split.train.shape[0], n_items=split.train.shape[1])
    subprocess.run([given.peers, "-c", PEERS, str(file), "quality", str(place / "s")], capture_output=True, text=True, check=True)
    for path in sorted(place.glob("s-*.npy")):
        scores = np.load(path)
        found[path.stem[2:]] = (float(score(scores, split.validation, train).mean()), score(scores, split.test, both))
    details["quality"] = {name: (held, float(test.mean())) for name, (held, test) in found.items()}

    def tuned(start: str) -> np.ndarray:
        return max((pair for name, pair in found.items() if name.startswith(start)), key=lambda pair: pair[0])[1]

    mine = tuned("ours")
    for name in ("implicit", "cornac"):
        gap = paired(mine, tuned(name))
        claims.append(
            {
                "claim": f"test NDCG@20 of the same learner minus {name}'s BPR, three settings each tuned on validation",
                "target": "interval not below 0", "measured": f"{mine.mean():.4f} - {tuned(name).mean():.4f}", "interval": gap, "n": 601,
                "passed": gap[1] >= 0,
            }
        )  # fmt: skip


def growth(claims: list[Any], details: dict[str, Any]) -> None:
    """Cost from 10^4 to 10^7 events, each in a process of its own."""
    rows = []
    for n in (10_000, 100_000, 1_000_000, 10_000_000):
        said = subprocess.run(
            [sys.executable, "-c", GROWTH, str(n), str(HERE)], capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        rows.append(json.loads(said.stdout.strip().splitlines()[-1]))
        print(rows[-1], flush=True)
    details["growth"] = rows
    size = np.log([row["n"] for row in rows])
    power = float(np.polyfit(size[1:], np.log([row["seconds"] for row in rows])[1:], 1)[0])
    claims.append(
        {
            "claim": "CPU-seconds of a pass grow with the events as their power, 10^5 to 10^7", "target": "<= 1.15", "measured": power,
            "n": rows[-1]["n"], "passed": power <= 1.15,
        }
    )  # fmt: skip
    most = rows[-1]
    each = (most["peak_mib"] - most["log_mib"]) * 2**20 / most["n"]
    claims.append(
        {
            "claim": "bytes above the log itself for each of 10^7 events, tables of the model included", "target": "<= 200",
            "measured": each, "n": most["n"], "passed": each <= 200,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
