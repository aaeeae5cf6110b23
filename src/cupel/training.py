"""The verbs `train policy`, `train sft` and `train reward` by torch: options from a recipe or a file and flags, the dry run, the run."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cupel.errors import InputError

Progress = Callable[[str, int, int], None]
RECIPES = (".yaml", ".yml")


def is_recipe(file: str) -> bool:
    """Whether a file's name says that it is a recipe, not data.

    >>> is_recipe("run.yaml"), is_recipe("votes.jsonl")
    (True, False)
    """
    return Path(file).suffix in RECIPES


def policy_options(file: str, kind: str, changes: Mapping[str, Any]) -> Any:
    """Options of a run: of a recipe (a .yaml file), or of a data file; `changes` win. InputError as `read_recipe`."""
    from cupel.learners.policy.options import options_of, read_recipe

    given = {name: value for name, value in changes.items() if value is not None}
    if is_recipe(file):
        return read_recipe(file, {**given, "kind": kind})
    return options_of({"data": file, "out": kind, **given, "kind": kind})


def need_train_extra() -> None:
    """InputError (exit 2) with the command to run where the extra that trains models is not installed."""
    missing = [name for name in ("torch", "transformers", "accelerate", "peft", "jaxtyping") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"training a policy needs {' and '.join(missing)}. Run: python -m pip install 'cupel[train]'")


def train_policy_file(
    file: str, kind: str, changes: Mapping[str, Any], *, dry_run: bool = False, force: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a policy (kind "policy") or imitate preferred responses ("sft"); returns its metrics, verdict and the sentences to say.

    A finished run ends with OUT/report.html and OUT/report.json, which say which regime it is in.
    With `dry_run` data, template and truncation are checked, and memory and time estimated, without loading weights or writing.
    """
    need_train_extra()
    options = policy_options(file, kind, changes)
    if dry_run:
        return look_ahead(options, progress=progress)
    from cupel.learners.policy.learner import train_policy

    found = train_policy(options, force=force, progress=progress)
    summary = {**found.metrics, "path": str(found.out), "words": list(found.words)}
    if int(os.environ.get("RANK", "0")):  # the first process of a launcher writes
        return summary
    from cupel.report.training import save_training_report

    verdict = save_training_report(found.out)["verdict"]
    learned = explained(found.out / "model", options.head) if (found.out / "model" / "explanation.json").is_file() else []
    said = f"{verdict['title']}: {verdict['sentence']} {verdict['remedy']} See {found.out / 'report.html'}."
    return {**summary, "verdict": verdict, "words": [*found.words, *learned, said]}


def train_head_file(
    file: str, out: Path, changes: Mapping[str, Any], *, map: Mapping[str, str] | None = None, format: str | None = None,
    max_bad: float = 0.01, encoder: str = "static", device: str = "cpu", allow_download: bool = False, dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train heads on frozen vectors by minibatches (`cupel.learners.heads`); returns their metrics and the sentences to say.

    Writes model.safetensors, config.json, metrics.json, records.parquet and kept.parquet into `out`. `changes`: options by name.
    """
    from cupel.learners.heads.options import head_options
    from cupel.tasks import reading

    missing = [name for name in ("torch", "jaxtyping") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"heads with an objective need {' and '.join(missing)}. Run: python -m pip install 'cupel[train]'")
    options = head_options(changes)
    from cupel.learners.heads.train import parsed, train_head

    parsed(options)
    with reading(file, None if dry_run else out, map, format, max_bad, keep=True) as votes:
        if dry_run:
            words = [f"{len(votes):,} votes would be trained on by {options.heads} heads. Nothing was written (--dry-run)."]
            return {"n_votes": len(votes), "options": options.recorded(), "words": words}
        found = train_head(votes, options, encoder=encoder, device=device, allow_download=allow_download, progress=progress)
    found.save(out)
    learned = [] if options.head == "scalar" else explained(out, options.head)
    return {**found.metrics, "path": str(out), "words": [*head_words(found.metrics), *learned, f"Written: {out}."]}


def explained(out: Path, head: str) -> list[str]:
    """Write OUT/explanation.html from the explanation.json that a preference model saved; its sentences."""
    from cupel.records.files import atomic_write
    from cupel.report.explanation import page

    found = json.loads((out / "explanation.json").read_text("utf-8"))
    with atomic_write(out / "explanation.html") as temporary:
        temporary.write_text(page(found, title=out.name or str(out), head=head), "utf-8")
    return [f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}." for sentence in found["words"]]


def head_words(metrics: Mapping[str, Any]) -> list[str]:
    """The result of training heads in sentences."""
    words = [f"{metrics['objective']} under {metrics['treatment']}, {metrics['n_train']:,} comparisons."]
    if metrics["eta"] is not None:
        words.append(f"Peer review leaves out {metrics['eta']['rate']:.3f} of the comparisons in the end ({metrics['eta']['basis']}).")
    result = metrics["heldout_result"]
    if result is None:
        return [*words, "Nothing was held out: nothing says how good the heads are."]
    for name, one in [*((f"Head {k}", head) for k, head in enumerate(result["heads"])), ("Their mean", result.get("ensemble"))]:
        if one is not None:
            said = (f"{key.replace('_', ' ')} {x['estimate']:.4f} [{x['low']:.4f}, {x['high']:.4f}]" for key, x in one.items() if x)
            words.append(f"{name} on {result['n']:,} held-out votes: {', '.join(said)}.")
    if "disagreement" in result:
        words.append(f"The heads disagree on {100 * result['disagreement']:.1f} % of them.")
    return words


def look_ahead(options: Any, progress: Progress | None = None) -> dict[str, Any]:
    """What a run would do: comparisons and what truncation does to them, steps, the first record as the model sees it, memory and time."""
    import tempfile

    from cupel.learners.policy import order
    from cupel.learners.policy.estimate import estimate
    from cupel.learners.policy.model import load_config
    from cupel.learners.policy.options import reference_of
    from cupel.learners.policy.preparing import parsed, prepare
    from cupel.learners.policy.questions import questions
    from cupel.learners.policy.reward_model import given_by
    from cupel.learners.policy.step import check_run

    objective, treatment = parsed(options)
    live = reference_of(options.reference).kind in ("live", "refresh", "ema")
    single = options.unpaired or options.kind == "sft"
    check_run(objective, treatment, live=live, unpaired=single, peer=options.peer is not None, gives=given_by(options))
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(options, Path(place), mismatch=False, progress=progress)
        data, asked = prepared.data, questions(prepared.sets, options)
        per_epoch = order.steps_per_epoch(len(data), options.batch_size)
        steps = min(per_epoch * options.epochs, options.steps or per_epoch * options.epochs)
        need = estimate(options, load_config(options), data, steps)
        outcomes: dict[str, int] = {}
        for rows in data.rows:
            for name, count in rows.counts().items():
                outcomes[name] = outcomes.get(name, 0) + count
        tokens, rows = data.tokens[0], data.rows[0]
        decode = prepared.tokenizer.decode
        first = int(rows.first[0])
        prompt, response = decode(tokens.prompt(int(tokens.response_prompt[first]))), decode(tokens.response(first))
        sets = {name: len(found) for name, found in prepared.sets.items()}
    words = [
        f"{len(data):,} comparisons to train on ({', '.join(f'{count:,} {name}' for name, count in outcomes.items() if count)}); "
        f"evaluation sets: {', '.join(f'{name} {count:,}' for name, count in sets.items()) or 'none'}.",
        *([f"{len(asked):,} held-out prompts will be answered before the first step and in each evaluation."] if asked else []),
        f"{steps:,} steps of {options.batch_size} comparisons; {need.tokens:,} tokens an epoch.",
        f"The first record, prompt | response: {prompt[-200:]!r} | {response[:200]!r}",
        f"{need.parameters:,} parameters, {need.trained:,} trained. Estimated: {need.bytes / 2**30:.2f} GiB of memory (weights "
        f"{need.weights / 2**30:.2f}, gradients {need.gradients / 2**30:.2f}, optimiser {need.optimiser / 2**30:.2f}, activations "
        f"{need.activations / 2**30:.2f}), {_duration(need.seconds)} at the speed of a matrix product here, which no training reaches.",
        "Nothing was written (--dry-run).",
    ]
    return {"n_comparisons": len(data), "outcomes": outcomes, "sets": sets, "steps": steps, "estimate": need._asdict(), "words": words}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
