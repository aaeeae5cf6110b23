"""SteerLM 2.0 on a transformer (card 46, reproduction B): rounds through the package, from SteerLM 1, against its target.

    python benchmarks/steerlm.py

A Llama of two layers (width 48) made here learns answers of two to four words to 64 prompts (a topic and a manner each move a bigram
model of twelve words). Half of the words are worth 1.2, half -1.3; the rating of an answer is the sigmoid of half of their sum, and an
answer has the attribute where that is above one half. The plain model imitates answers to plain prompts. SteerLM 1 goes on from it with
prompts that say whether the attribute is there, wrongly in 2 of 10. Rounds of `cupel.annotate.steering_rounds.iterate` follow: 96 lists of
n answers to 48 prompts, six passes. All is measured on the other 16 prompts: 64 lists of 10 answers that the policy itself writes; a hit is
an answer that ends, reads back as it was written and is rated as asked, among all that were drawn.

Claims are the card's, with the thresholds of benchmarks/helpsteer.py, which had exact policies and their exact distance from the target;
here D of fresh lists stands for it (0 where the policy is its target). The card claims nothing of a second round against more passes over
the lists of the first: ours. World, learning rates and passes were chosen on seed 99.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, write_result

from cupel.annotate.steering import draw_wanted, imitation_rows, steering_rows
from cupel.annotate.steering_rounds import iterate
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of

WORDS = [f"w{k}" for k in range(12)]
TOPICS, MANNERS = [f"t{k}" for k in range(8)], [f"m{k}" for k in range(8)]
SHORTEST, LONGEST, WRONG, TEXTS = 2, 4, 0.2, 3200
TRAINING: dict[str, Any] = {
    "heldout": 0.0, "max_length": 24, "batch_tokens": 8192, "warmup": 0.05, "evaluate_every": 100_000,
    "save_every": 100_000, "device": "cpu",
}  # fmt: skip
ROUNDS: dict[str, Any] = {**TRAINING, "learning_rate": 3e-3, "epochs": 6, "batch_size": 16}
DRAWING: dict[str, Any] = {"names": ["worth"], "levels": 2, "tokens": LONGEST + 1}


def render(prompt: str, wanted: Mapping[str, int]) -> str:
    """The prompt with a word for the wanted rating."""
    return f"{('low', 'high')[wanted['worth']]} {prompt}"


class World:
    """Prompts, the words that answer them, and what these are worth."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([46, seed])
        self.worth = dict(zip(WORDS, self.rng.permutation(np.repeat([-1.3, 1.2], len(WORDS) // 2)), strict=True))
        self.bigram = self.rng.normal(size=(len(WORDS) + 1, len(WORDS)))
        self.moved = {name: self.rng.normal(0, 0.7, len(WORDS)) for name in (*TOPICS, *MANNERS)}
        prompts = [f"{topic} {manner}" for topic, manner in product(TOPICS, MANNERS)]
        order = self.rng.permutation(len(prompts))
        self.seen, self.unseen = [prompts[k] for k in order[:48]], [prompts[k] for k in order[48:]]

    def answer(self, prompt: str) -> str:
        """An answer of three to six words."""
        said, at = [], len(WORDS)
        while len(said) < LONGEST and not (len(said) >= SHORTEST and self.rng.random() < 0.3):
            logits = self.bigram[at] + sum(self.moved[name] for name in prompt.split())
            at = int(self.rng.choice(len(WORDS), p=np.exp(logits) / np.exp(logits).sum()))
            said.append(WORDS[at])
        return " ".join(said)

    def rate(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """float64 [n, 1] ratings from 0 to 1."""
        total = [sum(self.worth.get(word, 0.0) for word in text.split()) for text in responses]
        return 1 / (1 + np.exp(-0.5 * np.array(total)))[:, None]


def blank_model(place: Path, seed: int) -> Path:
    """A folder with an untrained model and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: n for n, word in enumerate([*special, *WORDS, *TOPICS, *MANNERS, "low", "high"])}
    inside = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inside.pre_tokenizer = pre_tokenizers.Whitespace()
    names: dict[str, Any] = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=inside, **names).save_pretrained(place)
    return place


def imitate(rows: list[dict[str, Any]], model: Path, out: Path, seed: int, **more: Any) -> Path:
    """The model after imitating the rows."""
    file = out.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told = {"kind": "sft", "unpaired": True, "data": str(file), "model": str(model), "out": str(out), "seed": seed, "batch_size": 64}
    train_policy(options_of({**TRAINING, **told, **more}))
    return out / "model"


def run(seed: int, place: Path) -> dict[str, dict[str, Any]]:
    """One seed: measures on unseen prompts of SteerLM 1 and of every way to go on from it, and of the answers of the world."""
    world = World(seed)
    prompts = [world.seen[n % len(world.seen)] for n in range(TEXTS)]
    texts = [world.answer(prompt) for prompt in prompts]
    labels = (world.rate(prompts, texts) > 0.5) ^ (world.rng.random((TEXTS, 1)) < WRONG)
    rows = [{"prompt": prompt, "completion": text, "label": True} for prompt, text in zip(prompts, texts, strict=True)]
    plain = imitate(rows, blank_model(place / "blank", seed), place / "plain", seed, learning_rate=5e-3, epochs=2)
    told = imitation_rows(prompts, texts, labels.astype(float), names=["worth"], levels=2, render=render)
    first = imitate(told, plain, place / "steerlm1", seed, learning_rate=5e-3, epochs=4)
    asked = world.unseen * 4
    wanted = draw_wanted(asked, [[0], [1]], seed=1000 + seed)

    def measure(model: Path) -> dict[str, Any]:
        found = steering_rows(model, asked, wanted, world.rate, prior=plain, n=10, seed=2000 + seed, render=render, **DRAWING)
        said = {name: found.measured[name] for name in ("D", "effective_size", "one", "usable")}
        return {**said, "hits": found.measured["hits"] * said["usable"], "hits_of_usable": found.measured["hits"]}

    def go_on(name: str, n: int, rounds: int = 1, **options: Any) -> list[Path]:
        iterate(
            first, world.seen * 2, [[0], [1]], world.rate, prior=plain, out=place / name, rounds=rounds, n=n, seed=seed, render=render,
            ahead=False, options={**ROUNDS, **options}, **DRAWING,
        )  # fmt: skip
        return [place / name / f"round-{k:02d}" / "policy" / "model" for k in range(1, rounds + 1)]

    once, twice = go_on("ten", 10, rounds=2)
    found = {"SteerLM 1": first, "n=10": once, "n=10, second round": twice, "n=2": go_on("two", 2)[0]}
    found["n=10, twelve passes"] = go_on("longer", 10, epochs=2 * ROUNDS["epochs"])[0]
    for n in (10, 2):
        found[f"n={n}, without b'"] = go_on(f"plain{n}", n, objective="steer:baseline=false")[0]
    return {name: measure(model) for name, model in found.items()}


def main() -> None:
    """Measure, and write benchmarks/results/steerlm.json."""
    parser = arguments(__doc__, data=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    began = time.process_time()
    torch.set_num_threads(1)
    runs = []
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as place:
            runs.append(run(seed, Path(place)))
        for name, values in runs[-1].items():
            print(seed, name, {key: round(float(value), 3) for key, value in values.items()}, flush=True)
        print(f"{time.process_time() - began:.0f} CPU-seconds", flush=True)
    if asked.seeds != [0, 1, 2]:
        return

    def apart(after: str, before: str, of: str) -> list[float]:
        return [one[after][of] - one[before][of] for one in runs]

    def claim(what: str, target: str, measured: float, passed: bool) -> dict[str, Any]:
        return {"claim": what, "target": target, "measured": round(measured, 4), "passed": bool(passed)}

    rise, fall = float(np.mean(apart("n=10", "SteerLM 1", "hits"))), max(apart("n=10", "SteerLM 1", "D"))
    without, within = (float(np.mean(apart(f"n=2{b}", f"n=10{b}", "D"))) for b in (", without b'", ""))
    again = {of: float(np.mean(apart("n=10, second round", "n=10", of))) for of in ("hits", "D")}
    fresh = float(np.mean(apart("n=10, second round", "n=10, twelve passes", "hits")))
    claims = [
        claim("one round from SteerLM 1: gain in attribute hits", ">= 0.10", rise, rise >= 0.10),
        claim("one round: change of D on lists of unseen prompts, worst seed", "< 0", fall, fall < 0),
        claim("without b': D, n = 2 minus n = 10", "> 0.02", without, without > 0.02),
        claim("with b': D, n = 2 minus n = 10", "< 0.01", within, within < 0.01),
        claim("second round: gain in attribute hits", "> 0", again["hits"], again["hits"] > 0),
        claim("second round: change of D", "< 0", again["D"], again["D"] < 0),
        claim("second round minus as many passes over the first lists: hits", "> 0", fresh, fresh > 0),
    ]
    mean = {name: {key: round(float(np.mean([one[name][key] for one in runs])), 4) for key in runs[0][name]} for name in runs[0]}
    details = {"mean": mean, "by_seed": runs, "cpu_seconds": round(time.process_time() - began, 1)}
    write_result("steerlm", claims, n=640, seeds=asked.seeds, command="python benchmarks/steerlm.py", details=details)


if __name__ == "__main__":
    main()
