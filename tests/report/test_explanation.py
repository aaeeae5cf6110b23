"""The page of what a preference model has learned: its words, its tables, bars, and every name escaped."""

from __future__ import annotations

from cupel.report.explanation import ROWS, page

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</table></style>", "a\u202eb", "`<b>`"]


def explanation(names=("anna", "bert", "carl"), weights=(0.2, 0.5, 0.3)):
    people = {"person": list(names), "weight": list(weights), "group": list(range(len(names)))}
    return {"words": ["two prototypes hold 90 % of the weight"], "tables": {"people": people, "nothing": {"a": [], "b": []}}}


def test_the_page_says_what_the_json_says(parse):
    seen = parse(page(explanation(), title="run", head="pal:prototypes=2"))
    assert seen.faults == []
    text = seen.text()
    for word in ("two prototypes", "People", "anna", "0.5", "pal:prototypes=2"):
        assert word in text
    assert "Nothing" not in text


def test_names_stand_first():
    made = page({"words": [], "tables": {"people": {"a size": [0.5], "a number": [3], "name": ["anna"]}}}, title="run", head="pal")
    assert made.index("Name</th>") < made.index("A number</th>") < made.index("A size</th>")


def test_the_same_explanation_gives_the_same_bytes():
    assert page(explanation(), title="run", head="pal") == page(explanation(), title="run", head="pal")


def test_few_sizes_are_drawn_and_many_are_cut(parse):
    few = page(explanation(), title="run", head="pal")
    assert few.count('class="bar"') == 3
    many = page(explanation([f"p{k}" for k in range(ROWS + 5)], [0.1] * (ROWS + 5)), title="run", head="pal")
    assert 'class="bar"' not in many
    assert "5 further rows are left out" in parse(many).text()


def test_signed_numbers_are_no_sizes():
    assert 'class="bar"' not in page(explanation(weights=(-0.2, 0.5, 0.7)), title="run", head="gpm")


def test_names_of_strangers_are_escaped(parse):
    made = page({**explanation(HOSTILE, [0.1] * len(HOSTILE)), "words": HOSTILE}, title=HOSTILE[0], head=HOSTILE[1])
    assert parse(made).faults == []
    assert "<script>alert" not in made
    assert "<img" not in made
    assert "49" not in parse(made).text()


def test_a_model_without_words_says_so(parse):
    assert "nothing to say" in parse(page({"words": [], "tables": {}}, title="run", head="x")).text()
