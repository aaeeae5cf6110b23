"""`import cupel` and every `--help` load nothing heavy, print nothing unasked and touch no network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sklearn", "scipy.stats", "pandas", "polars", "matplotlib", "datasets", "model2vec", "IPython")

# a socket that cannot connect: an import that calls out fails the test wherever it runs
PROBE = """
import json, socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network access at import")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
code = 0
{action}
print("\\nMODULES" + json.dumps(sorted(sys.modules)) + json.dumps(code), file=sys.stderr)
"""


def run(action: str) -> tuple[set[str], str, str, int]:
    done = subprocess.run([sys.executable, "-c", PROBE.format(action=action)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    words, _, tail = done.stderr.rpartition("\nMODULES")
    modules, end = json.JSONDecoder().raw_decode(tail)
    return set(modules), done.stdout, words, json.loads(tail[end:])


def heavy_in(modules: set[str]) -> list[str]:
    return sorted(name for name in HEAVY if name in modules)


def test_import_is_light_and_silent() -> None:
    modules, out, err, _ = run("import cupel")
    assert heavy_in(modules) == []
    assert out == ""
    assert err == ""


def test_the_probe_sees_a_heavy_module() -> None:
    modules, *_ = run("import cupel, scipy.stats")
    assert heavy_in(modules) == ["scipy.stats"]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["refine", "--help"], ["audit", "--help"], ["train", "reward", "--help"], ["evaluate", "--help"], ["--version"]],
    ids=" ".join,
)
def test_help_is_light(arguments: list[str]) -> None:
    modules, out, _, code = run(f"from cupel.cli import run\ncode = run({arguments!r})")
    assert code == 0
    assert heavy_in(modules) == []
    assert len(out) > 3


def test_public_names_exist_without_torch() -> None:
    modules, *_ = run("import cupel\nfor name in cupel.__all__:\n    assert getattr(cupel, name) is not None, name")
    assert "torch" not in modules
    assert "pandas" not in modules
