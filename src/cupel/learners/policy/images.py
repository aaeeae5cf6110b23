"""Images of a data set, named by the hash of their bytes: where each lies, and rows whose prompts name the images that they hold.

A row's images come in a column `images` (a list) or `image`: paths relative to the data file, bytes, or structs {"bytes", "path"} as data
sets of Hugging Face hold them. Every image part of a prompt is given the SHA-256 of its image, so that equal texts with different images
are different prompts from here on: in the split, in the tokens, in stored reference scores. Bytes are kept once each in a folder, files
stay where they are, and either is read when a batch needs it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError, RecordError
from cupel.records import sources
from cupel.records.columns import Frame, kinds
from cupel.records.files import atomic_write, write_json
from cupel.records.text import canonical, is_chat, messages

if TYPE_CHECKING:
    import pyarrow as pa

#: names of the columns that hold images
COLUMNS = ("images", "image")
INDEX = "images.json"
_PREFIX = "sha256:"
_CHATS = ("prompt", "chosen", "rejected", "conversation_a", "conversation_b")


def pillow() -> Any:
    """The module PIL.Image. InputError where Pillow is not installed."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise InputError("images are read with Pillow, which is not installed: python -m pip install pillow") from error


class Images:
    """Images by the SHA-256 of their bytes. `folder` keeps those that came as bytes, and an index of where the others lie."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        self.where: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def add(self, data: bytes, path: Path | None) -> str:
        """The hash of an image; its bytes are written to the folder unless they lie in a file. ValueError where they are no sound image."""
        name = hashlib.sha256(data).hexdigest()
        own = self.folder / name[:2] / name
        if name not in self.where and not own.is_file():
            self._decoded(data)
            if path is None:
                own.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(own) as temporary:
                    temporary.write_bytes(data)
        if path is not None:
            self.where[name] = str(path)
        return name

    def save(self) -> None:
        """Write the index: images that it names were sound when they were read first."""
        write_json(self.folder / INDEX, self.where)

    def open(self, name: str) -> Any:
        """The image of a hash, in RGB. RecordError where its file is gone, or holds other bytes than when the data were read."""
        own = self.folder / name[:2] / name
        path = own if own.is_file() else Path(self.where.get(name, own))
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != name:
                raise ValueError("it holds other bytes than when the data were read")
            return self._decoded(data)
        except (OSError, ValueError) as error:
            raise RecordError(
                f"the image {path} cannot be read any more: {error}. Put it back, or run the command again to read the data anew"
            ) from error

    @staticmethod
    def _decoded(data: bytes) -> Any:
        image = pillow()
        try:
            return image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError, image.DecompressionBombError, image.DecompressionBombWarning) as error:
            raise ValueError(f"{type(error).__name__}: {str(error)[:120]}") from error


@dataclass
class _Reading:
    """What goes wrong while rows are read: line and reason."""

    images: Images
    place: Path
    n: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def names(self, value: Any, line: int) -> list[str]:
        """Hashes of a row's images."""
        found = []
        for one in value if isinstance(value, list | tuple) else [] if value is None else [value]:
            self.n += 1
            try:
                found.append(self._name(one))
            except (OSError, ValueError) as error:
                reason = f"no such file: {error.filename}" if isinstance(error, FileNotFoundError) else str(error)
                self.bad.append((line, reason))
        return found

    def _name(self, one: Any) -> str:
        if isinstance(one, Mapping):
            one = one.get("bytes") or one.get("path")
        if isinstance(one, bytes | bytearray):
            return self.images.add(bytes(one), None)
        if not isinstance(one, str) or not one:
            raise ValueError("neither a path nor bytes")
        if "://" in one:
            raise ValueError(f"{one[:80]} is an address; images are read from files or bytes, never from the network")
        path = (self.place / one).resolve()
        if str(path) not in self.seen:
            self.seen[str(path)] = self.images.add(path.read_bytes(), path)
        return self.seen[str(path)]

    def check(self, name: str) -> None:
        if self.bad:
            line, reason = self.bad[0]
            raise RecordError(
                f"{len(self.bad):,} of {self.n:,} images of {name} cannot be read (first: row {line}, {reason}). Paths are relative to the "
                f"folder of the data file. Put the images right, or take these rows out"
            )


def rows_with_images(file: str, images: Images, map: Mapping[str, str] | None = None) -> sources.Rows | None:
    """The rows of a file, their prompts naming their images by hash; None where no column holds images.

    Of Parquet files the images pass through memory a few at a time. Raises RecordError for images that are missing or unreadable (which
    row, how many), and for rows with another number of images than of image parts.
    """
    path = Path(file)
    known = {key: value for key, value in (map or {}).items() if key not in COLUMNS}
    wanted = [(map or {}).get(name, name) for name in COLUMNS]
    reading = _Reading(images, (path if path.is_dir() else path.parent).resolve())
    rows, values = _parquet(path, wanted) or _whole(path, wanted, known)
    if values is None:
        return None
    held = [reading.names(value, int(line)) for line, value in zip(rows.line, values, strict=True)]
    reading.check(path.name)
    images.save()
    rows.table = _named(rows, Frame(rows.table, known).names, held, path.name)
    return rows


def _whole(path: Path, wanted: list[str], map: Mapping[str, str]) -> tuple[sources.Rows, Iterator[Any] | None]:
    rows = sources.load(path, kinds(map))
    column = next((name for name in wanted if name in rows.table.column_names), None)
    if column is None:
        return rows, None
    values = rows.table[column].to_pylist()
    rows.table = rows.table.drop_columns([name for name in wanted if name in rows.table.column_names])
    return rows, iter([_parsed(value) for value in values])


def _parsed(value: Any) -> Any:
    """A list, or what a mixed column kept as JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _parquet(path: Path, wanted: list[str]) -> tuple[sources.Rows, Iterator[Any]] | None:
    """Rows of Parquet without their images, and the images one by one; None for other files, and without images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cupel.records.folders import layout

    parts = layout(path) if path.is_dir() else []
    if len({part.split for part in parts}) > 1 or not path.exists():
        return None
    found = [part.path for part in parts] if parts else [path]
    try:
        files = [pq.ParquetFile(one, pre_buffer=False, buffer_size=1 << 16) for one in found]
    except (pa.ArrowException, OSError):
        return None
    column = next((name for name in wanted if all(name in file.schema_arrow.names for file in files)), None)
    if column is None:
        return None
    tables = [file.read(columns=[name for name in file.schema_arrow.names if name not in wanted]) for file in files]
    table = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata(None)

    def values() -> Iterator[Any]:
        for file in files:
            for batch in file.iter_batches(batch_size=16, columns=[column]):
                yield from batch.column(0).to_pylist()

    return sources.Rows(table, np.arange(1, len(table) + 1, dtype=np.int64), name=str(path)), values()


def _named(rows: sources.Rows, names: Mapping[str, str], held: list[list[str]], file: str) -> pa.Table:
    """The table with image parts that name their images; columns of chats become JSON text."""
    import pyarrow as pa

    table, bad, n = rows.table, list[tuple[int, str]](), 0
    for name in _CHATS:
        if name not in names:
            continue
        whole = name == "prompt" or "prompt" not in names  # a column that begins with the prompt
        texts, changed = [], False
        for line, value, images in zip(rows.line.tolist(), table[names[name]].to_pylist(), held, strict=True):
            chat = _chat(value)
            if chat is None and name == "prompt" and images:
                chat = [{"role": "user", "content": "" if value is None else str(value)}]
            if chat is not None:
                parts = sum(_is_image(part) for message in chat for part in _parts(message))
                if parts != len(images) and (whole or parts):
                    if parts or not any(message["role"] == "user" for message in chat):
                        bad.append((line, f"{len(images)} images for {parts} image parts in {names[name]}"))
                    else:
                        _put_first(chat, len(images))
                        parts = len(images)
                n += 1
                if parts == len(images) and parts:
                    _name(chat, images)
                    changed = True
            texts.append(value if chat is None else canonical(chat))
        if changed:
            at = table.column_names.index(names[name])
            table = table.set_column(at, names[name], pa.array(texts, pa.large_string()))
    if bad:
        raise RecordError(
            f"{len(bad):,} of {n:,} conversations of {file} have another number of images than of image parts (first: row {bad[0][0]}, "
            f"{bad[0][1]}). Give each row as many images as its prompt has parts of type image, or no such parts: then they stand first"
        )
    return table


def _chat(value: Any) -> list[dict[str, Any]] | None:
    """A copy of the messages of a value, without what Arrow filled in; None for plain text."""
    chat = messages(value.strip()) if isinstance(value, str) else value
    if not is_chat(chat):
        return None
    clean = [{key: held for key, held in message.items() if held is not None or key == "content"} for message in chat or []]
    for message in clean:
        if isinstance(message["content"], list):
            message["content"] = [
                {key: held for key, held in part.items() if held is not None} if isinstance(part, dict) else part
                for part in message["content"]
            ]
    return clean


def _parts(message: Mapping[str, Any]) -> list[Any]:
    return message["content"] if isinstance(message["content"], list) else []


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image", "image_url")


def _put_first(chat: list[dict[str, Any]], n: int) -> None:
    """Image parts in front of the first message of a user."""
    message = next(message for message in chat if message["role"] == "user")
    content = message["content"]
    words = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    message["content"] = [*({"type": "image"} for _ in range(n)), *words]


def _name(chat: list[dict[str, Any]], images: list[str]) -> None:
    left = iter(images)
    for message in chat:
        if isinstance(message["content"], list):
            message["content"] = [
                {"type": "image", "image": _PREFIX + next(left)} if _is_image(part) else part for part in message["content"]
            ]


def images_of(text: str) -> list[str | None]:
    """The hashes of the images of a prompt (or response), in order; None for an image part that names none.

    >>> images_of('[{"role":"user","content":[{"type":"image","image":"sha256:ab"},{"type":"text","text":"Why?"}]}]')
    ['ab']
    >>> images_of("Why?")
    []
    """
    found = []
    for message in (messages(text) or []) if '"image' in text else []:
        for part in _parts(message):
            if _is_image(part):
                named = str(part.get("image") or "")
                found.append(named.removeprefix(_PREFIX) if named.startswith(_PREFIX) else None)
    return found
