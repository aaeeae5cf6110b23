"""Any table with one row per event, CSV, TSV, other separated text, Parquet or JSON lines, by the names of its columns."""

from __future__ import annotations

from cupel.errors import RecordError
from cupel.interactions.places import Place, columns
from cupel.interactions.raw import Raw
from cupel.interactions.tables import table

NAME = "table"
MAPS = True
DESCRIPTION = "a CSV, TSV, Parquet or JSON lines table with a column of users and one of items"

#: canonical name -> what columns are called, in small letters, the likeliest first
CALLED = {
    "user": ("user", "user_id", "userid", "uid", "user_idx", "reviewerid", "reviewer_id", "customer_id", "visitorid", "visitor_id"),
    "item": (
        "item", "item_id", "itemid", "iid", "item_idx", "movie_id", "movieid", "book_id", "business_id", "product_id", "parent_asin",
        "asin", "video_id", "song_id", "track_id", "article_id", "news_id",
    ),
    "value": ("value", "rating", "score", "stars", "overall", "label", "click", "clicks", "reward", "watch_ratio", "play_count"),
    "time": ("time", "timestamp", "ts", "unixreviewtime", "datetime", "date", "created_at", "event_time"),
    "propensity": ("propensity", "propensity_score", "pscore"),
    "event": ("event", "event_type", "behavior", "behavior_type"),
}  # fmt: skip


def detect(place: Place) -> tuple[float, str]:
    """Where a user and an item column are known or were named."""
    if place.path.is_dir():
        return 0.0, ""
    found = resolve(place, columns(place.path))
    if not {"user", "item"} <= set(found):
        return 0.0, ""
    said = ", ".join(f"{name} = {column}" for name, column in found.items())
    return (0.99 if {"user", "item"} & set(place.map) else 0.5), said


def read(place: Place) -> Raw:
    """The columns that were named, and of the others those that have a known name."""
    found = resolve(place, columns(place.path))
    missing = [name for name in ("user", "item") if name not in found]
    if missing:
        raise RecordError(
            f"{place.path} has no column of {' and '.join(missing)}s. {place.described()} Name it: map={{'{missing[0]}': 'COLUMN'}} "
            f"(--map {missing[0]}=COLUMN)"
        )
    rows, skipped, first = table(place.path, wanted=list(found.values()), ids=[found["user"], found["item"]])
    absent = [column for column in found.values() if column not in rows.column_names]
    if absent:
        raise RecordError(f"{place.path} has no column {absent[0]} in its rows; it has {', '.join(rows.column_names)}")
    return Raw(**{name: rows[column] for name, column in found.items()}, skipped=skipped, first_line=first)


def resolve(place: Place, there: list[str]) -> dict[str, str]:
    """Canonical name -> column of those there are: as named, else by its usual names. RecordError for a named column that is not there."""
    small = {column.lower().strip(): column for column in reversed(there)}
    found: dict[str, str] = {}
    for name, usual in CALLED.items():
        if name in place.map:
            column = place.map[name]
            if column and column not in there:
                from cupel.records.columns import did_you_mean

                raise RecordError(
                    f"{place.path} has no column {column!r} to be the {name}.{did_you_mean(column, there)} Its columns: "
                    f"{', '.join(there[:40])}"
                )
            if column:
                found[name] = column
            continue
        taken = set(place.map.values()) | set(found.values())
        column = next((small[word] for word in usual if word in small and small[word] not in taken), None)
        if column is not None:
            found[name] = column
    _refuse_doubles(place, found, there)
    return found


def _refuse_doubles(place: Place, found: dict[str, str], there: list[str]) -> None:
    for name, column in found.items():
        if there.count(column) > 1:
            raise RecordError(
                f"{place.path} has {there.count(column)} columns {column!r}, and one is the {name}: give them names of their own"
            )
        other = next((one for one, same in found.items() if same == column and one != name), None)
        if other:
            raise RecordError(f"the column {column!r} cannot be both {name} and {other}: name another with map={{'{other}': 'COLUMN'}}")
