"""Records: read preferences from any file or table, split them without leaks, convert, store, and corrupt them on purpose."""

from cupel.records.reading import read
from cupel.records.schema import OUTCOMES, Quarantined, Votes

__all__ = ["OUTCOMES", "Quarantined", "Votes", "read"]
