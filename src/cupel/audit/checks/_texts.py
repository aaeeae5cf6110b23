"""One look at texts as they came: what is plainly not in them, so that the expressions of the checks read only the texts that can match.

Each flag is a necessary condition of an expression: a text without it cannot match, a text with it is read by the expression itself.
So the findings are those of reading every text, and `tests/audit/checks/test_looks.py` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.audit.checks._bytes import ALNUM, BLANK, DIGIT, Joined, table

_STOPPED = table(b".!?:;\"')]}>*`_~|=#$%0123456789/\\")
_MARKS = table(b"#*_`|@.<[\n0123456789")
_BULLET = table(b"-*+")
_WIDE = table(range(0x80, 0x100))
#: lead bytes of the characters beyond ASCII that `\d` matches, and of others
_WIDE_DIGIT = table(b"\xd9\xdb\xdf\xe0\xe1\xea\xef\xf0")
#: between the digits of a telephone number, and beside an @
_BETWEEN, _BEFORE_AT, _AFTER_AT = table(b" ().-"), ALNUM | table(b"._%+-"), ALNUM | table(b"-")
_CAPITAL, _IN_IBAN = table(range(65, 91)), table(range(65, 91), range(48, 58), b" ")
_AFTER_LESS, _AFTER_BRACKET = table(b"|</seup\xef"), table(b"I/")
#: digits that a card, a telephone or a security number has at least, and the characters that they stretch over at most
_DIGITS, _STRETCH = 9, 26
_INDENTED = 64


@dataclass
class Looks:
    """Of each text, bool [m].

    item, heading, bold, tick, pipe   it can hold a list item, a heading, bold text, code, a table row
    personal   it can hold personal data; leaked: marks of a chat template; unstopped: it can end in the middle
    """

    item: np.ndarray
    heading: np.ndarray
    bold: np.ndarray
    tick: np.ndarray
    pipe: np.ndarray
    personal: np.ndarray
    leaked: np.ndarray
    unstopped: np.ndarray


def look(texts: Joined) -> Looks:
    """The flags of texts as they came."""
    data, n = texts.data, texts.size
    marks = np.flatnonzero(_MARKS[data[:n]])
    kind = data[marks]
    at = {mark: marks[kind == ord(mark)] for mark in "*_`@.<[\n"}
    filled = texts.start < texts.stop
    ticks = texts.counting(at["`"])
    doubled = [texts.counting(places[:-1][np.diff(places) == 1]) for places in (at["*"], at["_"])]
    newline = at["\n"]
    line = np.concatenate([texts.start[filled], newline + 1])
    three = (data[line] == 35) & (data[line + 1] == 35) & (data[line + 2] == 35)
    speaker = newline[(data[newline + 1] == ord("H")) | (data[newline + 1] == ord("A"))]
    speaker = speaker[data[np.maximum(speaker - 1, 0)] == 10]
    item, pipe = _line_starts(data, line)
    last = data[np.maximum(texts.stop - 1, 0)]
    return Looks(
        item=texts.holding(item),
        heading=texts.holding(line[data[line] == 35]),
        bold=(doubled[0] > 1) | (doubled[1] > 1),
        tick=ticks > 1,
        pipe=texts.holding(pipe),
        personal=_personal(texts, at, marks[DIGIT[kind]]),
        leaked=texts.holding(
            np.concatenate([at["<"][_AFTER_LESS[data[at["<"] + 1]]], at["["][_AFTER_BRACKET[data[at["["] + 1]]], line[three], speaker])
        ),
        unstopped=(texts.stop - texts.start >= 80) & (~_STOPPED[last] | (ticks > 2)),
    )


def _line_starts(data: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines that can be list items, and lines that can be rows of a table; spaces and tabs before them do not count."""
    line = line.copy()
    begun = line.copy()
    for _ in range(_INDENTED):  # what is indented further is left to the expression
        moving = np.flatnonzero((data[line] == 32) | (data[line] == 9))
        if not len(moving):
            break
        line[moving] += 1
    first = data[line]
    far = BLANK[first] & (first != 10)
    item = far | _WIDE[first] | (_BULLET[first] & BLANK[data[line + 1]])
    number = line[DIGIT[first]]
    for _ in range(3):
        number = number + DIGIT[data[number]]
    item[DIGIT[first]] = (data[number] == ord(".")) | (data[number] == ord(")")) | _WIDE[data[number]]
    return begun[item], begun[far | (first == ord("|"))]


def _personal(texts: Joined, at: dict[str, np.ndarray], digit: np.ndarray) -> np.ndarray:
    """bool [m]: texts that can hold an address, a number of nine digits or more, four numbers with dots between, or an IBAN."""
    data = texts.data
    mail = at["@"][_BEFORE_AT[data[np.maximum(at["@"] - 1, 0)]] & _AFTER_AT[data[at["@"] + 1]]]
    dot = at["."]
    dot = dot[DIGIT[data[np.maximum(dot - 1, 0)]] & DIGIT[data[dot + 1]]]
    address = dot[2:][dot[2:] - dot[:-2] <= 8]
    gap = np.diff(digit)
    near = np.flatnonzero((gap > 1) & (gap < _STRETCH))
    linked = gap == 1
    for step in range(1, _STRETCH):
        if not len(near):
            break
        near = near[(step >= gap[near]) | _BETWEEN[data[digit[near] + step]]]
        done = gap[near] <= step + 1
        linked[near[done]] = True
        near = near[~done]
    torn = np.concatenate([[0], np.cumsum(~linked)]) if len(digit) else np.zeros(0, dtype=np.int64)
    long = np.flatnonzero((torn[_DIGITS - 1 :] == torn[: 1 - _DIGITS]) & (digit[_DIGITS - 1 :] - digit[: 1 - _DIGITS] <= _STRETCH))
    two = digit[:-1][(gap == 1) & (digit[:-1] > 1)]
    two = two[_CAPITAL[data[two - 1]] & _CAPITAL[data[two - 2]] & _IN_IBAN[data[two + 2]]]
    wide = np.flatnonzero(_WIDE_DIGIT[data[: texts.size]]) if (data[: texts.size] >= 0x80).any() else digit[:0]
    return texts.holding(np.concatenate([mail, address, digit[long], two, wide]))
