"""RecBole's atomic files: NAME.inter with typed column names (user_id:token), and NAME.item beside it for item texts.

Fields are parted by tabs; `name:token`, `token_seq`, `float`, `float_seq`. Of NAME.item the title, the kinds (class, genre, category) and
the release year are read. Other fields, NAME.user and other atomic files are not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cupel.errors import RecordError
from cupel.interactions.formats.table import resolve
from cupel.interactions.places import Place, head
from cupel.interactions.raw import Raw
from cupel.interactions.tables import separated
from cupel.interactions.texts import item_text

NAME = "recbole"
DESCRIPTION = "RecBole atomic files: NAME.inter, NAME.item"
MAPS = True
KINDS = ("class", "genre", "genres", "category", "categories")


def detect(place: Place) -> tuple[float, str]:
    """A file whose name ends in .inter and whose columns are typed."""
    files = [name for name in place.files if name.endswith(".inter")]
    if files and any(":token" in line for line in head(place.folder / files[0])[:1]):
        return 0.95, f"there is {files[0]}"
    return 0.0, ""


def read(place: Place) -> Raw:
    """The interactions, and the texts of NAME.item where it lies beside."""
    files = [name for name in place.files if name.endswith(".inter")]
    if len(files) != 1:
        raise RecordError(f"{place.path} has {len(files)} files .inter ({', '.join(files[:6])}): give the path of one")
    path = place.folder / files[0]
    typed = _typed(path)
    found = {name: typed[column] for name, column in resolve(place, list(typed)).items()}
    missing = [name for name in ("user", "item") if name not in found]
    if missing:
        raise RecordError(
            f"{path} has no field of {' and '.join(missing)}s among {', '.join(typed)}. Name it: map={{'{missing[0]}': 'FIELD'}}"
        )
    rows, skipped, first = separated(path, mark="\t", wanted=list(found.values()), ids=[found["user"], found["item"]], quotes=False)
    texts, released = _items(path.with_suffix(".item"))
    columns = {name: rows[column] for name, column in found.items()}
    return Raw(**columns, texts=texts, released=released, skipped=skipped, first_line=first)


def _typed(path: Path) -> dict[str, str]:
    """Field name -> the name with its type, as the header has it."""
    lines = head(path)
    names = lines[0].split("\t") if lines else []
    return {name.split(":")[0]: name for name in names}


def _items(path: Path) -> tuple[dict[str, str] | None, dict[str, int] | None]:
    if not path.is_file():
        return None, None
    typed = _typed(path)
    key = next((name for name in typed if name in ("item_id", "item", "iid")), next(iter(typed), None))
    title = next((name for name in typed if "title" in name), next((name for name in typed if "name" in name), None))
    kinds = [name for name in typed if name in KINDS]
    year = next((name for name in typed if name in ("release_year", "year")), None)
    if key is None or title is None:
        return None, None
    rows = separated(path, mark="\t", ids=list(typed.values()), quotes=False)[0]
    listed = {name: rows[column].to_pylist() for name, column in typed.items() if name in (key, title, year, *kinds)}
    texts, released = {}, {}
    for k, item in enumerate(listed[key]):
        said = [word for name in kinds for word in (listed[name][k] or "").split()]
        texts[str(item)] = item_text(listed[title][k] or "", said)
        if year and (listed[year][k] or "").isdigit() and 1 <= int(listed[year][k]) <= 9999:
            released[str(item)] = int(datetime(int(listed[year][k]), 1, 1, tzinfo=UTC).timestamp())
    return texts, released
