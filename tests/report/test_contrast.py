"""Text has a contrast of at least 4.5 and marks of at least 3 against their ground, in both themes and on paper."""

import re

import pytest

from cupel.report.html import style

GROUNDS = ["paper", "sheet", "code"]
TEXTS = [(text, ground) for text in ("ink", "soft", "link", "accent", "mark") for ground in GROUNDS]
TEXTS += [pair for tone in ("good", "warn", "bad", "open") for pair in ((tone, f"{tone}-paper"), ("ink", f"{tone}-paper"))]
MARKS = [
    ("mark", "paper"),
    ("mark-soft", "paper"),
    ("other", "paper"),
    ("mark", "sheet"),
    *((f"{t}-line", "paper") for t in ("good", "warn", "bad", "open")),
]
MARKS += [("mark", "mark-soft")]


def themes():
    css = style()
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    light, dark, paper = found
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark, "print": light | paper}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_known_contrasts():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text(theme):
    colours = themes()[theme]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in TEXTS}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_marks(theme):
    colours = themes()[theme]
    found = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in MARKS}
    least = {pair: 1.5 if pair == ("mark", "mark-soft") else 3.0 for pair in MARKS}
    assert {pair: value for pair, value in found.items() if value < least[pair]} == {}


def test_no_colour_outside_the_themes():
    rest = re.sub(r":root \{.*?\}", "", style(), flags=re.DOTALL)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl|opacity", rest)
