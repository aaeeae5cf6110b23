"""Texts through the encoder of a language model: its weights frozen, adapters on them by option."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cupel.errors import InputError

#: names of the attention maps of T5, BERT and their kin: what adapters are put on
TARGETS = ("q", "k", "v", "o", "query", "key", "value", "q_proj", "k_proj", "v_proj", "o_proj")


class TextEncoder(nn.Module):
    """States of a text's tokens under a transformers encoder (of an encoder-decoder its encoder).

    name    a folder, or a name in the local cache; nothing is downloaded
    lora    rank of adapters (alpha 1, as Mender-Tok) on the attention's maps; 0: nothing of it learns
    longest tokens of a text that are read; what is beyond is cut from the end

    The frozen weights are evaluated without dropout. InputError where it cannot be loaded, or where adapters are wanted without peft.
    """

    def __init__(self, name: str, *, lora: int = 0, longest: int = 512) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        from cupel.learners.policy.model import quiet_bars

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
            with quiet_bars():
                model: Any = AutoModel.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"the encoder {name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        model = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
        self.dim = int(model.config.hidden_size)
        self.longest = min(longest, int(getattr(model.config, "max_position_embeddings", None) or longest))
        model.requires_grad_(False)
        if lora:
            model = _adapted(model, lora)
        self.model, self.lora = model, lora

    def train(self, mode: bool = True) -> TextEncoder:
        """The frozen model stays as it is for evaluation."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """(states [B, T, dim], which tokens there are, bool [B, T])."""
        made = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt").to(device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.lora > 0):
            states = self.model(input_ids=made["input_ids"], attention_mask=made["attention_mask"]).last_hidden_state
        return states, made["attention_mask"] > 0


def _adapted(model: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise InputError("adapters need peft: install cupel[train], or set lora=0") from error
    names = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    targets = sorted(names & set(TARGETS))
    if not targets:
        raise InputError(f"no attention maps to put adapters on were found among {', '.join(sorted(names))}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that it has replaced
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=1, lora_dropout=0.0, target_modules=targets))
