"""What every benchmark shares: one form of claim, one file per benchmark under `benchmarks/results/`, and the table it prints.

A benchmark is a script, `python benchmarks/NAME.py [--data DIR]`. It ends in `write_result`, which judges nothing: whether a claim
passed is decided where it was measured, and a claim that failed is written and shown as failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
KEYS = {"claim", "target", "measured", "interval", "n", "seeds", "passed"}
PACKAGES = ("cupel", "numpy", "scipy", "scikit-learn", "pyarrow", "model2vec", "tokenizers", "torch", "transformers")


def arguments(description: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """A parser with the option all benchmarks on outside data share: `--data DIR`, by default `../shared/data`."""
    parser = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0] if description else None)
    if data:
        parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="directory of the benchmark data sets")
    return parser


def write_result(
    name: str,
    claims: Sequence[Mapping[str, Any]],
    *,
    n: Any,
    seeds: Sequence[int],
    command: str,
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write `benchmarks/results/NAME.json`, print its table, and return its path.

    claims: each `dict(claim=str, target=str, measured=..., interval=[low, high] or None, n=..., seeds=[...], passed=bool)`; `n` and
    `seeds` default to those of the call, `interval` to None. details: anything else worth keeping, such as a whole table.
    Raises ValueError where a claim lacks a key, has an unknown one, or does not say whether it passed.
    """
    from cupel.records.files import write_json

    rows = [_claim(entry, n, seeds) for entry in claims]
    if not rows:
        raise ValueError(f"{name}: a result without claims says nothing")
    path = RESULTS / f"{name}.json"
    content = {
        "name": name,
        "command": command,
        "n": n,
        "seeds": list(seeds),
        "claims": rows,
        "details": dict(details or {}),
        "versions": versions(),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "processor": platform.machine()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    print(f"\n{name}: {sum(row['passed'] for row in rows)} of {len(rows)} claims hold  ({command})")
    print(text_table(rows))
    return path


def versions() -> dict[str, str]:
    """Python's version and those of the packages that move results; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """A list that holds the seconds the block took, once it has ended."""
    began = time.perf_counter()
    seconds: list[float] = []
    yield seconds
    seconds.append(time.perf_counter() - began)


def show(value: Any) -> str:
    """A measured value in at most four significant digits; mappings as `key value`; None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return " / ".join(show(item) for item in value)
    number = float(value)
    if math.isnan(number):
        return "not a number"
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def show_interval(interval: Sequence[float] | None) -> str:
    """`[low, high]` as text, a dash where there is none."""
    return "-" if interval is None else f"[{show(interval[0])}, {show(interval[1])}]"


def show_seeds(seeds: Sequence[int]) -> str:
    """Seeds as text: a run of consecutive ones as `0-4`."""
    values = [int(seed) for seed in seeds]
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(str(value) for value in values) or "-"


def row_cells(row: Mapping[str, Any]) -> list[str]:
    """The seven cells of a claim, in the order of every table."""
    verdict = "pass" if row["passed"] else "FAIL"
    return [
        row["claim"],
        row["target"],
        show(row["measured"]),
        show_interval(row["interval"]),
        show(row["n"]),
        show_seeds(row["seeds"]),
        verdict,
    ]


HEADER = ["claim", "target", "measured", "interval", "n", "seeds", ""]


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The claims as an aligned plain-text table."""
    cells = [HEADER, *(row_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def _claim(entry: Mapping[str, Any], n: Any, seeds: Sequence[int]) -> dict[str, Any]:
    row = {"interval": None, "n": n, "seeds": list(seeds), **entry}
    missing, unknown = KEYS - set(row), set(row) - KEYS
    if missing or unknown:
        raise ValueError(f"claim {row.get('claim', '?')!r}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    if not isinstance(row["claim"], str) or not isinstance(row["target"], str):
        raise ValueError(f"claim {row['claim']!r}: claim and target are sentences (str)")
    if type(row["passed"]).__name__ not in ("bool", "bool_"):
        raise ValueError(f"claim {row['claim']!r}: passed is {row['passed']!r}, not a bool")
    row["passed"] = bool(row["passed"])
    row["measured"] = _plain(row["measured"])
    row["interval"] = _plain(row["interval"])
    row["n"] = _plain(row["n"])
    row["seeds"] = [int(seed) for seed in row["seeds"]]
    return row


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as Python numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
