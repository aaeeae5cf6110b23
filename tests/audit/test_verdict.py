"""The verdict's rules, one by one: the order in the module's docstring is the order tested here."""

from __future__ import annotations

import numpy as np
import pytest

from cupel.audit.types import Finding, FlipRate, Power
from cupel.audit.verdict import decide

SEES = Power(0.88, 0.85, 0.90, 0.2, {"0.10": 0.4}, {"0.10": 0.8}, "can_see")
BLIND = Power(0.55, 0.50, 0.60, 0.2, {"0.10": 0.1}, {"0.10": 0.2}, "cannot_tell")


def rate(basis: str, low: float, high: float, estimate: float | None = None) -> FlipRate:
    return FlipRate(basis, estimate, low, high, (), 1000)  # type: ignore[arg-type]


def broken(count: int, n: int = 1000) -> Finding:
    return Finding("empty_sides", "row", "finding", "error", count, n, rows=np.arange(count))


@pytest.mark.parametrize(
    ("findings", "flip", "power", "n", "code"),
    [
        ([], rate("trusted", 0.0, 0.02, 0.01), SEES, 99, "cannot_tell"),
        ([broken(250)], rate("trusted", 0.0, 0.02, 0.01), SEES, 1000, "do_not_train"),
        ([], rate("trusted", 0.41, 0.5, 0.45), SEES, 1000, "do_not_train"),
        ([], rate("single", 0.0, 0.5), BLIND, 1000, "cannot_tell"),
        ([], rate("trusted", 0.02, 0.08, 0.05), SEES, 1000, "train"),
        ([broken(10)], rate("trusted", 0.02, 0.08, 0.05), SEES, 1000, "train_curated"),
        ([], rate("repeats", 0.12, 0.21, 0.13), SEES, 1000, "train_curated"),
        ([], rate("repeats", 0.12, 0.21, 0.13), BLIND, 1000, "train_curated"),
        ([], rate("repeats", 0.25, 0.38, 0.3), SEES, 1000, "recheck"),
        ([], rate("single", 0.01, 0.14), SEES, 1000, "train_curated"),
        ([], rate("single", 0.01, 0.25), SEES, 1000, "recheck"),
    ],
)
def test_rules_apply_in_order(findings: list[Finding], flip: FlipRate, power: Power, n: int, code: str) -> None:
    verdict = decide(findings, flip, power, n_votes=n)
    assert verdict.code == code
    assert verdict.sentence
    assert verdict.actions or n < 100
    assert verdict.would_change


def test_single_never_claims_an_estimate() -> None:
    verdict = decide([], rate("single", 0.01, 0.25), SEES, n_votes=1000)
    assert "allows no estimate" in verdict.sentence
    assert "about" not in verdict.sentence


def test_a_blind_audit_warns_against_row_decisions() -> None:
    verdict = decide([], rate("repeats", 0.12, 0.21, 0.13), BLIND, n_votes=1000)
    assert any("cannot see" in action.text for action in verdict.actions)


def test_a_worse_label_error_never_gives_a_more_trusting_verdict() -> None:
    order = ["train", "train_curated", "recheck", "do_not_train"]
    ranks = []
    for low in np.linspace(0, 0.5, 51):
        ranks.append(order.index(decide([], rate("trusted", low, min(low + 0.05, 1), low + 0.02), SEES, n_votes=500).code))
    assert ranks == sorted(ranks)
