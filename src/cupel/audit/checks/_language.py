"""Scripts and languages of texts: what `language_mismatch` compares."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

#: words that are common in one of these languages and rare in the others
STOPWORDS = {
    "English": "the and of to is that it for with was this are you have not they from what which would be can how",
    "German": "der die und das ist nicht ein eine zu den mit von sich auf für dem auch wird werden oder wie sind",
    "French": "le les et des est une dans pour que qui pas sur avec ce cette sont vous nous être ou plus",
    "Spanish": "el los las y una por con para que es del como más pero está son esta este muy puede",
    "Italian": "il che di è per non una sono con della gli nel anche questo come più alla dei delle può",
    "Portuguese": "o os e uma não para com por como mais dos das em são está você também seu sua ao",
    "Dutch": "het een van en niet dat op te zijn voor met er maar ook aan wordt naar deze bij je",
}
#: characters of a text in which its language is looked for
LANGUAGE_CHARACTERS = 600
SCRIPTS = ("none", "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han")
LATIN = 1
MIN_LETTERS, MIN_HITS = 20, 4
_RANGES = (
    (0x41, 0x5B, 1), (0x61, 0x7B, 1), (0xC0, 0x250, 1), (0x370, 0x400, 3), (0x400, 0x530, 2), (0x590, 0x600, 5), (0x600, 0x700, 4),
    (0x750, 0x780, 4), (0x900, 0x980, 6), (0xE00, 0xE80, 7), (0x1100, 0x1200, 8), (0x3040, 0x3100, 9), (0x3400, 0x4DC0, 10),
    (0x4E00, 0xA000, 10), (0xAC00, 0xD7B0, 8),
)  # fmt: skip
#: a prompt that speaks of a language or of translation
ASKS = re.compile(
    r"translat|übersetz|tradu|переве|翻译|翻譯|訳|in (?:english|german|french|spanish|italian|portuguese|dutch"
    r"|russian|chinese|japanese"
    r"|korean|arabic|hebrew|hindi|greek|thai|latin)\b|\b(?:language|english|german|french|spanish|italian|portuguese|dutch|russian|chinese"
    r"|japanese|korean|arabic|hebrew|hindi|thai)\b"
)
#: what every match of `ASKS` holds, for engines that know no Unicode word borders
ASKS_OF = (
    "translat|übersetz|tradu|переве|翻译|翻譯|訳|english|german|french|spanish|italian|portuguese|dutch|russian|chinese|japanese|korean"
    "|arabic|hebrew|hindi|in greek|thai|in latin|language"
)


def scripts(texts: list[str]) -> np.ndarray:
    """int64 [len(texts)]: index of the script of at least 70 % of the letters of each text, 0 where mixed or below 20 letters.

    Kana count for Han and Han for Kana, since Japanese mixes them; so Chinese and Japanese are not told apart.

    >>> [SCRIPTS[k] for k in scripts(["an English sentence of letters", "и одно предложение по-русски", "12"])]
    ['Latin', 'Cyrillic', 'none']
    """
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(t) for t in texts])
    width = len(SCRIPTS)
    counts = np.bincount(owner * width + _table()[points], minlength=len(texts) * width).reshape(len(texts), width)
    counts[:, 10] += counts[:, 9]
    counts[:, [0, 9]] = 0
    # a character of Han or Hangul carries about as much as three letters
    total = counts.sum(axis=1)
    enough = counts @ np.array([1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3]) >= MIN_LETTERS
    best = counts.argmax(axis=1) if len(texts) else np.zeros(0, dtype=np.int64)
    return np.where(enough & (counts.max(axis=1, initial=0) >= 0.7 * np.maximum(total, 1)), best, 0)


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    table = np.zeros(0x110000, dtype=np.uint8)
    for low, high, script in _RANGES:
        table[low:high] = script
    table[[0xD7, 0xF7]] = 0
    return table
