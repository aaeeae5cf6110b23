"""What a scorer has to know of a causal language model: its body, its head, its kinds of layers, its windows."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from cupel.errors import InputError

#: kinds of layers under which a token sees exactly the tokens that a mask lets it see
ATTENTION = {"full_attention", "sliding_attention"}
#: words in the class names of modules that carry a state along the row: a prompt shared by position ids would leak through them
RECURRENT = (
    "mamba", "ssm", "rwkv", "recurrent", "linearattention", "gateddelta", "deltanet", "shortconv", "lightning", "xlstm", "retention",
)  # fmt: skip


class ScorerError(InputError):
    """A model, or a batch, cannot be scored in the way that was asked for."""


class Head(NamedTuple):
    """The vocabulary projection: logits = cap(scale * (h W' + b)), cap(x) = softcap tanh(x / softcap) where there is a softcap."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None


class Anatomy(NamedTuple):
    """The parts of a causal language model.

    causal    the transformers model behind adapters
    backbone  token ids to hidden states after the last norm
    windows   kind of layer -> length of its sliding window, None where it sees everything; empty where a kind is unknown
    reason    why prompts cannot be shared, "" where they can
    """

    causal: Any
    backbone: nn.Module
    windows: dict[str, int | None]
    reason: str


def anatomy(model: nn.Module) -> Anatomy:
    """The parts of `model`, a transformers causal language model or a peft model around one.

    Raises ScorerError for prompt learning (the adapter is then not inside the layers) and for models without body or head.
    """
    causal = causal_of(model)
    prefix = getattr(causal, "base_model_prefix", "")
    backbone = getattr(causal, prefix, None) if prefix else None
    if not isinstance(backbone, nn.Module) or not callable(getattr(causal, "get_output_embeddings", None)):
        raise ScorerError(f"{type(causal).__name__} is not a transformers model with a body and a vocabulary head (AutoModelForCausalLM)")
    config = causal.config.get_text_config() if hasattr(causal.config, "get_text_config") else causal.config
    windows, reason = _windows(config)
    if not reason:
        kinds = {type(module).__name__ for module in backbone.modules()}
        state = sorted(kind for kind in kinds if any(word in kind.lower() for word in RECURRENT))
        reason = f"layers carry a state along the row ({state[0]})" if state else ""
    if getattr(causal.config, "is_encoder_decoder", False):
        raise ScorerError(f"{type(causal).__name__} has an encoder; a scorer reads causal language models")
    return Anatomy(causal, backbone, windows, reason)


def causal_of(model: nn.Module) -> Any:
    """The transformers model behind adapters. ScorerError for prompt learning."""
    if not hasattr(model, "peft_config"):
        return model
    adapters: Any = model.peft_config
    learned = sorted(name for name, config in adapters.items() if getattr(config, "is_prompt_learning", False))
    if learned:
        raise ScorerError(f"adapter {learned[0]!r} learns a prompt, which a scorer does not see. Use an adapter inside the layers (LoRA)")
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def _windows(config: Any) -> tuple[dict[str, int | None], str]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {"sliding_attention" if window else "full_attention": window or None}, ""
    unknown = sorted(set(kinds) - ATTENTION)
    if unknown:
        return {}, f"layers of kind {unknown[0]!r}"
    if "sliding_attention" in kinds and not window:
        return {}, "sliding layers without a window"
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}, ""


def head_of(causal: Any) -> Head:
    """The head as it is now: read at every forward, since sharding replaces parameters. ScorerError unless it is one linear layer."""
    head = causal.get_output_embeddings()
    saved = getattr(head, "modules_to_save", None)
    if saved is not None:
        head = saved[head.active_adapters[0] if hasattr(head, "active_adapters") else head.active_adapter]
    if head is None or not isinstance(getattr(head, "weight", None), Tensor) or head.weight.ndim != 2 or hasattr(head, "lora_A"):
        raise ScorerError(
            f"the vocabulary head is a {type(head).__name__}; a scorer needs one linear layer. Take lm_head out of the adapter's "
            f"target_modules, or name it in modules_to_save"
        )
    config = causal.config.get_text_config() if hasattr(causal.config, "get_text_config") else causal.config
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale /= float(config.logits_scaling)
    if getattr(config, "logit_scale", None):
        scale *= float(config.logit_scale)
    return Head(head.weight, getattr(head, "bias", None), scale, getattr(config, "final_logit_softcapping", None))


def is_checkpointing(anatomy: Anatomy) -> bool:
    """Whether activations are computed a second time in backward, by transformers' switch or by a wrapper around layers."""
    body = anatomy.backbone
    if any(getattr(module, "gradient_checkpointing", False) and module.training for module in body.modules()):
        return True
    return any("checkpointwrapper" in type(module).__name__.lower() for module in body.modules())


def is_sharded(anatomy: Anatomy) -> bool:
    """Whether parameters are gathered for every pass through the body (FSDP)."""
    return any(
        hasattr(parameter, "full_tensor") or type(parameter).__name__ == "FlatParameter" for parameter in anatomy.backbone.parameters()
    )
