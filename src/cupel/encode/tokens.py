"""Token ids of many texts as one flat array: the tokenizer library's own way, and a faster way for BERT tokenizers.

Encoding with static vectors is almost all tokenisation. A BERT tokenizer (BertNormalizer, BertPreTokenizer, WordPiece) never joins
what whitespace separates, so the tokens of a text are the tokens of its whitespace-separated pieces, and pieces recur: each is
tokenised once and looked up after. `flat_ids_slow` is the twin that a property test compares with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: whitespace to Python, but control characters to BertNormalizer, which removes them and so joins what stands beside them
_JOINING = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_MOST_PIECES = 1 << 18  # pieces remembered (a few tens of MB) before the memory is emptied,
_MOST_CHARACTERS = 1 << 24  # and their characters


def flat_ids_slow(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [total], lengths int64 [n]): token ids of the texts end to end, by the tokenizer itself."""
    if not texts:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    return np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum())), lengths


def splits_at_whitespace(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its whitespace-separated pieces: BERT's parts, nothing added that has spaces."""
    parts = json.loads(tokenizer.to_str())
    kinds = tuple((parts.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model"))
    added = parts.get("added_tokens") or []
    plain = all(not (t["lstrip"] or t["rstrip"] or t["single_word"] or t["normalized"] or re.search(r"\s", t["content"])) for t in added)
    return kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece") and plain and parts["normalizer"].get("clean_text") is True


class _Seen(dict[str, int]):
    """Number of each piece, given out at first sight; `fresh` are the pieces that were given one and have no tokens yet."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[str] = []

    def __missing__(self, piece: str) -> int:
        number = len(self)
        self[piece] = number
        self.fresh.append(piece)
        return number


class PieceTokens:
    """Token ids by whitespace-separated piece, remembered between calls; memory changes the speed, never the ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._forget()

    def _forget(self) -> None:
        self.seen = _Seen()
        self.characters = 0
        self.ids = np.zeros(0, dtype=np.int32)  # tokens of all remembered pieces, end to end
        self.starts = np.zeros(0, dtype=np.int64)
        self.lengths = np.zeros(0, dtype=np.int64)

    def flat_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 [total], lengths int64 [n]): the same arrays as `flat_ids_slow`."""
        if not texts:
            return flat_ids_slow(self.tokenizer, texts)
        if len(self.seen) > _MOST_PIECES or self.characters > _MOST_CHARACTERS:
            self._forget()
        lookup = self.seen.__getitem__
        numbers = [list(map(lookup, text.split() if _JOINING.search(text) is None else [text])) for text in texts]
        self._learn()
        n_pieces = np.fromiter(map(len, numbers), dtype=np.int64, count=len(numbers))
        pieces = np.fromiter(chain.from_iterable(numbers), dtype=np.int64, count=int(n_pieces.sum()))
        return self._gather(pieces, n_pieces)

    def _learn(self) -> None:
        fresh, self.seen.fresh = self.seen.fresh, []
        if not fresh:
            return
        ids, lengths = flat_ids_slow(self.tokenizer, fresh)
        self.characters += sum(map(len, fresh))
        self.starts = np.concatenate([self.starts, len(self.ids) + np.cumsum(lengths) - lengths])
        self.ids = np.concatenate([self.ids, ids])
        self.lengths = np.concatenate([self.lengths, lengths])

    def _gather(self, pieces: np.ndarray, n_pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = self.lengths[pieces]  # tokens of each piece, in the order of the texts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        shift = self.starts[pieces] - (ends - lengths)
        ids = self.ids[np.repeat(shift, lengths) + np.arange(total)]
        bounds = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(n_pieces)])]
        return ids, np.diff(bounds)
