"""One HTML page from one report: no script, nothing fetched, the same bytes for the same report, at most 2 MB at any size of the data."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from cupel.report import text as t
from cupel.report.view import Limits, build

MAX_BYTES = 2_000_000


def render(report: Mapping[str, Any], *, redact: bool = False) -> str:
    """The page for a report (the parts are in `cupel.report.types.Report`; any may be missing).

    The page holds no script and loads nothing: its policy is `default-src 'none'` with the one style sheet allowed by its hash. Every
    text is escaped and hidden characters are spelt out. Encoded as UTF-8 it has at most `MAX_BYTES` bytes: texts of the worklist are
    cut at 1,500 characters, then pairs are left out, then other lists and texts are halved; the page says what was left out. With
    `redact` prompts, responses and examples are left out.

    Raises ValueError where the verdict's code is unknown.

    >>> page = render({"title": "Votes", "verdict": {"code": "recheck", "sentence": "Check <100> pairs."}})
    >>> "Check &lt;100&gt; pairs." in page, "<script" in page
    (True, False)
    """
    limits = Limits()
    while True:
        page = _page(report, limits, redact)
        if _size(page) <= MAX_BYTES:
            return page
        fewest, most = 0, min(limits.pairs, len(report.get("worklist") or []))
        if most and _size(_page(report, replace(limits, pairs=0), redact)) <= MAX_BYTES:
            while most - fewest > 1:
                middle = (fewest + most) // 2
                if _size(_page(report, replace(limits, pairs=middle), redact)) <= MAX_BYTES:
                    fewest = middle
                else:
                    most = middle
            return _page(report, replace(limits, pairs=fewest), redact)
        limits = limits.halved()


def style() -> str:
    """The page's style sheet, without comments."""
    return _style()


def style_hash(css: str) -> str:
    """The source expression that allows exactly this inline style sheet.

    >>> style_hash("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()}'"


def environment() -> jinja2.Environment:
    """Templates of the report: autoescape on, an unknown name is an error."""
    return _environment()


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("cupel.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["ticks"] = t.inline
    made.filters["count"] = t.count
    return made


@cache
def _style() -> str:
    css = files("cupel.report").joinpath("templates/style.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "\n", css).strip()


def _page(report: Mapping[str, Any], limits: Limits, redact: bool) -> str:
    css = _style()
    return _environment().get_template("report.html.j2").render(build(report, limits, redact=redact), css=css, css_hash=style_hash(css))


def _size(page: str) -> int:
    return len(page.encode())
