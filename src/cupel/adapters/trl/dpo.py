"""TRL's DPO trainer with any objective of log-probabilities and any treatment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer as Upstream

from cupel.adapters.trl.choice import setting
from cupel.adapters.trl.data import CODED
from cupel.adapters.trl.hooks import output
from cupel.adapters.trl.learner import Learner, Recorder
from cupel.errors import InputError
from cupel.objectives.names import by_name, factory
from cupel.objectives.types import Objective, Side

#: arguments of TRL that change its loss, with their values at rest; an objective says all of this itself
AT_REST: Mapping[str, Any] = {
    "loss_type": ["sigmoid"], "loss_weights": None, "label_smoothing": 0.0, "ld_alpha": None, "f_divergence_type": "reverse_kl",
}  # fmt: skip
_INSTEAD = {
    "loss_type": "objective='NAME'", "loss_weights": "cupel.objectives.weighted_sum", "ld_alpha": "objective='ld_dpo:alpha=...'",
    "label_smoothing": "treatment='conservative:flip=...'", "f_divergence_type": "cupel.objectives.under_divergence",
}  # fmt: skip


class DPOTrainer(Learner, Upstream):
    """TRL's DPOTrainer, with `objective=`, `treatment=` and the columns weight, p, annotator, group and id of its data sets.

    objective: a name with its arguments ("sigmoid:beta=0.1", "simpo", "ipo:beta=0.5"), or an Objective; None takes loss_type and beta
    of the DPOConfig. treatment: a name with its arguments ("em:flip=0.2,by=annotator"), or a Treatment; None is plain training.
    Everything else is as TRL documents it. The reference is TRL's (`ref_model`, precomputed, or the adapter switched off); an objective
    that needs none skips its forward. InputError for what cannot be done, before the model is loaded.
    """

    upstream, config = Upstream, DPOConfig
    methods = {"compute_ref_log_probs": ("model", "inputs")}  # noqa: RUF012
    attributes = (*Learner.attributes, "precompute_ref_logps", "ref_model", "beta", "aux_loss_enabled", "router_aux_loss_coef")
    why = {  # noqa: RUF012
        "reference_tokens": "Precomputed references are sums: set precompute_ref_log_probs=False",
        "collision": "Set use_weighting=True, and TRL computes it",
        "rating": "TRL's collator carries no rating of a response; cupel train policy reads them from columns",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        beta = self.objective.settings.get("beta")
        if isinstance(beta, int | float):
            self.beta = beta  # in TRL's rewards/*

    def default_objective(self, args: Any, train: Any) -> Objective:
        """The objective of TRL's loss_type and beta. InputError where it is none of ours, or more than one."""
        names = setting(args, self.config, "loss_type")
        names = [names] if isinstance(names, str) else list(names)
        if len(names) != 1:
            raise InputError(f"loss_type names {len(names)} losses ({', '.join(names)}): give objective=cupel.objectives.weighted_sum(...)")
        try:
            parameters = inspect.signature(factory(names[0])).parameters
        except ValueError as error:
            raise InputError(f"loss_type={names[0]!r}: {error}") from error
        stated = {"beta": "beta", "smoothing": "label_smoothing", "tau": "discopop_tau"}
        return by_name(names[0], **{ours: setting(args, self.config, theirs) for ours, theirs in stated.items() if ours in parameters})

    def check_arguments(self, args: Any, train: Any, *, chosen: bool) -> None:
        """InputError where TRL's arguments change the loss beyond what the objective says."""
        for name, rest in AT_REST.items():
            read = not chosen and (name == "loss_type" or (name == "label_smoothing" and "smoothing" in self.objective.settings))
            value = setting(args, self.config, name)
            if not read and value != rest:
                raise InputError(
                    f"{name}={value!r} of DPOConfig would have no effect beside the objective {self.objective.name}: use {_INSTEAD[name]}"
                )
        if setting(args, self.config, "use_weighting") and "collision" not in self.objective.needs:
            raise InputError(f"use_weighting=True would have no effect beside the objective {self.objective.name}: use objective='wpo'")
        stated, beta = setting(args, self.config, "beta"), self.objective.settings.get("beta")
        if chosen and stated not in (setting(None, self.config, "beta"), beta):
            raise InputError(
                f"beta={stated} of DPOConfig would have no effect: the objective {self.objective.name} has beta={beta}. Say it there"
            )

    def gives(self, args: Any) -> frozenset[str]:
        """Log-probabilities of both models, summed and by token, where TRL computes them."""
        found = {"logp", "length", "reference", "tokens"}
        if not setting(args, self.config, "precompute_ref_log_probs"):
            found.add("reference_tokens")
        if setting(args, self.config, "use_weighting"):
            found.add("collision")
        return frozenset(found)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """TRL's, which hands every key it does not know to the model."""
        return super().compute_ref_log_probs(model, {key: value for key, value in inputs.items() if key not in CODED})

    def prepared(self, inputs: dict[str, Any], extra: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The batch with the reference's log-probabilities; zeros, and no forward, where the objective needs none."""
        if "ref_chosen_logps" in inputs:
            return inputs, extra
        if not {"reference", "reference_tokens"} & self.objective.needs:
            nothing = torch.zeros(len(inputs["input_ids"]) // 2, device=inputs["input_ids"].device)
            return {**inputs, "ref_chosen_logps": nothing, "ref_rejected_logps": nothing}, extra
        recorder = Recorder(self.model if self.ref_model is None else self.ref_model)
        chosen, rejected = self.compute_ref_log_probs(recorder, inputs)
        if "reference_tokens" in self.objective.needs:
            extra = {**extra, "cupel_reference_tokens": output(recorder.outputs, "log_probs", Upstream)}
        return {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}, extra

    @contextmanager
    def using(self) -> Iterator[None]:
        """TRL reads the reference from the batch."""
        before, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            yield
        finally:
            self.precompute_ref_logps = before

    def sides(self, outputs: Any, inputs: Mapping[str, Any]) -> tuple[Side, Side]:
        """Summed log-probabilities, and those of tokens where the objective needs them."""
        mask = inputs["completion_mask"][:, 1:].bool()
        needs, width = self.objective.needs, mask.shape[1]
        columns: dict[str, Tensor] = {"logp": _tokens(outputs, "log_probs", width).sum(1)}
        if "length" in needs:
            columns["n_tokens"] = mask.sum(1).clamp(min=1)
        if {"tokens", "reference_tokens", "collision"} & needs:
            columns |= {"mask": mask, "token_logp": _tokens(outputs, "log_probs", width)}
        if "collision" in needs:
            columns["collision"] = _tokens(outputs, "log_sum_sq_probs", width).detach()
        if "reference_tokens" in needs:
            columns["reference_token_logp"] = inputs["cupel_reference_tokens"][:, -width:]
        halves = {name: value.chunk(2) for name, value in columns.items()}
        references = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        chosen, rejected = ({name: value[i] for name, value in halves.items()} for i in range(2))
        return Side(**chosen, reference_logp=references[0]), Side(**rejected, reference_logp=references[1])

    def extra_loss(self, outputs: Any) -> Tensor | None:
        """The load-balancing loss of a mixture of experts."""
        return self.router_aux_loss_coef * outputs.aux_loss if self.aux_loss_enabled else None


def _tokens(outputs: Any, name: str, width: int) -> Tensor:
    """[2B, T] an output for each token; prefix tuning puts further ones in front."""
    return output(outputs, name, Upstream)[:, -width:]
