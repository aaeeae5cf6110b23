"""Rewards of seven nameable features on OpinPref (card 41): how few labels they need, where text overtakes, networks, annotators, flips.

    python benchmarks/opinpref.py [--data DIR] [--splits 20]

OpinPref (MIT): two summaries of product reviews, seven scores each from 0 to 5 by a language model, the preferred one by people. The data
here are the 800 training pairs; the 140 validation pairs of the card are not among them, so that 300 test pairs leave 500 to learn from
where the card has 640. Text: tf-idf of the summary as in the card, and the embedded static encoder beside it. Logistic Bradley-Terry,
C = 1. Claims are the card's, with 500 in place of 600 labels.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from common import arguments, write_result

import cupel
from cupel.encode import load_encoder
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.learners.models.feature_report import accuracy, data_efficiency_curve, feature_report
from cupel.learners.models.few_weights import few_weights
from cupel.learners.models.names import build
from cupel.learners.models.types import Given, Shape
from cupel.noise.names import parse
from cupel.objectives.reward import bradley_terry
from cupel.records.features import feature_columns
from cupel.votes.linear_head import LinearHead

SIZES = (5, 10, 25, 50, 100, 200, 500)
TEST = 300
NAMES = ("aspect-coverage", "opinion-faithfulness", "opinion-coverage", "conciseness", "relevance", "hallucination", "language-correctness")


def load(directory: Path) -> tuple[np.ndarray, np.ndarray, list[str], Comparisons]:
    """Features over 5 and static vectors of the 1,600 summaries, their texts, and the comparisons: the preferred side is first."""
    votes = cupel.read(str(directory / "opinpref" / "pairs.parquet"), heldout=0)
    columns = feature_columns(votes, NAMES, low=0, high=5)
    texts = votes.response_texts()
    sides = [texts[k] for k in (*votes.first, *votes.second)]
    vectors = load_encoder("static").encode(sides)
    data = Comparisons.of(columns.first, columns.second, annotator=votes.annotator, annotators=votes.annotators, columns=NAMES)
    return columns.values / np.float32(5), vectors.astype(np.float32), sides, data


def tfidf(sides: list[str]) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(sides).toarray()


def compact(x: np.ndarray, data: Comparisons) -> np.ndarray:
    """Sides [2n, r] whose differences have the inner products of those of x: a ridge on differences cannot tell them apart."""
    left, values, _ = np.linalg.svd(x[data.first].astype(np.float64) - x[data.second], full_matrices=False)
    keep = values > 1e-9 * values[0]
    first = left[:, keep] * values[keep]
    return np.concatenate([first, np.zeros_like(first)])


def splits(n: int, number: int, test: int = TEST) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, test) rows, at random by seed."""
    orders = [np.random.default_rng([41, s]).permutation(n) for s in range(number)]
    return [(order[test:], order[:test]) for order in orders]


def spread(values: list[float]) -> list[float]:
    """Mean and standard deviation."""
    return [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=1)), 4)]


def paired(one: np.ndarray, two: np.ndarray) -> list[float]:
    """Interval of the mean difference over splits (Student's t; splits share rows, so that it is somewhat too narrow)."""
    from scipy.stats import t

    d = one - two
    half = float(t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
    return [round(float(d.mean()) - half, 4), round(float(d.mean()) + half, 4)]


def naive(x: np.ndarray, data: Comparisons) -> np.ndarray:
    """Margins of the mean feature; differences below rounding are ties."""
    mean = x.astype(np.float64).mean(axis=1)
    margin = mean[data.first] - mean[data.second]
    return np.where(np.abs(margin) < 1e-6, 0.0, margin)


def by_length(kinds: dict[str, np.ndarray], data: Comparisons, sides: list[str], number: int) -> dict[str, dict[str, list[float]]]:
    """Test accuracy apart for pairs whose longer and whose shorter summary is preferred, trained on all others."""
    size = np.array([len(text) for text in sides])
    longer = size[data.first] > size[data.second]
    found: dict[str, dict[str, list[float]]] = {name: {"longer": [], "shorter": []} for name in (*kinds, "naive mean")}
    for train, test in splits(len(data), number):
        for name, x in (*kinds.items(), ("naive mean", None)):
            if x is None:
                margin = naive(kinds["features"], data.take(test))
            else:
                head = LinearHead(ridge=1.0).fit(x[data.first[train]], x[data.second[train]], data.p[train])
                margin = head.margin(x[data.first[test]], x[data.second[test]])
            for kind, mask in (("longer", longer[test]), ("shorter", ~longer[test])):
                found[name][kind].append(accuracy(margin[mask], data.take(test[mask])))
    return {name: {kind: spread(values) for kind, values in both.items()} for name, both in found.items()}


def networks(x: np.ndarray, data: Comparisons) -> dict[str, list[float]]:
    """[6, 4, 2] on ten seeds: training loss on all 800, test loss over a split; and the published net with ReLU on its output."""
    (train, test), *_ = splits(len(data), 1)
    options = {"head": "features:hidden=6/4/2", "epochs": 300, "batch_size": 800, "learning_rate": 2e-2, "schedule": "constant", "l2": 0.0}
    found: dict[str, list[float]] = {"training": [], "test": [], "output activation": []}
    torch.set_num_threads(1)
    for seed in range(10):
        whole = fit(x, data, bradley_terry(), parse("identity"), HeadOptions(**options, seed=seed))
        found["training"].append(whole.epochs[-1]["heads"][0]["loss"])
        part = fit(x, data.take(train), bradley_terry(), parse("identity"), HeadOptions(**options, seed=seed))
        found["test"].append(float(np.logaddexp(0, -margins(part.models, x, data.take(test))[0]).mean()))
        model = build(str(options["head"]), Shape(x.shape[1]), seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-2)
        loss = torch.zeros(())
        for _ in range(500):
            r = torch.relu(model.score(model.represent(torch.from_numpy(x)), Given()))
            loss = torch.nn.functional.softplus(r[data.second] - r[data.first]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found["output activation"].append(loss.item())
    return found


def flips(x: np.ndarray, data: Comparisons, number: int) -> dict[str, dict[str, list[float]]]:
    """Test accuracy of the linear reward trained under planted flips of two of every ten and of three, by treatment."""
    table: dict[str, dict[str, list[float]]] = {}
    for rate in (0.0, 0.2, 0.3):
        for treatment in ("identity", f"em:flip={rate or 0.05}", f"unbiased:flip={rate or 0.05}"):
            hits = []
            for s, (train, test) in enumerate(splits(len(data), number)):
                wrong = np.random.default_rng([977, s]).random(len(train)) < rate
                some = data.take(train)
                noisy = Comparisons.of(some.first, some.second, np.where(wrong, 0.0, 1.0), columns=NAMES)
                options = HeadOptions(head="features:standardise=true", epochs=15, batch_size=100, learning_rate=0.05, l2=1e-2, seed=s)
                model = fit(x, noisy, bradley_terry(), parse(treatment), options).models
                hits.append(accuracy(margins(model, x, data.take(test))[0], data.take(test)))
            table.setdefault(f"{rate:g}", {})[treatment.split(":")[0]] = spread(hits)
    return table


def chosen_by_reward(x: np.ndarray, data: Comparisons, steps: int = 300) -> dict[str, float]:
    """A policy over 40 synthetic responses trained to reward sigmoid(F): how good it becomes by the reward that made the labels.

    The truth is the linear reward of all 800 pairs. F learns from 200 labels that it makes; the naive mean learns nothing. True preference
    rate: how often a draw of the policy beats a uniform draw, by the truth's probability. Mean over 20 sets of responses.
    """
    truth = few_weights(x, data, l2=0.5, draws=0).value
    found: dict[str, list[float]] = {"learned": [], "naive mean": []}
    for seed in range(20):
        rng = np.random.default_rng([seed, 5])
        pool = x[rng.choice(len(x), 440, replace=False)].astype(np.float64)
        first, second = np.arange(200), np.arange(200, 400)
        p = (rng.random(200) < 1 / (1 + np.exp(-(pool[first] - pool[second]) @ truth))).astype(float)
        learned = few_weights(pool, Comparisons.of(first, second, p), l2=0.5, draws=0).value
        answers = pool[400:]
        good = answers @ truth
        wins = 1 / (1 + np.exp(-(good[:, None] - good[None, :])))
        for name, w in (("learned", learned), ("naive mean", np.full(7, 1 / 7))):
            reward = 1 / (1 + np.exp(-(answers - answers.mean(axis=0)) @ w))
            logits = np.zeros(40)
            for _ in range(steps):  # exact policy gradient of the mean reward, with a KL of .02 to the uniform policy
                q = np.exp(logits - logits.max())
                q /= q.sum()
                value = reward - 0.02 * np.log(40 * q + 1e-12)
                logits += 20 * q * (value - q @ value)
            found[name].append(float(q @ wins.mean(axis=1)))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main() -> None:
    """Measure, and write benchmarks/results/opinpref.json."""
    parser = arguments(__doc__)
    parser.add_argument("--splits", type=int, default=20)
    asked = parser.parse_args()
    began = time.process_time()
    x, vectors, sides, data = load(asked.data)
    text = tfidf(sides)
    unit = vectors * np.float32(4)  # rows have length 1: brought to the size of features that a penalty of 1 suits
    kinds = {"features": x, "tf-idf": text, "static": unit, "features x2 and tf-idf": np.concatenate([2 * x, text], axis=1)}
    kinds = {name: compact(values, data) if values.shape[1] > 300 else values for name, values in kinds.items()}
    curve = data_efficiency_curve(kinds, data, SIZES, test=TEST, splits=asked.splits)
    table = {name: [round(v, 4) for v in values] for name, values in curve.table().items()}
    for name, values in table.items():
        print(f"{name:28}", *(f"{v:8.3f}" for v in values), flush=True)
    lengths = by_length({name: kinds[name] for name in ("features", "tf-idf")}, data, sides, asked.splits)
    print(lengths, flush=True)
    nets = networks(x, data)
    print(nets, flush=True)
    noisy = flips(x, data, min(asked.splits, 5))
    policy = chosen_by_reward(x, data)
    print(noisy, policy, flush=True)
    linear = fit(x, data, bradley_terry(), parse("identity"), HeadOptions(head="features", epochs=60, batch_size=100, learning_rate=0.1))
    report = feature_report(linear.models[0], x, data, l2=1.0)  # pyright: ignore[reportArgumentType]
    people = {}
    for k, name in enumerate(data.annotators):
        mine = data.take(np.flatnonzero(data.annotator == k))
        rest = data.take(np.flatnonzero(data.annotator != k))
        head = LinearHead(ridge=0.5).fit(x[rest.first], x[rest.second], rest.p)
        people[f"annotator {k}" if name != "consensus" else name] = {
            "n": len(mine), "accuracy of the others' reward": round(accuracy(head.margin(x[mine.first], x[mine.second]), mine), 4),
            "naive mean": round(accuracy(naive(x, mine), mine), 4),
        }  # fmt: skip

    at = {n: k for k, n in enumerate(SIZES)}
    f, t = curve.accuracy["features"], curve.accuracy["tf-idf"]
    stack, best = curve.accuracy["features x2 and tf-idf"], np.maximum(f, t)
    dead = sum(abs(loss - np.log(2)) < 1e-4 for loss in nets["output activation"])
    gap = {n: float((stack - best)[:, at[n]].mean()) for n in (10, 50, 500)}

    def claim(what: str, target: str, measured: object, passed: object, interval: list[float] | None = None) -> dict[str, object]:
        return {"claim": what, "target": target, "measured": measured, "passed": bool(passed), "interval": interval}

    drop, lead, over = (float(d.mean()) for d in (f[:, at[500]] - f[:, at[10]], f[:, at[10]] - t[:, at[10]], t[:, at[50]] - f[:, at[50]]))
    claims = [
        claim("features: accuracy with 500 labels minus with 10", "<= 0.02", drop, drop <= 0.02, paired(f[:, at[500]], f[:, at[10]])),
        claim("10 labels: features minus tf-idf of the text", ">= 0.02", lead, lead >= 0.02, paired(f[:, at[10]], t[:, at[10]])),
        claim("50 labels: tf-idf of the text minus features (text overtakes)", "> 0", over, over > 0, paired(t[:, at[50]], f[:, at[50]])),
        claim("features and text together minus the better one, 10 / 50 / 500 labels", "< 0.02 each", list(gap.values()),
              max(gap.values()) < 0.02),
        claim("[6, 4, 2] without output activation: largest test loss of 10 seeds", "< 0.52", max(nets["test"]), max(nets["test"]) < 0.52),
        claim("[6, 4, 2] with ReLU on its output: runs of 10 that end at ln 2", ">= 5", dead, dead >= 5),
        claim("policy on sigmoid(F) minus policy on the naive mean, true preference rate", "> 0",
              round(policy["learned"] - policy["naive mean"], 4), policy["learned"] > policy["naive mean"]),
    ]  # fmt: skip
    details = {
        "curve": table, "naive_mean": round(accuracy(naive(x, data), data), 4), "by_length": lengths, "networks": nets, "flips": noisy,
        "policy": policy, "annotators": people, "report": report.recorded(), "cpu_seconds": round(time.process_time() - began, 1),
        "data": "800 pairs of the training file; the card's 140 validation pairs are not in the shared data",
    }  # fmt: skip
    write_result("opinpref", claims, n=len(data), seeds=range(asked.splits), command="python benchmarks/opinpref.py", details=details)


if __name__ == "__main__":
    main()
