from __future__ import annotations

import numpy as np
import pytest

from cupel.encode import load_encoder
from cupel.encode.describe import sample_texts

ODD_TEXTS = [
    "", " ", "\n\t", "a", "Ünïcödé naïve café", "don't; won't -- e.g. $3.50!", "日本語のテキスト と English", "a\u0301b e\u0301",
    "[CLS] x [SEP]y", "[CL\x0bS]", "tab\x0bjoined\x85here", "zero\u200bwidth", "\ufffd\x00nul", "word " * 3000, "x" * 500,
    "😀 smile 😀", "a\u00a0b\u2028c", "\u0345", "İstanbul ΣΑΣ",
]  # fmt: skip


@pytest.fixture(scope="session")
def static():
    return load_encoder("static")


@pytest.fixture(scope="session")
def texts():
    return sample_texts(40) + ODD_TEXTS


class Counting:
    """A real encoder of our own that counts what it is asked for: letters of a text, float32 [26]."""

    name, hash, dim, shard = "letters", "ab" * 32, 26, 8

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.calls = 0

    def encode(self, texts, progress=None):
        self.calls += 1
        self.seen += list(texts)
        if progress is not None:
            progress(len(texts), len(texts))
        counts = [[text.count(chr(97 + i)) / (len(text) + 1) for i in range(26)] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), 26)

    def token_counts(self, texts):
        return np.array([len(text.split()) for text in texts], dtype=np.int64)


@pytest.fixture
def counting():
    return Counting()
