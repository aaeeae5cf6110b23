"""Tiny models of several families, from config, and batches of random tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cupel.scorers import Groups

VOCABULARY = 211
WINDOW = 7
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make(family: str, **options: Any) -> Any:
    """A model with weights large enough that attention is far from uniform: a wrong mask moves log-probabilities by tenths of nats."""
    import transformers as t

    torch.manual_seed(0)
    config: Any
    if family == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**COMMON, **options))
    elif family == "qwen2":
        config = t.Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1, **options)
        model = t.Qwen2ForCausalLM(config)
    elif family == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**COMMON, head_dim=8, tie_word_embeddings=True, **options))
    elif family == "mistral":
        model = t.MistralForCausalLM(t.MistralConfig(**COMMON, sliding_window=WINDOW, **options))
    elif family == "gemma2":
        model = t.Gemma2ForCausalLM(t.Gemma2Config(**COMMON, head_dim=8, sliding_window=WINDOW, final_logit_softcapping=3.0, **options))
    elif family == "gemma3":
        kinds = ["sliding_attention", "full_attention"]
        model = t.Gemma3ForCausalLM(t.Gemma3TextConfig(**COMMON, head_dim=8, sliding_window=WINDOW, layer_types=kinds, **options))
    elif family == "gpt2":
        config = t.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, **options,
        )  # fmt: skip
        model = t.GPT2LMHeadModel(config)
    elif family == "mamba":
        model = t.MambaForCausalLM(t.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=2, **options))
    elif family == "granite":
        model = t.GraniteForCausalLM(t.GraniteConfig(**COMMON, logits_scaling=4.0, **options))
    else:
        raise AssertionError(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and family != "mamba":
                parameter.mul_(8.0 if any(word in name for word in ("q_proj", "k_proj", "c_attn")) else 4.0)
    return model


def draw(sizes: list[tuple[int, list[int]]], seed: int = 0) -> Groups:
    """Groups from (tokens of the prompt, tokens of each response); all pairs within a prompt are compared."""
    source = torch.Generator().manual_seed(seed)

    def some(n: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (n,), generator=source).tolist()

    prompts, responses, pairs = [], [], []
    for g, (prompt, lengths) in enumerate(sizes):
        prompts.append(some(prompt))
        start = len(responses)
        responses += [(g, some(n)) for n in lengths]
        pairs += [(i, j) for i in range(start, len(responses)) for j in range(i + 1, len(responses))]
    return Groups.of(prompts, responses, pairs)


@pytest.fixture(scope="session")
def model() -> Callable[..., Any]:
    return make


@pytest.fixture(scope="session")
def batch() -> Callable[..., Groups]:
    return draw


@pytest.fixture(scope="session")
def ragged() -> Groups:
    """Windows end inside prompts and inside responses; a prompt of one token; several responses; equal shapes."""
    return draw([(11, [9, 4, 9]), (1, [3, 12]), (5, [6, 6]), (5, [6, 1])])


@pytest.fixture(scope="session")
def slow() -> Callable[[Any, Groups], torch.Tensor]:
    """The twin: the model's own logits, one response at a time, [N]."""

    def logp(model: Any, groups: Groups) -> torch.Tensor:
        prompts = groups.prompt_ids.split(list(groups.prompt_lengths))
        out = []
        for n, ids in enumerate(groups.response_ids.split(list(groups.response_lengths))):
            row = torch.cat([prompts[groups.prompt_index[n]], ids])
            logits = model(input_ids=row[None], use_cache=False).logits[0]
            log_p = torch.log_softmax(logits[len(row) - len(ids) - 1 : -1], dim=-1)
            out.append(log_p.gather(1, ids[:, None]).sum())
        return torch.stack(out)

    return logp
