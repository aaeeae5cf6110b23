"""Language-model policies trained from comparisons. Names are imported when they are first used: this package's parts need torch.

options     what a run is asked for; a YAML recipe and the command line say the same names
template    a record's texts to tokens, and the faults of templates that are refused
tokens      the tokens of a whole data set on disk, what truncation did to each record, and the comparisons among them
order       which comparisons a step holds, in which micro-batches and on which rank: a pure function of seed, epoch and step
batch       rows of the data as `Groups` and target
ranks       processes: what was asked for is what runs; gathering; sharding
optimise    optimisers and schedules by name
model       the model, its adapter, and what it is saved as
step        one optimiser step: equation (1) over micro-batches and ranks
checkpoint  finished checkpoints on disk, whole or not at all
evaluation  held-out comparisons: ranking, likelihoods, the flip rate
preparing   objective, treatment and tokens of a run, before any weight is loaded
journal     what a run writes as it goes
learner     the loop
regime, runlog  what a log says about the run
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {"PolicyOptions": "options", "train_policy": "learner", "Trained": "learner"}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
