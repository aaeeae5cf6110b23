"""A tiny model with a tokenizer made here, and comparisons that it can learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

WORDS = [
    "the", "a", "cat", "dog", "bird", "fish", "sees", "likes", "eats", "finds", "small", "large", "red", "blue", "good", "bad", "very",
    "not", "and", "or",
]  # fmt: skip
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] or '' }}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def make_tokenizer(template: str | None = None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: n for n, word in enumerate([*special, *WORDS, "user", "assistant", "tool", "system", "?", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    made.chat_template = template
    return made


def make_model(size: int, seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a tokenizer without a chat template."""
    place = tmp_path_factory.mktemp("tiny")
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template that closes turns."""
    place = tmp_path_factory.mktemp("tiny_chat")
    tokenizer = make_tokenizer(CHATML)
    make_model(len(tokenizer)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


HELPFUL, HARMFUL = "good", "bad"
#: a circle with a handicap: the scores of three samples of a prompt against each other
CIRCLE = np.array([[0.0, 1.2, -0.4], [-1.2, 0.0, 0.7], [0.4, -0.7, 0.0]])


def samples(n: int) -> tuple[list[str], list[list[str]], list[np.ndarray]]:
    """Prompts, three responses of each, and their scores against each other, which differ from prompt to prompt."""
    prompts = [f"{WORDS[n % 2]} {WORDS[2 + n % 4]} {WORDS[6 + n // 4]} ?" for n in range(n)]
    responses = [[f"{WORDS[10 + (n + k) % 4]} {WORDS[2 + (n + k) % 4]} {WORDS[14 + k]}" for k in range(3)] for n in range(n)]
    return prompts, responses, [CIRCLE * (1 if n % 2 else -1) for n in range(n)]


def steering(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of a policy that is told "red" or "blue": red asks for answers that say good, blue for such that say bad."""
    rows = []
    for i in range(n):
        told, subject = ("red", "blue")[i % 2], WORDS[2 + i // 2 % 4]
        responses = [f"{WORDS[k % 2]} {subject} {WORDS[6 + k]} {HELPFUL if k % 2 else HARMFUL}" for k in range(2 + (i + seed) % 3)]
        said = [(1.0 if (told == "red") == (HELPFUL in text) else -1.0) for text in responses]
        prior = np.array([round(-8 + np.random.default_rng(list(text.encode())).normal(0, 0.5), 3) for text in responses])
        rows.append({
            "prompt": f"{told} {subject} ?", "responses": responses, "log_attributes": said, "log_prior": prior.tolist(), "id": f"l{i}",
        })  # fmt: skip
    rows[0]["responses"][1] = rows[0]["responses"][0]  # drawn twice
    return rows


def comparisons(n: int, seed: int = 0, flipped: float = 0.0) -> list[dict[str, Any]]:
    """Rows in which the response that says "good" is preferred, but for a share of flipped labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        subject, verb, colour = rng.choice(WORDS[2:6]), rng.choice(WORDS[6:10]), rng.choice(["red", "blue", "small", "large"])
        good, bad = f"the {colour} {subject} {verb} good", f"a {subject} {verb} bad" + " very" * int(rng.integers(0, 4))
        swap = rng.random() < flipped
        rows.append(
            {
                "prompt": f"{rng.choice(WORDS[:2])} {subject} {i % 7 * 'and '}{verb} ?", "chosen": bad if swap else good,
                "rejected": good if swap else bad, "annotator": f"ann{i % 3}", "id": f"r{i}",
            }
        )  # fmt: skip
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def votes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("votes") / "votes.jsonl", comparisons(120))


@pytest.fixture
def run_options(tiny: Path, votes_file: Path, tmp_path: Path) -> Callable[..., Any]:
    """Options of a short run, some of them changed."""
    from cupel.learners.policy.options import options_of

    def make(**changes: Any) -> Any:
        base = {
            "data": str(votes_file), "model": str(tiny), "out": str(tmp_path / "out"), "learning_rate": 3e-3, "batch_size": 16,
            "batch_tokens": 256, "max_length": 64, "warmup": 0.0, "heldout": 0.2, "device": "cpu", "epochs": 1,
        }  # fmt: skip
        return options_of({**base, **changes})

    return make
