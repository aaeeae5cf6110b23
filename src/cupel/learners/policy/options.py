"""What a run of the policy learner is asked for. A recipe (YAML) and the command line say the same names; this file loads no torch."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from cupel.errors import InputError
from cupel.learners.options import fitting, refuse_unknown

Truncation = Literal["drop", "shorten_prompt", "shorten_response"]
Precision = Literal["no", "bf16", "fp16"]
Sharding = Literal["none", "fsdp", "fsdp_grad", "deepspeed"]
Kind = Literal["policy", "sft", "reward"]
#: what a reward model is trained with where nobody says otherwise
REWARD_DEFAULTS = {"objective": "bradley_terry", "learning_rate": 1e-5, "reference": "none"}

#: faults of a template that training refuses unless they are accepted by name
FAULTS = ("double_bos", "prompt_not_prefix", "missing_eos", "empty_response")


@dataclass(frozen=True)
class Source:
    """A data set: its file, the share of its rows that each epoch takes (relative to the largest), and how it is read.

    file    any file that `cupel.read` knows, or the train.parquet of `cupel curate`
    weight  more than 0; of two sets with weights 1 and .5, each epoch holds all rows of the first and half of the second's
    """

    file: str
    weight: float = 1.0
    format: str | None = None
    map: Mapping[str, str] | None = None
    name: str = ""


@dataclass(frozen=True)
class PolicyOptions:
    """Every choice of a run. Made by `read_recipe`, or directly; raises InputError for values that make no sense.

    data             data sets; `heldout` of the prompts of each are kept for evaluation (0: none)
    evaluate         further evaluation sets by name
    model            a folder or name that transformers loads; `adapter` a trained peft adapter to start from (it is part of the reference)
    objective, treatment   texts `name:argument=value,...`; treatments may be chains joined by " + "
    reference        start (the policy as it starts, scored once and kept), live (the same, computed in every step), refresh:N, ema:D, none,
                     or a folder of another model
    peer             a folder of another model, which stays as it is, for treatments that go by a second model's losses
    head             of a reward: scalar, or a preference model as `name:argument=value,...` (gpm:dim=6, pal:prototypes=3)
    head_rate        learning rate of the head as a multiple of learning_rate (a new head on a trained body wants more)
    unpaired         read rows of single responses with a label (format kto) as they are, for objectives such as kto and bco
    steps, epochs    optimiser steps at most (None: by epochs), passes over the data
    batch_size       comparisons of an optimiser step, over all processes
    batch_tokens     tokens of a micro-batch on one process, at most (a longer comparison stands alone)
    normalise        a step's loss is divided by its number of comparisons, or by the sum of their weights
    optimiser        adamw, adam, sgd, adafactor, adamw_8bit;  schedule  a name of transformers;  warmup  a share below 1, else steps
    max_length       tokens of prompt and response together; truncation says what happens beyond: drop the comparison, shorten the
                     prompt at its beginning, or the response at its end
    template         file of a chat template in place of the tokenizer's; template_arguments go to it; accept names of faults let through
    freeze           names of modules whose weights stay as they are (vision_tower)
    lora             rank of a low-rank adapter (0: all weights are trained); quantise  none, 4bit, 8bit (QLoRA, needs bitsandbytes)
    precision        autocast: no, bf16, or fp16 with a scale on the loss;  dtype  of the weights
    checkpointing    activations are computed again in backward
    evaluate_every, save_every   in optimiser steps (None: five times in a run, and at the end of each epoch); keep  checkpoints kept
                     besides the best
    best             what the best checkpoint is chosen by: NAME/accuracy or NAME/loss of an evaluation set; patience  evaluations without
                     improvement before training ends (0: never)
    nonfinite        consecutive steps with a loss or gradient that is not finite before training stops; each is skipped and named
    processes, sharding   what must run: the learner raises where fewer processes or no sharding came to be. fsdp splits parameters,
                     gradients and moments (as ZeRO-3 does), fsdp_grad leaves parameters whole from forward to backward (ZeRO-2)
    trackers         names that accelerate passes metrics to (tensorboard, wandb, ...)
    generate         held-out prompts that the policy answers in every evaluation (0: none), generate_tokens  tokens of an answer at most,
                     temperature  of sampling (0: the most likely token)
    judge            folder of a reward model that compares answers with those of the start (Python callers may give a function)
    """

    data: tuple[Source, ...]
    model: str
    out: str = "policy"
    kind: Kind = "policy"
    heldout: float = 0.1
    evaluate: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    adapter: str | None = None
    objective: str = "sigmoid:beta=0.1"
    treatment: str = "identity"
    reference: str = "start"
    peer: str | None = None
    head: str = "scalar"
    head_rate: float = 1.0
    unpaired: bool = False
    max_bad: float = 0.01
    seed: int = 0
    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    batch_tokens: int = 8192
    normalise: Literal["comparisons", "weight"] = "comparisons"
    optimiser: str = "adamw"
    learning_rate: float = 5e-7
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_length: int = 1024
    max_prompt: int | None = None
    truncation: Truncation = "drop"
    template: str | None = None
    template_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    accept: tuple[str, ...] = ()
    lora: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: str | tuple[str, ...] = "all-linear"
    freeze: tuple[str, ...] = ()
    quantise: Literal["none", "4bit", "8bit"] = "none"
    merge: bool = False
    precision: Precision = "no"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: str | None = None
    layout: str = "auto"
    checkpointing: bool = False
    device: str = "auto"
    evaluate_every: int | None = None
    save_every: int | None = None
    keep: int = 2
    best: str | None = None
    patience: int = 0
    nonfinite: int = 3
    processes: int | None = None
    sharding: Sharding = "none"
    trackers: tuple[str, ...] = ()
    cache: str | None = None
    generate: int = 0
    generate_tokens: int = 256
    temperature: float = 0.0
    judge: str | None = None

    def __post_init__(self) -> None:
        positive = ("batch_size", "batch_tokens", "max_length", "epochs", "keep", "nonfinite", "generate_tokens")
        for name in (*positive, "steps", "max_prompt", "evaluate_every", "save_every", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is a whole number of at least 1, not {value!r}")
        for name in ("learning_rate", "max_grad_norm", "lora_alpha", "head_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} is a positive number, not {getattr(self, name)!r}")
        for name in ("weight_decay", "warmup", "patience", "lora", "seed", "generate", "temperature"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is at least 0, not {getattr(self, name)!r}")
        for name in ("heldout", "beta1", "beta2", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} lies in [0, 1), not {getattr(self, name)!r}")
        if not self.data:
            raise InputError("there is no data to train on: name a file, or `data:` in the recipe")
        if any(not source.weight > 0 for source in self.data):
            raise InputError("the weight of a data set is more than 0; leave a set out that is not wanted")
        unknown = sorted(set(self.accept) - set(FAULTS))
        if unknown:
            raise InputError(f"accept: {unknown[0]!r} is no fault of a template; known: {', '.join(FAULTS)}")
        if self.max_prompt is not None and self.max_prompt >= self.max_length:
            raise InputError(f"max_prompt={self.max_prompt} leaves no room for a response in max_length={self.max_length}")
        if self.quantise != "none" and not self.lora:
            raise InputError(f"quantise={self.quantise} freezes the weights: give lora=RANK, the adapter that is trained (QLoRA)")
        if self.merge and not (self.lora or self.adapter):
            raise InputError("merge joins an adapter with its model: there is none without lora=RANK or adapter=FOLDER")
        if self.judge is not None and not self.generate:
            raise InputError("judge compares what the policy writes, and it writes nothing: give generate=NUMBER of held-out prompts")
        if self.generate and not (self.heldout or self.evaluate):
            raise InputError("generate answers held-out prompts, and none are held out: give heldout=SHARE, or sets to evaluate on")
        if self.generate and self.sharding != "none":
            raise InputError(f"generate needs the whole model on each process, which sharding={self.sharding} splits: leave one out")
        if self.kind == "reward" and (self.reference != "none" or self.unpaired or self.generate or self.peer):
            raise InputError("a reward model has no reference, writes nothing and reads pairs: without reference, generate, unpaired, peer")
        if self.kind != "reward" and (self.head, self.head_rate) != ("scalar", 1.0):
            raise InputError(f"head={self.head}, head_rate={self.head_rate:g} belong to a reward model (cupel train reward --model ...)")
        if self.kind == "sft" and self.treatment != "identity":
            raise InputError("sft imitates the preferred responses and has no labels to treat; leave out the treatment")
        if reference_of(self.reference).kind in ("live", "refresh", "ema") and self.sharding != "none":
            raise InputError(f"reference={self.reference} exchanges weights, which sharding={self.sharding} splits; use reference=start")
        if self.quantise != "none" and self.sharding != "none":
            raise InputError(f"quantise={self.quantise} packs weights that sharding={self.sharding} would split: choose one of the two")

    def recorded(self) -> dict[str, Any]:
        """The options as JSON and YAML hold them."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


class Reference(typing.NamedTuple):
    """What the reference is: start, live, refresh, ema, none, or model; a number of steps, a decay, or a folder."""

    kind: Literal["start", "live", "refresh", "ema", "none", "model"]
    value: float | str | None = None


def reference_of(text: str) -> Reference:
    """The reference a text names. InputError for a number that makes no sense.

    >>> reference_of("ema:0.99"), reference_of("models/sft").kind
    (Reference(kind='ema', value=0.99), 'model')
    """
    word, _, rest = text.partition(":")
    if text in ("start", "live", "none"):
        return Reference(typing.cast("Literal['start']", text))
    if word in ("refresh", "ema") and rest:
        try:
            value = float(rest)
        except ValueError:
            value = math.nan
        if word == "refresh" and value >= 1 and value == int(value):
            return Reference("refresh", int(value))
        if word == "ema" and 0 <= value < 1:
            return Reference("ema", value)
        raise InputError(f"reference: {text!r} is neither refresh:STEPS (a whole number of at least 1) nor ema:DECAY (in [0, 1))")
    return Reference("model", text)


def read_recipe(path: str | Path, changes: Mapping[str, Any] | None = None) -> PolicyOptions:
    """The options of a YAML recipe; `changes` (from the command line) win. InputError for unknown names and wrong kinds, with the nearest.

    `data` is a file, or a list of files and of mappings {file, weight, format, map, name}; `evaluate` maps names to such entries.
    """
    import yaml

    place = Path(path)
    try:
        found = yaml.safe_load(place.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {place} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the recipe {place} is not a mapping of options to values, e.g. `model: models/base`")
    return options_of({**found, **(changes or {})})


def options_of(values: Mapping[str, Any]) -> PolicyOptions:
    """Options from plain values, as YAML or JSON hold them. InputError as `read_recipe`.

    >>> options_of({"data": "votes.jsonl", "model": "models/base", "batch_size": "16"}).batch_size
    16
    >>> options_of({"data": "votes.jsonl", "model": "m", "batchsize": 16})
    Traceback (most recent call last):
    cupel.errors.InputError: there is no option 'batchsize'; did you mean batch_size?
    """
    known = {field.name: field for field in fields(PolicyOptions)}
    kinds = typing.get_type_hints(PolicyOptions)
    refuse_unknown(values, known, "there is no option")
    missing = [key for key in ("data", "model") if not values.get(key)]
    if missing:
        raise InputError(f"the option {missing[0]} is needed: {'a file of comparisons' if missing[0] == 'data' else 'a folder or name'}")
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key == "data":
            made[key] = tuple(_source(entry) for entry in (value if isinstance(value, list | tuple) else [value]))
        elif key == "evaluate":
            if not isinstance(value, Mapping):
                raise InputError("evaluate maps names to files, e.g. `evaluate: {trusted: trusted.jsonl}`")
            made[key] = {str(name): _source(entry) for name, entry in value.items()}
        else:
            made[key] = fitting(key, value, kinds[key])
    if made.get("kind") == "reward":
        made = {**REWARD_DEFAULTS, **made}
    return PolicyOptions(**made)


def _source(entry: Any) -> Source:
    if isinstance(entry, Source):
        return entry
    if isinstance(entry, str | Path):
        return Source(str(entry))
    names = [field.name for field in fields(Source)]
    if not isinstance(entry, Mapping) or "file" not in entry or set(entry) - set(names):
        raise InputError(f"a data set is a file or a mapping of {', '.join(names)} with at least `file`, not {entry!r}")
    values = {**entry, "file": str(entry["file"])}
    if "weight" in values:
        values["weight"] = fitting("weight", values["weight"], float)
    return Source(**values)
