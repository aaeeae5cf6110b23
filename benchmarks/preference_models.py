"""Every preference model beside the plain reward, on real sets that hold what it reads: accuracy, log loss, seconds, parameters.

    python benchmarks/preference_models.py [--data DIR] [--seeds 3] [--cache DIR]

Sets: arguments, a language-model arena and answers, each vote by a named person (people); summaries with seven named scores (columns);
and statements that two opposed characters judge in opposite ways (contexts). A fifth of the groups is held out, anew for each seed; a
statement of a character is in one part only. Every model, the plain linear reward among them, has the same budget: six pairs of learning
rate and l2, of which the best log loss on an inner fifth of the training groups is taken; then it is trained on the whole training part.
All read the same frozen static vectors, on one thread. Beside them the ridge of `cupel train reward`, tuned by cross-validation.
Differences to the plain linear reward are of the same held-out votes; intervals come from resampling groups within seeds (95 %).
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

import cupel
from cupel.encode import load_encoder
from cupel.learners.heads.options import HeadOptions
from cupel.learners.heads.train import train_head
from cupel.learners.reward import train_reward
from cupel.learners.sides import RawSides, raw_sides
from cupel.records.schema import HELDOUT, TRAIN, Votes
from cupel.records.splits import assign

PLAIN, RIDGE = "scalar", "ridge"
#: what every model is tuned over: learning rate, l2
BUDGET = tuple(product((3e-3, 3e-2), (1e-3, 1e-2, 1e-1)))
EPOCHS = 12
EVERYWHERE = (PLAIN, "scalar:hidden=32", "gpm:dim=4", "gpm:dim=4,normalize=false,tau=1", "gpm:dim=4,normalize=false,tau=1,gate=softmax")
PEOPLE = ("pal:prototypes=3", "person_vectors")
COLUMNS = ("features", "features:hidden=6/4/2", "orchestrator", "attributes")
ROWS, DRAWS = 4000, 2000
#: pairs of characters that judge the same statement in opposite ways (the data have no politically-conservative)
OPPOSED = (("politically-liberal", "anti-immigration"), ("risk-averse", "risk-seeking"))


class Set(NamedTuple):
    """Votes with the models that they allow; held: group of each vote, by which parts are made."""

    votes: Votes
    models: tuple[str, ...]
    columns: bool = False


class Run(NamedTuple):
    """A model on the held-out votes of a seed: loss and hits of each vote, cost."""

    loss: np.ndarray
    hit: np.ndarray
    seconds: float
    parameters: int
    chosen: tuple[float, float] | None


def people(data: Path, name: str) -> Set:
    """Votes of named people, at most ROWS of them."""
    votes = cupel.read(str(data / name / "votes.parquet"), heldout=0, max_bad=0.2)  # both sides alike: no comparison
    if len(votes) > ROWS:
        votes = votes.take(np.sort(np.random.default_rng(13).permutation(len(votes))[:ROWS]))
    return Set(votes, (*EVERYWHERE, *PEOPLE))


def summaries(data: Path) -> Set:
    """Pairs of summaries with seven scores of each side. The preferred side stands first by a coin toss, its scores with it."""
    import json

    rng, rows = np.random.default_rng(13), []
    for row in pq.read_table(data / "opinpref" / "pairs.parquet").to_pylist():
        extra = json.loads(row["extra"])
        good, bad = (next(extra[key] for key in extra if key.endswith(end)) for end in ("chosen", "rejected"))
        first = bool(rng.random() < 0.5)
        texts, scores = (row["chosen"], row["rejected"]), (good, bad)
        a, b = (0, 1) if first else (1, 0)
        named = {f"{key}_a": value for key, value in scores[a].items()} | {f"{key}_b": value for key, value in scores[b].items()}
        rows.append(
            {"prompt": row["prompt"], "response_a": texts[a], "response_b": texts[b], "vote": "a" if first else "b",
             "annotator": row["annotator"], **named}
        )  # fmt: skip
    return Set(cupel.read(rows, heldout=0), (*EVERYWHERE, *PEOPLE, *COLUMNS), columns=True)


def characters(data: Path) -> Set:
    """A statement a character agrees with against one it does not, judged by the character and by its opposite."""
    table = pq.read_table(data / "persona" / "statements.parquet").to_pandas()
    rng, rows = np.random.default_rng(13), []
    for one, other in OPPOSED:
        for who, against in ((one, other), (other, one)):
            mine = table[table.persona == who]
            yes, no = (rng.permutation(mine[mine.matches_persona == agrees].statement.to_numpy()) for agrees in (True, False))
            if not len(yes) or not len(no):
                raise SystemExit(f"persona has no statements of {who}")
            for k in range(500):
                context, wanted = (who, "yes") if k % 2 else (against, "no")
                pair = {"yes": str(yes[k % len(yes)]), "no": str(no[k % len(no)])}
                order = ("yes", "no") if rng.random() < 0.5 else ("no", "yes")
                rows.append(
                    {"prompt": f"statements {who} {k}", "response_a": pair[order[0]], "response_b": pair[order[1]],
                     "vote": "a" if order[0] == wanted else "b", "context": f"a person who is {context.replace('-', ' ')}"}
                )  # fmt: skip
    return Set(cupel.read(rows, heldout=0), (*EVERYWHERE, "context"))


def load(name: str, data: Path) -> Set:
    """A set by name."""
    return summaries(data) if name == "opinpref" else characters(data) if name == "persona" else people(data, name)


SETS = ("ukp_convarg", "llmfao", "pandalm", "opinpref", "persona")


def margins(
    model: str, votes: Votes, sides: RawSides, setting: tuple[float, float], seed: int, cache: Path
) -> tuple[np.ndarray, float, int]:
    """Margins of all votes under a model trained on those that are not held out; processor seconds; parameters."""
    start = time.process_time()
    options = HeadOptions(head=model, epochs=EPOCHS, learning_rate=setting[0], l2=setting[1], seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a column is constant or a person rare is no finding here
        found = train_head(votes, options, sides=sides, cache=cache).model
    seconds = time.process_time() - start
    if hasattr(found, "models"):
        count = sum(p.numel() for p in found.models[0].parameters())
    else:
        count = sum(int(np.size(x)) for x in found.members[0].values())  # pyright: ignore[reportAttributeAccessIssue]
    return found.margin(votes, sides=sides), seconds, count


def measured(margin: np.ndarray, votes: Votes, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log loss, hits) of the held-out votes that prefer a side."""
    m = margin[held] * votes.sign[held]
    return np.logaddexp(0, -m), 0.5 + 0.5 * np.sign(m)


def run(model: str, votes: Votes, sides: RawSides, seed: int, cache: Path) -> Run:
    """A model tuned inside the training part, trained on all of it, measured on the held-out votes."""
    held = (votes.split == HELDOUT) & (votes.sign != 0)
    start = time.process_time()
    if model == RIDGE:
        rows = np.flatnonzero(votes.split != HELDOUT)
        part = replace(sides, first=sides.first[rows], second=sides.second[rows])
        found = train_reward(votes.take(rows), sides=part, seed=seed, cache=cache)
        return Run(*measured(found.margin(votes, sides=sides), votes, held), time.process_time() - start, len(found.theta), None)
    train = np.flatnonzero(votes.split != HELDOUT)
    inner = assign(votes.take(train), heldout=0.2, seed=1000 + seed)
    part = replace(sides, first=sides.first[train], second=sides.second[train])
    check = (inner.split == HELDOUT) & (inner.sign != 0)
    losses = [float(measured(margins(model, inner, part, setting, seed, cache)[0], inner, check)[0].mean()) for setting in BUDGET]
    best = BUDGET[int(np.argmin(losses))]
    margin, seconds, count = margins(model, votes, sides, best, seed, cache)
    return Run(*measured(margin, votes, held), seconds, count, best)


def interval(values: list[np.ndarray], groups: list[np.ndarray], seed: int) -> tuple[float, list[float]]:
    """Mean of values over all seeds, with the 95 % interval from resampling groups within each seed."""
    rng, means = np.random.default_rng(seed), []
    sums = [(np.bincount(g, weights=v), np.bincount(g)) for v, g in zip(values, groups, strict=True)]
    for _ in range(DRAWS):
        part = [(s[pick].sum(), n[pick].sum()) for s, n in sums for pick in [rng.integers(0, len(n), len(n))]]
        means.append(sum(a for a, _ in part) / max(sum(b for _, b in part), 1))
    estimate = sum(float(v.sum()) for v in values) / sum(len(v) for v in values)
    return estimate, [float(x) for x in np.quantile(means, (0.025, 0.975))]


def study(name: str, data: Path, seeds: list[int], cache: Path) -> dict[str, Any]:
    """All models of a set, over seeds."""
    votes, models, _ = load(name, data)
    sides = raw_sides(votes, load_encoder("static"), cache=cache)
    runs: dict[str, list[Run]] = {}
    groups = []
    for seed in seeds:
        split = assign(replace(votes, split=np.full(len(votes), TRAIN, np.int8)), heldout=0.2, seed=seed)
        held = (split.split == HELDOUT) & (split.sign != 0)
        groups.append(np.unique(split.group[held], return_inverse=True)[1].reshape(-1))
        for model in (RIDGE, *models):
            runs.setdefault(model, []).append(run(model, split, sides, seed, cache))
            last = runs[model][-1]
            said = f"accuracy {last.hit.mean():.3f}, log loss {last.loss.mean():.4f}, {last.seconds:.1f} CPU-s"
            print(f"{name} {seed} {model}: {said}", flush=True)
    table = {}
    for model, found in runs.items():
        row: dict[str, Any] = {"seconds": float(np.mean([r.seconds for r in found])), "parameters": found[0].parameters}
        row["chosen"] = [r.chosen for r in found]
        for what in ("hit", "loss"):
            values = [getattr(r, what) for r in found]
            row[what] = interval(values, groups, 0)
            row[f"{what}_difference"] = interval([v - getattr(p, what) for v, p in zip(values, runs[PLAIN], strict=True)], groups, 0)
        table[model] = row
    return {"n": len(votes), "heldout": [len(g) for g in groups], "models": table}


def claims_of(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """That no model is surely worse than the plain reward (log loss), and on contexts that the contextual one is surely better."""
    out = []
    for model, row in found["models"].items():
        if model in (PLAIN, RIDGE):
            continue
        loss, (low, high) = row["loss_difference"]
        hit, (hit_low, hit_high) = row["hit_difference"]
        wins = name == "persona" and model == "context"
        said = (
            f"{row['hit'][0]:.3f} right ({100 * hit:+.1f} points [{100 * hit_low:.1f}, {100 * hit_high:.1f}]), {row['seconds']:.1f} CPU-s, "
            f"{row['parameters']:,} parameters"
        )
        out.append(
            {
                "claim": f"{name}, {model}: held-out log loss minus the plain reward's ({found['models'][PLAIN]['loss'][0]:.4f}); {said}",
                "target": "surely below 0" if wins else "not surely above 0", "measured": loss, "interval": [low, high],
                "passed": bool(high < 0 if wins else low <= 0), "n": found["n"],
            }
        )  # fmt: skip
    return out


def main() -> None:
    """Run, print the table and write the result."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--cache", type=Path, default=None)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    with tempfile.TemporaryDirectory() as folder:
        cache = given.cache or Path(folder)
        found = {name: study(name, given.data, seeds, cache) for name in given.sets}
    claims = [claim for name in given.sets for claim in claims_of(name, found[name])]
    n = {name: found[name]["n"] for name in given.sets}
    write_result(
        "preference_models", claims, n=sum(n.values()), seeds=seeds, command="python benchmarks/preference_models.py", details=found
    )


if __name__ == "__main__":
    main()
