"""Responses in another script or language than their prompt."""

from __future__ import annotations

import re

import numpy as np

from cupel.audit.checks._build import by_share, clean, found, percent
from cupel.audit.checks._minhash import chunks
from cupel.audit.checks._texts import Words, read_words
from cupel.audit.checks.context import LANGUAGE_CHARACTERS, STOPWORDS, Context
from cupel.audit.types import Finding, Scope
from cupel.records.schema import Votes

NAME = "language_mismatch"
SCOPE: Scope = "row"
COST = 1

_SCRIPTS = ("none", "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han")
_RANGES = (
    (0x41, 0x5B, 1), (0x61, 0x7B, 1), (0xC0, 0x250, 1), (0x370, 0x400, 3), (0x400, 0x530, 2), (0x590, 0x600, 5), (0x600, 0x700, 4),
    (0x750, 0x780, 4), (0x900, 0x980, 6), (0xE00, 0xE80, 7), (0x1100, 0x1200, 8), (0x3040, 0x3100, 9), (0x3400, 0x4DC0, 10),
    (0x4E00, 0xA000, 10), (0xAC00, 0xD7B0, 8),
)  # fmt: skip
_ASKS = re.compile(
    r"translat|übersetz|tradu|переве|翻译|翻譯|訳|in (?:english|german|french|spanish|italian|portuguese|dutch"
    r"|russian|chinese|japanese"
    r"|korean|arabic|hebrew|hindi|greek|thai|latin)\b|\b(?:language|english|german|french|spanish|italian|portuguese|dutch|russian|chinese"
    r"|japanese|korean|arabic|hebrew|hindi|thai)\b"
)
_MIN_LETTERS, _MIN_HITS = 20, 4
_LATIN = 1


def scripts(texts: list[str]) -> np.ndarray:
    """int64 [len(texts)]: index of the script of at least 70 % of the letters of each text, 0 where mixed or below 20 letters.

    Kana count for Han and Han for Kana, since Japanese mixes them; so Chinese and Japanese are not told apart.
    """
    table = np.zeros(0x110000, dtype=np.uint8)
    for low, high, script in _RANGES:
        table[low:high] = script
    table[[0xD7, 0xF7]] = 0
    counts = np.zeros((len(texts), len(_SCRIPTS)), dtype=np.int64)
    for start, stop in chunks(texts):
        part = texts[start:stop]
        points = np.frombuffer("".join(part).encode("utf-32-le"), dtype=np.uint32)
        owner = np.repeat(np.arange(len(part)), [len(t) for t in part])
        counts[start:stop] = np.bincount(owner * len(_SCRIPTS) + table[points], minlength=len(part) * len(_SCRIPTS)).reshape(len(part), -1)
    counts[:, 10] += counts[:, 9]
    counts[:, [0, 9]] = 0
    # a character of Han or Hangul carries about as much as three letters
    total = counts.sum(axis=1)
    enough = counts @ np.array([1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3]) >= _MIN_LETTERS
    best = counts.argmax(axis=1)
    return np.where(enough & (counts.max(axis=1, initial=0) >= 0.7 * np.maximum(total, 1)), best, 0)


def languages(texts: list[str], words: Words | None = None) -> np.ndarray:
    """int64 [len(texts)]: 1 + index of the language (of seven in Latin script) that most stop-words of each text belong to, 0 if
    unclear.

    Clear means four or more hits on at least two different words, and twice as many as the next language has. words: what was read of
    these (normalised) texts already; only their first 600 characters count then.

    >>> languages(["the cat and the dog that was with you", "der Hund und die Katze sind nicht auf dem Dach"]).tolist()
    [1, 2]
    """
    words = read_words([t.lower() for t in texts], STOPWORDS, max(map(len, texts), default=0)) if words is None else words
    if not len(words.hits):
        return np.zeros(0, dtype=np.int64)
    best = words.hits.argmax(axis=1)
    rows = np.arange(len(best))
    most = words.hits[rows, best]
    next_most = np.sort(words.hits, axis=1)[:, -2]
    return np.where((most >= _MIN_HITS) & words.varied[rows, best] & (most >= 2 * next_most), best + 1, 0)


def _scripts(texts: list[str], words: Words) -> np.ndarray:
    """`scripts` of the beginnings of normalised texts; what is all ASCII is Latin or too short."""
    out = np.where(words.letters >= _MIN_LETTERS, _LATIN, 0)
    rows = np.flatnonzero(words.foreign)
    out[rows] = scripts([texts[i][:LANGUAGE_CHARACTERS] for i in rows.tolist()])
    return out


def check(votes: Votes, context: Context) -> Finding:
    """Number of rows with a response in another script, or (Latin script, seven languages) another language, than the prompt.

    Judged on the first 600 characters, from 20 letters or 4 stop-words; prompts that speak of a language or of translation are
    left out, and so is what cannot be told. Severity: warning from 1 % of rows, else info: the signs are heuristic and single rows
    may be meant.
    """
    shared = context.shared(votes)
    asks = np.array([_ASKS.search(t) is not None for t in shared.prompts_normal], dtype=bool)
    read_p, read_r = shared.prompts_words, shared.responses_words
    script_p, script_r = _scripts(shared.prompts_normal, read_p), _scripts(shared.responses_normal, read_r)
    language_p, language_r = languages(shared.prompts_normal, read_p), languages(shared.responses_normal, read_r)
    listed = np.array([len(t) > 0 for t in shared.prompts_normal], dtype=bool) & ~asks
    names = ("", *STOPWORDS)

    def differs(side: np.ndarray) -> np.ndarray:
        p, r = script_p[shared.prompt], script_r[side]
        script = (p > 0) & (r > 0) & (p != r)
        a, b = language_p[shared.prompt], language_r[side]
        return listed[shared.prompt] & (script | ((p == 1) & (r == 1) & (a > 0) & (b > 0) & (a != b)))

    first, second = differs(shared.first), differs(shared.second)
    rows = first | second
    n, count = len(votes), int(rows.sum())
    known = listed & ((script_p > 1) | (language_p > 0))
    details = {"rows_with_known_prompt_language": int(known[shared.prompt].sum())}
    if not count:
        return clean(NAME, SCOPE, n, "no response is in another script or language than its prompt", details)
    one = first != second
    wins = np.where(first, votes.sign, -votes.sign)[one]
    side = np.where(first, shared.first, shared.second)[rows]
    asked = shared.prompt[rows]
    codes = np.stack([script_p[asked], script_r[side], language_p[asked], language_r[side]], axis=1)
    kinds: dict[str, int] = {}
    for (p, r, a, b), times in zip(*(x.tolist() for x in np.unique(codes, axis=0, return_counts=True)), strict=True):
        told = f"{_SCRIPTS[p]} -> {_SCRIPTS[r]}" if p != r else f"{names[a]} -> {names[b]}"
        kinds[told] = kinds.get(told, 0) + times
    commonest = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:10]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity=by_share(count, n, warning=0.01),
        message=(
            f"{count:,} of {n:,} pairs ({percent(count / n)}) have a response in another script or language than the prompt "
            f"({int(one.sum()):,} on one side only; most often {commonest[0][0]})"
        ),
        remedy="cupel review OUT, or --drop language_mismatch",
        details={
            **details,
            "kinds": dict(commonest),
            "one_side_only": int(one.sum()),
            "other_language_preferred": int((wins > 0).sum()),
        },
    )
