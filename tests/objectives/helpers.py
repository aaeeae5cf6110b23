"""Sides for tests: the golden fixtures as tensors, and random sides that carry whatever an objective needs."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from cupel.objectives.reading import FIELDS
from cupel.objectives.types import Side


def load(name: str) -> ModuleType:
    """A module that lies beside this file; tests are not packages."""
    spec = importlib.util.spec_from_file_location(f"objectives_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load("golden")


def fixture(dtype: torch.dtype = torch.float64, grad: bool = False) -> tuple[Side, Side]:
    """The four pairs."""

    def side(values: dict[str, tuple[float, ...]]) -> Side:
        logp = torch.tensor(values["logp"], dtype=dtype, requires_grad=grad)
        return Side(
            logp=logp, reference_logp=torch.tensor(values["reference_logp"], dtype=dtype), n_tokens=torch.tensor(values["n_tokens"])
        )

    return side(golden.FIRST), side(golden.SECOND)


def rewards(dtype: torch.dtype = torch.float64) -> tuple[Side, Side]:
    """The four pairs of rewards."""
    first, second = golden.REWARDS
    return Side(score=torch.tensor(first, dtype=dtype)), Side(score=torch.tensor(second, dtype=dtype))


def token_sides(epsilon: float = 0.0, dtype: torch.dtype = torch.float64, dress: bool = True) -> tuple[Side, Side]:
    """The token fixture, from its logits; `dress` puts padding on the left and rubbish outside the mask."""
    s, t, v = torch.arange(4.0, dtype=dtype), torch.arange(4.0, dtype=dtype), torch.arange(4.0, dtype=dtype)
    policy = torch.sin((s[:, None, None] + 1) + 0.7 * t[None, :, None] + 1.3 * v)
    reference = torch.cos(0.5 * (s[:, None, None] + 1) + 0.9 * t[None, :, None] + 0.4 * v)
    target = (3 * s[:, None] + 2 * t + 1).long() % 4
    mask = t[None, :] < torch.tensor(golden.LENGTHS)[:, None]

    def picked(logits: Tensor) -> Tensor:
        return logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]

    f, g = policy.log_softmax(-1), reference.log_softmax(-1)
    tokens = {
        "token_logp": picked(policy), "reference_token_logp": picked(reference), "divergence": (g.exp() * (g - f)).sum(-1),
        "collision": torch.logsumexp(2 * f, -1), "mask_reward": (0.25 * (t + 1)).expand(4, 4),
        "mask_divergence": (1 - 0.2 * t).expand(4, 4),
    }  # fmt: skip
    whole = {
        "logp": (tokens["token_logp"] * mask).sum(1), "reference_logp": (tokens["reference_token_logp"] * mask).sum(1),
        "tilt_up": (picked((1 + epsilon) * policy - epsilon * reference) * mask).sum(1),
        "tilt_down": (picked((1 - epsilon) * policy + epsilon * reference) * mask).sum(1),
    }  # fmt: skip
    if dress:
        tokens = {name: torch.where(mask, value, torch.full_like(value, math.nan)) for name, value in tokens.items()}
        tokens = {name: torch.cat([torch.full((4, 2), math.inf, dtype=dtype), value], 1) for name, value in tokens.items()}
        mask = torch.cat([torch.zeros(4, 2, dtype=torch.bool), mask], 1)
    full = Side(**tokens, **whole, mask=mask, n_tokens=mask.sum(1))
    return full.map(lambda x: x[:2]), full.map(lambda x: x[2:])


def random_sides(
    needs: Iterable[str], *, n: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0, size: int = 5
) -> tuple[Side, Side]:
    """Two sides with everything in `needs`, of plausible values; `scale` multiplies how far log-ratios and scores spread."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shared = {"online": (normal(n, 3) * 2 - 9, normal(n, 3) * 2 - 9), "target": -5 - normal(n).abs(), "gate": normal(n, 2).exp()}

    def side() -> Side:
        mask = torch.arange(size)[None, :] < torch.randint(1, size + 1, (n,), generator=generator)[:, None]
        reference = -6 - 3 * normal(n).abs()
        logp = (reference + scale * normal(n)).clamp(max=-0.5)
        values = {
            "logp": logp, "reference_logp": reference, "n_tokens": mask.sum(1), "mask": mask,
            "token_logp": -normal(n, size).abs() * scale, "reference_token_logp": -normal(n, size).abs(),
            "score": scale * normal(n), "rating": 2 * normal(n), "divergence": 0.1 * normal(n, size).abs(),
            "collision": -normal(n, size).abs(), "tilt_up": logp + 0.1 * normal(n), "tilt_down": logp + 0.1 * normal(n),
            "mask_reward": normal(n, size).abs(), "mask_divergence": normal(n, size).abs(), "prompt_logp": -9 - normal(n).abs(),
            "reference_prompt_logp": -9 - normal(n).abs(), "target_logp": shared["target"], "target_n_tokens": mask.sum(1),
            "online_logp": shared["online"][0], "online_reference_logp": shared["online"][1], "mismatch_log_ratio": normal(n),
            "embedding": scale * normal(n, 4), "gate": shared["gate"], "error": scale * normal(n).abs(), "reference_error": normal(n).abs(),
        }  # fmt: skip
        wanted = {field for need in needs for field in FIELDS[need]} | ({"gate"} if "embedding" in set(needs) else set())
        return Side(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in values.items() if name in wanted})

    return side(), side()


def extreme_sides(needs: Iterable[str], dtype: torch.dtype, extreme: float) -> tuple[Side, Side]:
    """All pairs of values from -extreme to extreme for whatever decides a margin; log-probabilities stay negative."""
    grid = [-1.0, -0.3, -3.1e-3, -1e-4, 0.0, 1e-4, 3.1e-3, 0.3, 1.0]
    left, right = torch.cartesian_prod(torch.tensor(grid), torch.tensor(grid)).T * extreme

    def side(value: Tensor, other: Tensor) -> Side:
        n = len(value)
        low = torch.full((n,), -extreme)
        two, one = torch.ones(n, 2), torch.ones(n)
        values = {
            "logp": low + value, "reference_logp": low, "n_tokens": one.long(), "mask": two.bool(),
            "token_logp": (low + value)[:, None] * two / 2, "reference_token_logp": low[:, None] * two / 2, "score": value, "rating": value,
            "divergence": value.abs()[:, None] * two / 2, "collision": (low + value)[:, None] * two / 2, "tilt_up": low + 1.1 * value,
            "tilt_down": low + 0.9 * value, "mask_reward": two, "mask_divergence": two, "prompt_logp": low, "reference_prompt_logp": low,
            "target_logp": low, "target_n_tokens": one.long(), "online_logp": (low + value)[:, None] * two,
            "online_reference_logp": low[:, None] * two, "mismatch_log_ratio": value, "gate": torch.ones(n, 1),
            "embedding": torch.stack([value, one], 1), "error": value.abs(), "reference_error": other.abs(),
        }  # fmt: skip
        wanted = {field for need in needs for field in FIELDS[need]}
        return Side(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in values.items() if name in wanted})

    return side(left, right), side(right, left)


def floating(side: Side) -> list[str]:
    """Names of the floating-point fields that a side carries."""
    return [f.name for f in fields(side) if (x := getattr(side, f.name)) is not None and x.is_floating_point()]
