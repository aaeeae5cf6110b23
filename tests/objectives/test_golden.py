"""Golden values: losses and gradients of every row, in float64 and float32."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

checks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("checks.py"))))


@pytest.mark.parametrize("family", checks.ALL_GOLDEN)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-5)], ids=["float64", "float32"])
def test_golden(family: str, dtype: torch.dtype, tolerance: float) -> None:
    errors = list(checks.ALL_GOLDEN[family](dtype))
    assert len(errors) > 5
    assert [e for e in errors if e.error > tolerance] == []


def test_every_objective_of_the_table_has_golden_values() -> None:
    """A new objective brings its numbers, or says here where they are checked instead."""
    golden = checks.golden
    seen = {row.name for row in golden.PAIRS} | {row.name for row in golden.POINTWISE} | {row[0] for row in golden.REWARD}
    seen |= {row[0] for row in golden.TOKENS} | {"mapo", "diffusion_dpo", "cpo_hinge", "cpo_ipo", "sft", "kto_pair"}
    elsewhere = {"bpo", "dove", "dpo_gamma", "general_preference", "general_preference_squared", "gpo", "hypo", "modpo"}
    assert set(checks.NAMES) - seen == elsewhere
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_golden.py")
    assert sorted(name for name in elsewhere if f'"{name}"' not in text and f"{name}(" not in text) == []
