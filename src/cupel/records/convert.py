"""The same votes in another format; what the other format cannot hold is said."""

from __future__ import annotations

import pyarrow as pa

from cupel.errors import InputError
from cupel.records.columns import did_you_mean
from cupel.records.exports import ORDER, writers
from cupel.records.exports.common import TRL_FAMILY
from cupel.records.exports.losses import Losses, Plan
from cupel.records.schema import Votes

__all__ = ["TARGETS", "TRL_FAMILY", "to_rows"]

#: names of the targets, in the order in which they are listed
TARGETS: tuple[str, ...] = ORDER


def to_rows(votes: Votes, to: str = "trl") -> tuple[pa.Table, list[str]]:
    """(table, losses): votes in another format, and one sentence for each thing that it cannot hold.

    to: one of `TARGETS`. "trl": prompt, chosen, rejected and every other column of the source; a table that came from TRL goes out as it
    came (columns, order, types), with chosen and rejected exchanged where the vote was turned. "votes": prompt, response_a, response_b,
    vote, one row per vote. The others are what trainers read; each is one file of `cupel.records.exports`.
    Raises InputError for another name, or where no row is left.

    >>> from cupel.records import read
    >>> votes = read([{"prompt": "p", "response_a": "x", "response_b": "y", "vote": v, "annotator": "k"} for v in ("b", "tie")])
    >>> table, losses = to_rows(votes, "trl")
    >>> table.to_pylist()
    [{'prompt': 'p', 'chosen': 'y', 'rejected': 'x', 'annotator': 'k'}]
    >>> losses
    ['1 of 2 votes express no preference (1 tie); a TRL table cannot hold them',
     'the order in which the sides were shown is lost; position bias can no longer be measured']
    """
    check_target(to)
    losses = Losses()
    table = write(votes, to, losses, plan_of(votes, to))
    of_whole(votes, to, losses)
    if not table.num_rows:
        raise nothing_left(to, losses)
    return table, losses.lines()


def check_target(to: str) -> None:
    """InputError for a name that is none of the targets."""
    if to not in writers():
        raise InputError(f"cannot convert to {to!r}.{did_you_mean(to, TARGETS)} Formats: {', '.join(TARGETS)}.")


def plan_of(votes: Votes, to: str) -> Plan:
    """A plan to write these votes by, whole or in parts."""
    facts = getattr(writers()[to], "facts", None)
    return Plan(facts(votes) if facts else {})


def write(part: Votes, to: str, losses: Losses, plan: Plan) -> pa.Table:
    """The rows of a part of the votes."""
    return writers()[to].write(part, losses, plan)


def of_whole(votes: Votes, to: str, losses: Losses) -> None:
    """Count what no part of the votes could."""
    count = getattr(writers()[to], "of_whole", None)
    if count:
        count(votes, losses)


def nothing_left(to: str, losses: Losses) -> InputError:
    """That no row can be written."""
    return InputError(f"no row is left for {to}: {'; '.join(losses.lines()) or 'there are no votes'}.")
