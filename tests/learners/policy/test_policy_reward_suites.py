"""A suite's chat lists pass through the chat template of a transformer reward, and are read as text by one that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupel.evaluate.suites.scores import evaluate_suite
from cupel.learners.reward import load_reward
from cupel.records.text import canonical, render

CHAT = [
    {"role": "user", "content": "the cat sees ?"},
    {"role": "assistant", "content": "the red cat"},
    {"role": "user", "content": "a dog likes ?"},
]
ROWS = [{"prompt": CHAT, "chosen": "the dog good", "rejected": "bad", "subset": "a"}]


def folder(base: Path, out: Path) -> Path:
    """A reward model of random weights with the tokenizer of `base`."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config: Any = AutoConfig.from_pretrained(base, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize("template", [True, False])
def test_chat_lists_meet_the_template(tiny: Path, tiny_chat: Path, tmp_path: Path, template: bool) -> None:
    model = load_reward(folder(tiny_chat if template else tiny, tmp_path / "model"), cache=tmp_path / "cache")
    assert (model.template.text is not None) == template
    scores = evaluate_suite("pairs-by-subset", ROWS, {"m": model}, draws=10)[2]["m"]
    asked = canonical(CHAT) if template else render(canonical(CHAT))
    np.testing.assert_array_equal(scores, model.score([asked] * 2, ["the dog good", "bad"]))
    if template:  # three turns, not one turn that holds the words "user" and "assistant"
        opened = model.template.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert model.template.prompt(asked) == opened
        assert not np.allclose(scores, model.score([render(asked)] * 2, ["the dog good", "bad"]))
