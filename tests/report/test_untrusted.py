"""Whatever a text holds, it stays text, it is seen for what it is, and the page stays small."""

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.report.html import MAX_BYTES, render
from cupel.report.text import visible

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    "{{ 7*7 }}{% raw %}",
    "</title></svg><svg onload=x>",
    "<!-- ",
    "]]>",
    "`<b>`",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "a\u202eb",
    "a\u2066b",
    "\ud800",
    "nul\x00nul",
    "\x1b[31m",
    "\u200bzero",
    "\U000e0041tag",
    "\r\n\r",
    "\ufeff",
    "</details></article>",
]


def poison(value, text):
    """The same structure with every string (but codes that the page reads) and every key of free mappings replaced."""
    fixed = {"train_curated", "finding", "clean", "not_applicable", "error", "warning", "info", "can_see", "trusted", "single"}
    if isinstance(value, str):
        return value if value in fixed else text
    if isinstance(value, list):
        return [poison(item, text) for item in value]
    if isinstance(value, dict):
        made = {key: poison(item, text) for key, item in value.items()}
        return made
    return value


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_everywhere_changes_no_structure(make_report, parse, text):
    dull = parse(render(poison(make_report(), "dull")))
    made = render(poison(make_report(), text))
    made.encode("utf-8")
    seen = parse(made)
    assert seen.faults == []
    code = {"code", "p"} if "`" in text else {"p"}
    assert [tag for tag, _, _ in seen.tags if tag not in code] == [tag for tag, _, _ in dull.tags if tag not in code]
    names = {(tag, name) for tag, attrs, _ in seen.tags for name in attrs}
    assert names <= {(tag, name) for tag, attrs, _ in dull.tags for name in attrs}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ud800-\udfff\ufeff]", made)


def test_hostile_keys_of_free_mappings(report, parse):
    key = "<i>\u202e\x00</i>"
    report["findings"][0]["details"] = {key: 1}
    report["flip_rate"]["details"] = {key: 1}
    report["quarantine"]["reasons"] = {key: 1}
    report["run"]["versions"] = {key: "1"}
    report["training"]["rows"][0][key] = 0.5
    report["curation"]["precision"] = {key: 0.5}
    made = render(report)
    assert "<i>" not in made
    assert "\u202e" not in made
    assert made.count("&lt;i&gt;\u27e8U+202E\u27e9\u27e8U+0000\u27e9&lt;/i&gt;") >= 6
    assert parse(made).faults == []


def test_text_is_shown_as_it_is(report):
    report["worklist"][0]["left"] = "a <b>&amp;</b> \"c\" 'd'\n  e"
    made = render(report)
    assert (
        html.unescape(re.search(r'<h4>Left</h4><p class="said" dir="auto">(.*?)</p>', made, re.DOTALL).group(1))
        == report["worklist"][0]["left"]
    )


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_visible_text_is_encodable_and_idempotent(text):
    seen = visible(text)
    seen.encode("utf-8")
    assert visible(seen) == seen
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", seen)


def test_joiners_stay():
    assert (
        visible("\U0001f469\u200d\U0001f52c \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\U0001f469\u200d\U0001f52c \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )


def test_chat_prompts_read_as_turns(report):
    report["worklist"][0]["prompt"] = '[{"content": "<Hi>", "role": "user"}, {"content": "Hello", "role": "assistant"}]'
    assert "user: &lt;Hi&gt;\n\nassistant: Hello" in render(report)
    report["worklist"][0]["prompt"] = '[{"not": "a chat"}]'
    assert "[{&#34;not&#34;: &#34;a chat&#34;}]" in render(report)


def test_long_texts_are_cut_and_counted(report, parse):
    report["worklist"] = [{**report["worklist"][0], "left": "x" * 5000}]
    text = parse(render(report)).text()
    assert "x" * 1500 in text
    assert "x" * 1501 not in text
    assert "3,500 more characters are left out." in text


def test_at_most_fifty_pairs(report):
    report["worklist"] = report["worklist"] * 100
    made = render(report)
    assert made.count('<article class="pair"') == 50
    assert "4,950 of 5,000 pairs are left out" in made


@pytest.mark.parametrize("letter", ["x", "\u202e", '"', "\U0001f469"])
def test_two_megabytes_at_any_size(report, parse, letter):
    huge = letter * 1_000_000
    report["worklist"] = [
        {**pair, "id": huge, "prompt": huge, "left": huge, "right": huge, "reasons": [huge] * 20, "annotator": huge}
        for pair in report["worklist"]
    ]
    finding = {
        **report["findings"][0],
        "examples": [huge] * 100_000,
        "message": huge,
        "remedy": huge,
        "details": {f"{huge}{i}": huge for i in range(3)},
    }
    report["findings"] = [finding] * 100_000 + [{"name": f"clean-{i}-{huge[:500]}", "status": "clean"} for i in range(10_000)]
    report["annotators"] = [{**report["annotators"][0], "name": f"{i}{letter * 300}"} for i in range(10_000)]
    report["quarantine"] = {
        "n": 10**6,
        "reasons": {f"{i}{letter * 300}": i for i in range(10_000)},
        "first": [{"line": i, "reason": huge, "detail": huge} for i in range(1000)],
    }
    report["method"] = report["limits"] = [huge] * 1000
    report["lengths"] = {"edges": list(range(100_001)), "chosen": [1] * 100_000, "rejected": [1] * 100_000}
    report["run"]["versions"] = {f"{i}{letter}": huge for i in range(1000)}
    report["title"] = report["verdict"]["sentence"] = huge
    made = render(report)
    assert len(made.encode()) <= MAX_BYTES
    seen = parse(made)
    assert seen.faults == []
    text = seen.text()
    assert re.search(r"further findings are left out of this page", text)
    assert "more characters" in text
    pairs = made.count('<article class="pair"')
    if pairs < 50:
        assert f"{50 - pairs} of 50 pairs are left out" in text


def test_pairs_are_dropped_before_anything_else_shrinks(report, parse):
    long = "\u202e" * 1500
    report["worklist"] = [{**pair, "prompt": long, "left": long, "right": long} for pair in report["worklist"]]
    made = render(report)
    pairs = made.count('<article class="pair"')
    assert 20 < pairs < 50
    assert MAX_BYTES * 0.95 < len(made.encode()) <= MAX_BYTES
    assert f"{50 - pairs} of 50 pairs are left out" in parse(made).text()
    assert made.count('<article class="finding') == 4
