"""Objectives against golden values, finite differences, extreme margins and, where it is installed, TRL's own losses."""

from __future__ import annotations

import importlib.metadata
import runpy
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import arguments, write_result

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests" / "objectives"
checks = SimpleNamespace(**runpy.run_path(str(TESTS / "checks.py")))
SEEDS = (0, 1, 2)
TRL = "1.16.0"
#: TRL computes these, or a constant in them, in float32
SINGLE = {"orpo", "alpha", "exo_pair"}


def main() -> int:
    arguments(__doc__, data=False).parse_args()
    claims = [*golden_claims(), differences_claim(), *extremes_claims()]
    details: dict[str, Any] = {"objectives": list(checks.NAMES), "golden": by_family()}
    agreement, details["trl"] = trl_claims()
    write_result(
        "objectives", [*claims, *agreement], n=len(checks.NAMES), seeds=SEEDS, command="python benchmarks/objectives.py", details=details
    )
    return 0


def worst(errors: Iterable[Any]) -> tuple[int, float, str]:
    """(number, largest error, where it is)."""
    found = list(errors)
    top = max(found, key=lambda e: e.error)
    return len(found), top.error, top.label


def golden_claims() -> list[dict[str, Any]]:
    out = []
    for dtype, bound in ((torch.float64, 1e-6), (torch.float32, 2e-5)):
        n, error, where = worst(e for family in checks.ALL_GOLDEN.values() for e in family(dtype))
        out.append({
            "claim": f"golden values, losses and gradients, {str(dtype).removeprefix('torch.')}: largest error, relative above 1 ({where})",
            "target": f"at most {bound:g}", "measured": error, "n": n, "seeds": [], "passed": error <= bound,
        })  # fmt: skip
    return out


def by_family() -> dict[str, dict[str, Any]]:
    return {
        name: {
            str(dtype): dict(zip(("n", "error", "where"), worst(family(dtype)), strict=True)) for dtype in (torch.float64, torch.float32)
        }
        for name, family in checks.ALL_GOLDEN.items()
    }


def differences_claim() -> dict[str, Any]:
    n, error, where = worst(e for name in checks.NAMES for seed in SEEDS for e in checks.finite_differences(name, seed))
    return {
        "claim": f"gradients against finite differences in float64, every field of every objective: largest relative error ({where})",
        "target": "below 1e-6", "measured": error, "n": n, "passed": error < 1e-6,
    }  # fmt: skip


def extremes_claims() -> list[dict[str, Any]]:
    out = []
    for dtype in (torch.float32, torch.bfloat16):
        found = [checks.extremes(name, dtype) for name in checks.NAMES]
        found += [checks.extremes(name, dtype, beta=1.0) for name in checks.NAMES if "beta" in checks.by_name(name).settings]
        bad, values, clamped = (sum(getattr(e, field) for e in found) for field in ("not_finite", "values", "saturated"))
        out.append({
            "claim": f"margins in [-1e4, 1e4], {str(dtype).removeprefix('torch.')}: values of losses and gradients that are not finite",
            "target": "0", "measured": {"not finite": bad, "comparisons counted as saturated": clamped}, "n": values, "seeds": [],
            "passed": bad == 0,
        })  # fmt: skip
    return out


def trl_claims() -> tuple[list[dict[str, Any]], dict[str, Any] | str]:
    """Claims, and errors by family; without that release of TRL a failed claim that says so."""
    try:
        version = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    if version != TRL:
        claim = {
            "claim": f"losses and gradients agree with TRL {TRL}",
            "target": "at most 1e-6",
            "measured": f"trl is {version}",
            "passed": False,
        }
        return [claim], version
    warnings.simplefilter("ignore")
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]  # our datasets.py is not the package TRL imports
    peer = SimpleNamespace(**runpy.run_path(str(TESTS / "peer.py")))
    errors = {name: [e for seed in SEEDS for e in family(seed)] for name, family in peer.ALL_AGREEMENT.items()}
    every = [e for found in errors.values() for e in found]
    single = [e for e in every if SINGLE & set(e.label.split())]
    double = [e for e in every if not SINGLE & set(e.label.split())]
    claims = []
    for label, found in (("computed in float64", double), ("of which TRL computes a part in float32", single)):
        n, error, where = worst(found)
        claims.append({
            "claim": f"losses and gradients {label} agree with TRL {TRL}: largest error, relative above 1 ({where})",
            "target": "at most 1e-6", "measured": error, "n": n, "passed": error <= 1e-6,
        })  # fmt: skip
    return claims, {name: dict(zip(("n", "error", "where"), worst(found), strict=True)) for name, found in errors.items()}


if __name__ == "__main__":
    raise SystemExit(main())
