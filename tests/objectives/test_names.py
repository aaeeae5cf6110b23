"""The table of names: aliases, other packages, messages; and that it costs no torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import cupel.objectives as objectives
from cupel.objectives import names

WRONG = [
    ("sigmoid", {"beta": 0.0}, "beta is a positive number"),
    ("sigmoid", {"beta": float("nan")}, "beta is a positive number"),
    ("exo", {"smoothing": 0.0}, "smoothing lies strictly between 0 and 1/2"),
    ("aot", {"smoothing": 0.5}, "smoothing lies in"),
    ("ropo", {"alpha": 1.0}, "alpha is above 1"),
    ("odpo", {"gap": "square"}, "gap is one of linear, log, constant"),
    ("odpo", {"alpha": -1.0}, "alpha is a number of at least 0"),
    ("modpo", {"weight": 1.5}, "weight is a share of 1"),
    ("cpo", {"reduction": "mean"}, "reduction is one of token, sequence, sum"),
    ("epsilon_dpo", {"epsilon": 1.0}, "epsilon lies in"),
    ("beta_dpo", {"decay": 1.0}, "decay lies in"),
    ("rao_kupper", {"theta": 0.5}, "theta is at least 1"),
    ("mapo", {"variant": "paper"}, "variant is one of"),
    ("dove", {"prior": "none"}, "prior is one of trained, reference"),
    ("tdpo2", {"alpha": -0.1}, "alpha is a number of at least 0"),
    ("hypo", {"weight": -1.0}, "weight is a number of at least 0"),
    ("simpo", {"gamma": float("inf")}, "gamma is a finite number"),
]


def test_every_name_makes_what_it_says() -> None:
    for name in names.available():
        objective = names.by_name(name)
        parameters = inspect.signature(names.factory(name)).parameters
        assert objective.name == name
        assert set(objective.settings) == set(parameters)
        assert {key: p.default for key, p in parameters.items()} == objective.settings or name == "hypo"
        assert objective.needs
    for name in names.available_lists():
        assert names.list_by_name(name).name == name


def test_aliases_lead_to_names() -> None:
    assert set(names.ALIASES.values()) <= {*names.PAIRS, *names.LISTS}
    assert not set(names.ALIASES) & {*names.PAIRS, *names.LISTS}
    assert names.by_name("exo_pair").name == "exo"
    assert names.list_by_name("pro").name == "plackett_luce"


@pytest.mark.parametrize("name", names.available() + names.available_lists())
def test_factories_say_what_they_are(name: str) -> None:
    text = getattr(objectives, name).__doc__
    assert text.splitlines()[0].strip()
    assert ">>>" in text


def test_public_names_exist() -> None:
    for name in objectives.__all__:
        assert getattr(objectives, name) is not None
    assert set(dir(objectives)) == set(objectives.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = objectives.nothing


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_wrong_settings_are_named(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        names.by_name(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sigmod", {}, "did you mean sigmoid"),
        ("sigmod", {}, "alpha_divergence, alpha_po"),
        ("irpo", {}, "objective of lists"),
        ("robust", {}, "sigmoid with the treatment `unbiased`"),
        ("sigmoid", {"gamma": 1.0}, r"sigmoid takes no argument gamma: its arguments are beta=0.1"),
        ("bpr", {"beta": 1.0}, "its arguments are none"),
        ("sigmoid", {"beta": "big"}, "beta is 'big', but its default is 0.1"),
        ("sparse_po", {"common": 1.0}, "common is 1.0"),
    ],
)
def test_unknown_names_and_arguments_list_what_exists(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        names.by_name(name, **settings)


def test_other_packages_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(*added: EntryPoint):
        return lambda group: list(added) if group == names.GROUP else []

    mine = EntryPoint("mine", "cupel.objectives.margin:hinge", names.GROUP)
    monkeypatch.setattr(names, "entry_points", entries(mine))
    assert "mine" in names.available()
    assert names.by_name("mine", beta=0.5).settings == {"beta": 0.5}
    for taken in (EntryPoint("sigmoid", "other:sigmoid", names.GROUP), EntryPoint("dpo", "other:dpo", names.GROUP)):
        monkeypatch.setattr(names, "entry_points", entries(taken))
        with pytest.raises(ValueError, match="takes a name that is taken"):
            names.available()
    monkeypatch.setattr(names, "entry_points", entries(mine, mine))
    with pytest.raises(ValueError, match="mine"):
        names.available()


def test_the_table_of_names_costs_no_torch() -> None:
    code = "import sys; from cupel.objectives import available; print(len(available()), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(out[0]) > 50
    assert out[1] == "False"


def test_every_name_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text("utf-8")
    assert [name for name in names.available() + names.available_lists() if f"| `{name}` |" not in text] == []
    assert [alias for alias in names.ALIASES if f"`{alias}`" not in text] == []
    public = set(objectives.__all__) - {"Context", "Need", "ListObjective", "online_kl", "general_score", "typicality"}
    assert sorted(name for name in public if name not in text) == []


def test_documented_example_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text("utf-8")
    space: dict[str, object] = {}
    exec(text.split("```python\n")[1].split("```")[0], space)
    assert len(space["keep"]) == len(space["flip"]) == 2  # type: ignore[arg-type]
