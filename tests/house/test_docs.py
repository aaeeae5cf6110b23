"""Documentation is a test: every command, option and public name is documented, and no documented command line is made up."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

import cupel
from cupel.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
SHARED = (DOCS / "contract.md").read_text(encoding="utf-8")


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Command path -> command, for every command that does something."""
    if not hasattr(command, "commands"):
        return {path: command}
    return {key: leaf for name, child in command.commands.items() for key, leaf in leaves(child, (*path, name)).items()}


ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = leaves(ROOT_COMMAND)


def long_options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")}


def mentions(text: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) is not None


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=" ".join)
def test_command_has_a_page_with_its_options(path: tuple[str, ...]) -> None:
    page = DOCS / f"{path[0]}.md"
    assert page.exists(), f"docs/{path[0]}.md is missing"
    text = page.read_text(encoding="utf-8")
    assert f"cupel {' '.join(path)}" in text
    missing = sorted(o for o in long_options(COMMANDS[path]) - {"--help"} if not mentions(text, o) and not mentions(SHARED, o))
    assert missing == [], f"options of `cupel {' '.join(path)}` that neither its page nor docs/contract.md names"


@pytest.mark.parametrize("name", [name for name in cupel.__all__ if not name.startswith("__")])
def test_public_name_is_documented(name: str) -> None:
    assert any(re.search(rf"(cupel\.|`){name}\b", text) for text in PAGES.values())


def test_checks_and_formats_are_documented() -> None:
    from cupel.audit.checks import all_checks
    from cupel.records.formats import importers

    for page, names in {"checks.md": all_checks(), "formats.md": importers()}.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        assert sorted(name for name in names if f"| `{name}` |" not in text) == [], page
    checks = set(re.findall(r"^\| `(\w+)` \| (?:row|dataset) \|", (DOCS / "checks.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert checks == set(all_checks()), "docs/checks.md names checks that do not exist"


def test_treatments_are_documented() -> None:
    from cupel.learners.treatments import TREATMENTS

    text = (DOCS / "train.md").read_text(encoding="utf-8")
    assert [name for name in TREATMENTS if f"| `{name}` |" not in text] == []


def test_verdict_codes_are_documented() -> None:
    from typing import get_args

    from cupel.audit.result import ROW_VERDICTS
    from cupel.audit.types import VerdictCode

    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    assert [code for code in get_args(VerdictCode) if f"`{code}`" not in text] == []
    assert [name for name in ROW_VERDICTS if f"`{name}`" not in SHARED] == []


def command_lines(text: str) -> list[str]:
    """Command lines in fenced blocks that start with `cupel `, a trailing backslash joining lines."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("cupel ")]


DOCUMENTED = [(str(page), line) for page, text in PAGES.items() for line in command_lines(text)] + [
    ("README.md", line) for line in command_lines((ROOT / "README.md").read_text(encoding="utf-8"))
]


def test_there_are_documented_commands() -> None:
    assert len(DOCUMENTED) > 10


@pytest.mark.parametrize(("page", "line"), DOCUMENTED, ids=lambda value: str(value)[:60])
def test_documented_command_line_parses(page: str, line: str) -> None:
    """The command exists and click accepts its options and arguments; nothing is run."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: words.index("|")] if "|" in words else words
    command: click.Command = ROOT_COMMAND
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if command is ROOT_COMMAND:
        assert words in (["--help"], ["--version"]), f"{page}: no such command: {line}"
        return
    command.make_context(" ".join(line.split()[:2]), [word for word in words if word != "--help"], resilient_parsing=False).close()


def test_links_between_pages_exist() -> None:
    broken = []
    for page, text in {**PAGES, Path("README.md"): (ROOT / "README.md").read_text(encoding="utf-8")}.items():
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            if not (ROOT / page).parent.joinpath(target).exists():
                broken.append(f"{page}: {target}")
    assert broken == []


def test_documents_name_no_machine() -> None:
    """Paths of somebody's machine do not belong in what users read."""
    texts = {**PAGES, **{Path(n): (ROOT / n).read_text(encoding="utf-8") for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}}
    pattern = re.compile(r"(?<![\w.])/(work|root|home|farm)/")
    assert [str(page) for page, text in texts.items() if pattern.search(text)] == []
