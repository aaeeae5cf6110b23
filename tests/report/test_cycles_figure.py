"""The picture of circles shows the margins it is given, and names stay text."""

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from cupel.report import cycles
from cupel.report.html import environment
from cupel.votes.cycle_test import cycle_test
from cupel.votes.cycles import cyclicity


def hostile():
    spec = importlib.util.spec_from_file_location("untrusted_texts", Path(__file__).with_name("test_untrusted.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HOSTILE


def tournament(n, seed):
    s = np.random.default_rng(seed).normal(size=(n, n))
    return s - s.T


def numbers(tag):
    return {name: float(value) for name, value in re.findall(r' ([a-z0-9-]+)="(-?[\d.]+)"', tag)}


def test_arrows_run_from_the_preferred_and_are_as_wide_as_their_margins():
    s = np.array([[0, 1, -2], [-1, 0, 4], [2, -4, 0]])  # 0 over 1, 1 over 2, 2 over 0
    drawn = str(cycles.figure(cyclicity(s).recorded(), ["art", "math", "sport"]).svg)
    lines = [numbers(tag) for tag in re.findall(r'<line class="arrow"[^>]*>', drawn)]
    dots = [numbers(tag) for tag in re.findall(r'<circle class="point"[^>]*>', drawn)]
    assert len(lines) == len(dots) == 3
    for line, (winner, loser, margin) in zip(lines, ((0, 1, 1), (1, 2, 4), (2, 0, 2)), strict=True):
        assert (line["x1"], line["y1"]) == (dots[winner]["cx"], dots[winner]["cy"])
        tail, tip = math.dist((line["x1"], line["y1"]), (line["x2"], line["y2"])), dots[loser]
        apart = math.dist((line["x1"], line["y1"]), (tip["cx"], tip["cy"]))
        left = math.dist((line["x2"], line["y2"]), (tip["cx"], tip["cy"]))
        assert tail + left == pytest.approx(apart, abs=0.1)  # it points straight at the loser and stops before it
        assert 0 < left < 30
        assert line["stroke-width"] == pytest.approx(1.5 + 3.5 * margin / 4, abs=0.01)
    texts = re.findall(r'<text class="value"[^>]*>([^<]*)<', drawn)
    assert texts == ["1", "4", "2"]
    assert re.findall(r'<text class="label"[^>]*>([^<]*)<', drawn) == ["art", "math", "sport"]


def test_the_strongest_circles_that_fit_and_a_table_of_all():
    found = cyclicity(tournament(20, 0), most=50).recorded()
    made = cycles.figure(found, [f"model {i}" for i in range(20)])
    items = {item for one in found["triangles"][:1] for item in one["items"]}
    labels = re.findall(r'<text class="label"[^>]*>model (\d+)<', str(made.svg))
    assert {str(item) for item in items} <= set(labels)
    assert 3 <= len(labels) == len(set(labels)) <= cycles.ITEMS
    assert len(made.table.rows) == 20
    strengths = [float(row[-1]) for row in made.table.rows]
    assert strengths == sorted(strengths, reverse=True)
    assert "left out" in made.table.note
    for tag in re.findall(r"<(?:circle|line|polygon|text)[^>]*>", str(made.svg)):
        at = numbers(tag)
        assert all(0 <= at[x] <= cycles.WIDTH for x in ("x", "cx", "x1", "x2") if x in at)
        assert all(0 <= at[y] <= cycles.HEIGHT for y in ("y", "cy", "y1", "y2") if y in at)


def test_no_circle_no_picture_and_words_for_each_case():
    r = np.arange(4.0)
    assert cycles.figure(cyclicity(r[:, None] - r).recorded(), list("abcd")) is None
    line = np.array([[0, 1, 0], [-1, 0, 1], [0, -1, 0]], dtype=float)
    tree = cyclicity(line, np.abs(line)).recorded()
    assert "no circle could be seen" in cycles.caption(tree)
    wins = np.array([[0, 40, 10], [10, 0, 40], [40, 10, 0]])
    loud = cycle_test(wins, draws=99).recorded()
    said = cycles.caption(cyclicity(wins - wins.T).recorded(), loud)
    assert said.startswith("An arrow runs from the preferred item")
    assert "100.0\u202f% of the preferences go round" in said
    assert "this is more than chance explains (p = 0.01)" in said
    assert "not more than chance" in cycles.caption(tree | {"independent": 1}, loud | {"p": 0.4})


@pytest.mark.parametrize("name", hostile())
def test_names_stay_text(name, parse_part):
    found = cyclicity(tournament(6, 1)).recorded()
    dull = parse_part(cycles.figure(found, ["dull"] * 6))
    made = parse_part(cycles.figure(found, [name * 3] * 6))
    assert made.faults == []
    assert [tag for tag, _, _ in made.tags] == [tag for tag, _, _ in dull.tags]


@pytest.fixture
def parse_part(parse):
    macros = environment().get_template("macros.html.j2").module
    return lambda made: parse(str(macros.figure(made, "cycles")))


def test_a_missing_name_is_an_error_and_bytes_repeat():
    found = cyclicity(tournament(6, 1)).recorded()
    with pytest.raises(IndexError):
        cycles.figure(found, ["a", "b"])
    assert isinstance(cycles.figure(found, list("abcdef")).svg, Markup)
    assert cycles.figure(found, list("abcdef")) == cycles.figure(found, list("abcdef"))
