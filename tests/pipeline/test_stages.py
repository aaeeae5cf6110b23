"""Stages: computed once, read back equal, whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cupel.audit.types import Finding
from cupel.stages import ARRAYS, FINDINGS, JSON, Stages, stage_key


def test_a_finished_stage_is_not_computed_again(tmp_path: Path) -> None:
    calls = []
    stages = Stages(tmp_path)
    for _ in range(2):
        value = stages.run("sum", {"x": 1}, lambda: calls.append(1) or {"total": 3}, JSON)
        assert value == {"total": 3}
    assert len(calls) == 1
    stages.run("sum", {"x": 2}, lambda: calls.append(1) or {"total": 4}, JSON)
    assert len(calls) == 2


def test_a_failed_stage_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("power cut")

    stages = Stages(tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        stages.run("x", {}, fail, JSON)
    (tmp_path / ".x-left.1").mkdir()
    stages.prune()
    assert list(tmp_path.iterdir()) == []


def test_arrays_and_findings_come_back_equal(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    arrays = {"a": np.arange(5.0), "b": np.array([1, 2], dtype=np.uint8)}
    back = stages.run("arrays", {}, lambda: arrays, ARRAYS)
    assert all(np.array_equal(back[k], arrays[k]) and back[k].dtype == arrays[k].dtype for k in arrays)
    finding = Finding("x", "row", "finding", "error", 2, 9, "m", "r", np.array([3, 5]), ("a", "b"), {"k": 1})
    (loaded,) = stages.run("findings", {}, lambda: [finding], FINDINGS)
    assert loaded.to_json() == finding.to_json()
    assert np.array_equal(loaded.rows, finding.rows)


def test_keys_differ_by_name_and_parts() -> None:
    assert len({stage_key("a", {}), stage_key("b", {}), stage_key("a", {"x": 1}), stage_key("a", {"x": 2})}) == 4


def test_linear_algebra_has_one_thread_inside_a_stage_and_its_own_again_after(tmp_path: Path) -> None:
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

    with threadpool_limits(limits=3, user_api="blas"):
        outside = threads()
        for directory in (None, tmp_path):
            inside = Stages(directory).run("x", {}, lambda: {"threads": threads()}, JSON)["threads"]
            assert inside
            assert set(inside) == {1}
            assert threads() == outside
