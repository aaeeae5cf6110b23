"""What an interrupted training goes on from, in one file that is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cupel.errors import InputError


class Resumption(NamedTuple):
    """The state of a run after a pass: tensors by name (parameters, the best ones so far, of the optimiser, the treatment, the statistics
    of the objective, the generators), and plain values (passes done, the lines of the log, the best value)."""  # fmt: skip

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def of(self, kind: str) -> dict[str, Tensor]:
        """The tensors of one kind, by their own names."""
        return {name.partition("|")[2]: x for name, x in self.tensors.items() if name.partition("|")[0] == kind}


def write(path: Path, key: str, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
    """Write tensors by kind and name, and values, under the key of the run; atomic."""
    from safetensors.torch import save

    from cupel.records.files import atomic_write

    tensors = {f"{kind}|{name}": x.detach().cpu().contiguous().clone() for kind, found in parts.items() for name, x in found.items()}
    data = save(tensors, metadata={"key": key, "values": json.dumps(values, sort_keys=True)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def read(path: Path, key: str) -> Resumption | None:
    """What `write` wrote under that key; None where there is no file. InputError for the file of another run, or one that is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                raise InputError(f"{path} is of an interrupted run with other options, data or version: name another folder, or remove it")
            return Resumption({name: file.get_tensor(name) for name in file.keys()}, json.loads(about["values"]))  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it to begin anew") from error


def optimiser_tensors(optimiser: Any) -> dict[str, Tensor]:
    """Tensors of an optimiser of torch by "number.key", or of the rows' own."""
    if hasattr(optimiser, "sums"):
        return {str(i): x for i, x in enumerate(optimiser.sums)}
    found = optimiser.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(x) for i, entry in found.items() for name, x in entry.items() if x is not None}


def restore_optimiser(optimiser: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    if hasattr(optimiser, "sums"):
        for i, x in enumerate(optimiser.sums):
            x.copy_(tensors[str(i)])
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in tensors.items():
        i, _, key = name.partition(".")
        state.setdefault(int(i), {})[key] = x
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
