"""Optimisers and schedules by name, their state as tensors by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.policy.options import PolicyOptions
from cupel.learners.policy.ranks import Ranks, place_into, whole

#: schedules that are functions of the step alone: their state is the step
SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt", "cosine_with_min_lr",
)  # fmt: skip


def _adamw(groups: list[dict[str, Any]], o: PolicyOptions, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), fused=fused)


def _adam(groups: list[dict[str, Any]], o: PolicyOptions, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), fused=fused)


def _sgd(groups: list[dict[str, Any]], o: PolicyOptions, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=o.learning_rate, momentum=o.beta1, fused=fused)


def _adafactor(groups: list[dict[str, Any]], o: PolicyOptions, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=o.learning_rate)


def _adamw_8bit(groups: list[dict[str, Any]], o: PolicyOptions, fused: bool) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("optimiser=adamw_8bit needs bitsandbytes: python -m pip install bitsandbytes, or optimiser=adafactor") from error
    return AdamW8bit(groups, lr=o.learning_rate, betas=(o.beta1, o.beta2))


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], PolicyOptions, bool], torch.optim.Optimizer]] = {
    "adamw": _adamw, "adam": _adam, "sgd": _sgd, "adafactor": _adafactor, "adamw_8bit": _adamw_8bit,
}  # fmt: skip


def optimiser_of(model: nn.Module, options: PolicyOptions) -> torch.optim.Optimizer:
    """The optimiser of an option over trainable parameters; biases, norms and other vectors are not decayed.

    Fused kernels where parameters are whole (not sharded) and floating point. InputError for unknown names or nothing to train.
    """
    if options.optimiser not in OPTIMISERS:
        raise InputError(f"optimiser is one of {', '.join(OPTIMISERS)}, not {options.optimiser!r}")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise InputError("no parameter of the model is trainable: with an adapter, give lora=RANK or adapter=FOLDER")
    groups = []
    for pace in dict.fromkeys((1.0, options.head_rate)):
        mine = [p for name, p in named if (options.head_rate if _of_head(name) else 1.0) == pace]
        decayed, others = [p for p in mine if p.ndim > 1], [p for p in mine if p.ndim <= 1]
        more = {} if pace == 1 else {"pace": pace}
        groups += [{"params": decayed, "weight_decay": options.weight_decay, **more}, {"params": others, "weight_decay": 0.0, **more}]
    fused = not any(hasattr(p, "device_mesh") for _, p in named) and options.optimiser in ("adamw", "adam", "sgd")
    return OPTIMISERS[options.optimiser]([group for group in groups if group["params"]], options, fused)


def _of_head(name: str) -> bool:
    """Whether a parameter belongs to the head of a reward model."""
    return any(part in ("score", "classifier") for part in name.split("."))


def schedule_of(options: PolicyOptions, total: int) -> Callable[[int], float]:
    """The learning rate at a step (from 0), by transformers' schedule of that name. InputError for others."""
    if options.schedule not in SCHEDULES:
        raise InputError(f"schedule is one of {', '.join(SCHEDULES)}, not {options.schedule!r}")
    from transformers import get_scheduler

    warmup = math.ceil(options.warmup * total) if options.warmup < 1 else int(options.warmup)
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    more = {"min_lr_rate": 0.1} if options.schedule == "cosine_with_min_lr" else {}
    made: Any = get_scheduler(options.schedule, dummy, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=more)
    factor = made.lr_lambdas[0]
    return lambda step: options.learning_rate * float(factor(step))


def gradient_norm(model: nn.Module, ranks: Ranks) -> float:
    """Norm of the whole gradient, in float64, the same on all processes."""
    total = 0.0
    for parameter in model.parameters():
        if parameter.grad is not None:
            grad: Any = parameter.grad
            local = grad.to_local() if hasattr(grad, "to_local") else grad
            total += float(local.double().pow(2).sum()) if local.device.type != "mps" else float(local.pow(2).sum())
    return math.sqrt(ranks.total(total)) if ranks.sharded else math.sqrt(total)


def clip(model: nn.Module, norm: float, most: float, scale: float = 1.0) -> None:
    """Divide the gradient by `scale`, and further so that its norm, `norm` after that division, is at most `most`."""
    factor = (most / (norm + 1e-6) if norm > most else 1.0) / scale
    if factor != 1.0:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def state_of(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers) of an optimiser's state, named PARAMETER/KEY; whole tensors, whatever the sharding."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            for key, value in sorted(optimiser.state.get(parameter, {}).items()):
                name = f"{names[id(parameter)]}/{key}"
                if isinstance(value, Tensor):
                    tensors[name] = whole(value).contiguous().clone()
                elif isinstance(value, int | float | bool | str) or value is None:
                    numbers[name] = value
                else:
                    raise RuntimeError(f"the optimiser keeps {type(value).__name__} under {key}: it cannot be saved without pickle")
    return tensors, numbers


def restore(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Put back what `state_of` gave."""
    by_name: dict[str, dict[str, Any]] = {}
    for full, value in {**tensors, **numbers}.items():
        name, _, key = full.rpartition("/")
        by_name.setdefault(name, {})[key] = value
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            saved = by_name.get(names[id(parameter)], {})
            state: dict[str, Any] = {}
            for key, value in saved.items():
                if not isinstance(value, Tensor):
                    state[key] = value
                elif value.shape == parameter.shape:
                    state[key] = torch.zeros_like(parameter, dtype=value.dtype).detach()
                    place_into(state[key], value)
                else:  # step counters stay where they were: on the device for fused kernels
                    state[key] = value.clone().to(parameter.device if group.get("fused") else "cpu")
            if state:
                optimiser.state[parameter] = state
