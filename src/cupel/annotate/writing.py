"""What annotate writes: the votes with those of the new annotator, the parts of every score, and what is known about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.annotate.labels import MARGIN, Labels
from cupel.records.schema import Votes

if TYPE_CHECKING:
    import pyarrow as pa


def facts_of(votes: Votes, labels: Labels, name: str, fitted: Any, labelled: bool) -> tuple[dict[str, Any], list[str]]:
    """(what is known about the labels as data, and in words): counts, agreement with recorded votes, length, calibration."""
    counts = {"first": int((labels.sign > 0).sum()), "second": int((labels.sign < 0).sum()), "tie": int((labels.sign == 0).sum())}
    agreement = agreement_of(votes, labels) if labelled else None
    longer = labels.prefers_longer
    words = [f"{len(labels):,} pairs labelled by {name}: {counts['first']:,} first, {counts['second']:,} second, {counts['tie']:,} ties."]
    if agreement is not None:
        words.append(
            f"It agrees with {100 * agreement['estimate']:.1f} % of {agreement['n']:,} recorded votes; what that says of its errors "
            "depends on theirs."
        )
    words += [f"It prefers the longer side in {100 * longer:.1f} % of pairs." if np.isfinite(longer) else "All sides have equal lengths."]
    said = "margins are no probabilities; the votes are hard" if fitted is None else str(fitted)
    words.append(f"p of the new votes: {said}.")
    facts = {
        "n_votes": len(votes) if labelled else 0, "n_pairs": len(labels), "labels": counts, "agreement": agreement,
        "prefers_longer": longer if np.isfinite(longer) else None, "calibration": None if fitted is None else fitted.to_json(),
    }  # fmt: skip
    return facts, words


def agreement_of(votes: Votes, labels: Labels) -> dict[str, Any] | None:
    """Share of recorded preferences that the labels agree with, ties half, with a 95 % interval over prompts."""
    from cupel.votes.intervals import cluster_bootstrap

    at = {int(pair): n for n, pair in enumerate(votes.pair[labels.row].tolist())}
    where = np.array([at[pair] for pair in votes.pair.tolist()], dtype=np.int64)
    side = np.where(votes.first == votes.first[labels.row[where]], 1, -1) * labels.sign[where]
    rows = votes.sign != 0
    if not rows.any():
        return None
    found = cluster_bootstrap((0.5 + 0.5 * side * votes.sign)[rows], votes.prompt[rows], seed=0, clip=(0, 1))
    return {"estimate": found.estimate, "low": found.low, "high": found.high, "n": int(rows.sum()), "groups": found.groups}


def write_votes(votes: Votes, out: Path) -> None:
    """A table of votes with p, w and the margin of the annotation."""
    import pyarrow as pa

    from cupel.records.convert import to_rows
    from cupel.records.files import write_parquet

    table, _ = to_rows(votes, "votes")
    for name in (*(n for n in ("p", "w") if n in table.column_names), *([MARGIN] if MARGIN in table.column_names else [])):
        table = table.drop_columns([name])
    assert votes.source is not None
    margin = votes.source[MARGIN]
    write_parquet(out, table.append_column(MARGIN, margin).append_column("p", pa.array(votes.p)).append_column("w", pa.array(votes.w)))


def write_parts(path: Path, prompts: Sequence[str], responses: Sequence[str], parts: pa.Table) -> None:
    """A table of every response and the parts of its score."""
    import pyarrow as pa

    from cupel.records.files import write_parquet

    table = parts.add_column(0, "response", pa.array(responses, pa.large_string()))
    write_parquet(path, table.add_column(0, "prompt", pa.array(prompts, pa.large_string())))
