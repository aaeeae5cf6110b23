"""Benchmarks in their own formats on real data: RM-Bench's matrix, JudgeBench's decisions, coverage of intervals, requests saved.

    python benchmarks/suites.py [--data DIR] [--repeats 300]

RM-Bench: the shared items are a part of the published ones (74 of 129 chat, 135 of 228 code, 92 of 157 safety-response prompts; math and
safety-refuse are not there), so figures published for all items are held against the interval of the part, and the arithmetic against a
plain loop over the same items. JudgeBench: the recorded scores of five reward models, against the decisions that the benchmark's own code
made from them in both orders. The linear reward is what `cupel train reward` gives on ukp_convarg (static encoder).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

import cupel
from cupel.evaluate.suites import get_suite, read_suite
from cupel.evaluate.suites.items import score_requests
from cupel.evaluate.suites.scores import evaluate_suite
from cupel.evaluate.suites.summary import summarise
from cupel.learners.reward import RewardModel, train_reward

STYLES = ("concise", "detailed_plain", "detailed_markdown")
LEVELS = ("easy", "normal", "hard")
#: a reward that counts characters, on all published items (card 26, oracle 8)
PUBLISHED = {"chat": (0.811, 0.320, 0.026), "code": (0.775, 0.519, 0.254), "safety-response": (0.987, 0.779, 0.238)}


class Characters:
    """A reward that counts characters."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """The length of each response."""
        return np.array([float(len(response)) for response in responses])


def rm_bench(place: Path) -> list[dict[str, Any]]:
    """The shared pairs as the benchmark's own rows of three right and three wrong responses."""
    found: dict[str, dict[str, Any]] = {}
    for row in pq.read_table(place / "rm_bench" / "pairs.parquet").to_pylist():
        said = json.loads(row["extra"])
        empty = {"prompt": row["prompt"], "chosen": [None] * 3, "rejected": [None] * 3, "domain": said["domain"]}
        item = found.setdefault(said["item"], {"id": said["item"], **empty})
        item["chosen"][STYLES.index(said["style_chosen"])] = row["chosen"]
        item["rejected"][STYLES.index(said["style_rejected"])] = row["rejected"]
    return list(found.values())


def judgebench(place: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """The shared items as the benchmark's own rows, and {judge: {item and order: vote and scores}} of its reward models."""
    rows = [
        {
            "pair_id": row["item_id"], "source": row["source"], "question": row["prompt"], "response_A": row["response_a"],
            "response_B": row["response_b"], "label": "A>B" if row["gold"] == "a" else "B>A",
        }
        for row in pq.read_table(place / "judgebench" / "items.parquet").to_pylist()
    ]  # fmt: skip
    votes: dict[str, dict[str, dict[str, Any]]] = {}
    for row in pq.read_table(place / "judgebench" / "judge_votes.parquet").to_pylist():
        if row["score_a"] is not None and np.isfinite(row["score_a"]):
            votes.setdefault(row["annotator"], {})[f"{row['item_id']} {row['order']}"] = row
    return rows, votes


def matrix_claims(rows: list[dict[str, Any]], linear: RewardModel) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    began = time.process_time()
    result, asked, _ = evaluate_suite("rm-bench", rows, {"characters": Characters(), "linear": linear})
    seconds = time.process_time() - began
    inside, figures = 0, {}
    for domain, published in PUBLISHED.items():
        for level, value in zip(LEVELS, published, strict=True):
            share = result.row(f"{domain}: {level}").accuracy["characters"]
            assert share.low is not None
            inside += bool(share.low <= value <= share.high)  # type: ignore[operator]
            figures[f"{domain}: {level}"] = {"published": value, "here": share.estimate, "interval": [share.low, share.high], "n": share.n}
    apart = 0.0
    for row in result.rows:
        if row.at:
            domain, i, j = row.at
            wins = [len(item["chosen"][i]) > len(item["rejected"][j]) for item in rows if item["domain"] == domain]
            apart = max(apart, abs(sum(wins) / len(wins) - float(row.accuracy["characters"].estimate or 0)))
    head, means = result.rows[0], {level: result.row(f"{level}, mean of 3 domains") for level in LEVELS}
    gap = {name: row.difference["linear"] for name, row in {"mean": head, **means}.items()}
    hidden = gap["mean"].low <= 0 <= gap["mean"].high and gap["easy"].high < 0 < gap["hard"].low  # type: ignore[operator]
    pairs = 2 * 9 * len(rows)
    claims = [
        {"claim": "RM-Bench, character count: of 9 figures published for all items, those inside the interval of the shared part",
         "target": "9", "measured": inside, "passed": inside == 9, "n": len(rows)},
        {"claim": "RM-Bench, character count: largest difference of a matrix field from a plain loop on the same items",
         "target": "at most 1e-12", "measured": apart, "passed": apart <= 1e-12, "n": len(rows)},
        {"claim": "RM-Bench: linear reward of ukp minus character count, easy / mean / hard, points: an overall score hides a style bias",
         "target": "easy interval below 0, mean interval contains 0, hard interval above 0",
         "measured": [100 * float(gap[name].estimate or 0) for name in ("easy", "mean", "hard")],
         "interval": [100 * float(gap["mean"].low or 0), 100 * float(gap["mean"].high or 0)], "passed": bool(hidden), "n": len(rows)},
        {"claim": "RM-Bench: responses scored, of those that scoring pairs one by one would score",
         "target": "at most one third", "measured": len(asked) / pairs, "passed": 3 * len(asked) <= pairs, "n": pairs},
    ]  # fmt: skip
    table = {row.name: {name: share.to_json() for name, share in row.accuracy.items()} for row in result.rows if row.level != "cell"}
    differences = {name: share.to_json() for name, share in gap.items()}
    return claims, {
        "figures": figures,
        "table": table,
        "linear_minus_characters": differences,
        "cpu_seconds": seconds,
        "requests": len(asked),
    }


def judge_claims(rows: list[dict[str, Any]], votes: dict[str, Any], linear: RewardModel) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    items = read_suite("judgebench", rows)
    asked = score_requests(items)
    runs: dict[str, Any] = {"linear": linear}
    twice = 0
    for judge, told in votes.items():
        scores = np.full(len(asked), np.nan)
        for i, row in enumerate(rows):
            vote = told[f"{row['pair_id']} ab"]
            sides = (vote["score_a"], vote["score_b"]) if row["label"] == "A>B" else (vote["score_b"], vote["score_a"])
            for at, score in zip((asked.right[i][0], asked.wrong[i][0]), sides, strict=True):
                twice += bool(np.isfinite(scores[at]) and scores[at] != score)
                scores[at] = score
        runs[judge] = scores
    result = evaluate_suite("judgebench", rows, runs)[0]
    worst, decided = 0.0, {}
    for judge, told in votes.items():
        both = [np.mean([vote["vote"] == vote["gold"] for vote in told.values() if vote["order"] == order]) for order in ("ab", "ba")]
        share = result.rows[0].accuracy[judge]
        worst = max(worst, abs(float(np.mean(both)) - float(share.estimate or 0)))
        decided[judge] = {
            "upstream_ab": float(both[0]),
            "upstream_ba": float(both[1]),
            "here": share.to_json(),
            "equal": result.tied[judge],
        }
    verdicts = result.to_json()["verdicts"]
    apart = sum(text.startswith("better") for text in verdicts.values())
    claims = [
        {"claim": "JudgeBench, five recorded reward models: largest difference from the mean of upstream's decisions in both orders",
         "target": "at most 1e-12", "measured": worst, "passed": worst <= 1e-12, "n": len(rows)},
        {"claim": "JudgeBench: recorded reward models of 2 to 27 billion parameters that are better than the linear reward of ukp",
         "target": "5", "measured": apart, "passed": apart == 5, "n": len(rows)},
    ]  # fmt: skip
    head = {
        name: {"score": share.to_json(), "over_length": result.rows[0].over_length[name].to_json()}
        for name, share in result.rows[0].accuracy.items()
    }
    return claims, {
        "decisions": decided,
        "overall": head,
        "verdicts": verdicts,
        "ranking": result.ranking,
        "responses_with_two_scores": twice,
    }


def coverage(rows: list[dict[str, Any]], linear: RewardModel, repeats: int) -> dict[str, Any]:
    """How often the interval from 90 prompts drawn from all (30 a domain) holds the number of all prompts: level and difference."""
    suite, items = get_suite("rm-bench"), read_suite("rm-bench", rows)
    asked = score_requests(items)
    prompts, responses = list(asked.prompts), list(asked.responses)
    place = {pair: k for k, pair in enumerate(zip(prompts, responses, strict=True))}
    scores = {"characters": Characters().score(prompts, responses), "linear": linear.score(prompts, responses)}
    names = ("characters, mean", "linear minus characters, mean", "characters, chat: hard")
    truth = _numbers(summarise(suite, items, asked, scores, draws=1))
    by_domain = {domain: [i for i, item in enumerate(items) if item.subset == domain] for domain in sorted(PUBLISHED)}
    held = np.zeros(len(names))
    for repeat in range(repeats):
        rng = np.random.default_rng([7, repeat])
        picked = [i for inside in by_domain.values() for i in rng.choice(inside, 30)]
        drawn = [_copy(items[i], k) for k, i in enumerate(picked)]
        part = score_requests(drawn)
        at = [place[prompt.split("\0", 1)[1], response] for prompt, response in zip(part.prompts, part.responses, strict=True)]
        found = _shares(summarise(suite, drawn, part, {name: values[at] for name, values in scores.items()}, seed=repeat, draws=400))
        held += [share.low <= value <= share.high for share, value in zip(found, truth, strict=True)]
    return dict(zip(names, (held / repeats).tolist(), strict=True))


def seeded_coverage(repeats: int) -> dict[str, Any]:
    """How often intervals over 90 prompts (30 a subset) and 5 training seeds hold what new prompts and seeds give; simulated.

    A prompt has a difficulty, which runs share; a seed a skill, and one in each subset: accuracy moves by about 4 points between seeds.
    Beside it the interval that takes the mean of five seeds for one model.
    """
    rows = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no", "subset": "abc"[i % 3]} for i in range(90)]
    suite, items = get_suite("pairs-by-subset"), read_suite("pairs-by-subset", rows)
    asked = score_requests(items)
    right, wrong = (np.array([at[0] for at in side]) for side in (asked.right, asked.wrong))
    logit = np.random.default_rng(8).normal(size=400_000) * np.sqrt(1 + 0.15**2 + 0.2**2)
    truth = [float(np.mean(1 / (1 + np.exp(-(skill + logit))))) for skill in (0.3, 0.6)]
    held = np.zeros(3)
    for repeat in range(repeats):
        rng = np.random.default_rng([9, repeat])
        difficulty, scores, hits = rng.normal(size=90), {}, []
        for skill in (0.3, 0.6):
            own = rng.normal(0, 0.15, (5, 1)) + rng.normal(0, 0.2, (5, 3))[:, np.arange(90) % 3]
            hits.append((rng.random((5, 90)) < 1 / (1 + np.exp(-(skill + own - difficulty)))).astype(float))
            scores[str(skill)] = np.zeros((5, len(asked)))
            scores[str(skill)][:, right], scores[str(skill)][:, wrong] = hits[-1], 1 - hits[-1]
        head = summarise(suite, items, asked, scores, seed=repeat, draws=400).rows[0]
        for k, (share, value) in enumerate(((head.accuracy["0.3"], truth[0]), (head.difference["0.6"], truth[1] - truth[0]))):
            held[k] += bool(share.low <= value <= share.high)  # type: ignore[operator]
        over = (hits[1] - hits[0]).mean(axis=0)
        held[2] += abs(over.mean() - truth[1] + truth[0]) <= 1.99 * over.std(ddof=1) / np.sqrt(90)
    level, gap, one = (held / repeats).tolist()
    return {"level of a run": level, "difference of two runs": gap, "difference, five seeds taken for one": one}


def _copy(item: Any, k: int) -> Any:
    """A prompt that was drawn twice counts as two prompts."""
    from dataclasses import replace

    return replace(item, prompt=f"{k}\0{item.prompt}", group=str(k))


def _shares(result: Any) -> list[Any]:
    head = result.rows[0]
    return [head.accuracy["characters"], head.difference["linear"], result.row("chat: hard").accuracy["characters"]]


def _numbers(result: Any) -> list[float]:
    return [share.estimate for share in _shares(result)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    given = parser.parse_args()
    linear = train_reward(cupel.read(given.data / "ukp_convarg" / "pairs_strict.parquet", heldout=0))
    rows = rm_bench(given.data)
    claims, matrix = matrix_claims(rows, linear)
    more, judges = judge_claims(*judgebench(given.data), linear)
    covered = coverage(rows, linear, given.repeats)
    claims += more
    for name, share in covered.items():
        claims.append(
            {"claim": f"RM-Bench, 90 prompts drawn from {len(rows)}: coverage of the 95 % interval, {name}", "target": "0.92 to 0.98",
             "measured": share, "passed": 0.92 <= share <= 0.98, "n": given.repeats}
        )  # fmt: skip
    seeded = seeded_coverage(given.repeats)
    for name in ("level of a run", "difference of two runs"):
        claims.append(
            {"claim": f"Simulated, 90 prompts and 5 training seeds: coverage of the 95 % interval, {name}", "target": "0.92 to 0.98",
             "measured": seeded[name], "passed": 0.92 <= seeded[name] <= 0.98, "n": given.repeats}
        )  # fmt: skip
    details = {"seeds": seeded, "rm_bench": matrix, "judgebench": judges, "coverage": covered, "cpu_seconds": time.process_time()}
    write_result(
        "suites", claims, n=len(rows), seeds=[0], command=f"python benchmarks/suites.py --repeats {given.repeats}", details=details
    )
    sys.exit(0 if all(claim["passed"] for claim in claims) else 1)


if __name__ == "__main__":
    main()
