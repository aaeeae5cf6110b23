"""MovieLens in every layout it was released in, and as Parquet, with titles, genres and tags as item texts.

100K: u.data, u.item, u.genre. 1M and 10M: ratings.dat, movies.dat, tags.dat, fields parted by "::". 20M, 25M, 32M and "latest":
ratings.csv, movies.csv, tags.csv. Parquet: ratings, items and tags .parquet with user_id, item_id, rating, timestamp. The folder is
given, or its file of ratings. The data's own terms hold; none of it comes with cupel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.interactions.places import Place, columns
from cupel.interactions.raw import Raw
from cupel.interactions.tables import parquet, separated
from cupel.interactions.texts import first_tags, item_text

NAME = "movielens"
DESCRIPTION = "MovieLens: a folder with u.data, ratings.dat, ratings.csv or ratings.parquet"
YEAR = re.compile(r"\((\d{4})\)\s*$")
NO_GENRES = "(no genres listed)"


def detect(place: Place) -> tuple[float, str]:
    """By the names of the files, and of the columns where others use the same names."""
    for name, test in (("u.data", _always), ("ratings.dat", _colons), ("ratings.csv", _csv_columns), ("ratings.parquet", _parquet_columns)):
        if place.has(name) and test(place.folder / name):
            return 0.95, f"there is {name}"
    return 0.0, ""


def read(place: Place) -> Raw:
    """The ratings, item texts and release dates."""
    for name, layout in (("u.data", _hundred_k), ("ratings.dat", _colon), ("ratings.csv", _csv), ("ratings.parquet", _parquet)):
        if place.has(name):
            return layout(place, place.folder / name)
    raise RecordError(f"{place.path} has no u.data, ratings.dat, ratings.csv or ratings.parquet. {place.described()}")


def _hundred_k(place: Place, ratings: Path) -> Raw:
    rows, skipped, first = separated(ratings, mark="\t", names=["user", "item", "value", "time"], ids=["user", "item"])
    movies = place.beside("u.item")
    texts = released = None
    if movies:
        genres = place.beside("u.genre")
        names = [line.rsplit("|", 1)[0] for line in genres.read_text("latin-1").splitlines() if "|" in line] if genres else []
        texts, released = {}, {}
        for fields in _fields(movies, "|", "latin-1"):
            flags = fields[-len(names) :] if names else []
            texts[fields[0]] = item_text(fields[1], [g for g, on in zip(names, flags, strict=False) if on == "1" and g != "unknown"])
            day = _day(fields[2] if len(fields) > 2 else "", fields[1])
            if day is not None:
                released[fields[0]] = day
    return Raw(rows["user"], rows["item"], rows["value"], rows["time"], texts=texts, released=released, skipped=skipped, first_line=first)


def _colon(place: Place, ratings: Path) -> Raw:
    """Fields parted by two colons: read as parted by one, with nothing between."""
    names = ["user", "a", "item", "b", "value", "c", "time"]
    wanted = ["user", "item", "value", "time"]
    rows, skipped, first = separated(ratings, mark=":", names=names, wanted=wanted, ids=["user", "item"], quotes=False)
    movies, tags = place.beside("movies.dat"), place.beside("tags.dat")
    by_item: dict[str, list[str]] = {}
    if tags:
        import pyarrow as pa

        said = [fields for fields in _fields(tags, "::") if len(fields) >= 4]
        by_item = first_tags(pa.array([f[1] for f in said], pa.string()), pa.array(["::".join(f[2:-1]) for f in said], pa.string()))
    texts, released = _catalogue(((f[0], "::".join(f[1:-1]), f[-1]) for f in _fields(movies, "::")), by_item) if movies else (None, None)
    return Raw(rows["user"], rows["item"], rows["value"], rows["time"], texts=texts, released=released, skipped=skipped, first_line=first)


def _csv(place: Place, ratings: Path) -> Raw:
    rows, skipped, first = separated(ratings, ids=["userId", "movieId"])
    movies, tags = place.beside("movies.csv"), place.beside("tags.csv")
    texts = released = None
    if movies:
        listed = separated(movies, ids=["movieId"])[0]
        said = separated(tags, ids=["userId", "movieId", "tag"])[0] if tags else None
        by_item = first_tags(said["movieId"], said["tag"]) if said is not None else {}
        texts, released = _catalogue(_rows(listed, "movieId"), by_item)
    time = rows["timestamp"] if "timestamp" in rows.column_names else None
    return Raw(rows["userId"], rows["movieId"], rows["rating"], time, texts=texts, released=released, skipped=skipped, first_line=first)


def _parquet(place: Place, ratings: Path) -> Raw:
    rows = parquet(ratings)
    movies, tags = place.beside("items.parquet"), place.beside("tags.parquet")
    texts = released = None
    if movies:
        said = parquet(tags, ["item_id", "tag"]) if tags else None
        by_item = first_tags(said["item_id"], said["tag"]) if said is not None else {}
        texts, released = _catalogue(_rows(parquet(movies), "item_id"), by_item)
    time = rows["timestamp"] if "timestamp" in rows.column_names else None
    return Raw(rows["user_id"], rows["item_id"], rows["rating"], time, texts=texts, released=released)


def _rows(listed: Any, key: str) -> Iterator[tuple[str, str, str]]:
    for item, title, genres in zip(*(listed[name].to_pylist() for name in (key, "title", "genres")), strict=True):
        yield str(item), title or "", genres or ""


def _catalogue(rows: Iterator[tuple[str, str, str]], tags: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, int]]:
    texts, released = {}, {}
    for item, title, genres in rows:
        kinds = [g for g in genres.split("|") if g and g != NO_GENRES]
        texts[item] = item_text(title, kinds, tags.get(item, ()))
        day = _day("", title)
        if day is not None:
            released[item] = day
    return texts, released


def _fields(path: Path, mark: str, encoding: str | None = None) -> Iterator[list[str]]:
    """Lines parted by a mark; in UTF-8 where they are, else in Latin-1 (1M and 100K)."""
    data = path.read_bytes()
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return (line.split(mark) for line in text.split("\n") if mark in line for line in [line.rstrip("\r")])


def _day(date: str, title: str) -> int | None:
    """The release in seconds since 1970: of a date like 01-Jan-1995, else the first day of the year in the title's brackets."""
    try:
        if date:
            return int(datetime.strptime(date, "%d-%b-%Y").replace(tzinfo=UTC).timestamp())
        year = YEAR.search(title)
        return int(datetime(int(year[1]), 1, 1, tzinfo=UTC).timestamp()) if year else None
    except ValueError:
        return None


def _always(path: Path) -> bool:
    return True


def _colons(path: Path) -> bool:
    from cupel.interactions.places import head

    return bool(lines := head(path, "latin-1")) and lines[0].count("::") == 3


def _csv_columns(path: Path) -> bool:
    return {"userId", "movieId", "rating"} <= set(columns(path))


def _parquet_columns(path: Path) -> bool:
    return {"user_id", "item_id", "rating"} <= set(columns(path))
