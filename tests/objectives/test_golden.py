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
    elsewhere |= {"bpo_probability", "squared_probability", "squared_score"}
    assert set(checks.NAMES) - seen == elsewhere
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_golden.py")
    assert sorted(name for name in elsewhere if f'"{name}"' not in text and f"{name}(" not in text) == []


def test_what_token_objectives_are_made_of() -> None:
    """The statistics on the way to the losses of the token fixture: weights of WPO, tilted differences of e-DPO, parts of SparsePO."""
    helpers = checks.helpers
    first, second = helpers.token_sides(0.01, dress=False)
    weights = [((s.token_logp - s.collision) * s.mask).sum(1).div(s.mask.sum(1)).exp() for s in (first, second)]
    expected = [[0.51222614, 0.66391111], [0.68530971, 0.36986845]]
    torch.testing.assert_close(torch.stack(weights), torch.tensor(expected, dtype=torch.float64), atol=6e-9, rtol=0)
    for epsilon, up, down in (
        (0.01, (0.61498075, -1.64667103), (0.6201627, -1.66011328)), (0.2, (0.58582047, -1.51681727), (0.69006243, -1.784216)),
    ):  # fmt: skip
        a, b = helpers.token_sides(epsilon, dress=False)
        for found, wanted in ((a.logp - b.logp, (0.61752052, -1.65339934)), (a.tilt_up - b.tilt_up, up), (a.tilt_down - b.tilt_down, down)):
            torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=6e-9, rtol=0)
    ratio = [(s.token_logp - s.reference_token_logp) * s.mask for s in (first, second)]
    h = ratio[0].sum(1) - ratio[1].sum(1)
    torch.testing.assert_close(h, torch.tensor([-0.76882663, 0.52449124], dtype=torch.float64), atol=6e-9, rtol=0)
    u = (ratio[0] * first.mask_reward).sum(1) - (ratio[1] * second.mask_reward).sum(1)
    d = (second.divergence * second.mask * second.mask_divergence).sum(1) - (first.divergence * first.mask * first.mask_divergence).sum(1)
    torch.testing.assert_close(u, torch.tensor([-0.36767918, 0.235498], dtype=torch.float64), atol=6e-9, rtol=0)
    torch.testing.assert_close(d, torch.tensor([0.3794317, 0.28331386], dtype=torch.float64), atol=6e-9, rtol=0)
