"""draft"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, write_result
from usersim import NOISE, OPTIONS, K, World, one_of, softmax, z

from cupel.annotate.language_models import CausalLM
from cupel.annotate.language_simulator import LanguageSimulator, label_probs
from cupel.annotate.scene_text import SceneText
from cupel.annotate.scenes import Scenes, misclicks
from cupel.annotate.simulator import distributions
from cupel.curate.rationale_pairs import Pairs, Selection, answer, pair_rows, select

FAME = ("unknown", "obscure", "rare", "known", "familiar", "liked", "popular", "famous")
REMEMBERED = 6
#: hidden size, width of the middle, layers
SIZES = {"small": (64, 128, 2), "large": (128, 256, 3)}
BASE = {"batch_size": 64, "learning_rate": 3e-3, "epochs": 1}
SFT = {"batch_size": 32, "learning_rate": 1e-3, "epochs": 3}
DPO = {"batch_size": 32, "learning_rate": 1e-4, "epochs": 2}


class Words:
    """Scenes of the world as short texts, and the tokenizer of their words."""

    def __init__(self, world: World, work: Path) -> None:
        self.world = world
        names = sorted({g for text in world.log.texts or () for g in text.rpartition(")")[2].split()})
        counts = world.genres.shape[1]
        assert counts <= len(names) + 1
        self.genres = genre_names(world)
        year = np.array([int((re.findall(r"\((\d{4})", text) or ["1995"])[-1]) for text in world.log.texts or ()])
        first = world.genres.argmax(axis=1)
        edges = np.linspace(world.popular.min(), world.popular.max(), len(FAME) + 1)[1:-1]
        fame = np.searchsorted(edges, world.popular)
        self.items = [
            f"{self.genres[g] if world.genres[i].any() else 'none'} {max(y // 10 * 10, 1930)}s {FAME[f]}"
            for i, (g, y, f) in enumerate(zip(first, year, fame, strict=True))
        ]
        best = np.argsort(-world.profile, axis=1, kind="stable")[:, :3]
        self.profiles = tuple("likes " + " ".join(self.genres[g] for g in row) for row in best)
        work.mkdir(parents=True, exist_ok=True)
        files = {"scene": "$profile\nmet\n$history\noptions\n$options", "rationale": "$scene\nwhy", "direct": "$scene\nwhich"}
        for name, text in files.items():
            (work / f"{name}.txt").write_text(text + "\n", "utf-8")
        self.text = SceneText(self.items, files={name: work / f"{name}.txt" for name in files}, rating="")

    def of(self, scenes: Scenes) -> Scenes:
        """The scenes as they are put into words: without times, the latest few items remembered, a profile for everybody."""
        history = tuple(rows[-REMEMBERED:] for rows in scenes.history)
        return replace(scenes, log=replace(scenes.log, time=None), history=history, profiles=self.profiles)

    def tokenizer(self) -> Any:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        fixed = ["<pad>", "<s>", "</s>", "<unk>", *"ABCDE", "Behavior", ":", "likes", "met", "options", "why", "which", "because", "I", "like"]
        found = sorted({word for text in [*self.items, *self.genres] for word in text.split()})
        made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*fixed, *found])}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"[.\-\[\]\s]"), "removed"), pre_tokenizers.Punctuation()]
        )
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def genre_names(world: World) -> list[str]:
    """The words for the columns of world.genres: the genres of the texts in alphabetical order, as World has them."""
    words = sorted({g for text in world.log.texts or () for g in re.split(r"\s+", text.rpartition(")")[2].strip()) if g})
    return [word.lower().replace("-", "") for word in words]


def because(genre: str) -> str:
    return f"because I like {genre}"


def new_model(size: str, tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, middle, layers = SIZES[size]
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=middle, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, initializer_range=0.7 * hidden**-0.5,
            use_cache=False,
        )
    )  # fmt: skip


def train(rows: Sequence[dict[str, str]], start: Path, out: Path, *, seed: int, kind: str, objective: str = "sft", **more: Any) -> Path:
    from cupel.learners.policy.learner import train_policy
    from cupel.learners.policy.options import options_of

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    file = out / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told = {"data": str(file), "heldout": 0.0, "device": "cpu", "max_length": 128, "kind": kind, "objective": objective, "seed": seed}
    told |= {"model": str(start), "out": str(out), "warmup": 0.1, "schedule": "cosine", "batch_tokens": 4096, **more}
    train_policy(options_of(told))
    return out / "model"
