"""What may be believed of models' scores, as a page: sentences by model, losses of each way to a probability, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cupel.report import tables as tb
from cupel.report import text as t
from cupel.report.figures import Figure
from cupel.report.html import environment, style, style_hash

#: characters of a name and of a sentence
NAME, TEXT = 60, 600
#: ways to a probability, as `trust.json` names them
WAYS = {"raw": "sigmoid of the margin", "calibrated": "calibrated", "half": "always one half", "length": "length alone"}


def page(found: Mapping[str, Any], figures: Sequence[Figure], *, title: str) -> str:
    """The page of `Trust.to_json()` and `Trust.figures()`; the same gives the same bytes. Names are escaped."""
    css = style()
    names = list(found["models"])
    return environment().get_template("trust.html.j2").render(
        title=t.short(title, NAME), general=[t.said(line, TEXT) for line in _of(found["words"], names, None)],
        models=[
            {
                "name": t.short(name, NAME), "id": f"model-{k}", "words": [t.said(line, TEXT) for line in _of(found["words"], names, name)],
                "losses": _losses(model["calibration"], "the votes"), "truth": _losses(model["to_truth"], "the truth"),
            }
            for k, (name, model) in enumerate(found["models"].items())
        ],
        figures=list(figures), css=css, css_hash=style_hash(css),
    )  # fmt: skip


def _of(words: Sequence[str], names: Sequence[str], name: str | None) -> list[str]:
    """The sentences about a model, without its name; with None those about none of them."""
    if name is None:
        return [line for line in words if not any(line.startswith(f"{other}: ") for other in names)]
    return [line.removeprefix(f"{name}: ") for line in words if line.startswith(f"{name}: ")]


def _losses(report: Mapping[str, Any] | None, to: str) -> tb.Table | None:
    """Log loss and Brier score of each way to a probability, and what calibration gains over it."""
    if report is None:
        return None
    rows = []
    for key, words in WAYS.items():
        loss, gain = report["loss"].get(key), report["difference"].get(key)
        if loss is not None:
            own = _share(None if gain is None else gain["log_loss"])
            rows.append((words, *_share(loss["log_loss"]), *own, _share(loss["brier"])[0]))
    heads = ["Probability", "Log loss#", "95 % interval#", "Calibrated minus this#", "95 % interval#", "Brier#"]
    return tb.table(f"Log loss against {to}, {t.count(report['n'])} held-out comparisons", heads, rows)


def _share(value: Mapping[str, Any] | None) -> tuple[str, str]:
    if value is None:
        return t.NOTHING, t.NOTHING
    low, high = value.get("low"), value.get("high")
    between = t.NOTHING if low is None or high is None else f"{t.plain(low)} to {t.plain(high)}"
    return t.plain(value["estimate"]), between
