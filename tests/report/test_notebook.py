"""The fragment for a notebook: small, self-contained, and without effect on the rest of the notebook."""

import re

from cupel.report.notebook import to_notebook_html


def test_fragment_is_small_and_leaks_no_style(report, parse):
    made = to_notebook_html(report)
    seen = parse(made)
    assert seen.faults == []
    assert seen.tags[0][0] == "div"
    assert sum(path == () for _, _, path in seen.tags) == 1
    assert {"style", "script", "link", "img", "html", "body"}.isdisjoint(tag for tag, _, _ in seen.tags)
    assert not [attrs for _, attrs, _ in seen.tags if {"id", "class"} & attrs.keys()]
    assert len(made.encode()) < 8_000
    text = seen.text()
    for part in (
        "Train on curated rows",
        "12.4\u00a0%",
        "8.3 to 17.1",
        "Of 100 planted errors it would catch 46",
        "cupel review out --n 100",
        "1 error, 2 warnings",
    ):
        assert part in text


def test_fragment_holds_no_texts_of_the_data_and_escapes_the_rest(report):
    report["worklist"][0]["left"] = "SECRET"
    report["findings"][0]["examples"] = ["SECRET"]
    report["verdict"]["sentence"] = "<script>\u202e"
    made = to_notebook_html(report)
    assert "SECRET" not in made
    assert "&lt;script&gt;\u27e8U+202E\u27e9" in made


def test_fragment_stays_small(report):
    huge = "<" * 10**6
    report["verdict"] = {"code": "recheck", "sentence": huge, "actions": [{"text": huge, "command": huge}] * 1000}
    report["numbers"] = [{"label": huge, "value": huge, "n": 1, "source": huge}] * 1000
    assert len(to_notebook_html(report).encode()) < 40_000


def test_empty_report_gives_a_fragment(parse):
    assert parse(to_notebook_html({})).faults == []


def test_text_colours_come_with_their_ground(report):
    for value in re.findall(r'style="([^"]*)"', to_notebook_html(report)):
        assert bool(re.search(r"(^|[ ;])color:", value)) == ("background:" in value)
