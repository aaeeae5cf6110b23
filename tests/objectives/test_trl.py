"""Agreement with TRL's own losses, where it is installed."""

from __future__ import annotations

import importlib.metadata
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

try:
    VERSION = importlib.metadata.version("trl")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("trl is not installed: pip install trl compares our losses with its own", allow_module_level=True)
if VERSION != "1.16.0":
    pytest.skip(f"the comparison reads internals of trl 1.16.0, not of {VERSION}", allow_module_level=True)

peer = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("peer.py"))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", peer.ALL_AGREEMENT)
def test_losses_and_gradients_agree_with_trl(family: str) -> None:
    errors = list(peer.ALL_AGREEMENT[family](0))
    assert errors
    single = {"orpo", "alpha", "exo_pair"}  # TRL computes these, or a constant of them, in float32
    assert [e for e in errors if e.error > (1e-6 if any(word in e.label.split() for word in single) else 1e-12)] == []
