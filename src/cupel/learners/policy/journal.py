"""What a run writes as it goes: a line per step and evaluation, what it took in time and memory, and the sentences at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cupel.learners.policy.ranks import Ranks
from cupel.learners.policy.step import StepResult
from cupel.records.files import append_line, atomic_write, to_json


class Journal:
    """The log of a run (no clock times) and its performance (nothing else); the first process writes, trackers are told too.

    `start` begins both anew; `cut(step)` leaves out what a killed run wrote after its last checkpoint.
    """

    def __init__(self, out: Path, ranks: Ranks, *, trackers: bool) -> None:
        self.out, self.ranks, self.trackers = out, ranks, trackers
        self._since, self._tokens = time.perf_counter(), 0

    def start(self) -> None:
        """Begin both files anew."""
        if self.ranks.first:
            for name in ("log.jsonl", "performance.jsonl"):
                (self.out / name).unlink(missing_ok=True)

    def cut(self, step: int) -> None:
        """Keep the lines of the log up to a step."""
        path = self.out / "log.jsonl"
        if not self.ranks.first or not path.is_file():
            return
        kept = []
        for line in path.read_text("utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                break
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), "utf-8")

    def line(self, line: Mapping[str, Any]) -> None:
        """One line of the log."""
        if self.ranks.first:
            append_line(self.out / "log.jsonl", json.dumps(json.loads(to_json(line)), sort_keys=True))

    def step(self, step: int, epoch: int, result: StepResult, norm: float, rate: float, more: Mapping[str, Any]) -> None:
        """The line of an optimiser step; means over its comparisons, of each side over the responses that are there; and `more`."""
        n, s = max(result.n, 1), result.sums
        line: dict[str, Any] = {
            "step": step, "epoch": epoch, "n": result.n, "loss": result.loss, "p": s["p"] / n, "w": s["w"] / n, "gradient": norm,
            "learning_rate": rate, "saturated": int(s["saturated"]), **more,
        }  # fmt: skip
        if s["n_pairs"]:
            line |= {"margin": s["margin"] / s["n_pairs"], "accuracy": s["right"] / s["n_pairs"]}
        if s["effective"]:
            line["effective_size"] = s["effective"] / n
        for side in ("first", "second"):
            if s[f"n_{side}"]:
                line[f"tokens_{side}"] = s[f"tokens_{side}"] / s[f"n_{side}"]
            if s[f"n_logp_{side}"]:
                line[f"logp_{side}"] = s[f"logp_{side}"] / s[f"n_logp_{side}"]
            if s[f"n_moved_{side}"]:
                line[f"moved_{side}"] = s[f"moved_{side}"] / s[f"n_moved_{side}"]
        self.line(line)
        if self.trackers:
            self.ranks.accelerator.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=step)

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """The line of an evaluation."""
        self.line(line)
        if self.trackers:
            sets = line["evaluation"].items()
            written = [(f"{name}/generations", values["generations"]) for name, values in sets if "generations" in values]
            flat = {f"{name}/{key}": v for name, values in [*sets, *written] for key, v in values.items() if isinstance(v, int | float)}
            self.ranks.accelerator.log(flat, step=line["step"])

    def count(self, tokens: int) -> None:
        """Tokens that a step of this process held."""
        self._tokens += tokens

    def performance(self, step: int) -> None:
        """Seconds, tokens per second of this process and peak memory since the last such line."""
        seconds = time.perf_counter() - self._since
        if self.ranks.first:
            line: dict[str, Any] = {"step": step, "seconds": seconds, "tokens_per_second": self._tokens / seconds if seconds > 0 else None}
            if self.ranks.device.type == "cuda":
                line["peak_bytes"] = torch.cuda.max_memory_allocated(self.ranks.device)
            else:
                import resource

                line["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            append_line(self.out / "performance.jsonl", json.dumps(line))
        self._since, self._tokens = time.perf_counter(), 0


def words(metrics: Mapping[str, Any], out: Path) -> list[str]:
    """What a finished run says to people."""
    found = [f"{metrics['steps']:,} steps over {metrics['n_comparisons']:,} comparisons."]
    said = [f"{count:,} {name}" for name, count in metrics["outcomes"].items() if count and name != "kept"]
    if said:
        found.append("Comparisons: " + ", ".join(said) + ".")
    for name, values in metrics["evaluation"].items():
        found.append(_ranked(name, values))
        if written := values.get("generations"):
            found.append(_written(name, written))
    if metrics["ended"]:
        found.append(f"Ended early: {metrics['ended']}.")
    return [*found, f"Written: {out / 'model'}, metrics.json, records.parquet, log.jsonl."]


def _ranked(name: str, values: Mapping[str, Any]) -> str:
    """What an evaluation says of labels; of records without any, the loss."""
    if not values["n_decided"]:
        return f"{name}: loss {values['loss']:.4f} over {values['n']:,} records without a label."
    rate = values["flip_rate"]
    flips = ""
    if rate["rate"] is not None:
        flips = f"; wrong labels {100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
    return (
        f"{name}: ranked as labelled {100 * values['accuracy']:.1f} % [{100 * values['accuracy_low']:.1f}, "
        f"{100 * values['accuracy_high']:.1f}] of {values['n_decided']:,}{flips}."
    )


def _written(name: str, of: Mapping[str, Any]) -> str:
    said = f"{name}: {of['n']:,} answers, {of['length_difference']:+.1f} tokens against the start, {100 * of['ended']:.0f} % ended"
    if "win_rate" not in of:
        return f"{said}."
    like = "none" if of["like_rate"] is None else f"{100 * of['like_rate']:.1f} %"
    return (
        f"{said}; win rate {100 * of['win_rate']:.1f} % [{100 * of['win_low']:.1f}, {100 * of['win_high']:.1f}], "
        f"of {of['like_n']:,} pairs of like length {like}."
    )
