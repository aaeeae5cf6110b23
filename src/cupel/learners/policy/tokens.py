"""A data set as tokens on disk: each prompt once, each response to it once, and the comparisons as indices, in memory bounded by batch.

    FOLDER / prompts.i32 responses.i32   token ids, one text after the other
    FOLDER / prompt_ends.i64 response_ends.i64 response_prompt.i64   where each text ends, and the prompt of each response
    FOLDER / counted.u8                  which tokens of a response it is scored by
    FOLDER / prompt_lost.i64 response_lost.i64   how many tokens truncation took
    FOLDER / content.u8 content_ends.i64   what each prompt holds beside tokens: the hashes of its images
    FOLDER / tokens.json                 sizes, template, truncation: written last

The arrays are mapped, not read. What truncation did to each comparison is in `Rows.outcome`: nothing is shortened in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import RecordError
from cupel.learners.policy.names import Names
from cupel.learners.policy.options import PolicyOptions
from cupel.learners.policy.template import Faults, Template
from cupel.learners.policy.whole import whole, written
from cupel.records.files import sha256_file, write_json
from cupel.records.ratings import side_ratings

if TYPE_CHECKING:
    from cupel.records.schema import Votes

META = "tokens.json"
#: outcomes of a comparison
KEPT, SHORTENED, DROPPED, NO_PREFERENCE, IDENTICAL = range(5)
OUTCOMES = ("kept", "shortened", "dropped", "no preference", "identical sides")
_PART = 2048
_ARRAYS: dict[str, tuple[str, Any]] = {
    "prompts": ("prompts.i32", np.int32), "responses": ("responses.i32", np.int32), "counted": ("counted.u8", np.uint8),
    "prompt_ends": ("prompt_ends.i64", np.int64), "response_ends": ("response_ends.i64", np.int64),
    "response_prompt": ("response_prompt.i64", np.int64), "prompt_lost": ("prompt_lost.i64", np.int64),
    "response_lost": ("response_lost.i64", np.int64), "content": ("content.u8", np.uint8), "content_ends": ("content_ends.i64", np.int64),
}  # fmt: skip


@dataclass(frozen=True)
class Lists:
    """Responses of n lists, one list after the other: ends int64 [n] where each ends, response int32 [m], and of each response

    relevance, proposal   float64 [m] what the data say of it; its log-probability under the model it was drawn from, NaN where not stated
    """

    ends: np.ndarray
    response: np.ndarray
    relevance: np.ndarray
    proposal: np.ndarray

    def of(self, index: int) -> slice:
        """Where the responses of a list are."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))


@dataclass(frozen=True)
class Rows:
    """Comparisons of a data set as the learner sees them, the preferred side first.

    first, second  int32 [n] responses; second is -1 where a response was judged alone
    p, w           float64 [n] the target before treatment: p = 1 where the label is believed, 1/2 for a tie
    annotator, group  int32 [n] indices into `annotators` and `groups`, -1 where unknown
    ids            names of the comparisons;  outcome int8 [rows of the file], `OUTCOMES`; lost int32, tokens that were cut off
    source_row     int32 [n] row of the votes that each comparison is;  strength float32 [n] of the preference, NaN where nobody said
    rating         float32 [n, 2] of the first and the second response, NaN where nobody rated; None where the data set has no ratings
    lists          the responses of records that are lists, whose `first` is the first of them; None where records are comparisons
    """

    first: np.ndarray
    second: np.ndarray
    p: np.ndarray
    w: np.ndarray
    annotator: np.ndarray
    group: np.ndarray
    ids: Names
    annotators: tuple[str, ...]
    groups: Names
    outcome: np.ndarray
    lost: np.ndarray
    source_row: np.ndarray
    strength: np.ndarray
    rating: np.ndarray | None = None
    lists: Lists | None = None

    def __len__(self) -> int:
        return len(self.first)

    def cost(self, length: np.ndarray) -> np.ndarray:
        """Tokens of the responses of each record; length: those of each response."""
        if self.lists is not None:
            total = np.cumsum(length[self.lists.response])[self.lists.ends - 1]
            return np.diff(total, prepend=0)
        return length[self.first] + np.where(self.second < 0, 0, length[np.maximum(self.second, 0)])

    def counts(self) -> dict[str, int]:
        """Number of comparisons of each outcome."""
        found = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {name: int(found[n]) for n, name in enumerate(OUTCOMES)}

    def preferred(self) -> Rows:
        """The preferred response of each comparison, alone; ties have none. RecordError where no comparison prefers a side."""
        keep = np.flatnonzero(self.p > 0.5)
        if not len(keep):
            raise RecordError(f"none of {len(self):,} comparisons prefers a side: there is nothing to imitate")
        return replace(
            self, first=self.first[keep], second=np.full(len(keep), -1, np.int32), p=np.ones(len(keep)), w=self.w[keep],
            annotator=self.annotator[keep], group=self.group[keep], ids=self.ids.take(keep), source_row=self.source_row[keep],
            strength=self.strength[keep], rating=None if self.rating is None else self.rating[keep],
        )  # fmt: skip


class Tokens:
    """Tokens of prompts and responses, mapped from a folder. Opened by `Tokens(folder)`, made by `tokenise`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.meta: dict[str, Any] = json.loads((self.folder / META).read_text("utf-8"))
        for name, (file, kind) in _ARRAYS.items():
            empty = (self.folder / file).stat().st_size == 0
            setattr(self, name, np.zeros(0, kind) if empty else np.memmap(self.folder / file, dtype=kind, mode="r"))

    prompts: np.ndarray
    responses: np.ndarray
    counted: np.ndarray
    prompt_ends: np.ndarray
    response_ends: np.ndarray
    response_prompt: np.ndarray
    prompt_lost: np.ndarray
    response_lost: np.ndarray
    content: np.ndarray
    content_ends: np.ndarray

    @property
    def all_count(self) -> bool:
        """Whether every token of every response counts."""
        return bool(self.meta["all_count"])

    def prompt(self, index: int) -> np.ndarray:
        """int32 tokens of a prompt."""
        return self.prompts[self.prompt_ends[index - 1] if index else 0 : self.prompt_ends[index]]

    def held(self, index: int) -> str:
        """What a prompt holds beside tokens: the hashes of its images, joined by commas."""
        return bytes(self.content[self.content_ends[index - 1] if index else 0 : self.content_ends[index]]).decode("ascii")

    def response(self, index: int) -> np.ndarray:
        """int32 tokens of a response."""
        return self.responses[self.response_ends[index - 1] if index else 0 : self.response_ends[index]]

    def marks(self, index: int) -> np.ndarray | None:
        """bool: which tokens of a response count; None where all of the data set's do."""
        if self.all_count:
            return None
        return self.counted[self.response_ends[index - 1] if index else 0 : self.response_ends[index]].astype(bool)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """int32 tokens of each prompt."""
        return _lengths(self.prompt_ends)

    @property
    def response_lengths(self) -> np.ndarray:
        """int32 tokens of each response."""
        return _lengths(self.response_ends)


def _lengths(ends: np.ndarray) -> np.ndarray:
    """int32 lengths of texts that lie one after the other, by where each ends."""
    out = np.empty(len(ends), np.int32)
    out[:1] = ends[:1]
    np.subtract(ends[1:], ends[:-1], out=out[1:], casting="same_kind")
    return out


def tokenise(
    votes: Votes, template: Template, options: PolicyOptions, folder: str | Path, *, name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tokens, Rows]:  # fmt: skip
    """Tokens of all texts of `votes`, written to `folder`, and its comparisons. A folder that is complete is opened instead.

    Raises RecordError for faults of the template that were not accepted, and where truncation leaves nothing to train on.
    """
    place = Path(folder)
    pairs, node = _nodes(votes)
    if not whole(place, META, [file for file, _ in _ARRAYS.values()]):
        with written(place, META):
            _write(votes, pairs, template, options, place, progress)
    tokens = Tokens(place)
    return tokens, _rows(votes, tokens, node, name)


def _nodes(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, response) int32 [N, 2] of each different response to a prompt, sorted, and int32 [2, n] the nodes of both sides."""
    n, size = len(votes), max(len(votes.responses), 1)
    alone = votes.second < 0
    keys = np.empty(2 * n, np.int64)
    keys[:n] = votes.prompt
    keys[:n] *= size
    keys[n:] = keys[:n]
    keys[:n] += votes.first
    keys[n:] += np.where(alone, votes.first, votes.second)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.diff(keys, prepend=-1) != 0
    sides = np.empty(2 * n, np.int32)
    sides[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    del order
    keys = keys[new]
    pairs = np.empty((len(keys), 2), np.int32)
    np.floor_divide(keys, size, out=pairs[:, 0], casting="same_kind")
    np.remainder(keys, size, out=pairs[:, 1], casting="same_kind")
    sides = sides.reshape(2, n)
    sides[1, alone] = -1
    return pairs, sides


def _write(votes: Votes, pairs: np.ndarray, template: Template, options: PolicyOptions, place: Path, progress: Any) -> None:
    """Tokenise whole prompts, some thousand responses at a time, cut them as the options say, and append them to the files."""
    import pyarrow as pa

    faults, all_count, tools = Faults(), True, _Tools(votes)
    cuts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))  # where a prompt begins
    begins = [int(cut) for n, cut in enumerate(cuts) if n == 0 or cut // _PART != cuts[n - 1] // _PART]
    ends = [*begins[1:], len(pairs)]
    totals = {"prompts": 0, "responses": 0, "content": 0}
    number = -1
    with ExitStack() as stack:
        streams = {name: stack.enter_context(open(place / file, "wb")) for name, (file, _) in _ARRAYS.items()}

        part_of: dict[str, list[Any]] = {name: [] for name in _ARRAYS}

        def write(name: str, values: Sequence[Any]) -> None:
            part_of[name] += values

        for begin, end in zip(begins, ends, strict=True):
            part = pairs[begin:end]
            used = np.unique(part[:, 0])
            prompts = dict(zip(used.tolist(), votes.prompts.take(pa.array(used)).to_pylist(), strict=True))
            answers = votes.responses.take(pa.array(part[:, 1])).to_pylist()
            tooled = tools.of(used)
            template.ahead(list(prompts.values()), answers)
            edges = np.append(np.searchsorted(part[:, 0], used), len(part)).tolist()
            for k, prompt in enumerate(used.tolist()):
                rows = range(edges[k], edges[k + 1])
                text, tool = prompts[prompt], tooled.get(prompt)
                content, head = template.content(text), template.prompt(text, tool)
                found = [template.response(text, answers[row], tool) for row in rows]
                for one in found:
                    faults.add((*template.prompt_faults(head), *one.faults), f"prompt {prompt}: {text[:60]!r}")
                number += 1
                cut, kept = _cut(len(head), [len(one.ids) for one in found], options, whole=bool(content))
                totals["content"] += len(content)
                write("content", list(content.encode("ascii")))
                write("content_ends", [totals["content"]])
                totals["prompts"] += len(head) - cut
                write("prompts", head[cut:])
                write("prompt_ends", [totals["prompts"]])
                write("prompt_lost", [cut])
                for one, keep in zip(found, kept, strict=True):
                    marks = one.counted if one.counted is not None else [True] * len(one.ids)
                    keep = keep if any(marks[:keep]) else 0  # nothing left to score
                    all_count &= all(marks[:keep])
                    totals["responses"] += keep
                    write("responses", one.ids[:keep])
                    write("counted", marks[:keep])
                    write("response_ends", [totals["responses"]])
                    write("response_prompt", [number])
                    write("response_lost", [len(one.ids) - keep])
            for name, values in part_of.items():
                streams[name].write(np.array(values, _ARRAYS[name][1]).tobytes())
                values.clear()
            if progress:
                progress(end, len(pairs))
    faults.check(options.accept)
    meta = {"n_prompts": number + 1, "n_responses": len(pairs), **totals, "all_count": all_count, "template": template.digest}
    meta["files"] = {file: sha256_file(place / file) for file, _ in _ARRAYS.values()}
    write_json(place / META, {**meta, "faults": dict(faults.count), "truncation": options.truncation, "max_length": options.max_length})


def _cut(prompt: int, responses: Sequence[int], options: PolicyOptions, *, whole: bool = False) -> tuple[int, list[int]]:
    """How many tokens a prompt loses at its beginning, and how many of each response stay: 0 where it has no place.

    A prompt is cut once for all its responses, so that they stay comparable: as little as the longest response that fits needs.
    whole: it holds images and is never cut; what does not fit with it is dropped.

    >>> from cupel.learners.policy.options import options_of
    >>> options = {"data": "votes.jsonl", "model": "m", "max_length": 10}
    >>> _cut(8, [2, 5], options_of(options)), _cut(8, [2, 5], options_of({**options, "truncation": "shorten_prompt"}))
    ((0, [2, 0]), (3, [2, 5]))
    >>> _cut(8, [2, 5], options_of({**options, "truncation": "shorten_response"}))
    (0, [2, 2])
    """
    most, head = options.max_length, options.max_prompt or options.max_length - 1
    if options.truncation == "drop" or (whole and options.truncation == "shorten_prompt"):
        return 0, [n if n and prompt <= head and prompt + n <= most else 0 for n in responses]
    if options.truncation == "shorten_prompt":
        fitting = [n for n in responses if 0 < n < most]
        stays = min(prompt, head, most - max(fitting, default=0))
        return prompt - stays, [n if 0 < n < most else 0 for n in responses]
    if prompt > head:
        return 0, [0] * len(responses)
    return 0, [min(n, most - prompt) for n in responses]


class _Tools:
    """Tools of prompts, from a column `tools` of the data: those of the first row of a prompt that has any."""

    def __init__(self, votes: Votes) -> None:
        import pyarrow as pa

        from cupel.records.arrow import pc

        self.column: Any = None
        if votes.source is None or "tools" not in votes.source.column_names:
            return
        self.column = votes.source.column("tools")
        kind = self.column.type
        full = pc.is_valid(self.column)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            full = pc.greater(pc.list_value_length(self.column), 0)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            full = pc.greater(pc.binary_length(self.column), 0)
        there = np.flatnonzero(pc.fill_null(full, False).to_numpy())
        self.prompts, first = np.unique(votes.prompt[there], return_index=True)
        self.rows = there[first]

    def of(self, prompts: np.ndarray) -> dict[int, Any]:
        """Tools by prompt, of those that have any."""
        import pyarrow as pa

        if self.column is None or not len(self.prompts):
            return {}
        at = np.minimum(np.searchsorted(self.prompts, prompts), len(self.prompts) - 1)
        here = self.prompts[at] == prompts
        values = self.column.take(pa.array(self.rows[at[here]])).to_pylist()
        return {
            prompt: json.loads(value) if isinstance(value, str) else value
            for prompt, value in zip(prompts[here].tolist(), values, strict=True)
            if value
        }


def _rows(votes: Votes, tokens: Tokens, sides: np.ndarray, name: str) -> Rows:
    """Comparisons with the preferred side first; those that cannot be trained on are left out and counted."""
    import pyarrow as pa

    empty = tokens.response_lengths == 0
    a, b = sides
    alone = b < 0
    other = np.where(alone, a, b)
    lost = tokens.prompt_lost[tokens.response_prompt[a]].astype(np.int32)
    lost += tokens.response_lost[a].astype(np.int32)
    lost += np.where(alone, 0, tokens.response_lost[other]).astype(np.int32)
    outcome = np.where(lost > 0, np.int8(SHORTENED), np.int8(KEPT))
    outcome[empty[a] | empty[other]] = DROPPED
    outcome[~alone & (a == b)] = IDENTICAL
    del other, empty
    outcome[votes.w <= 0] = NO_PREFERENCE
    keep = np.flatnonzero(outcome <= SHORTENED).astype(np.int32)
    if not len(keep):
        counts = np.bincount(outcome, minlength=len(OUTCOMES))
        said = ", ".join(f"{OUTCOMES[n]}: {int(count):,}" for n, count in enumerate(counts) if count)
        raise RecordError(
            f"none of {len(votes):,} comparisons is left to train on ({said}). Raise max_length, or choose truncation: shorten_prompt or "
            f"shorten_response"
        )
    swap = votes.sign[keep] < 0
    swap &= ~alone[keep]
    first, second = np.where(swap, b[keep], a[keep]), np.where(swap, a[keep], b[keep])
    groups, group = np.unique(votes.group[keep], return_inverse=True)
    prefix = f"{name}/" if name else ""
    rating = side_ratings(votes)
    if rating is not None:
        rating = np.where(swap[:, None], rating[keep, ::-1], rating[keep]).astype(np.float32)
    return Rows(
        first=first, second=second, p=np.where(swap, 1 - votes.p[keep], votes.p[keep]), w=votes.w[keep],
        annotator=votes.annotator[keep].astype(np.int32), group=group.astype(np.int32), outcome=outcome,
        ids=Names([(prefix, votes.ids.take(pa.array(keep)))]), annotators=votes.annotators, groups=Names.numbered(prefix, groups),
        lost=np.where(outcome == SHORTENED, lost, np.int32(0)), source_row=keep,
        strength=np.abs(votes.strength[keep]).astype(np.float32), rating=rating,
    )  # fmt: skip
