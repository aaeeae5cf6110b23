"""Scores of the requests of a suite: from a model, from a file that another tool wrote, or from an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cupel.errors import InputError
from cupel.evaluate.outside import Outside, Part, not_known, outside
from cupel.evaluate.suites import get_suite, read_suite
from cupel.evaluate.suites.items import Item, Requests, request_key, score_requests
from cupel.evaluate.suites.summary import SuiteResult, summarise
from cupel.records import sources
from cupel.records.files import write_parquet
from cupel.records.text import render


class Scorer(Protocol):
    """Anything that scores responses to prompts, such as a `RewardModel`."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Reward of each (prompt, response), [n]."""
        ...


One = Scorer | str | Path | np.ndarray


def evaluate_suite(
    name: str, source: Any, runs: Mapping[str, One | Sequence[One]], *, seed: int = 0, draws: int = 2000
) -> tuple[SuiteResult, Requests, dict[str, np.ndarray]]:
    """(the result, the requests, the scores of each run) of runs on a suite; each (prompt, response) is scored once.

    runs: name -> a model with `score`, a file of recorded scores (`recorded_scores`), or an array in the order of the requests; or a list
    of these, one for each training seed of the run (an array may hold a row for each). None at all gives the requests and what the longer
    response scores. A transformer with a chat template is given chat lists as they are, as JSON; every other model, and one without a
    template, their plain text. Scores are float64 [requests], [seeds, requests] of a list. RecordError and InputError say what does not
    fit.

    >>> rows = [{"prompt": "q", "chosen": "yes", "rejected": "no", "subset": "a"}, {"prompt": "r", "chosen": "1", "rejected": "22"}]
    >>> result, asked, _ = evaluate_suite("pairs-by-subset", rows, {"mine": np.array([1.0, 0, 1, 2])})
    >>> result.row("overall").accuracy["mine"].estimate, result.row("overall").length_only.estimate, len(asked)
    (0.5, 0.5, 4)
    """
    suite, items = get_suite(name), read_suite(name, source)
    requests = score_requests(items)
    scores = {run: _several(run, what, requests) for run, what in runs.items()}
    result = summarise(suite, items, requests, scores, seed=seed, draws=draws)
    group, known, unknown = _groups(items, requests), dict[str, Outside](), list[str]()
    for run, what in runs.items():
        models = [one for one in (what if isinstance(what, list | tuple) else [what]) if hasattr(one, "familiar")]
        found = _outside(models, requests, group, seed)
        if found is not None:
            known[run] = found
        elif models:
            unknown.append(run)
    return replace(result, outside=known, notes=(*result.notes, *not_known(unknown))), requests, scores


def _several(run: str, what: Any, requests: Requests) -> np.ndarray:
    """[requests] of one model, [seeds, requests] of a list of them."""
    if not isinstance(what, list | tuple):
        return _scores(what, requests)
    if not what:
        raise InputError(f"{run}: no model, file or array of scores; give one for each training seed")
    found = [_scores(one, requests) for one in what]
    wrong = [k for k, one in enumerate(found) if one.shape != (len(requests),)]
    if wrong:
        raise InputError(
            f"{run}: {len(wrong)} of {len(found)} training seeds have another number of scores than the {len(requests):,} requests "
            f"(first: seed {wrong[0] + 1} of shape {found[wrong[0]].shape})"
        )
    return np.stack(found)


def _scores(what: Any, requests: Requests) -> np.ndarray:
    if isinstance(what, np.ndarray):
        return what
    if isinstance(what, str | Path):
        return recorded_scores(what, requests)
    return np.asarray(what.score(_asked(what, requests), list(requests.responses)), dtype=np.float64).reshape(-1)


def _asked(model: Any, requests: Requests) -> list[str]:
    """The prompts as a model reads them: a chat template is applied to messages, everything else reads texts."""
    chat = getattr(getattr(model, "template", None), "text", None) is not None
    return list(requests.prompts) if chat else [render(prompt) for prompt in requests.prompts]


def _groups(items: Sequence[Item], requests: Requests) -> np.ndarray:
    """int64 [requests]: the number of the group of an item that each is in."""
    number: dict[str, int] = {}
    out = np.zeros(len(requests), dtype=np.int64)
    for item, right, wrong in zip(items, requests.right, requests.wrong, strict=True):
        out[right] = out[wrong] = number.setdefault(item.group, len(number))
    return out


def _outside(models: Sequence[Any], requests: Requests, group: np.ndarray, seed: int) -> Outside | None:
    """Are the responses like those that a run was trained on: by the mean over its seeds; None where no folder says."""
    models = [one for one in models if one.familiar is not None]
    said = [one.far(_asked(one, requests), list(requests.responses)) for one in models]
    if not said or any(one is None for one in said):
        return None
    number: dict[str, int] = {}
    prompt = np.array([number.setdefault(text, len(number)) for text in requests.prompts], dtype=np.int64)
    held = min(model.familiar.held for model in models)
    return outside([Part(np.mean(said, axis=0), group, prompt, held)], seed=seed)


def recorded_scores(path: str | Path | list[dict[str, Any]], requests: Requests) -> np.ndarray:
    """Scores that a file holds for the requests, float64 [number of requests].

    Columns `score` and either `key` (as in requests.parquet), or `prompt` and `response`, or neither: then as many rows as requests, in
    their order. Rows for other requests are left alone, so one file may serve several suites. InputError where a request has no score
    (how many, which first), two different ones, or one that is no number.

    >>> from cupel.evaluate.suites.items import Item, score_requests
    >>> asked = score_requests([Item("p", ("a",), ("b",), "s", "p")])
    >>> recorded_scores([{"prompt": "p", "response": "b", "score": 2}, {"prompt": "p", "response": "a", "score": 1}], asked).tolist()
    [1.0, 2.0]
    """
    rows = sources.load(path)
    name, columns = rows.name, rows.table.column_names
    if rows.quarantine:
        raise InputError(f"{name}: {len(rows.quarantine):,} rows cannot be read (first: row {rows.quarantine[0].line}).")
    if "score" not in columns:
        raise InputError(f"{name} has no column score (its columns: {', '.join(columns)}). Give key and score, or prompt, response, score.")
    values = [_number(value, name, line) for value, line in zip(rows.table["score"].to_pylist(), rows.line.tolist(), strict=True)]
    if "key" in columns:
        keys = rows.table["key"].to_pylist()
    elif {"prompt", "response"} <= set(columns):
        texts = zip(rows.table["prompt"].to_pylist(), rows.table["response"].to_pylist(), strict=True)
        keys = [request_key(str(prompt), str(response)) for prompt, response in texts]
    elif len(values) == len(requests):
        return np.array(values)
    else:
        raise InputError(
            f"{name} holds {len(values):,} scores without key, prompt or response; in the order of the requests there must be "
            f"{len(requests):,}. Write key and score instead: the keys are in requests.parquet."
        )
    held: dict[Any, float] = {}
    for key, value, line in zip(keys, values, rows.line.tolist(), strict=True):
        if held.setdefault(key, value) != value:
            raise InputError(f"{name}, row {line}: a second score for the same prompt and response ({held[key]} and {value}). Keep one.")
    missing = [i for i, key in enumerate(requests.keys) if key not in held]
    if missing:
        prompt, response = requests.prompts[missing[0]][:60], requests.responses[missing[0]][:60]
        raise InputError(
            f"{name} has no score for {len(missing):,} of {len(requests):,} requests (first: the prompt {prompt!r} with the response "
            f"{response!r}). Score all of requests.parquet."
        )
    return np.array([held[key] for key in requests.keys])


def _number(value: Any, name: str, line: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}, row {line}: the score {value!r} is not a number") from error


def write_requests(path: Path, requests: Requests, scores: Mapping[str, np.ndarray]) -> None:
    """Write key, prompt and response of each request, and a column `score_NAME` per run: what another tool reads and scores.

    A run of several training seeds has a column for each, `score_NAME[1]` and so on.
    """
    import pyarrow as pa

    columns: dict[str, Any] = {
        "key": pa.array(requests.keys, pa.string()), "prompt": pa.array(requests.prompts, pa.large_string()),
        "response": pa.array(requests.responses, pa.large_string()),
    }  # fmt: skip
    for name, values in scores.items():
        several = {f"score_{name}": values} if values.ndim == 1 else {f"score_{name}[{k}]": row for k, row in enumerate(values, 1)}
        columns.update({column: pa.array(row, pa.float64()) for column, row in several.items()})
    write_parquet(path, pa.table(columns))
