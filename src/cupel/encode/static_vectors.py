"""Static token vectors: a text is the mean of its tokens' weighted vectors. The embedded encoder, and any model2vec folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cupel.encode.base import Progress, check_texts, encoder_hash, hash_files
from cupel.encode.tokens import PieceTokens, flat_ids_slow, splits_at_whitespace
from cupel.errors import EncoderError

EMBEDDED = Path(__file__).resolve().parent / "static"
_BATCH = 2048  # texts at a time; the sum over a text's tokens never leaves the text, so the vectors do not depend on it


class StaticEncoder:
    """Vectors of a model2vec folder: v = sum_t weight_t E_t / n over the n known tokens; length 1 where the folder says so.

    Read by the model2vec library (Tulkens and van Dongen 2024); summed here as one sparse product in token order instead of text by
    text. Without a window: texts are read to their end, whatever `max_length` the folder states.
    """

    shard = 8192

    def __init__(self, folder: Path, name: str) -> None:
        import model2vec

        files = sorted(path.name for path in folder.iterdir() if path.name in {"config.json", "model.safetensors", "tokenizer.json"})
        self.name = name
        self.hash = encoder_hash("static token vectors, mean over all tokens, float32, 1", hash_files(folder, files))
        try:
            model = model2vec.StaticModel.from_pretrained(folder)
        except Exception as error:  # the library raises whatever its parts raise
            raise EncoderError(f"{folder} is not a readable model2vec folder ({type(error).__name__}: {error})") from error
        vectors = model.embedding if model.token_mapping is None else model.embedding[model.token_mapping]
        vectors = vectors.astype(np.float32)
        self._table = vectors if model.weights is None else vectors * model.weights.astype(np.float32)[:, None]  # [vocabulary, dim]
        self._unknown = model.unk_token_id
        self._normalise = model.normalize
        self._tokenizer = model.tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._in_pieces = splits_at_whitespace(self._tokenizer)
        self.dim = int(self._table.shape[1])
        self.forget()

    def forget(self) -> None:
        """Drop what is remembered of the texts seen so far: it changes the speed, never a vector."""
        self._pieces = PieceTokens(self._tokenizer) if self._in_pieces else None

    def __repr__(self) -> str:
        return f"StaticEncoder({self.name!r}, dim={self.dim}, hash={self.hash[:12]})"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, dim]: one vector per text; a text without a known token is the zero vector.

        Raises EncoderError where a text is not valid Unicode.

        >>> from cupel.encode import load_encoder
        >>> vectors = load_encoder("static").encode(["A dog runs.", "The dog is running.", "Taxes are due."])
        >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
        True
        """
        check_texts(texts)
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            out[start : start + len(batch)] = self._encode_batch(batch)
            if progress is not None:
                progress(start + len(batch), len(texts))
        return out

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: tokens per text, unknown ones included, without special tokens.

        >>> from cupel.encode import load_encoder
        >>> load_encoder("static").token_counts(["A dog runs.", ""]).tolist()
        [4, 0]
        """
        check_texts(texts)
        parts = [self._flat_ids(texts[start : start + _BATCH])[1] for start in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _flat_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return flat_ids_slow(self._tokenizer, texts) if self._pieces is None else self._pieces.flat_ids(texts)

    def _encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        from scipy.sparse import csr_matrix

        ids, lengths = self._flat_ids(texts)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        if self._unknown is not None:
            known = ids != self._unknown
            bounds = np.concatenate([[0], np.cumsum(known)])[bounds]
            ids = ids[known]
        ones = np.ones(len(ids), dtype=np.float32)
        sums = csr_matrix((ones, ids, bounds), shape=(len(texts), len(self._table))) @ self._table
        means = np.asarray(sums, dtype=np.float32) / np.maximum(np.diff(bounds), 1).astype(np.float32)[:, None]
        if not self._normalise:
            return means
        length = np.sqrt(np.einsum("ij,ij->i", means, means))
        return means / np.where(length > 0, length, 1.0).astype(np.float32)[:, None]


def load_embedded() -> StaticEncoder:
    """The encoder inside the package, its files read and verified against `static/HASHES.json` once in a process.

    Encoders share what none of them changes; what an encoder remembers of its texts is its own, as threads need.
    """
    own = copy.copy(_embedded())
    own.forget()
    return own


@cache
def _embedded() -> StaticEncoder:
    return load_verified(EMBEDDED, "static")


def load_verified(folder: Path, name: str) -> StaticEncoder:
    """A model2vec folder whose HASHES.json must hold; EncoderError names the first file that differs."""
    try:
        expected = json.loads((folder / "HASHES.json").read_text(encoding="utf-8"))
        found = hash_files(folder, sorted(expected))
    except (OSError, ValueError) as error:
        raise EncoderError(f"the embedded encoder is incomplete ({error}). {_REINSTALL}") from error
    changed = [file for file in sorted(expected) if found[file] != expected[file]]
    if changed:
        raise EncoderError(
            f"{len(changed)} of {len(expected)} files of the embedded encoder are not the ones that were released (first: "
            f"{folder / changed[0]}, sha256 {found[changed[0]][:12]}..., expected {expected[changed[0]][:12]}...). {_REINSTALL}"
        )
    return StaticEncoder(folder, name)


_REINSTALL = "Install cupel again: python -m pip install --force-reinstall --no-deps cupel"
