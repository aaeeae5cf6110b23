"""The truth of items from votes of workers, some of whom are bad: majority, five annotator models, and crowd-kit's models, in one run.

`blimp` has crowd votes whose truth is known by construction. `ukp` has votes without truth: the strict majority of each pair's real votes
is fixed as its consensus before any worker is planted, which favours majority vote. The published gold of `ukp` is the output of MACE
on the same votes, so it is shown and not scored. Planted pools deal the real votes of an item to different workers, who then answer
worse at their rate; what real people got wrong stays.

crowd-kit runs in a process of its own, in the interpreter named by --crowdkit (this one unless said otherwise), on the same votes, handed
over as Parquet. Where it is not installed, that is said and the claims about it fail.

    python benchmarks/consensus.py [--data DIR] [--crowdkit /path/to/python]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result
from datasets import blimp_human, ukp_votes

from cupel.records.corrupt import annotator_rates
from cupel.votes.annotators import VoteTable, crowd_bt, dawid_skene, glad, mace, majority, one_coin, vote_table

HERE = Path(__file__).resolve().parent
SEEDS = tuple(range(5))
POOL, UKP_ITEMS, VOTES_PER_ITEM = 40, 600, 5
#: planted pools: kind of spread and mean flip rate; `habit`: a third of the pool answers "first" whatever it sees
PLANTED = {"few_bad": 0.1, "many_mild": 0.2, "adversaries": 0.2, "spammers": 0.3, "habit": 1 / 3}
#: mixes in which some workers are bad enough that weighing them must pay
BAD = ("few_bad", "adversaries", "spammers", "habit", "real workers, a fifth coins, a tenth liars")
#: what docs/annotators.md advises: confusion matrices where answers lean to a side, else one reliability each
ADVISED = {"habit": "dawid_skene"}
MARGIN = 0.01
DRAWS = 2000


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--crowdkit", default=sys.executable, help="the Python that has crowd-kit")
    options = parser.parse_args()
    cells = [cell for seed in SEEDS for cell in (*blimp_cells(options.data, seed), *ukp_cells(options.data, seed))]
    for cell in cells:
        cell["ours"] = {name: timed(model, cell) for name, model in OURS.items()}
        print(cell["data"], cell["mix"], cell["seed"], {k: round(v["accuracy"], 3) for k, v in cell["ours"].items()}, file=sys.stderr)
    theirs, note = run_crowdkit(options.crowdkit, cells)
    for cell, found in zip(cells, theirs, strict=True):
        cell["theirs"] = {
            f"crowd-kit {name}": scored(cell, np.array(label, dtype=float)) | {"seconds": spent} for name, (label, spent) in found.items()
        }
    table = [summary(data, mix, cells) for data, mix in dict.fromkeys((cell["data"], cell["mix"]) for cell in cells)]
    seconds = cost(cells)
    write_result(
        "consensus", claims(table, seconds), n={row["data"]: row["items"] for row in table}, seeds=SEEDS,
        command="python benchmarks/consensus.py --crowdkit PYTHON", details={"mixes": table, "crowd-kit": note, "cpu_seconds": seconds},
    )  # fmt: skip
    return 0


# ---- votes ---------------------------------------------------------------------------------------------------------------


def blimp_cells(data: Path, seed: int) -> list[dict]:
    """Five of the about twenty votes of each item: as collected, with real workers made bad, and dealt to planted pools."""
    labelled = blimp_human(data)
    votes = labelled.votes
    item, said = votes.group.astype(np.int64), (votes.sign < 0).astype(np.int64)
    truth = np.zeros(item.max() + 1, dtype=np.int64)
    truth[item] = np.where(labelled.wrong, 1 - said, said)
    kept = some_per_item(item, VOTES_PER_ITEM, seed)
    item, said, who = item[kept], said[kept], votes.annotator[kept].astype(np.int64)
    sides = np.stack([votes.first[kept], votes.second[kept]])
    rng = np.random.default_rng([seed, 5])
    rates = np.zeros(len(votes.annotators))
    order = rng.permutation(len(rates))
    fifth, tenth = round(len(rates) / 5), round(len(rates) / 10)
    rates[order[:fifth]], rates[order[fifth : fifth + tenth]] = 0.5, 1.0
    real = np.where(rng.random(len(item)) < rates[who], 1 - said, said)
    common = {"data": "blimp", "seed": seed, "truth": truth, "item": item, "sides": sides}
    return [
        {**common, "mix": "as collected", "annotator": who, "label": said},
        {**common, "mix": "real workers, a fifth coins, a tenth liars", "annotator": who, "label": real},
        *({**common, "mix": mix, **planted(item, said, mix, seed)} for mix in PLANTED),
    ]


def ukp_cells(data: Path, seed: int) -> list[dict]:
    """All decided votes on 600 pairs with a strict majority, the same for every seed, dealt to planted pools."""
    labelled = ukp_votes(data)
    votes = labelled.votes
    rows = np.flatnonzero((votes.sign != 0) & (votes.first != votes.second))
    item = np.unique(np.stack([votes.first, votes.second])[:, rows], axis=1, return_inverse=True)[1].reshape(-1)
    balance, size = np.bincount(item, weights=votes.sign[rows]), np.bincount(item)
    clear = np.flatnonzero((balance != 0) & (size >= 3))
    chosen = np.sort(np.random.default_rng(600).permutation(clear)[:UKP_ITEMS])
    kept = np.isin(item, chosen)
    rows, item = rows[kept], np.searchsorted(chosen, item[kept])
    said = (votes.sign[rows] < 0).astype(np.int64)
    known = labelled.known[rows]
    gold = np.full(len(chosen), -1)
    gold[item[known]] = (said ^ labelled.wrong[rows])[known]
    sides = np.stack([votes.first[rows], votes.second[rows]])
    common = {"data": "ukp", "seed": seed, "truth": (balance[chosen] < 0).astype(np.int64), "gold": gold, "item": item, "sides": sides}
    return [{**common, "mix": mix, **planted(item, said, mix, seed)} for mix in PLANTED]


def some_per_item(item: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of a random `count` votes of each item."""
    order = np.random.default_rng([seed, 4]).permutation(len(item))
    order = order[np.argsort(item[order], kind="stable")]
    place = np.arange(len(item)) - np.searchsorted(item[order], item[order])
    return np.sort(order[place < count])


def planted(item: np.ndarray, said: np.ndarray, mix: str, seed: int) -> dict:
    """The votes dealt to a pool, nobody twice on an item, and answered worse by its bad members."""
    rng = np.random.default_rng([seed, sorted(PLANTED).index(mix), 6])
    order = np.argsort(item, kind="stable")
    start = np.searchsorted(item[order], item[order])
    seats = rng.permuted(np.tile(np.arange(POOL), (item.max() + 1, 1)), axis=1)
    who = np.empty(len(item), dtype=np.int64)
    who[order] = seats[item[order], np.arange(len(item)) - start]
    if mix == "habit":
        always = rng.permutation(POOL)[: round(PLANTED[mix] * POOL)]
        return {"annotator": who, "label": np.where(np.isin(who, always), 0, said)}
    rates = annotator_rates(mix, PLANTED[mix], POOL, seed)  # type: ignore[arg-type]
    return {"annotator": who, "label": np.where(rng.random(len(item)) < rates[who], 1 - said, said)}


# ---- models --------------------------------------------------------------------------------------------------------------


def by_scores(votes: VoteTable, sides: np.ndarray) -> np.ndarray:
    """P(label 1) by CrowdBT: which of the two texts of an item has the higher score."""
    texts, index = np.unique(sides, return_inverse=True)
    index = index.reshape(sides.shape)
    winner, loser = np.where(votes.label == 0, index[0], index[1]), np.where(votes.label == 0, index[1], index[0])
    scores = crowd_bt(winner, loser, votes.annotator, len(texts)).scores
    out = np.full(votes.n_items, 0.5)
    out[votes.item] = (np.sign(scores[index[1]] - scores[index[0]]) + 1) / 2
    return out


OURS: dict[str, Callable[[VoteTable, np.ndarray], np.ndarray]] = {
    "majority": lambda votes, sides: majority(votes).posterior[:, 1], "one_coin": lambda votes, sides: one_coin(votes).posterior[:, 1],
    "dawid_skene": lambda votes, sides: dawid_skene(votes).posterior[:, 1], "glad": lambda votes, sides: glad(votes).posterior[:, 1],
    "mace": lambda votes, sides: mace(votes).posterior[:, 1], "crowd_bt": by_scores,
}  # fmt: skip
#: the four that crowd-kit also has, in its names
ALIKE = {"one_coin": "OneCoinDawidSkene", "dawid_skene": "DawidSkene", "glad": "GLAD", "mace": "MACE"}


def timed(model: Callable[[VoteTable, np.ndarray], np.ndarray], cell: dict) -> dict:
    people = np.unique(cell["annotator"], return_inverse=True)[1].reshape(-1)
    votes = vote_table(cell["item"], people, cell["label"], n_items=len(cell["truth"]))
    began = time.process_time()
    chance = model(votes, cell["sides"])
    return scored(cell, np.where(np.abs(chance - 0.5) < 1e-9, 0.5, chance > 0.5)) | {"seconds": time.process_time() - began}


def scored(cell: dict, label: np.ndarray) -> dict:
    """Right per item (a tie or an item without an answer counts one half), its mean, and the same against the published gold."""
    filled = np.where(np.isnan(label), 0.5, label)
    right = 1 - np.abs(filled - cell["truth"])
    shown = {}
    if "gold" in cell:
        known = cell["gold"] >= 0
        shown = {"against_gold": float((1 - np.abs(filled - cell["gold"]))[known].mean())}
    return {"right": right, "accuracy": float(right.mean()), **shown}


def run_crowdkit(python: str, cells: list[dict]) -> tuple[list[dict], dict]:
    """(per cell: model -> (labels, seconds), versions and failures in words) from `consensus_crowdkit.py`."""
    with tempfile.TemporaryDirectory() as folder:
        for i, cell in enumerate(cells):
            columns = {"task": cell["item"], "worker": cell["annotator"], "label": cell["label"]}
            pq.write_table(pa.table(columns), Path(folder) / f"{i}.parquet")
        out = Path(folder) / "found.json"
        subprocess.run([python, str(HERE / "consensus_crowdkit.py"), folder, str(len(cells)), str(out)], check=True)
        found = json.loads(out.read_text())
    return found["cells"], found["note"]


# ---- what was found ------------------------------------------------------------------------------------------------------


def summary(data: str, mix: str, cells: list[dict]) -> dict:
    """Accuracy of every model on one mix over seeds, and paired differences with 95 % intervals (seeds crossed with items)."""
    mine = [cell for cell in cells if (cell["data"], cell["mix"]) == (data, mix)]
    right = {side: {m: np.stack([cell[side][m]["right"] for cell in mine]) for m in mine[0][side]} for side in ("ours", "theirs")}
    best = {side: max(models, key=lambda m: models[m].mean()) if models else None for side, models in right.items()}
    advised = ADVISED.get(mix, "one_coin")
    row = {
        "data": data, "mix": mix, "items": len(mine[0]["truth"]), "votes": len(mine[0]["item"]), "advised": advised, "best": best,
        "accuracy": {m: float(x.mean()) for models in right.values() for m, x in models.items()},
        "against_majority": difference(right["ours"][advised], right["ours"]["majority"]),
    }  # fmt: skip
    if best["theirs"]:
        row["advised_against_best"] = difference(right["ours"][advised], right["theirs"][best["theirs"]])
        row["best_against_best"] = difference(right["ours"][best["ours"]], right["theirs"][best["theirs"]])
        pairs = {ours: f"crowd-kit {name}" for ours, name in ALIKE.items()}
        row["alike"] = {a: difference(right["ours"][a], right["theirs"][b]) for a, b in pairs.items() if b in right["theirs"]}
    if data == "ukp":
        row["against_published_gold_shown_only"] = {
            m: float(np.mean([cell[side][m]["against_gold"] for cell in mine])) for side in ("ours", "theirs") for m in right[side]
        }
    return row


def difference(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """[mean, low, high] of a paired difference [seeds, items], both resampled."""
    gap = ours - theirs
    rng = np.random.default_rng(7)
    seeds, items = gap.shape
    draws = [gap[rng.integers(seeds, size=seeds)][:, rng.integers(items, size=items)].mean() for _ in range(DRAWS)]
    return [float(gap.mean()), *(float(q) for q in np.quantile(draws, [0.025, 0.975]))]


def claims(table: list[dict], seconds: dict[str, float]) -> list[dict]:
    out = []
    for data in ("blimp", "ukp"):
        rows = [row for row in table if row["data"] == data]
        n = {"items": rows[0]["items"], "votes": rows[0]["votes"], "mixes": len(rows)}
        for key, who in (("best_against_best", "best of ours"), ("advised_against_best", "the model that the docs advise")):
            claim = {"claim": f"{data}: {who} minus best of crowd-kit, accuracy of consensus labels, worst mix", "n": n}
            target = f"lower 95 % end above -{MARGIN:g} in every mix"
            if not all(key in row for row in rows):
                out.append({**claim, "target": target, "measured": "crowd-kit did not run", "passed": False})
                continue
            worst = min(rows, key=lambda row: row[key][1])
            measured = {worst["mix"]: worst[key][0], "mean of mixes": float(np.mean([row[key][0] for row in rows]))}
            out.append({**claim, "target": target, "measured": measured, "interval": worst[key][1:], "passed": worst[key][1] > -MARGIN})
        bad = [row for row in rows if row["mix"] in BAD]
        worst = min(bad, key=lambda row: row["against_majority"][1])
        out.append({
            "claim": f"{data}: the model that the docs advise minus majority where some workers are bad, worst mix",
            "target": "lower 95 % end above 0 in every such mix", "measured": {worst["mix"]: worst["against_majority"][0]},
            "interval": worst["against_majority"][1:], "passed": worst["against_majority"][1] > 0, "n": n,
        })  # fmt: skip
    ours, theirs = ([seconds.get(name) for name in names] for names in (ALIKE, [f"crowd-kit {name}" for name in ALIKE.values()]))
    ran = None not in theirs
    ratio = sum(ours) / sum(theirs) if ran else None  # type: ignore[arg-type]
    out.append({
        "claim": "processor time of one coin, Dawid-Skene, GLAD and MACE over crowd-kit's, all cells", "target": "at most 1",
        "measured": ratio if ran else "one of crowd-kit's models did not run", "passed": ratio is not None and ratio <= 1, "n": "all cells",
    })  # fmt: skip
    return out


def cost(cells: list[dict]) -> dict:
    """Processor seconds of every model over all cells."""
    total: dict[str, float] = {}
    for cell in cells:
        for side in ("ours", "theirs"):
            for model, found in cell[side].items():
                total[model] = total.get(model, 0.0) + found["seconds"]
    return total


if __name__ == "__main__":
    sys.exit(main())
