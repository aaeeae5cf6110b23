"""What is used of TRL and transformers, checked when a trainer is made: a hook that is gone must not be a treatment that does nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor

from cupel.errors import InputError

#: the versions the tests have run against
TESTED = ("1.15.0", "1.16.0")

#: method -> the names in its signature that are relied on
Methods = Mapping[str, tuple[str, ...]]

#: hooks of TRL, and hooks of transformers that are reached through it
METHODS: Methods = {
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "_set_signature_columns_if_needed": (),
    "evaluate": ("eval_dataset",),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "train": ("resume_from_checkpoint",),
    "log": ("logs",),
}


def check_methods(upstream: type, methods: Methods) -> None:
    """InputError unless `upstream` has each method, with these names in its signature, and states who scales the loss.

    >>> class Trainer:
    ...     loss_is_scaled_for_ga = False
    ...     def train(self, resume=None): ...
    >>> check_methods(Trainer, {"train": ("resume",)})
    >>> check_methods(Trainer, {"train": ("resume_from_checkpoint",)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cupel.errors.InputError: Trainer.train of TRL ... has no argument resume_from_checkpoint, ...
    """
    for name, wanted in methods.items():
        method = getattr(upstream, name, None)
        if method is None:
            raise _missing(upstream, f"{upstream.__name__}.{name}", "is not there")
        absent = [argument for argument in wanted if argument not in inspect.signature(method).parameters]
        if absent:
            raise _missing(upstream, f"{upstream.__name__}.{name}", f"has no argument {', '.join(absent)}")
    if not hasattr(upstream, "loss_is_scaled_for_ga"):
        raise _missing(upstream, f"{upstream.__name__}.loss_is_scaled_for_ga", "is not there")


def check_attributes(trainer: object, upstream: type, names: Iterable[str]) -> None:
    """InputError unless the trainer that was made has these attributes."""
    for name in names:
        if not hasattr(trainer, name):
            raise _missing(upstream, f"{upstream.__name__}().{name}", "is not there")


def output(outputs: object, name: str, upstream: type) -> Tensor:
    """An output of the model as TRL calls it; InputError where the forward gives none."""
    value = getattr(outputs, name, None)
    if value is None:
        raise _missing(upstream, f"the output {name!r} of the model that {upstream.__name__} calls", "is not there")
    return value


def _missing(upstream: type, what: str, how: str) -> InputError:
    return InputError(
        f"{what} of TRL {_installed('trl')} (transformers {_installed('transformers')}) {how}, and the adapter cannot work without it. "
        f"It is tested with TRL {' and '.join(TESTED)}: install one of these (pip install trl=={TESTED[-1]}), or train with "
        f"{upstream.__name__} of TRL itself, without objective= and treatment="
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"
