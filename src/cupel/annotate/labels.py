"""Scores of responses become labels of pairs, and labels become votes of one more annotator.

A label made by a score is a claim like any other: it joins the votes under a name of its own, and the annotator models and the EM
treatment learn how often it is wrong. Its margin has an arbitrary scale and becomes a probability only through a calibration on votes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cupel.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from cupel.evaluate.calibration import Calibration
    from cupel.records.schema import Votes

#: votes with a preference below which margins are not calibrated
FEWEST = 20
#: what a row says of its pair; everything else it says of the vote of whoever gave it
_OF_PAIR = (
    "prompt", "chosen", "rejected", "response_a", "response_b", "conversation_a", "conversation_b", "model_first", "model_second", "group",
    "item_id", "split",
)  # fmt: skip
#: column of an annotated file that holds the margin of the annotation
MARGIN = "annotation_margin"


@dataclass(frozen=True)
class Labels:
    """Labels of the distinct pairs of some votes.

    row         int64 [m] first vote on each pair, whose sides give the orientation
    margin      float64 [m] score(first) - score(second);  sign  int8 [m] +1, -1, 0 within the margin of ties
    length_gap  float64 [m] words of the first minus words of the second
    """

    row: np.ndarray
    margin: np.ndarray
    sign: np.ndarray
    length_gap: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def confidence(self) -> np.ndarray:
        """|margin|, float64 [m]: an order of how sure, not a probability."""
        return np.abs(self.margin)

    @property
    def prefers_longer(self) -> float:
        """Share of labels that prefer the side with more words, equal lengths left out; NaN without any."""
        both = (self.sign != 0) & (self.length_gap != 0)
        return float((np.sign(self.length_gap[both]) == self.sign[both]).mean()) if both.any() else float("nan")


def margins(scorer: Any, votes: Votes) -> np.ndarray:
    """score(first) - score(second) of each comparison, float64 [n]; each (prompt, response) is scored once.

    scorer: anything with score(prompts, responses) -> [n].
    """
    prompts, responses, sides = nodes(votes)
    scores = np.asarray(scorer.score(prompts, responses), dtype=np.float64).reshape(-1)
    if len(scores) != len(prompts):
        raise InputError(f"the scorer gave {len(scores):,} scores for {len(prompts):,} responses: it must give one of each")
    return scores[sides[0]] - scores[sides[1]]


def nodes(votes: Votes) -> tuple[list[str], list[str], np.ndarray]:
    """(prompt, response) of each distinct (prompt, response) of some votes, and int64 [2, n] where the sides are among them.

    InputError for votes on single responses, which have no second side.
    """
    if (votes.second < 0).any():
        raise InputError("votes on single responses are no pairs: give comparisons")
    size = max(len(votes.responses), 1)
    keys = np.concatenate([votes.prompt.astype(np.int64) * size + side for side in (votes.first, votes.second)])
    found, at = np.unique(keys, return_inverse=True)
    import pyarrow as pa

    prompts = votes.prompts.take(pa.array(found // size)).to_pylist()
    return prompts, votes.responses.take(pa.array(found % size)).to_pylist(), at.reshape(2, -1)


def label_pairs(scorer: Any, votes: Votes, *, tie: float = 0.0) -> Labels:
    """Labels of the distinct pairs by a scorer; a margin of at most `tie` is a tie.

    >>> from cupel.records import read
    >>> class Longer:
    ...     def score(self, prompts, responses):
    ...         return np.array([len(text) for text in responses])
    >>> rows = [{"prompt": "p", "response_a": "x", "response_b": "x y", "vote": v} for v in ("a", "b")]
    >>> found = label_pairs(Longer(), read(rows, heldout=0))
    >>> found.margin.tolist(), found.sign.tolist(), found.prefers_longer
    ([-2.0], [-1], 1.0)
    """
    return pair_labels(votes, margins(scorer, votes), tie=tie)


def pair_labels(votes: Votes, margin: np.ndarray, *, tie: float = 0.0) -> Labels:
    """Labels of the distinct pairs from the margin of every vote, float64 [n]."""
    if not tie >= 0:
        raise InputError(f"tie is a margin, at least 0, not {tie!r}")
    row = np.sort(np.unique(votes.pair, return_index=True)[1])
    chosen = margin[row]
    words = np.array([len(text.split()) for text in votes.response_texts()], dtype=np.float64)
    gap = words[votes.first[row]] - words[votes.second[row]]
    return Labels(row, chosen, np.where(np.abs(chosen) <= tie, 0, np.sign(chosen)).astype(np.int8), gap)


def best_and_worst(scorer: Any, prompts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Of each prompt's candidates the best as `chosen` and the worst as `rejected`, with their margin; prompts whose candidates all score
    alike, or are fewer than two different texts, give no row.

    >>> class Longer:
    ...     def score(self, prompts, responses):
    ...         return np.array([len(text) for text in responses])
    >>> best_and_worst(Longer(), ["p", "q"], [["x", "xxx", "xx"], ["y", "z"]])
    [{'prompt': 'p', 'chosen': 'xxx', 'rejected': 'x', 'margin': 2.0}]
    """
    if len(prompts) != len(candidates):
        raise InputError(f"{len(prompts)} prompts, but {len(candidates)} lists of candidates: give one to each")
    flat = [(prompt, text) for prompt, texts in zip(prompts, candidates, strict=True) for text in texts]
    scores = np.asarray(scorer.score([p for p, _ in flat], [t for _, t in flat]), dtype=np.float64) if flat else np.zeros(0)
    rows, start = [], 0
    for prompt, texts in zip(prompts, candidates, strict=True):
        part = scores[start : start + len(texts)]
        start += len(texts)
        if len(part) and part.max() > part.min():
            best, worst = int(part.argmax()), int(part.argmin())
            rows.append({"prompt": prompt, "chosen": texts[best], "rejected": texts[worst], "margin": float(part[best] - part[worst])})
    return rows


def calibrate(
    labels: Labels, votes: Votes, *, method: Literal["temperature", "isotonic"] = "temperature", flip: float | None = None
) -> Calibration:
    """P(a vote, or with `flip` the truth, prefers the first side) as a function of the margin, fitted to the votes on the labelled pairs.

    Held-out votes are left out. InputError with fewer than 20 votes that prefer a side: margins are then no probabilities, and stay so.
    """
    from cupel.evaluate.calibration import fit_calibration
    from cupel.records.schema import HELDOUT

    at = dict(zip(votes.pair[labels.row].tolist(), range(len(labels)), strict=True))
    rows = np.array([row for row in range(len(votes)) if votes.pair[row] in at and votes.split[row] != HELDOUT], dtype=np.int64)
    rows = rows[votes.sign[rows] != 0]
    if len(rows) < FEWEST:
        raise InputError(
            f"{len(rows)} votes prefer a side of the pairs that were labelled, and a calibration needs {FEWEST}. Label some pairs by hand, "
            "or use hard labels"
        )
    where = np.array([at[pair] for pair in votes.pair[rows].tolist()], dtype=np.int64)
    same = votes.first[rows] == votes.first[labels.row[where]]
    margin = np.where(same, labels.margin[where], -labels.margin[where])
    return fit_calibration(margin, votes.sign[rows], votes.pair[rows], method=method, flip=flip)


def append_votes(votes: Votes, labels: Labels, name: str, *, p: np.ndarray | None = None, weight: np.ndarray | float = 1.0) -> Votes:
    """The votes with one more annotator, `name`, who voted once on each labelled pair (ties included), after all others.

    p       float64 [m] P(first side better) as training should see it (a calibration's); None: the hard label
    weight  of the new votes
    The new rows stand in the split and the group of their pair, their sides in the order of its first vote (nobody showed the new annotator
    an order), and carry the margin in the column `annotation_margin` of the source; what
    the source says of other people's votes (reasons, times) is not copied. InputError where somebody of that name has voted already.
    """
    import pyarrow as pa

    from cupel.records.schema import TIE, A, B

    if not name or name in votes.annotators:
        raise InputError(f"the votes hold an annotator {name!r} already: give the new votes another name, or leave the old ones out")
    row, m = labels.row, len(labels)
    outcome = np.select([labels.sign > 0, labels.sign < 0], [A, B], TIE).astype(np.int8)
    hard = np.select([labels.sign > 0, labels.sign < 0], [1.0, 0.0], 0.5)
    new: dict[str, Any] = {
        "prompt": votes.prompt[row], "first": votes.first[row], "second": votes.second[row], "group": votes.group[row],
        "model_first": votes.model_first[row], "model_second": votes.model_second[row], "split": votes.split[row], "line": votes.line[row],
        "outcome": outcome, "annotator": np.full(m, len(votes.annotators), dtype=np.int32),
        "p": hard if p is None else np.asarray(p, dtype=np.float64),
        "w": np.broadcast_to(np.asarray(weight, dtype=np.float64), (m,)), "strength": np.full(m, np.nan), "seconds": np.full(m, np.nan),
    }  # fmt: skip
    if not (np.isfinite(new["p"]).all() and ((new["p"] >= 0) & (new["p"] <= 1)).all() and new["p"].shape == (m,)):
        raise InputError(f"p holds {new['p'].shape} values for {m} labels, or some outside [0, 1]")
    columns: dict[str, Any] = {key: np.concatenate([getattr(votes, key), value]) for key, value in new.items()}
    old = votes.ids.cast(pa.string()).to_pylist()
    fresh = [hashlib.sha256(f"{name}\0{old[i]}".encode()).hexdigest()[:16] for i in row.tolist()]
    columns["ids"] = pa.array([*old, *fresh], pa.string())
    columns["source"] = None if votes.source is None else _source(votes, labels)
    return replace(votes, **columns, annotators=(*votes.annotators, name), spool=None)


def _source(votes: Votes, labels: Labels) -> pa.Table:
    """The rows as they came, and for each new vote what the row of its pair says about the pair; everything else is null."""
    import pyarrow as pa

    table = votes.source
    assert table is not None
    of = dict(votes.meta.get("columns", {}))
    kept = {of[name] for name in _OF_PAIR if name in of}
    taken = table.take(pa.array(labels.row))
    blank = {n: taken[n] if n in kept else pa.nulls(len(labels), taken.schema.field(n).type) for n in taken.column_names}
    both = pa.concat_tables([table.select(list(blank)), pa.table(blank, schema=table.schema.remove_metadata())])
    if MARGIN in both.column_names:
        raise InputError(f"the data has a column {MARGIN} already: rename it")
    margin = pa.array([None] * len(votes) + labels.margin.tolist(), pa.float64())
    return both.append_column(MARGIN, margin)
