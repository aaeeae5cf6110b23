"""The page as a document: nothing runs, nothing is fetched, everything has its place."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from cupel.report.html import render, style
from cupel.report.view import ABSENT, SECTIONS, VERDICTS


def test_well_formed(page, parse):
    seen = parse(page)
    assert seen.declaration == ["DOCTYPE html"]
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert seen.faults == []
    assert seen.open == []
    ids = [attrs["id"] for _, attrs, _ in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = [name for _, attrs, _ in seen.tags for key in ("aria-labelledby",) if key in attrs for name in attrs[key].split()]
    used += [attrs["href"][1:] for tag, attrs, _ in seen.tags if tag == "a"]
    assert len(used) > 40
    assert set(used) <= set(ids)


def test_policy_allows_the_one_style_sheet_and_nothing_else(page, parse):
    seen = parse(page)
    policy = next(attrs["content"] for tag, attrs, _ in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    names = [tag for tag, _, _ in seen.tags]
    assert names.count("style") == 1
    assert names.index("meta") < names.index("style")
    assert "</" not in css
    assert "url(" not in css
    assert "@import" not in css


def test_no_script_no_style_attribute_nothing_fetched(page, parse):
    seen = parse(page)
    forbidden = {
        "script",
        "iframe",
        "img",
        "link",
        "object",
        "embed",
        "form",
        "base",
        "video",
        "audio",
        "use",
        "image",
        "foreignobject",
    }
    assert forbidden.isdisjoint(tag for tag, _, _ in seen.tags)
    for tag, attrs, _ in seen.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "src", "srcset", "action", "xlink:href")], tag
        assert attrs.get("href", "#").startswith("#")
    assert not re.search(r"https?://|//[a-z]", page.replace("http-equiv", ""))


def test_sections_in_order_and_headings_step_by_one(page, parse):
    heads = [(tag, attrs.get("id")) for tag, attrs, _ in parse(page).tags if re.fullmatch("h[1-6]", tag)]
    assert [name for tag, name in heads if tag == "h2"] == [
        "verdict",
        "actions",
        "power",
        "label-error",
        "findings",
        "worklist",
        "curation",
        "training",
        "annotators",
        "quarantine",
        "method",
    ]
    levels = [int(tag[1]) for tag, _ in heads]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_navigation_names_every_section_in_order(page):
    nav = page[page.index("<nav") : page.index("</nav>")]
    assert dict(re.findall(r'<a href="#([^"]+)">([^<]+)</a>', nav)) == SECTIONS
    assert [name for name in re.findall(r'<h2 id="([^"]+)"', page) if name != "verdict"] == list(SECTIONS)


def test_a_report_of_other_data_names_its_sections():
    """The page has them in its own order; an empty one says why, one not named is not there."""
    made = render({"sections": ["method", "findings"], "missing": {"power": "Never asked."}})
    assert re.findall(r'<h2 id="([^"]+)"', made) == ["verdict", "findings", "method"]
    assert "No checks were run." in made
    assert "Never asked." not in made
    with pytest.raises(ValueError, match="section 'votes' is none of actions, power"):
        render({"sections": ["votes"]})


def test_landmarks_language_and_skip_link(page, parse):
    seen = parse(page)
    assert [attrs for tag, attrs, _ in seen.tags if tag == "html"] == [{"lang": "en"}]
    for name in ("header", "main", "footer", "nav"):
        assert sum(tag == name for tag, _, _ in seen.tags) == 1
    body = next(i for i, (tag, _, _) in enumerate(seen.tags) if tag == "body")
    assert seen.tags[body + 1][0] == "a"
    assert seen.tags[body + 1][1]["href"] == "#main"
    assert all("aria-labelledby" in attrs for tag, attrs, _ in seen.tags if tag == "section")


def test_tables_have_captions_and_scopes(page, parse):
    seen = parse(page)
    names = [tag for tag, _, _ in seen.tags]
    assert names.count("table") == names.count("caption") >= 10
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs, _ in seen.tags if tag == "th")
    for tag, attrs, path in seen.tags:
        if tag == "table":
            assert path[-1] == "div"
        if attrs.get("class") == "scroll":
            assert (attrs["role"], attrs["tabindex"]) == ("region", "0")


def test_pictures_are_named_or_hidden(page, parse):
    pictures = re.findall(r"<svg\b([^>]*)>(.*?)</svg>", page, re.DOTALL)
    named = [inner for attrs, inner in pictures if 'role="img"' in attrs]
    assert len(named) == 9
    for inner in named:
        assert re.match(r"<title id=[^>]+>[^<]+</title><desc id=[^>]+>[^<]+</desc>", inner)
    assert all('aria-hidden="true"' in attrs for attrs, _ in pictures if 'role="img"' not in attrs)
    figures = re.findall(r"<figure>(.*?)</figure>", page, re.DOTALL)
    assert len(figures) == 9
    assert all('<details class="data">' in figure and "<table>" in figure for figure in figures)


def test_the_recorded_vote_is_folded(page, parse):
    pairs = re.findall(r'<article class="pair".*?</article>', page, re.DOTALL)
    assert len(pairs) == 50
    for pair in pairs:
        before, folded = pair.split('<details class="vote">')
        assert "<dl>" in folded
        assert not re.search("Recorded|Suspicion|annotator", before)
    assert "<details open" not in page


def test_harmful_texts_are_folded(report):
    report["worklist"] = [{**report["worklist"][0], "prompt": "HARM-P", "left": "HARM-L", "right": "HARM-R", "harmful": True}]
    pair = re.search(r'<article class="pair".*?</article>', render(report), re.DOTALL).group()
    before, inside = pair.split('<details class="harmful">')
    inside = inside.split("</details>")[0]
    assert "HARM" not in before
    assert all(word in inside for word in ("HARM-P", "HARM-L", "HARM-R"))


def test_natural_frequencies(report, page, parse):
    text = parse(page).text()
    assert "Of 100 planted errors it would catch 46 in its worst 10\u202f%; rows picked at random would catch 10." in text
    assert "No more than 50 fit into so few rows." in text
    grid = re.search(r"<svg[^>]*fig-caught-title.*?</svg>", page, re.DOTALL).group()
    assert grid.count('class="dot"') == 46
    assert grid.count('class="ring"') == 54
    assert "About 12 of 100 labels are wrong (95 % interval 8.3 to 17.1\u202f%)." in text


def test_one_vote_gives_bounds_and_no_point(report, parse):
    report["flip_rate"] = {
        "basis": "single",
        "estimate": None,
        "low": 0.06,
        "high": 0.22,
        "assumptions": ["errors are even"],
        "n": 900,
    }
    made = render(report)
    text = parse(made).text()
    assert "Between 6 and 22 of 100 labels are wrong (bounds 6.0 to 22.0\u202f%); a point cannot be given." in text
    bar = re.search(r"<svg[^>]*fig-label-error-title.*?</svg>", made, re.DOTALL).group()
    assert 'class="point"' not in bar
    assert 'class="span"' in bar


def test_repeats_give_a_point_inside_bounds(report, parse):
    details = {"point_low": 0.09, "point_high": 0.15, "model": "folded"}
    report["flip_rate"] = {"basis": "repeats", "estimate": 0.12, "low": 0.07, "high": 0.2, "assumptions": [], "n": 900, "details": details}
    made = render(report)
    assert "About 12 of 100 labels are wrong (95 % interval 9.0 to 15.0\u202f%; bounds 7.0 to 20.0\u202f%)." in parse(made).text()
    bar = re.search(r"<svg[^>]*fig-label-error-title.*?</svg>", made, re.DOTALL).group()
    assert bar.count('class="span"') == 2
    assert bar.count('class="point"') == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12.4 %", "\u22120.6 to 1.0\u202f%"), ("+0.2 points", "\u22120.6 to +1.0 points"), ("0.9", "\u22120.01 to 0.01")],
)
def test_ends_of_a_number_have_its_unit(report, value, expected):
    report["numbers"] = [{"label": "x", "value": value, "low": -0.006, "high": 0.01}]
    assert f'<p class="between">{expected}</p>' in render(report)


@pytest.mark.parametrize("code", sorted(VERDICTS))
def test_verdict_is_said_by_word_and_icon(report, code):
    report["verdict"]["code"] = code
    banner = re.search(r'<div class="banner.*?</h2>', render(report), re.DOTALL).group()
    assert VERDICTS[code][1] in banner
    assert 'class="icon"' in banner


def test_icons_of_different_tones_differ(report):
    drawn = {}
    for code, (tone, _, _) in VERDICTS.items():
        report["verdict"]["code"] = code
        drawn[tone] = re.search(r'class="stroke" d="([^"]+)"', render(report)).group(1)
    assert len(set(drawn.values())) == 4


def test_unknown_verdict_is_refused(report):
    report["verdict"]["code"] = "maybe"
    with pytest.raises(ValueError, match="'maybe' is none of train, "):
        render(report)


def test_missing_parts_say_why(parse):
    text = parse(render({})).text()
    for sentence in ABSENT.values():
        assert sentence.replace("`", "") in text
    for part in ABSENT:
        assert f"because of {part}" in parse(render({"missing": {part: f"because of {part}"}})).text()


def test_empty_quarantine_is_not_a_missing_one(report, parse):
    report["quarantine"] = {"n": 0, "reasons": {}, "first": []}
    text = parse(render(report)).text()
    assert "No row was set aside" in text
    assert ABSENT["quarantine"] not in text


def test_missing_numbers_are_dashes_not_nan(report, parse):
    nan = float("nan")
    report["power"] |= {"auc": nan, "auc_low": None, "n": None}
    report["training"]["rows"][0] |= {"accuracy": nan, "low": None}
    report["flip_rate"] |= {"low": nan}
    report["annotators"][0] |= {"agreement": None, "low": None, "high": None}
    report["numbers"][0] |= {"low": nan}
    report["suspicion_hist"]["counts"] = [0] * 26
    text = parse(render(report)).text()
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_findings_worst_first_clean_ones_in_one_line(page, parse):
    levels = re.findall(r'<article class="finding (\w+)"', page)
    assert levels == ["bad", "warn", "warn", "open"]
    text = parse(page).text()
    assert "1 error, 2 warnings, 1 note." in text
    assert "Clean (11): empty_sides, exact_duplicates," in text
    assert "Not applicable (3): position_bias, contamination, too_fast." in text


def test_redacted_page_has_no_text_of_the_data(report, parse):
    words = [f"SECRET{i}" for i in range(9)]
    report["worklist"] = [{**report["worklist"][0], "prompt": words[0], "left": words[1], "right": words[2]}] * 3
    report["findings"][0] |= {
        "examples": [words[3]],
        "details": {"seen": words[4], "text": [words[5]], "nested": {"a": words[6]}, "pairs": 206},
    }
    report["quarantine"]["first"] = [{"line": 118, "reason": "empty side", "detail": words[7], "raw": words[8]}]
    shown = render(report)
    assert all(word in shown for word in words[:8])
    hidden = render(report, redact=True)
    assert "SECRET" not in hidden
    assert "206" in parse(hidden).text()
    assert "left out of this page on request" in hidden
    assert "Recorded as better" in hidden


def test_same_report_same_bytes_in_another_process(report, page, tmp_path):
    assert render(report) == page
    made = []
    for seed in ("1", "2"):
        code = "import json, sys; from cupel.report.html import render; made = render(json.load(open(sys.argv[1])))"
        code += "; sys.stdout.buffer.write(made.encode())"
        file = tmp_path / "report.json"
        file.write_text(json.dumps(report))
        env = {**os.environ, "PYTHONHASHSEED": seed}
        made.append(subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, check=True, env=env).stdout)
    assert made[0] == made[1] == page.encode()


def test_style_sheet_covers_what_was_promised():
    css = style()
    for part in (
        "@media screen and (prefers-color-scheme: dark)",
        "@media print",
        ":focus-visible",
        "forced-colors",
        "tabular-nums",
    ):
        assert part in css
