"""The training report in a real browser: its policy holds, it fits a phone, and what is read has contrast."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest

from cupel.report.training import save_training_report


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"training_browser_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_house = _load("test_browser")
pytestmark = _house.pytestmark
chromium = _house.chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A local server with the page of a run in which several regimes hold."""
    folder = tmp_path_factory.mktemp("training")
    out = _load("test_training_report").write_run(
        folder / "out", first=-20.0, second=-45.0, accuracy=(0.7, 0.8, 0.82, 0.76, 0.72), loss=(0.6, 0.5, 0.48, 0.58, 0.7), skipped=2,
    )  # fmt: skip
    save_training_report(out)
    (folder / "report.html").write_bytes((out / "report.html").read_bytes())
    asked: list[str] = []
    handler = functools.partial(_house.Quiet, directory=str(folder), asked=asked)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_policy_holds(site: Any, chromium: Any) -> None:
    _, address, _ = site
    shown, logged = chromium("--dump-dom", f"{address}/report.html")
    assert "Over-optimised" in shown
    assert not _house.REFUSED.search(logged), logged


@pytest.mark.parametrize(("width", "theme"), [(360, _house.DARK), (1280, _house.LIGHT)])
def test_fits_and_has_contrast(site: Any, chromium: Any, width: int, theme: str) -> None:
    found = _house.measured(site, chromium, "report.html", width, theme, unfold=True)
    assert found["texts"] > 500
    assert found["low"] == []
    assert found["width"] == width
    assert found["wide"] == []
    assert found["scroll"] <= width
    assert found["unreachable"] == 0
