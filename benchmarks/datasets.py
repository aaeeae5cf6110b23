"""The shared real data as `Votes`, each with the truth that belongs to it, for the benchmarks.

A `Labelled` carries `wrong` (bool [n]: the recorded label disagrees with the reference) and says what the reference is. Nothing here is
used by the package: a user has no such column.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cupel.audit.features import Features, side_features
from cupel.encode.load import load_encoder
from cupel.records.schema import Votes


@dataclass(frozen=True)
class Labelled:
    """Votes and what is known about them: `wrong` against `reference`, rows `known` to have one."""

    name: str
    votes: Votes
    wrong: np.ndarray
    known: np.ndarray
    reference: str

    def planted(self, rate: float, seed: int) -> tuple[Labelled, np.ndarray]:
        """A copy in which each label was swapped with probability `rate` by coin tosses of `seed`; and the mask of the swapped."""
        flipped = np.random.default_rng([seed, 977]).random(len(self.votes)) < rate
        flipped &= self.votes.sign != 0
        outcome = self.votes.outcome.copy()
        outcome[flipped] = 1 - outcome[flipped]
        return replace(self, votes=self.votes.with_(outcome=outcome), wrong=self.wrong ^ flipped), flipped


def make_votes(
    prompt: Sequence[str], first: Sequence[str], second: Sequence[str], outcome: Sequence[int], *, ids: Sequence[str],
    group: Sequence[object] | None = None, annotator: Sequence[str | None] | None = None,
) -> Votes:  # fmt: skip
    """Votes from columns of Python values; without `group`, a prompt is a group. Codes are given in the order of appearance."""
    n = len(ids)
    prompts, prompt_index = _codes(prompt)
    responses, sides = _codes([*first, *second])
    groups = prompt_index if group is None else _codes(group)[1]
    annotators, annotator_index = _codes([a for a in annotator or () if a is not None])
    who = np.full(n, -1, dtype=np.int32)
    if annotator is not None:
        who[np.array([a is not None for a in annotator], dtype=bool)] = annotator_index
    codes = np.asarray(outcome, dtype=np.int8)
    nothing = np.full(n, np.nan)
    absent = np.full(n, -1, dtype=np.int32)
    return Votes(
        prompts=pa.array(prompts, pa.large_string()), responses=pa.array(responses, pa.large_string()), ids=pa.array(list(ids)),
        prompt=prompt_index, first=sides[:n], second=sides[n:], outcome=codes, annotator=who, group=groups,
        p=np.array([1.0, 0.0, 0.5, 0.5, 0.5])[codes], w=np.array([1.0, 1.0, 1.0, 0.0, 0.0])[codes], strength=nothing, seconds=nothing,
        model_first=absent, model_second=absent, split=np.full(n, -1, dtype=np.int8), line=np.arange(1, n + 1),
        annotators=tuple(annotators),
    )  # fmt: skip


def _codes(values: Sequence[object]) -> tuple[list, np.ndarray]:
    """Unique values in the order of their first appearance, and the index of each."""
    seen: dict[object, int] = {}
    index = np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int32)
    return list(seen), index


def _table(data: Path, name: str, columns: list[str] | None = None) -> list[dict]:
    return pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()


def from_pairs(name: str, rows: list[dict], *, group: Sequence[object] | None = None, reference: str, seed: int = 0) -> Labelled:
    """Pairs (chosen, rejected) as votes with the sides shuffled; the recorded label is taken to be the reference: nothing is wrong yet."""
    swap = np.random.default_rng([seed, 31]).random(len(rows)) < 0.5
    first = [r["rejected"] if s else r["chosen"] for r, s in zip(rows, swap, strict=True)]
    second = [r["chosen"] if s else r["rejected"] for r, s in zip(rows, swap, strict=True)]
    votes = make_votes([r["prompt"] for r in rows], first, second, swap.astype(int).tolist(), ids=[r["id"] for r in rows], group=group)
    return Labelled(name, votes, np.zeros(len(rows), dtype=bool), np.ones(len(rows), dtype=bool), reference)


def ukp_strict_single(data: Path, *, seed: int = 0) -> Labelled:
    """One random vote (no tie) per strict pair, as real preference files look; wrong: it disagrees with the consensus of the pair."""
    strict = {r["id"]: r for r in _table(data, "ukp_convarg/pairs_strict")}
    cast: dict[str, list[dict]] = {}
    for vote in _table(data, "ukp_convarg/votes", ["item_id", "response_a", "response_b", "vote"]):
        if vote["vote"] != "tie" and vote["item_id"] in strict:
            cast.setdefault(vote["item_id"], []).append(vote)
    rng = np.random.default_rng([seed, 11])
    rows = [(strict[key], votes[rng.integers(len(votes))]) for key, votes in cast.items()]
    outcome = [0 if vote["vote"] == "a" else 1 for _, vote in rows]
    winners = [vote["response_a"] if vote["vote"] == "a" else vote["response_b"] for _, vote in rows]
    wrong = np.array([winner != pair["chosen"] for (pair, _), winner in zip(rows, winners, strict=True)])
    votes = make_votes(
        [pair["prompt"] for pair, _ in rows], [vote["response_a"] for _, vote in rows], [vote["response_b"] for _, vote in rows], outcome,
        ids=[pair["id"] for pair, _ in rows], group=[json.loads(pair["extra"])["topic"] for pair, _ in rows],
    )  # fmt: skip
    return Labelled("ukp_strict_single", votes, wrong, np.ones(len(rows), dtype=bool), "consensus of the pair's annotators")


def ukp_votes(data: Path, *, single: bool = False, consensus: bool = False, seed: int = 0) -> Labelled:
    """All votes of ukp_convarg; `single`: one random vote (no tie) per pair; `consensus`: only pairs whose consensus is a side."""
    rows = _table(data, "ukp_convarg/votes", ["id", "item_id", "prompt", "response_a", "response_b", "vote", "annotator", "gold", "extra"])
    if consensus:
        rows = [r for r in rows if r["gold"] in ("a", "b")]
    if single:
        cast: dict[str, list[dict]] = {}
        for r in rows:
            if r["vote"] != "tie":
                cast.setdefault(r["item_id"], []).append(r)
        rng = np.random.default_rng([seed, 12])
        rows = [votes[rng.integers(len(votes))] for votes in cast.values()]
    votes = make_votes(
        [r["prompt"] for r in rows], [r["response_a"] for r in rows], [r["response_b"] for r in rows],
        [{"a": 0, "b": 1, "tie": 2}[r["vote"]] for r in rows], ids=[r["id"] for r in rows],
        group=[json.loads(r["extra"])["topic"] for r in rows], annotator=None if single else [r["annotator"] for r in rows],
    )  # fmt: skip
    known = np.array([r["gold"] in ("a", "b") and r["vote"] != "tie" for r in rows])
    wrong = known & np.array([r["gold"] != r["vote"] for r in rows])
    return Labelled("ukp_single" if single else "ukp_votes", votes, wrong, known, "consensus of the pair's annotators")


def blimp_pairs(data: Path, *, n: int = 5_500, seed: int = 0, by: str = "paradigm") -> Labelled:
    """Minimal pairs of BLiMP (a random n of 55,000), without a prompt; groups: paradigms, or with by="id" single pairs."""
    rows = _table(data, "blimp/pairs")
    keep = np.sort(np.random.default_rng([seed, 13]).permutation(len(rows))[:n])
    rows = [{**rows[i], "prompt": ""} for i in keep]
    return from_pairs("blimp", rows, group=[r[by] for r in rows], reference="grammaticality by construction", seed=seed)


def blimp_human(data: Path) -> Labelled:
    """Crowd forced choices on BLiMP items; wrong: the vote is not the grammatical sentence."""
    rows = _table(data, "blimp/human_votes")
    votes = make_votes(
        [""] * len(rows), [r["sentence_a"] for r in rows], [r["sentence_b"] for r in rows], [0 if r["vote"] == "a" else 1 for r in rows],
        ids=[r["id"] for r in rows], group=[r["item_id"] for r in rows], annotator=[r["annotator"] for r in rows],
    )  # fmt: skip
    wrong = np.array([r["vote"] != r["gold"] for r in rows])
    return Labelled("blimp_human", votes, wrong, np.ones(len(rows), dtype=bool), "grammaticality by construction")


PAIRS = {
    "gsm8k": ("gsm8k_solutions/pairs", "the final answer"),
    "hh_harmless": ("hh_harmless/pairs", "the recorded label itself (no truth)"),
    "rm_bench": ("rm_bench/pairs", "construction of the benchmark"),
    "judgebench": ("judgebench/pairs", "the objectively right answer"),
    "opinpref": ("opinpref/pairs", "the recorded label itself (no truth)"),
    "alpaca_eval": ("alpaca_eval/pairs_v2", "the recorded label itself (a judge, no truth)"),
    "alpaca_eval_v1": ("alpaca_eval/pairs_v1", "the recorded label itself (a judge, no truth)"),
}


def pairs(data: Path, name: str, *, n: int | None = None, seed: int = 0) -> Labelled:
    """A set of `PAIRS` (chosen, rejected), sides shuffled, a prompt is a group; `n`: a random part."""
    path, reference = PAIRS[name]
    rows = _table(data, path, ["id", "prompt", "chosen", "rejected"])
    rows = [r for r in rows if r["chosen"] != r["rejected"]]
    if n is not None and n < len(rows):
        keep = np.sort(np.random.default_rng([seed, 14]).permutation(len(rows))[:n])
        rows = [rows[i] for i in keep]
    return from_pairs(name, rows, reference=reference, seed=seed)


def static_features(data: Labelled) -> Features:
    """Features of the votes by the embedded static encoder (fast enough to need no cache)."""
    encoder = load_encoder("static")
    return side_features(data.votes, encoder.encode(data.votes.prompt_texts()), encoder.encode(data.votes.response_texts()))
