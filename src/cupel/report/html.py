"""One HTML page from one report: no script, nothing fetched, same report same bytes, at most 2 MB at any size of the data."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from cupel.report import text as t
from cupel.report.limits import Limits
from cupel.report.sections import with_pairs
from cupel.report.view import build

MAX_BYTES = 2_000_000


def render(report: Mapping[str, Any], *, redact: bool = False) -> str:
    """The page for a report (the parts are in `cupel.report.types.Report`; any may be missing).

    The page holds no script and loads nothing: its policy is `default-src 'none'` with the one style sheet allowed by its hash.
    Every text is escaped and hidden characters are spelt out. Encoded as UTF-8 it has at most `MAX_BYTES` bytes: texts of the
    worklist are cut at 1,500 characters, then pairs are left out, then other lists and texts are halved; the page says what was
    left out. With `redact` prompts, responses and examples are left out.

    Raises ValueError where the verdict's code or a section is unknown.

    >>> page = render({"title": "Votes", "verdict": {"code": "recheck", "sentence": "Check <100> pairs."}})
    >>> "Check &lt;100&gt; pairs." in page, "<script" in page
    (True, False)
    """
    limits = Limits()
    while True:
        view = build(report, limits, redact=redact)
        page = _page(view)
        if _fits(page):
            return page
        worklist = view["worklist"]
        if worklist:
            best = _page({**view, "worklist": with_pairs(worklist, 0)})
            fewest, most = 0, worklist["shown"]
            while _fits(best) and most - fewest > 1:
                middle = (fewest + most) // 2
                page = _page({**view, "worklist": with_pairs(worklist, middle)})
                if _fits(page):
                    fewest, best = middle, page
                else:
                    most = middle
            if _fits(best):
                return best
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
        loader=jinja2.PackageLoader("cupel.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["ticks"] = t.inline
    made.filters["count"] = t.count
    return made


@cache
def _style() -> str:
    css = files("cupel.report").joinpath("templates/style.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "\n", css).strip()


def _page(view: Mapping[str, Any]) -> str:
    css = _style()
    return _environment().get_template("report.html.j2").render(view, css=css, css_hash=style_hash(css))


def _fits(page: str) -> bool:
    return len(page.encode()) <= MAX_BYTES
