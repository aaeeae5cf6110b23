"""SteerLM 2.0 in rounds: responses are drawn from the policy, weighed, trained on, and drawn again from what training left.

    OUT / round-01 / lists.jsonl   what the policy wrote, as `steer` reads it (`cupel.annotate.steering`)
    OUT / round-01 / drawn.json    counts and measures of these lists, and the key of everything they depend on
    OUT / round-01 / policy /      what `cupel train policy` writes; the model of the next round is in policy/model
    OUT / round-01 / round.json    written last: the round is finished
    OUT / rounds.json              all rounds; of the one after the last, its lists alone, for they say what the last round came to

The first round draws from the policy as it is given (SteerLM 1), every other one from the model of the round before. A killed call goes on
where it was, to the same bytes. HelpSteer2, Wang et al. 2024, arXiv:2406.08673: two rounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cupel.annotate.language_models import CausalLM
from cupel.annotate.steering import Rater, Render, Steered, draw_wanted, steering_rows, told
from cupel.errors import InputError
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.lists import STEER
from cupel.learners.policy.options import PolicyOptions, options_of
from cupel.records.files import lock, sha256_file, to_json, write_json, write_lines
from cupel.report.training import save_training_report

Progress = Callable[[str, int, int], None]
LISTS, DRAWN, ROUND, ROUNDS = "lists.jsonl", "drawn.json", "round.json", "rounds.json"
#: options of training that the rounds themselves decide
OURS = ("data", "out", "model", "kind", "reference", "seed")


def iterate(
    policy: str | Path, prompts: Sequence[str], attributes: Any, rater: Rater, *, prior: str | Path, out: str | Path, rounds: int = 2,
    names: Sequence[str] | None = None, n: int = 10, seed: int = 0, temperature: float = 1.0, tokens: int = 256, render: Render = told,
    levels: int = 5, bins: str = "equal", options: Mapping[str, Any] | None = None, ahead: bool = True, progress: Progress | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rounds, as rounds.json holds them: counts, measures (hits, D, effective_size, ...) and training of each.

    policy      folder of the model that starts, told ratings already (SteerLM 1: `imitation_rows`); prior: of the plain model
    attributes  wanted ratings [K, A] of which each prompt gets one in each round, anew (`draw_wanted`)
    options     of training, by the names of `cupel train policy` (learning_rate, batch_size, lora, ...); the objective is steer unless it
                is given with settings. What the rounds decide (data, model, reference, ...) is refused here
    ahead       draw the lists of one more round, which is how the last policy is measured; they are there when rounds are added later
    Others as `steering_rows`. A measure of a round is of the policy that it begins with. A function as rater or render is known by its
    name, or by an attribute `digest`, alone: change the folder when you change the function.

    InputError as `steering_rows` and `train_policy`, and where OUT holds rounds of other choices.
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds: there is at least 1")
    place = Path(out)
    base = _options(str(policy), seed, options or {})
    told_of = {
        "prompts": list(prompts), "attributes": np.asarray(attributes).tolist(), "names": None if names is None else list(names), "n": n,
        "temperature": temperature, "tokens": tokens, "levels": levels, "bins": bins, "rater": _named(rater), "render": _named(render),
        "prior": _model_key(str(prior)), "code": _code(),
    }  # fmt: skip
    found: list[dict[str, Any]] = []
    with lock(place):
        for number in range(1, rounds + 1 + ahead):
            folder, train = place / f"round-{number:02d}", number <= rounds
            now = replace(_from(base, place, number), data=(replace(base.data[0], file=str(folder / LISTS)),), out=str(folder / "policy"))
            chosen = {name: value for name, value in now.recorded().items() if name not in ("data", "out", "cache", "model", "adapter")}
            start = [_model_key(now.model), _model_key(now.adapter)]
            key = hashlib.sha256(to_json({**told_of, "start": start, "options": chosen, "round": number}).encode()).hexdigest()
            line = _drawn(folder, key)
            if line is None:
                one = _number(seed, number)
                made = steering_rows(
                    _language_model(now, now.adapter or now.model), prompts, draw_wanted(prompts, attributes, seed=one), rater,
                    prior=_language_model(now, str(prior)), names=names, n=n, seed=one, temperature=temperature, tokens=tokens,
                    render=render, levels=levels, bins=bins, progress=progress,
                )  # fmt: skip
                line = _written(folder, key, number, made)
            if train and line["trained"] is None:
                line = _trained(folder, line, now, progress)
            found.append(line)
            write_json(place / ROUNDS, {"rounds": found})
    return found


def _options(policy: str, seed: int, given: Mapping[str, Any]) -> PolicyOptions:
    """Options of a round's training. InputError for those that are not the caller's to choose."""
    ours = [name for name in given if name in OURS]
    if ours:
        raise InputError(f"the rounds decide {', '.join(ours)} themselves: leave it out of the options of training")
    objective = str(given.get("objective", STEER))
    if objective.strip().partition(":")[0] != STEER:
        raise InputError(f"rounds train with the objective {STEER}, not with {objective!r}")
    if given.get("sharding", "none") != "none" or int(given.get("processes") or 1) > 1:
        raise InputError("rounds draw on one process: train the lists of each round on several with `cupel train policy`")
    return options_of({"heldout": 0.0, **given, "objective": objective, "reference": "none", "seed": seed, "model": policy, "data": LISTS})


def _from(base: PolicyOptions, place: Path, number: int) -> PolicyOptions:
    """The options with what the round before left as the start; an adapter stands on the model that it was made for."""
    if number == 1:
        return base
    model = place / f"round-{number - 1:02d}" / "policy" / "model"
    if (model / "adapter_config.json").is_file():
        return replace(base, adapter=str(model))
    return replace(base, model=str(model), adapter=None)


def _language_model(options: PolicyOptions, name: str) -> CausalLM:
    """A model that reads texts as training will."""
    return CausalLM.load(
        name, template=options.template, device="cpu" if options.device == "auto" else options.device, dtype=options.dtype,
        template_arguments=dict(options.template_arguments), max_length=options.max_length, batch_tokens=options.batch_tokens,
    )  # fmt: skip


def _drawn(folder: Path, key: str) -> dict[str, Any] | None:
    """What is known of a round: with its training where that has ended, None where its lists are not there as they were written.

    InputError where it was made by other choices.
    """
    drawn = _read(folder / DRAWN)
    if drawn is None:
        return None
    if drawn["key"] != key:
        raise InputError(
            f"{folder} holds a round of other choices (prompts, attributes, models, rater, options, or cupel's version): choose another "
            f"folder, or delete this one and those after it"
        )
    if not (folder / LISTS).is_file() or sha256_file(folder / LISTS) != drawn["lists"]:
        return None
    ended = _read(folder / ROUND) if (folder / "policy" / "model").is_dir() else None
    return ended or drawn["said"]


def _written(folder: Path, key: str, number: int, made: Steered) -> dict[str, Any]:
    """The lists of a round on disk; what they say."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / LISTS, made.rows)
    said = {"round": number, "counts": dict(made.counts), "measured": dict(made.measured), "trained": None}
    write_json(folder / DRAWN, {"key": key, "lists": sha256_file(folder / LISTS), "said": said})
    found = _drawn(folder, key)
    assert found is not None
    return found


def _trained(folder: Path, line: dict[str, Any], options: PolicyOptions, progress: Progress | None) -> dict[str, Any]:
    """Training on the lists of a round, and what it came to."""
    run = train_policy(options, progress=progress)
    save_training_report(run.out)
    lines = [json.loads(text) for text in (run.out / "log.jsonl").read_text("utf-8").splitlines()]
    loss = [float(one["loss"]) for one in lines if one.get("loss") is not None]
    few = max(1, len(loss) // 10)
    said = {
        "steps": run.steps, "lists": run.metrics["n_comparisons"], "outcomes": run.metrics["outcomes"],
        "loss_first": float(np.mean(loss[:few])), "loss_last": float(np.mean(loss[-few:])),
    }  # fmt: skip
    write_json(folder / ROUND, {**line, "trained": said})
    return json.loads((folder / ROUND).read_text("utf-8"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): delete its folder, and the round is made again") from error


def _number(seed: int, number: int) -> int:
    """The seed of what a round draws."""
    return int.from_bytes(hashlib.sha256(f"steering {seed} {number}".encode()).digest()[:6], "big")


def _model_key(name: str | None) -> str | None:
    """What names a model: of a folder what its files hold, wherever it lies."""
    return sha256_file(name) if name and Path(name).is_dir() else name


def _named(function: Any) -> str:
    """What a function is known by: its digest, or its name."""
    digest = getattr(function, "digest", None)
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
    return f"{name} {digest}" if isinstance(digest, str) else name


def _code() -> str:
    from cupel import __version__

    return __version__
