"""Pictures show the numbers that they are given."""

import re

import pytest

from cupel.report import figures, svg


def attributes(drawn, css, *names):
    found = re.findall(rf'<\w+ class="{css}"([^>]*?)/>', str(drawn))
    return [tuple(float(re.search(rf' {name}="(-?[\d.]+)%?"', item).group(1)) for name in names) for item in found]


def test_interval_bar_lies_where_its_numbers_are():
    drawn = figures.label_error({"basis": "trusted", "estimate": 0.2, "low": 0.1, "high": 0.3, "n": 100}).svg
    ((x, width),) = attributes(drawn, "span", "x", "width")
    ((point,),) = attributes(drawn, "point", "cx")
    room = svg.RIGHT - svg.LEFT
    assert x == pytest.approx(svg.LEFT + room * 0.2, abs=0.01)
    assert width == pytest.approx(room * 0.4, abs=0.01)
    assert point == pytest.approx(svg.LEFT + room * 0.4, abs=0.01)


def test_ends_beyond_the_axis_are_marked():
    drawn = figures.label_error({"basis": "single", "estimate": None, "low": 0.1, "high": 0.7, "n": 100}).svg
    assert "\u25b8" in drawn
    ((x, width),) = attributes(drawn, "span", "x", "width")
    assert x + width <= 100


@pytest.mark.parametrize("share", [0.0, 0.004, 0.714, 1.0])
def test_dots_sum_to_one_hundred(share):
    drawn = str(figures.caught("Errors", "k", share, 0.1).svg)
    assert drawn.count('class="dot"') == round(100 * share)
    assert drawn.count("<circle") == 100


def test_histogram_heights_are_proportional_to_shares():
    drawn = figures.lengths({"edges": [0, 1, 2, 3], "chosen": [1, 2, 1], "rejected": [0, 4, 4]}).svg
    up = [tall for (tall,) in attributes(drawn, "bar", "height")]
    down = [tall for (tall,) in attributes(drawn, "bar-other", "height")]
    assert up == [42, 84, 42]
    assert down == [84, 84]


@pytest.mark.parametrize(
    "bad",
    [
        {"edges": [], "chosen": [], "rejected": []},
        {"edges": [0, 1], "chosen": [0], "rejected": [0]},
        {"edges": [0, 1, 2], "chosen": [1], "rejected": [1]},
        {"edges": [1, 0], "chosen": [1], "rejected": [1]},
        {"edges": [0, float("nan")], "chosen": [1], "rejected": [1]},
    ],
)
def test_histograms_that_cannot_be_drawn_are_left_out(bad):
    assert figures.lengths(bad) is None


def test_histogram_of_equal_values():
    assert figures.lengths({"edges": [3, 3], "chosen": [5], "rejected": [5]}) is not None


def test_axis_of_differences_holds_zero_and_all_ends():
    drawn = str(figures.differences([{"name": "a", "difference": 0.09, "low": 0.07, "high": 0.12}], 60).svg)
    assert 'class="zero"' in drawn
    assert ">0</text>" in drawn
    assert "+9.0 points" in drawn


def test_rebinning_keeps_all_counts():
    edges, (kept,) = svg.rebin(list(range(102)), [list(range(101))])
    assert len(kept) <= 40
    assert len(edges) == len(kept) + 1
    assert sum(kept) == sum(range(101))
    assert (edges[0], edges[-1]) == (0, 101)
