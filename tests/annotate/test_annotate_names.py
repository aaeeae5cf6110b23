"""The names of `cupel.annotate`: every one is there without torch, and the pages on simulated users and wishes find theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cupel import annotate

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_name_is_imported_where_there_is_no_torch() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None  # an import of either fails\n"
        "from cupel import annotate\n"
        "print(*[getattr(annotate, name).__name__ for name in annotate.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(annotate.__all__) == dir(annotate)


@pytest.mark.parametrize("page", ["annotate.md", "generative-recommenders.md", "user-simulator.md"])
def test_what_the_pages_import_is_a_name_of_the_package(page: str) -> None:
    lines = re.findall(r"^from cupel\.annotate[.\w]* import (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    used = {name.strip() for line in lines for name in line.split(",")}
    assert used
    assert used <= set(annotate.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Scene'"):
        _ = annotate.Scene
