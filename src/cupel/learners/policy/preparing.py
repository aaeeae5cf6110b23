"""What a run trains on, made before any weight is loaded: objective and treatment, tokens of all data, rows for the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cupel.errors import InputError
from cupel.learners.policy.batch import Data
from cupel.learners.policy.images import Images
from cupel.learners.policy.list_rows import COLUMNS, as_lists
from cupel.learners.policy.lists import is_list, list_objective
from cupel.learners.policy.model import check_vocabulary, load_config, load_processor, load_tokenizer
from cupel.learners.policy.options import PolicyOptions
from cupel.learners.policy.outcomes import suited
from cupel.learners.policy.template import Template, template_text
from cupel.learners.policy.tokens import Rows, Tokens, tokenise
from cupel.learners.policy.vision import VisionTemplate, image_token_of, is_vision
from cupel.records.ratings import side_ratings
from cupel.scorers.groups import Groups

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """Data of a run, ready to be trained on: comparisons, evaluation sets by name, and a digest of all that."""

    data: Data
    shares: tuple[float, ...]
    sets: Mapping[str, Data]
    template: Template
    tokenizer: Any
    digest: str

    @property
    def processor(self) -> Any:
        """What is saved beside the model: its tokenizer, or the processor that holds it."""
        return getattr(self.template, "processor", self.tokenizer)

    @property
    def examples(self) -> Groups | None:
        """A few records whose prompts hold images, the shortest ones, for the scorer's check; None where no prompt does."""
        return examples_of(self.data) or next((found for data in self.sets.values() if (found := examples_of(data))), None)


def template_of(options: PolicyOptions, config: Any, images: Images | None) -> Template:
    """The tokenizer of the model (with `images` its processor) and the chat template."""
    if images is None:
        return Template.load(load_tokenizer(options), options.template, options.template_arguments)
    text, arguments = template_text(options.template), options.template_arguments
    return VisionTemplate(load_processor(options), image_token_of(config), images, text, arguments)


def parsed(options: PolicyOptions) -> tuple[Any, Any]:
    """(objective, treatment) of the options. InputError with the reason where a text names none."""
    from cupel.noise.names import parse
    from cupel.objectives.names import parse as parse_objective

    text = "sft" if options.kind == "sft" else options.objective
    try:
        if options.kind == "policy" and is_list(text):
            return _list_objective(options), parse(options.treatment)
        return parse_objective(text), parse(options.treatment)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error


def _list_objective(options: PolicyOptions) -> Any:
    """An objective of lists in the form of the loop; InputError for what lists have not."""
    for name, given in (("unpaired", options.unpaired), ("peer", options.peer)):
        if given:
            raise InputError(f"{options.objective} reads lists of responses, for which there is no {name}: leave it out")
    if (options.best or "").endswith("/accuracy"):
        raise InputError(f"best={options.best}: lists have no label to be ranked by. Choose by their loss, e.g. best=heldout/loss")
    return list_objective(options.objective, stated=options.reference == "none")


def prepare(options: PolicyOptions, out: Path, *, mismatch: bool, progress: Progress | None = None) -> Prepared:
    """Read, split and tokenise all data; nothing is loaded but the tokenizer and the model's configuration.

    Large files are read in batches; what that keeps on disk lies in a folder under `out` that is gone at the end.
    """
    from cupel.records.stream.scratch import scratch

    out.mkdir(parents=True, exist_ok=True)
    with scratch(out) as spools:
        return _prepare(options, out, spools, mismatch, progress)


def _prepare(options: PolicyOptions, out: Path, spools: Path, mismatch: bool, progress: Progress | None) -> Prepared:
    from cupel.learners.policy.reading import read_source

    objective = parsed(options)[0]
    listwise = options.kind == "policy" and is_list(options.objective)
    config = load_config(options)
    images = Images(out / ".images") if is_vision(config) else None
    template = template_of(options, config, images)
    check_vocabulary(template.tokenizer, config, options.model)
    inputs = template.further if isinstance(template, VisionTemplate) else None
    digest = hashlib.sha256(template.digest.encode())
    train: list[tuple[Tokens, Rows]] = []
    held: list[tuple[Tokens, Rows]] = []
    sets: dict[str, list[tuple[Tokens, Rows]]] = {}

    def tokens_of(votes: Any, name: str) -> tuple[Tokens, Rows]:
        key = hashlib.sha256(f"{votes_digest(votes)}\n{template.digest}\n{_lengths(options)}".encode()).hexdigest()[:32]
        digest.update(key.encode())
        tokens, rows = tokenise(votes, template, options, out / ".tokens" / key, name=name, progress=stage(progress, "tokenise"))
        return tokens, as_lists(votes, rows, name) if listwise else suited(rows, objective)

    several = len(options.data) > 1
    for n, source in enumerate(options.data):
        votes = read_source(source, options, heldout=options.heldout, images=images, spool=spools / str(n))
        name = (source.name or str(n)) if several else ""
        made = tokens_of(votes.take(votes.split != 1), name)
        train.append((made[0], made[1].preferred()) if options.kind == "sft" else made)
        if (votes.split == 1).any():
            held.append(tokens_of(votes.take(votes.split == 1), name))
    if held:
        sets["heldout"] = held
    for name, source in options.evaluate.items():
        spool = spools / f"evaluate-{len(sets)}"
        sets[name] = [tokens_of(read_source(source, options, heldout=0.0, images=images, spool=spool), "")]
    check_sharded(options, [tokens for tokens, _ in (*train, *held, *(part for parts in sets.values() for part in parts))])
    largest = max(source.weight for source in options.data)
    data = Data.of(train, mismatch=mismatch, inputs=inputs)
    further = {name: Data.of(parts, mismatch=mismatch, inputs=inputs) for name, parts in sets.items()}
    if _asks_for_people(options):
        people = data.spec.annotators
        if not people:
            raise InputError(
                f"the head {options.head} learns what each annotator prefers, and the data name none: name the column that does "
                f"(map: {{annotator: COLUMN}} of the data set), or choose another head"
            )
        data, further = data.as_people(people), {name: part.as_people(people) for name, part in further.items()}
    shares = tuple(source.weight / largest for source in options.data)
    return Prepared(data, shares, further, template, template.tokenizer, digest.hexdigest())


def _asks_for_people(options: PolicyOptions) -> bool:
    """Whether the head of a reward reads who compares."""
    if options.head == "scalar":
        return False
    from cupel.learners.models.names import reads_of

    return "person" in reads_of(options.head)


def votes_digest(votes: Any) -> str:
    """Hash of everything of some votes that training reads; the same for votes in memory and on disk."""
    import pyarrow as pa

    from cupel.records.stream.spool import buffers

    digest = hashlib.sha256()
    for name in ("prompt", "first", "second", "outcome", "annotator", "group", "p", "w", "strength"):
        digest.update(f"{name}\n".encode())
        digest.update(np.ascontiguousarray(getattr(votes, name)).tobytes())
    for texts in (votes.prompts, votes.responses, votes.ids):
        for low in range(0, len(texts), 1 << 16):
            offsets, data = buffers(texts.slice(low, 1 << 16).cast(pa.large_string()))
            digest.update(np.diff(offsets).tobytes())
            digest.update(memoryview(data)[offsets[0] : offsets[-1]])
    digest.update("\0".join(votes.annotators).encode("utf-8", "surrogatepass"))
    for name in COLUMNS[:3] if votes.source_format == "lists" else ():
        digest.update(np.ascontiguousarray(votes.source[name].to_numpy()).tobytes())
    if (ratings := side_ratings(votes)) is not None:
        digest.update(b"ratings\n" + np.ascontiguousarray(ratings).tobytes())
    return digest.hexdigest()


def _lengths(options: PolicyOptions) -> str:
    return f"{options.max_length} {options.max_prompt} {options.truncation} {sorted(options.accept)}"


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """`progress` of one stage, as functions that know no stages call it."""
    return None if progress is None else lambda done, total: progress(name, done, total)


def check_sharded(options: PolicyOptions, tokens: list[Tokens]) -> None:
    """InputError where parameters are sharded and only some prompts hold images: processes would wait for a tower that one does not use."""
    held = np.concatenate([np.diff(part.content_ends, prepend=0) > 0 for part in tokens])
    if options.sharding != "none" and held.any() and not held.all():
        raise InputError(
            f"{int((~held).sum()):,} of {len(held):,} prompts hold no image: with sharding={options.sharding} either all prompts of a run "
            f"hold images or none does, since all processes gather the vision tower together. Split the data, or use sharding: none"
        )


def examples_of(data: Data, n: int = 3) -> Groups | None:
    """A batch of the `n` shortest comparisons whose prompts hold images, of different prompts."""
    if data.inputs is None:
        return None
    held = np.concatenate([np.diff(tokens.content_ends, prepend=0) > 0 for tokens in data.tokens])
    rows = np.flatnonzero(held[data.prompt])
    order = rows[np.argsort(data.cost[rows] + data.prompt_cost[data.prompt[rows]], kind="stable")]
    order = order[np.sort(np.unique(data.prompt[order], return_index=True)[1])]
    return data.batch(order[:n]).groups if len(order) else None


class ReferenceRows:
    """(prompt, response, marks, what the prompt holds beside tokens) of all responses that comparisons name, and of mismatched pairs.

    They are read from disk one by one; its length is their number.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.used: list[np.ndarray] = []
        self.strangers: list[np.ndarray] = []
        for n, (tokens, rows) in enumerate(zip(data.tokens, data.rows, strict=True)):
            named = np.zeros(len(tokens.response_ends), bool)
            named[rows.first] = True
            named[rows.second[rows.second >= 0]] = True
            if rows.lists is not None:
                named[rows.lists.response] = True
            self.used.append(np.flatnonzero(named))
            prompts = np.unique(tokens.response_prompt[self.used[-1]]) if data.partner else np.zeros(0, np.int64)
            self.strangers.append(prompts[data.partner[n][prompts] >= 0] if data.partner else prompts)

    def __len__(self) -> int:
        return sum(map(len, (*self.used, *self.strangers)))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None, str]]:
        for n, tokens in enumerate(self.data.tokens):
            for i in self.used[n]:
                own = int(tokens.response_prompt[i])
                yield tokens.prompt(own), tokens.response(int(i)), tokens.marks(int(i)), tokens.held(own)
            most = int(tokens.meta["max_length"])
            for q in self.strangers[n]:
                prompt = tokens.prompt(int(q))
                yield prompt, tokens.response(int(self.data.partner[n][q]))[: max(most - len(prompt), 1)], None, tokens.held(int(q))
