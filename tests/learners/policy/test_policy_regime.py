"""Every regime is told from a log that was made to be in it; too little to tell is never health; thresholds stand where they say."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupel.learners.policy import regime as r
from cupel.learners.policy.regime import judge, verdict
from cupel.learners.policy.runlog import Movement, RunLog, growth, length_correlation, length_share, margin_growth, movement, turn
from cupel.objectives.names import available

_spec = importlib.util.spec_from_file_location("training_sample", Path(__file__).parents[2] / "report" / "training_sample.py")
assert _spec is not None
assert _spec.loader is not None
_module: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


def run(**changes: Any) -> RunLog:
    return RunLog(**_module.sample(**changes))


def by_code(log: RunLog) -> dict[str, r.Regime]:
    return {found.code: found for found in judge(log)}


TURNED = {"accuracy": (0.7, 0.8, 0.82, 0.76, 0.72), "loss": (0.6, 0.5, 0.48, 0.58, 0.7)}
RUNS: list[tuple[str, dict[str, Any], str]] = [
    ("healthy", {}, "Nothing needs"),
    ("displaced", {"first": -20.0, "second": -45.0}, "`objective: dpop`"),
    ("over_optimised", TURNED, "`best: heldout/accuracy`"),
    ("unstable", {**TURNED, "train_loss_end": 0.9}, "Lower learning_rate"),
    ("memorised", {"held_rate": 0.25, "contradicted": 0.02, "inside_rate": None}, "em:flip=0.25,schedule=fixed"),
    ("length_drift", {"first": 8.0, "second": 2.0, "tokens": (80.0, 20.0)}, "`length_penalised`"),
    ("length_drift", {"length_slope": 0.2}, "`sigmoid_norm`"),
    ("nothing_learned", {"accuracy": (0.5, 0.51, 0.5, 0.49, 0.51), "first": 0.0, "second": 0.0}, "Raise learning_rate"),
    ("nothing_learned", {"accuracy": (0.5, 0.51, 0.5, 0.49, 0.51)}, "may be noise"),
    ("nothing_learned", {"accuracy": (0.5, 0.45, 0.4, 0.35, 0.3), "loss": (0.69, 0.72, 0.75, 0.78, 0.8)}, "exchanged"),
    ("saturated", {"saturated": 8}, "Lower beta"),
    ("skipped", {"skipped": 2}, "Lower learning_rate"),
]


@pytest.mark.parametrize(("code", "changes", "remedy"), RUNS)
def test_each_regime_has_its_verdict_and_its_remedy(code: str, changes: dict[str, Any], remedy: str) -> None:
    found = verdict(judge(run(**changes)))
    assert found.code == code, found.sentence
    assert remedy in found.remedy
    assert found.sentence.endswith(".")
    healthy = by_code(run(**changes))["healthy"]
    assert healthy.holds is (code == "healthy")


def test_several_may_hold_and_the_order_is_fixed() -> None:
    both = {**TURNED, "first": -20.0, "second": -45.0, "skipped": 9}
    held = [found.code for found in judge(run(**both)) if found.holds]
    assert held == ["over_optimised", "displaced", "skipped"]
    assert [found.code for found in judge(run())] == [found.code for found in judge(run(**both))]
    assert by_code(run(**both))["skipped"].level == "bad"  # 9 of 100 steps
    assert by_code(run(skipped=2))["skipped"].level == "warn"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"accuracy": (), "loss": ()}, "nothing_learned"), ({"accuracy": (0.7,), "loss": (0.6,)}, "over_optimised"),
        ({"n": 20}, "over_optimised"), ({"n": 20, "accuracy": (0.5, 0.55, 0.6, 0.6, 0.6)}, "nothing_learned"),
        ({"epochs": 1.0}, "memorised"), ({"held_rate": None, "inside_rate": None}, "memorised"),
        ({"steps": 5}, "saturated"), ({"steps": 5}, "healthy"),
    ],
)  # fmt: skip
def test_too_little_is_said_to_be_too_little(changes: dict[str, Any], code: str) -> None:
    found = by_code(run(**changes))
    assert found[code].holds is None
    if code == "nothing_learned":
        assert found["healthy"].holds is None
        assert verdict(judge(run(**changes))).code == "cannot_tell"
    if code == "over_optimised":
        assert "Whether it went on for too long cannot be told" in found["healthy"].sentence
        assert "`evaluate_every`" in found["healthy"].remedy


def test_a_run_that_neither_fails_nor_grows_cannot_be_told_and_says_why() -> None:
    still = run(first=0.0, second=0.0)
    found = verdict(judge(still))
    assert found.code == "cannot_tell"
    assert found.sentence == "The training margin does not move by more than its batches differ."


def test_what_was_learned_and_lost_is_over_optimised_before_it_is_nothing() -> None:
    lost = run(accuracy=(0.78, 0.7, 0.65, 0.6, 0.52), loss=(0.5, 0.52, 0.6, 0.7, 0.8))
    assert [found.code for found in judge(lost) if found.holds] == ["over_optimised", "nothing_learned"]
    assert "although it was at step 20" in by_code(lost)["nothing_learned"].sentence
    assert "learning_rate (ten" not in by_code(lost)["nothing_learned"].remedy
    never = run(accuracy=(0.52, 0.5, 0.5, 0.5, 0.5), loss=(0.69, 0.7, 0.75, 0.8, 0.9))
    assert [found.code for found in judge(never) if found.holds] == ["nothing_learned"]


def test_a_margin_that_grows_at_once_and_stays_has_grown() -> None:
    rng = np.random.default_rng(4)
    lines = [{"margin": 1.0 + rng.normal(0, 0.5), "moved_first": 5 + rng.normal(), "moved_second": -5 + rng.normal()} for _ in range(60)]
    assert (margin_growth(RunLog(lines, ())) or 0) > 10
    assert abs(margin_growth(RunLog(lines, (), options={"reference": "ema:0.9"})) or 0) < 4  # no start to compare with
    assert margin_growth(RunLog(lines[:5], ())) is None
    flat = [{"margin": 0.0, "moved_first": rng.normal(), "moved_second": rng.normal()} for _ in range(60)]
    assert abs(margin_growth(RunLog(flat, ())) or 0) < 4


def test_one_evaluation_cannot_turn_but_two_after_the_best_can() -> None:
    assert turn(run(accuracy=(0.7,) * 5, loss=(0.6, 0.5, 0.45, 0.44, 0.6)), "heldout") is None
    found = turn(run(accuracy=(0.7,) * 5, loss=(0.6, 0.5, 0.44, 0.5, 0.6)), "heldout")
    assert found is not None
    assert (found.what, found.step, found.improving) == ("loss", 60, True)
    # a quarter of the gain (0.693 at the start to 0.44) is 0.063
    assert turn(run(accuracy=(0.7,) * 5, loss=(0.6, 0.5, 0.44, 0.45, 0.49)), "heldout") is None


def test_a_set_that_turns_is_named_and_the_kept_step_too() -> None:
    made = run(**TURNED, name="trusted")
    made = replace(made, metrics={**made.metrics, "best": {"score": 0.82, "step": 60, "waited": 2}})
    found = by_code(made)["over_optimised"]
    assert "on trusted was best at step 60" in found.sentence
    assert "model/ holds step 60" in found.sentence
    assert "`best: trusted/accuracy`" in found.remedy


def test_displacement_is_measured_against_the_gap() -> None:
    """The threshold is a tenth of the gap, and a tenth of a nat."""
    assert by_code(run(first=-1.9, second=-22.0))["displaced"].holds is False
    assert by_code(run(first=-2.1, second=-20.0))["displaced"].holds is True
    assert by_code(run(first=-0.09, second=-0.2))["displaced"].holds is False
    assert by_code(run(first=-20.0, second=-15.0))["displaced"].holds is False  # no gap opened: another trouble
    used = run(first=-20.0, second=-45.0)
    used = replace(used, options={**used.options, "objective": "dpop:weight=5"})
    assert "dpop" not in by_code(used)["displaced"].remedy


def test_movement_prefers_held_out_and_never_a_reference_that_moved() -> None:
    log = run(first=-20.0, second=-45.0)
    assert movement(log) == Movement(-20.0, -45.0, 40.0, 40.0, "on heldout, since the start")
    moving = movement(replace(log, options={**log.options, "reference": "ema:0.9"}))
    assert moving is not None
    assert moving.first == pytest.approx(-16.0)  # from the first evaluation, at a fifth of the run
    alone = movement(replace(log, evaluations=()))
    assert alone is not None
    assert alone.first == pytest.approx(-18.0, abs=0.5)  # the mean of the last fifth
    assert movement(replace(log, options={"kind": "sft"})) is None
    assert movement(replace(log, options={"unpaired": True})) is None


def test_the_length_part_of_a_gap_is_exact() -> None:
    """Slow twin: moving both sides by the same amount per token opens a gap that is all length."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n1, n2, a, b = rng.uniform(5, 90), rng.uniform(5, 90), rng.normal(), rng.normal()
        gap = a * n1 - b * n2
        found = length_share(Movement(a * n1, b * n2, n1, n2, ""))
        if gap <= 0:
            assert found is None
            continue
        content = (a - b) * (n1 + n2) / 2 / gap
        assert found == pytest.approx(1 - content)


def test_batch_means_correlate_as_their_comparisons_do() -> None:
    """What the length judgement rests on: the correlation of comparisons, read from means of batches only."""
    rng = np.random.default_rng(1)
    true, steps, n = 0.6, 4000, 32
    longer = rng.normal(0, 5, (steps, n))
    margin = true * longer / 5 + np.sqrt(1 - true**2) * rng.normal(size=(steps, n)) + np.arange(steps)[:, None] / 100
    lines = [
        {"margin": m, "tokens_first": 40 + d, "tokens_second": 40.0} for m, d in zip(margin.mean(1), longer.mean(1), strict=True)
    ]
    found = length_correlation(RunLog(lines, ()))
    assert found is not None
    assert found[1] < true < found[2]
    assert found[2] - found[1] < 0.1
    assert length_correlation(RunLog(lines[:30], ())) is None


def test_the_interval_of_the_correlation_covers() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        x = rng.normal(size=60)
        y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=60)
        lines = [{"margin": a, "tokens_first": b, "tokens_second": 0.0} for a, b in zip(y, x, strict=True)]
        found = length_correlation(RunLog(lines, ()))
        assert found is not None
        covered += found[1] < 0.5 < found[2]
    assert 0.9 < covered / 300 <= 0.99


def test_a_model_that_saw_no_label_is_not_said_to_know_them_by_heart() -> None:
    """It contradicts the wrong labels and its own mistakes: at least the flip rate."""
    false = [by_code(run(held_rate=0.2, contradicted=0.2 + extra, inside_rate=None))["memorised"].holds for extra in (0.0, 0.05, 0.2)]
    assert false == [False, False, False]
    assert by_code(run(held_rate=0.2, contradicted=0.15, inside_rate=0.01))["memorised"].holds is True  # by the in-sample rate
    gap = by_code(run(held_rate=None, inside_rate=None, contradicted=0.0))["memorised"]
    assert gap.holds is True
    assert "at most 85.8 % of heldout" in gap.sentence


def test_growth_is_in_standard_errors() -> None:
    rng = np.random.default_rng(3)
    assert growth(np.arange(9.0)) is None
    assert growth(np.zeros(50)) == 0
    flat = [growth(rng.normal(size=100)) or 0.0 for _ in range(200)]
    assert abs(np.mean(flat)) < 0.3
    assert 0.8 < np.std(flat) < 1.3
    assert (growth(np.linspace(0, 1, 100) + rng.normal(0, 0.1, 100)) or 0) > 10


def test_sft_is_judged_by_its_loss() -> None:
    made = run()
    made = replace(made, options={**made.options, "kind": "sft"})
    found = by_code(made)
    assert found["healthy"].holds is True
    assert "training loss falls" in found["healthy"].sentence
    assert (found["displaced"].holds, found["memorised"].holds) == (None, None)


def test_numbers_that_are_missing_or_null_in_the_log_break_nothing() -> None:
    made = run()

    def holes(line: Mapping[str, Any]) -> dict[str, Any]:
        return {key: None if key != "step" else value for key, value in line.items()}

    broken = [holes(line) if k % 7 == 0 else line for k, line in enumerate(made.steps)]
    assert by_code(replace(made, steps=broken))["healthy"].holds is True
    empty = [{"step": line["step"], "evaluation": {"heldout": holes(line["evaluation"]["heldout"])}} for line in made.evaluations]
    found = by_code(replace(made, evaluations=empty))
    assert found["nothing_learned"].holds is None
    assert found["healthy"].holds is None


def test_objectives_that_are_recommended_exist() -> None:
    assert {*r.ANCHORED, "sigmoid_norm", "ipo", "length_penalised", "ld_dpo"} <= set(available())
    from cupel.noise.names import parse

    assert parse("em:flip=0.25,schedule=fixed").name


def test_a_finished_run_ends_with_its_report(tiny: Path, votes_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real learner: both files, the same verdict in the summary, the same bytes again; none on dry runs and other processes."""
    from cupel.training import train_policy_file

    changes = {
        "model": str(tiny), "learning_rate": 3e-3, "batch_size": 8, "batch_tokens": 256, "max_length": 64, "warmup": 0.0, "heldout": 0.45,
        "device": "cpu", "epochs": 2, "evaluate_every": 5, "out": str(tmp_path / "out"),
    }  # fmt: skip
    dry = train_policy_file(str(votes_file), "policy", changes, dry_run=True)
    assert "verdict" not in dry
    assert not (tmp_path / "out").exists()
    found = train_policy_file(str(votes_file), "policy", changes)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    made = (tmp_path / "out" / "report.html").read_bytes()
    assert report["verdict"] == found["verdict"]
    assert report["verdict"]["code"] == "healthy", report["verdict"]
    assert found["words"][-1].startswith("Healthy: The margin grows")
    assert report["options"]["learning_rate"] == 3e-3
    assert [one["code"] for one in report["regimes"]] == [one.code for one in judge(run())]
    assert report["evaluations"] == found["evaluations"]
    assert report["records"]["trained"] == report["run"]["n_comparisons"]
    (tmp_path / "out" / "report.html").unlink()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    from cupel.learners.policy import learner

    again = learner.Trained(tmp_path / "out", 1, {}, ())
    monkeypatch.setattr(learner, "train_policy", lambda *args, **more: again)
    train_policy_file(str(votes_file), "policy", changes)
    assert not (tmp_path / "out" / "report.html").exists()
    monkeypatch.setenv("RANK", "0")
    train_policy_file(str(votes_file), "policy", changes)
    assert (tmp_path / "out" / "report.html").read_bytes() == made


def test_an_sft_run_has_a_report_too(tiny: Path, votes_file: Path, tmp_path: Path) -> None:
    from cupel.training import train_policy_file

    changes = {
        "model": str(tiny), "learning_rate": 3e-3, "batch_size": 8, "max_length": 64, "warmup": 0.0, "heldout": 0.45, "device": "cpu",
        "out": str(tmp_path / "out"), "epochs": 2,
    }  # fmt: skip
    found = train_policy_file(str(votes_file), "sft", changes)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["verdict"] == found["verdict"]
    assert {one["code"]: one["status"] for one in report["regimes"]}["displaced"] == "cannot be told"
    assert set(report["training"]["margin"]) == {None}
    assert b"The run had no reference" in (tmp_path / "out" / "report.html").read_bytes()
