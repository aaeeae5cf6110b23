"""The short form of a report for a notebook: a fragment that carries its styles on its own elements and changes nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel.report.html import environment
from cupel.report.limits import Limits
from cupel.report.view import build


def to_notebook_html(report: Mapping[str, Any]) -> str:
    """Verdict, headline numbers, next actions and counts of findings as one `div` without texts of the data, for `_repr_html_`.

    It holds no script, no style sheet and no ids; a text colour is set together with its ground or not at all, so that it reads in
    light and dark notebooks. At most 40 kB.

    >>> fragment = to_notebook_html({"verdict": {"code": "train", "sentence": "Train."}})
    >>> fragment.startswith("<div"), "<style" in fragment
    (True, False)
    """
    view = build({**report, "worklist": []}, Limits(text=300, name=80, findings=5, items=5), redact=True)
    return environment().get_template("notebook.html.j2").render(view).strip()
