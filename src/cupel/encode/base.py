"""What an encoder is, and the hash that names its vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from cupel.errors import EncoderError

#: called as progress(done, total), both counted in texts
Progress = Callable[[int, int], None]


class Encoder(Protocol):
    """Texts to vectors. A text's vector depends on that text alone, never on the texts beside it.

    name   what the user typed
    hash   hexadecimal digest of everything the vectors depend on: the model's files and how they are used
    dim    components of a vector
    shard  texts that the cache writes at a time: what an interrupted run may lose
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def hash(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def shard(self) -> int: ...  # noqa: D102

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, dim]: one vector per text; rows have length 1, or 0 where the text has no known token."""
        ...

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: tokens of each text by this encoder's tokenizer, without special tokens and without a window."""
        ...


class Texts(Sequence[str]):
    """An Arrow array of texts as a sequence whose texts become Python strings only where they are asked for.

    then: applied to each text that is asked for (such as the rendering of a chat).

    >>> import pyarrow as pa
    >>> texts = Texts(pa.array(["a", "b", "c"]), str.upper)
    >>> len(texts), texts[1], texts[1:]
    (3, 'B', ['B', 'C'])
    """

    def __init__(self, array: Any, then: Callable[[str], str] | None = None) -> None:
        self._array = array
        self._then = then

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            found = self._array[index].to_pylist()
            return found if self._then is None else [self._then(text) for text in found]
        text = self._array[index].as_py()
        return text if self._then is None else self._then(text)

    def bytes(self, index: slice) -> list[bytes]:
        """Some of the texts as UTF-8: those that nothing is applied to are taken as they lie."""
        if self._then is not None:
            return text_bytes(self[index])
        part = self._array[index]
        return part.cast(f"{'large_' if str(part.type).startswith('large') else ''}binary").to_pylist()


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the named files of a folder, hexadecimal, by name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a.txt").write_bytes(b"abc")
    ...     hash_files(Path(folder), ["a.txt"])["a.txt"][:8]
    'ba7816bf'
    """
    digests = {}
    for name in names:
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def encoder_hash(how: str, files: dict[str, str]) -> str:
    """Digest of an encoder: how its files are used, and the digest of each file.

    >>> encoder_hash("mean", {"a": "1", "b": "2"}) == encoder_hash("mean", {"b": "2", "a": "1"})
    True
    >>> encoder_hash("mean", {"a": "1"}) == encoder_hash("cls", {"a": "1"})
    False
    """
    lines = [how, *(f"{name} {files[name]}" for name in sorted(files))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_texts(texts: Sequence[str]) -> None:
    """Raise EncoderError, naming the first, where a text is not a string or holds a lone surrogate: it has no bytes and no tokens.

    >>> check_texts(["yes", "non", "nein"])
    """
    if not all(isinstance(text, str) and (text.isascii() or _encodable(text)) for text in texts):
        text_bytes(texts)


def text_bytes(texts: Sequence[str]) -> list[bytes]:
    """The texts as UTF-8.

    Raises EncoderError where a text is not a string or holds a lone surrogate: such a text has no bytes and no tokens.

    >>> text_bytes(["ja", "né"])
    [b'ja', b'n\\xc3\\xa9']
    """
    try:
        return [text.encode() for text in texts]
    except (AttributeError, UnicodeEncodeError):
        bad = [i for i, text in enumerate(texts) if not _encodable(text)]
        kind = "lone surrogates (broken UTF-16)" if isinstance(texts[bad[0]], str) else f"{type(texts[bad[0]]).__name__} values"
        raise EncoderError(
            f"{len(bad):,} of {len(texts):,} texts cannot be encoded (first: text {bad[0]}, {kind}). "
            "cupel.read sets such rows aside; pass strings of valid Unicode."
        ) from None


def _encodable(text: object) -> bool:
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False
