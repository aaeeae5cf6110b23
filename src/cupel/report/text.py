"""Untrusted text made safe to look at: the hidden is spelt out, the long is cut and counted, numbers read as people say them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any, NamedTuple

from markupsafe import Markup, escape

NARROW = "\u202f"  # narrow no-break space between a number and its per cent sign
DASH = "\u2013"
MINUS = "\u2212"
NOTHING = "\u2014"

_SURROGATES = re.compile("[\ud800-\udfff]")
# Characters that change or hide what is read: C0 and C1 controls (not tab, newline), bidirectional controls, zero-width space, soft
# hyphen, line and paragraph separators, byte-order mark, invisible operators, interlinear marks, tag characters. Joiners (U+200C/D)
# stay: scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_CODE = re.compile("`([^`\n]{1,400})`")


def visible(text: str) -> str:
    """The text with hidden characters spelt out: bidirectional and other controls as ``⟨U+202E⟩``, lone surrogates as U+FFFD.

    >>> visible("abc\\u202ecba\\x00"), visible("\\ud800!") == "\\ufffd!"
    ('abc⟨U+202E⟩cba⟨U+0000⟩', True)
    """
    text = _SURROGATES.sub("\ufffd", text.replace("\r\n", "\n"))
    return _HIDDEN.sub(lambda found: f"\u27e8U+{ord(found.group()):04X}\u27e9", text)


class Cut(NamedTuple):
    """The beginning of a text and the number of characters left out."""

    text: str
    omitted: int


def cut(text: str, limit: int) -> Cut:
    """The first `limit` characters, made visible, and how many characters of the original are left out.

    >>> cut("abcdef", 4), cut("abc", 4)
    (Cut(text='abcd', omitted=2), Cut(text='abc', omitted=0))
    """
    if len(text) <= limit:
        return Cut(visible(text), 0)
    return Cut(visible(text[:limit]), len(text) - limit)


def short(value: Any, limit: int) -> str:
    """Any scalar as at most `limit` visible characters, the rest replaced by how many were left out.

    >>> short("abcdefgh", 5)
    'abcde … (3 more characters)'
    """
    text, omitted = cut(value if isinstance(value, str) else plain(value), limit)
    return f"{text} \u2026 ({count(omitted)} more characters)" if omitted else text


def said(value: Any, limit: int) -> str:
    """`short` for a sentence of ours: a number and its per cent sign stay on one line, a minus is a minus.

    >>> said("-0.5 points, 3 %", 80) == "\u22120.5 points, 3\u00a0%"
    True
    """
    return re.sub(r"(?<![\w.-])-(?=\d)", "\u2212", re.sub(r"(?<=\d) %", "\u00a0%", short(value, limit)))


def label(text: str, width: int = 26) -> str:
    """A text short enough to stand in a picture: at most `width` letters, wide ones counted twice, then an ellipsis.

    >>> label("robust (em, per annotator)", 12), label("plain")
    ('robust (em,…', 'plain')
    """
    text = visible(text[: 4 * width])
    room = width
    for i, letter in enumerate(text):
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return text[: i - 1].rstrip() + "\u2026"
    return text


def turns(prompt: str, limit: int) -> str:
    """A chat kept as canonical JSON (a list of `role`, `content`) as readable turns; any other text unchanged.

    >>> print(turns('[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]', 100))
    user: Hi
    <BLANKLINE>
    assistant: Hello
    """
    if not prompt.startswith("[{") or len(prompt) > 40 * limit + 10_000:
        return prompt
    try:
        said = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt
    if not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in said):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in said)


def inline(text: str) -> Markup:
    """Escaped text in which `` `code` `` became a code element.

    >>> str(inline("run `a < b`"))
    'run <code>a &lt; b</code>'
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def number(value: Any) -> float | None:
    """A finite float, or `None` for everything that is not one (missing, NaN, infinite, text, truth values)."""
    if isinstance(value, (bool, str)) or value is None:
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def count(value: Any) -> str:
    """A whole number with thousands separated.

    >>> count(68020), count(None)
    ('68,020', '—')
    """
    found = number(value)
    return NOTHING if found is None else f"{round(found):,}".replace("-", MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """A proportion as a percentage.

    >>> percent(0.126), percent(None)
    ('12.6\\u202f%', '—')
    """
    found = number(value)
    return NOTHING if found is None else f"{_signed(100 * found, digits)}{NARROW}%"


def points(value: Any, digits: int = 1) -> str:
    """A difference of proportions in percentage points, always with its sign.

    >>> points(-0.0042), points(0.064)
    ('−0.4 points', '+6.4 points')
    """
    found = number(value)
    if found is None:
        return NOTHING
    text = _signed(100 * found, digits)
    return f"{text if text.startswith(MINUS) or float(text) == 0 else '+' + text} points"


def interval(low: Any, high: Any, *, unit: str = "percent", digits: int = 1) -> str:
    """Two ends of an interval: `unit` percent, points or plain; empty where an end is missing.

    >>> interval(0.08, 0.19), interval(-0.01, 0.02, unit="points"), interval(0.871, 0.889, unit="plain", digits=2)
    ('8.0 to 19.0\\u202f%', '−1.0 to +2.0 points', '0.87 to 0.89')
    """
    ends = number(low), number(high)
    if ends[0] is None or ends[1] is None:
        return ""
    if unit == "plain":
        return " to ".join(_signed(end, digits) for end in ends if end is not None)
    if unit == "points":
        return f"{points(ends[0], digits).removesuffix(' points')} to {points(ends[1], digits)}"
    return f"{_signed(100 * ends[0], digits)} to {percent(ends[1], digits)}"


def plain(value: Any) -> str:
    """A scalar as text: whole numbers separated, floats to three significant digits, nothing as a dash, the rest as it says itself.

    >>> plain(12345), plain(0.12345), plain(True), plain(None)
    ('12,345', '0.123', 'yes', '—')
    """
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value[:20]) + (" \u2026" if len(value) > 20 else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in list(value.items())[:20]) + (" \u2026" if len(value) > 20 else "")
    found = number(value)
    if found is None:
        return NOTHING if isinstance(value, float) else str(value)
    if found == int(found) and abs(found) < 1e15:
        return count(found)
    return f"{found:.3g}".replace("-", MINUS)


def words(name: str) -> str:
    """An identifier as words with a capital.

    >>> words("near_duplicates")
    'Near duplicates'
    """
    text = name.replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)
