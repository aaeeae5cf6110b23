"""Imports point one way, the base knows no torch, and only `adapters` knows other people's training libraries."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "cupel"

#: A part of the package may import parts of its own level or below. docs/architecture.md says why.
LEVEL = {
    "errors": 0, "_verbs": 0,
    "records": 1, "interactions": 1,
    "votes": 2, "encode": 2,
    "objectives": 3, "noise": 3, "scorers": 3,
    "learners": 4,
    "annotate": 5,
    "audit": 5, "curate": 5, "evaluate": 5, "report": 5, "adapters": 5, "environment": 5, "stages": 5, "runs": 5, "compare": 5,
    "api": 6, "pipeline": 6, "tasks": 6, "training": 6, "recommending": 6,
    "cli": 7, "__main__": 7,
}  # fmt: skip
#: the frozen types in which results are spoken; any level may import them
VOCABULARY = "cupel.audit.types"
#: doors that import what they open only when it is called
LAZY = {"__init__", "_verbs"}
NO_TORCH = {
    "records", "interactions", "votes", "audit", "curate", "report", "evaluate", "api", "stages", "runs", "pipeline", "tasks", "training",
    "recommending", "cli", "errors",
}  # fmt: skip
NO_TORCH_AT_TOP = {"encode", "learners", "environment"}
#: packages inside these that are imported by name only, behind an `__init__` that imports nothing
TORCH_INSIDE = {"learners/policy", "learners/heads", "learners/models", "learners/recommenders"}
TORCH_FAMILY = {"torch", "transformers", "accelerate", "peft"}
UPSTREAMS = {"trl", "datasets", "diffusers", "ray"}


class Import(NamedTuple):
    file: Path
    line: int
    module: str
    at_top: bool

    @property
    def part(self) -> str:
        return self.file.relative_to(SOURCE).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line} imports {self.module}"


def imports_of(file: Path) -> Iterator[Import]:
    """Every import outside `if TYPE_CHECKING:`; relative ones resolved."""
    package = ("cupel", *file.relative_to(SOURCE).parent.parts)

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, child.lineno, alias.name, at_top)
            elif isinstance(child, ast.ImportFrom):
                above = package[: len(package) - child.level + 1] if child.level else ()
                base = ".".join((*above, *filter(None, [child.module])))
                for alias in child.names:
                    yield Import(file, child.lineno, f"{base}.{alias.name}", at_top)
            else:
                yield from walk(child, at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), True)


IMPORTS = [entry for file in sorted(SOURCE.rglob("*.py")) for entry in imports_of(file)]


def top(module: str) -> str:
    return module.split(".")[0]


def part_of(module: str) -> str | None:
    """`cupel.records.schema.Votes` -> `records`; None for names of `cupel` itself (`from cupel import __version__`)."""
    parts = module.split(".")
    if parts[0] != "cupel" or len(parts) < 2:
        return None
    return parts[1] if (SOURCE / parts[1]).is_dir() or (SOURCE / f"{parts[1]}.py").exists() else None


def test_every_part_has_a_level() -> None:
    parts = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert parts - {"__init__"} <= set(LEVEL), "a new part of the package needs a level here and a line in docs/architecture.md"


def test_imports_point_down() -> None:
    wrong = []
    for entry in IMPORTS:
        target = part_of(entry.module)
        if entry.part in LAZY or target is None or entry.module.startswith(VOCABULARY):
            continue
        if LEVEL[target] > LEVEL[entry.part]:
            wrong.append(str(entry))
    assert wrong == []


def test_the_vocabulary_imports_nothing_of_ours() -> None:
    """What makes it safe for every level to import it."""
    file = SOURCE.joinpath(*VOCABULARY.split(".")[1:]).with_suffix(".py")
    assert file.is_file()
    assert [str(entry) for entry in IMPORTS if entry.file == file and top(entry.module) == "cupel"] == []


def test_no_cycle_between_modules_at_import() -> None:
    """Cycles through imports inside functions are harmless; at module level they make the order of imports matter."""
    graph: dict[str, set[str]] = {}
    for entry in IMPORTS:
        if entry.at_top and top(entry.module) == "cupel":
            graph.setdefault(module_name(entry.file), set()).update(existing(entry.module))
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> list[str] | None:
        state[name] = 1
        for target in sorted(graph.get(name, ())):
            if target == name or state.get(target) == 2:
                continue
            if state.get(target) == 1:
                return [*path, name, target]
            found = visit(target, [*path, name])
            if found:
                return found
        state[name] = 2
        return None

    cycles = [found for name in sorted(graph) if name not in state and (found := visit(name, []))]
    assert cycles == []


def module_name(file: Path) -> str:
    return ".".join(("cupel", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def existing(module: str) -> set[str]:
    """The file that `module` (or the name it holds) lives in."""
    parts = module.split(".")
    for end in (len(parts), len(parts) - 1):
        place = SOURCE.joinpath(*parts[1:end])
        if place.with_suffix(".py").is_file() and end > 1:
            return {".".join(parts[:end])}
        if (place / "__init__.py").is_file() and end > 1:
            return {".".join(parts[:end])}
    return set()


def test_base_knows_no_torch() -> None:
    wrong = [
        str(entry)
        for entry in IMPORTS
        if top(entry.module) in TORCH_FAMILY
        and (entry.part in NO_TORCH or (entry.part in NO_TORCH_AT_TOP and entry.at_top))
        and not any((SOURCE / inside) in entry.file.parents for inside in TORCH_INSIDE)
    ]
    assert wrong == []


def test_only_adapters_know_upstreams() -> None:
    assert [str(entry) for entry in IMPORTS if top(entry.module) in UPSTREAMS and entry.part != "adapters"] == []


def test_what_a_module_hides_it_keeps() -> None:
    """A name with one leading underscore is imported by no other module."""
    hidden = [entry for entry in IMPORTS if top(entry.module) == "cupel" and entry.module.split(".")[-1].startswith("_")]
    assert [str(entry) for entry in hidden if not entry.module.split(".")[-1].startswith("__")] == []


def test_optional_table_libraries_are_imported_where_needed() -> None:
    optional = {"pandas", "polars", "matplotlib", "pytest", "hypothesis"}
    assert [str(entry) for entry in IMPORTS if top(entry.module) in optional and entry.at_top] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch", [("torch", True)]),
        ("def f():\n    import torch", [("torch", False)]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", [("typing.TYPE_CHECKING", True)]),
        ("class A:\n    from cupel.records import read", [("cupel.records.read", True)]),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", [("torch", True)]),
    ],
)
def test_the_reader_of_imports(
    text: str, expected: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(imports_of.__globals__, "SOURCE", tmp_path)
    file = tmp_path / "some.py"
    file.write_text(text)
    assert [(entry.module, entry.at_top) for entry in imports_of(file)] == expected
