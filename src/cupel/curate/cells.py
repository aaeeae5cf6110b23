"""Cells that a spreadsheet must not run: text that starts like a formula is written behind an apostrophe, and read back without it."""

from __future__ import annotations

#: first characters on which spreadsheets take a cell for a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def guard(text: str) -> str:
    """The text as a cell that no spreadsheet runs: a leading apostrophe before = + - @ (or before an apostrophe that is followed by one).

    `unguard` is the inverse. OWASP, "CSV injection".

    >>> guard("=1+1"), guard("plain"), guard("'=x")
    ("'=1+1", 'plain', "''=x")
    """
    return f"'{text}" if _risky(text) else text


def unguard(cell: str) -> str:
    """The text that `guard` wrote as this cell; other cells stay as they are.

    >>> [unguard(guard(text)) for text in ("=1+1", "'=x", "'tis", "plain")]
    ['=1+1', "'=x", "'tis", 'plain']
    """
    return cell[1:] if cell.startswith("'") and _risky(cell[1:]) else cell


def _risky(text: str) -> bool:
    """Starts like a formula, or like a guarded one (apostrophes, then a formula character)."""
    return text.lstrip("' ").startswith(FORMULA) if text[:1] in ("'", " ") else text.startswith(FORMULA)
