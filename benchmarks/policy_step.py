"""A DPO step against TRL's, at equal float32 gradients: processor time of one thread, and peak memory.

    python benchmarks/policy_step.py [--rounds 2]

Needs `pip install trl==1.16.0` (with its requirements) beside cupel[train]. A step is forward, loss and backward of one batch, no
optimiser; both sides run the same model from config in one process, take turns within a round, and the fastest of the rounds counts. TRL
runs without gradient checkpointing and in float32, with stored reference log-probabilities ("stored") or a reference model ("live");
cupel always reads stored ones; each side's are its own. The bound beside each figure is the ratio of the matrix products' arithmetic alone,
attention left out: where TRL's time is not arithmetic a measured figure may exceed it. Peak memory is resident memory over that of the
loaded model, each side in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

from common import HERE, arguments, write_result

sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]  # datasets.py of this folder is not the library

VOCABULARY = 12_288
BETA = 0.1
SHAPES = {"1:1": (256, 256), "4:1": (512, 128)}
Triple = tuple[list[int], list[int], list[int]]


def policy(vocabulary: int = VOCABULARY, width: int = 384, layers: int = 6, lora: bool = False) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    heads = width // 64
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=64, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, dtype="float32",
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    if lora:
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=8, target_modules=targets, task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():  # a new adapter's B is zero: gradients of A would be too
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def pairs(shape: str, vocabulary: int, seed: int = 0) -> list[Triple]:
    """2 pairs of one shape, or 4 with lognormal lengths around 1:1 (sigma 0.6)."""
    draw = random.Random(seed)

    def some(n: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(n)]

    if shape in SHAPES:
        prompt, response = SHAPES[shape]
        return [(some(prompt), some(response), some(response)) for _ in range(2)]

    def length() -> int:
        return max(8, min(512, round(128 * draw.lognormvariate(0, 0.6))))

    return [(some(length()), some(length()), some(length())) for _ in range(4)]


def trl_step(model: Any, data: list[Triple], live: bool) -> tuple[Callable[[], Any], Any]:
    """One step of TRL's DPOTrainer on the batch: a function that computes loss and gradients, and the trainer.

    live: against a reference model; else against log-probabilities stored before, those of the model as it starts.
    """
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = {f"w{i}": i for i in range(64)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w3", pad_token="w0", bos_token="w1", eos_token="w2")
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": 1, "gradient_checkpointing": False, "bf16": False, "use_cpu": True,
        "report_to": [], "beta": BETA, "max_length": None, "precompute_ref_log_probs": not live, "disable_tqdm": True,
    }  # fmt: skip
    dummy = Dataset.from_list([{"prompt": "w5 w6", "chosen": " w7", "rejected": " w8"}])
    beside = copy.deepcopy(model) if live and not hasattr(model, "peft_config") else None
    trainer = DPOTrainer(model=model, ref_model=beside, args=DPOConfig(**options), train_dataset=dummy, processing_class=tokenizer)
    rows: list[dict[str, Any]] = [{"prompt_ids": p, "chosen_ids": a, "rejected_ids": b} for p, a, b in data]
    inputs = trainer.data_collator(rows)
    if not live:  # by TRL's own forward: its rounding then cancels in the margin, as ours does
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        with torch.no_grad():
            found = trainer.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels, fused_lm_head=True).log_probs
        for row, a, b in zip(rows, *found.sum(dim=1).chunk(2), strict=True):
            row |= {"ref_chosen_logps": float(a), "ref_rejected_logps": float(b)}
        inputs = trainer.data_collator(rows)
    trainer.model.train()

    def step() -> Any:
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        return loss

    return step, trainer


def cupel_step(model: Any, groups: Any, layout: str) -> tuple[Callable[[], Any], Any]:
    import torch

    from cupel.objectives import sigmoid
    from cupel.scorers import Scorer
    from cupel.scorers.reference import Live

    scorer = Scorer(model, layout)
    objective = sigmoid(BETA)
    reference = Live(scorer).scores(groups)

    def step() -> Any:
        scores = scorer(groups)
        loss = objective.loss(scores.side(groups.first, reference), scores.side(groups.second, reference), {}).mean()
        loss.backward()
        return loss

    assert torch.is_grad_enabled()
    return step, scorer


def gradient(model: Any) -> Any:
    import torch

    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def timed(variants: dict[str, tuple[Callable[[], Any], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Processor seconds of each variant, the fastest round; and the gradients of the last."""
    best: dict[str, float] = {}
    gradients: dict[str, Any] = {}
    for r in range(rounds + 1):  # the first round warms up
        for name, (step, model) in variants.items():
            model.zero_grad(set_to_none=True)
            began = time.process_time()
            step()
            spent = time.process_time() - began
            if r:
                best[name] = min(best.get(name, spent), spent)
            gradients[name] = gradient(model)
            model.zero_grad(set_to_none=True)
    return best, gradients


def exact_gradient(model: Any, data: list[Triple]) -> Any:
    """The same step in float64 on whole logits, one row at a time; the reference is the model itself."""
    import torch

    twin = copy.deepcopy(model).double().train()
    loss = torch.zeros((), dtype=torch.float64)
    for prompt, *sides in data:
        logp = []
        for ids in sides:
            row = torch.tensor([prompt + ids])
            log_p = torch.log_softmax(twin(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1], dim=-1)
            logp.append(log_p.gather(1, row[0, len(prompt) :, None]).sum())
        h = logp[0] - logp[1]
        loss = loss - torch.nn.functional.logsigmoid(BETA * (h - h.detach())) / len(data)
    loss.backward()
    return gradient(twin)


def arithmetic(model: Any, groups: Any, data: list[Triple], lora: bool) -> dict[str, float]:
    """Operations of matrix products: 2 per parameter and token forward, 4 backward (2 where weights are frozen)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    n = sum(p.numel() for name, p in inner.model.layers.named_parameters() if "lora" not in name)
    h = inner.lm_head.weight.numel()
    body, head = (4, 6) if lora else (6, 8)  # the head's tiles are computed again in backward
    positions = 2 * len(data) * max(len(p) + max(len(a), len(b)) for p, a, b in data)
    responses = sum(groups.response_lengths)
    shared = responses + sum(length - 1 for length in groups.prompt_lengths)
    ours = body * n * shared + (head - 2) * h * responses  # tiles kept, or hidden gradients taken in forward: one product saved
    return {"stored": (body * n + head * h) * positions / ours, "live": ((body + 2) * n + (head + 2) * h) * positions / ours}


def compare(shape: str, lora: bool, rounds: int) -> dict[str, Any]:
    from cupel.scorers import Groups

    data = pairs(shape, VOCABULARY)
    groups = Groups.from_pairs(data)
    start = policy(lora=lora)
    exact = exact_gradient(start, data)
    variants: dict[str, tuple[Callable[[], Any], Any]] = {}
    for name, live in (("trl live", True), ("trl stored", False)):
        variants[name] = _own(trl_step(copy.deepcopy(start), data, live))
    for name, layout in (("cupel auto", "auto"), ("cupel mask", "mask")):
        variants[name] = _own(cupel_step(copy.deepcopy(start), groups, layout))
    seconds, gradients = timed(variants, rounds)
    plain = gradients["trl stored"]
    return {
        "seconds": seconds,
        "layout": variants["cupel auto"][1].last_layout,
        "bound": arithmetic(start, groups, data, lora),
        "apart": {name: float((g - plain).norm() / plain.norm()) for name, g in gradients.items() if name.startswith("cupel")},
        "error": {name: float((g - exact).norm() / exact.norm()) for name, g in gradients.items() if name != "trl live"},
    }


def _own(made: tuple[Callable[[], Any], Any]) -> tuple[Callable[[], Any], Any]:
    """The step, and the module whose gradients it makes."""
    step, owner = made
    return step, owner.model if hasattr(owner, "accelerator") else owner


def grouped(n_responses: int, prompt: int, response: int, rounds: int) -> dict[str, Any]:
    """All pairs among K responses of one prompt: one group, against every pair in rows of its own."""
    from cupel.scorers import Groups

    draw = random.Random(1)
    tokens = [[draw.randrange(3, VOCABULARY) for _ in range(n)] for n in [prompt] + [response] * n_responses]
    both = [(i, j) for i in range(n_responses) for j in range(i + 1, n_responses)]
    together = Groups.of(tokens[:1], [(0, ids) for ids in tokens[1:]], both)
    rows = [(k, tokens[1 + i]) for k, pair in enumerate(both) for i in pair]
    apart = Groups.of([tokens[0]] * len(both), rows, [(2 * k, 2 * k + 1) for k in range(len(both))])
    start = policy()
    variants = {"pair rows": cupel_step(copy.deepcopy(start), apart, "padded")}
    variants |= {name: cupel_step(copy.deepcopy(start), together, name) for name in ("auto", "mask")}
    seconds, gradients = timed(variants, rounds)
    n = sum(p.numel() for p in start.model.layers.parameters())
    h, k = start.lm_head.weight.numel(), n_responses
    paired, shared = (
        2 * len(both) * (6 * n * (prompt + response) + 8 * h * response),
        6 * n * (prompt + k * response) + 6 * h * k * response,
    )
    plain = gradients["pair rows"]
    return {
        "seconds": seconds, "layout": variants["auto"][1].last_layout, "bound": paired / shared,
        "apart": {name: float((g - plain).norm() / plain.norm()) for name, g in gradients.items()},
    }  # fmt: skip


def one_forward() -> dict[str, int]:
    """Tokens that reach the body for one pair with 1 and with 10 votes."""
    from cupel.scorers import Groups, Scorer

    model = policy(width=64, layers=1)
    scorer = Scorer(model)
    seen: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].numel()))
    for votes in (1, 10):
        scorer(Groups.from_pairs(pairs("1:1", VOCABULARY)[:1] * votes))
    return {"1 vote": seen[0], "10 votes": seen[1]}


def peak(side: str) -> None:
    """In a process of its own: print the step's peak resident bytes over those of the loaded model."""
    import torch

    from cupel.scorers import Groups

    torch.set_num_threads(1)
    model = policy(32_768, 256, 4)
    data = pairs("1:1", 32_768)
    groups = Groups.from_pairs(data)
    step, _ = trl_step(model, data, False) if side == "trl" else cupel_step(model, groups, "auto")
    model.zero_grad(set_to_none=True)

    def status(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return 1024 * int(next(line for line in text.splitlines() if line.startswith(field)).split()[1])

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    step()
    print("PEAK" + json.dumps({"before": before, "peak": status("VmHWM") - before}))


def memory() -> dict[str, int]:
    found = {}
    for side in ("trl", "cupel"):
        done = subprocess.run([sys.executable, __file__, "--peak", side], capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith("PEAK"))
        found[side] = json.loads(line.removeprefix("PEAK"))["peak"]
    return found


TARGETS = {  # shape -> stored, live, mask alone against stored
    ("1:1", False): (2.0, 2.7, 1.8),
    ("4:1", False): (2.6, 3.7, 2.5),
    ("ragged", False): (1.9, 2.6, None),
    ("1:1", True): (2.0, 2.8, 1.65),
}


def claims_of(shape: str, lora: bool, found: dict[str, Any]) -> list[dict[str, Any]]:
    what = f"DPO step, {shape}{', LoRA' if lora else ''}"
    t, bound = found["seconds"], found["bound"]
    stored, live, alone = TARGETS[shape, lora]
    rows = [
        (f"{what}: times faster than TRL, stored reference ({found['layout']})", "trl stored", "cupel auto", stored, bound["stored"]),
        (f"{what}: times faster than TRL, live reference", "trl live", "cupel auto", live, bound["live"]),
    ]
    if alone is not None:
        rows.append((f"{what}: mask layout alone against TRL, stored reference", "trl stored", "cupel mask", alone, bound["stored"]))
    out = [
        {
            "claim": f"{name}; arithmetic bound {limit:.2f}",
            "target": f">= {target}",
            "measured": t[a] / t[b],
            "passed": t[a] / t[b] >= target,
        }
        for name, a, b, target, limit in rows
    ]
    worst = max(found["apart"].values())
    out.append({"claim": f"{what}: gradients, relative distance to TRL's", "target": "< 2e-5", "measured": worst, "passed": worst < 2e-5})
    ours, theirs = max(v for n, v in found["error"].items() if n != "trl stored"), found["error"]["trl stored"]
    name = f"{what}: worst layout's gradient error against float64, as a multiple of TRL's"
    out.append({"claim": name, "target": "<= 1.05", "measured": ours / theirs, "passed": ours <= 1.05 * theirs})
    return out


def main(args: argparse.Namespace) -> None:
    import torch
    import trl

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    load = os.getloadavg()
    claims, details = [], {}
    for shape, lora in TARGETS:
        found = compare(shape, lora, args.rounds)
        details[f"{shape}{' lora' if lora else ''}"] = found
        claims += claims_of(shape, lora, found)
        print(shape, lora, json.dumps(found), flush=True)
    for k, prompt, response, target, alone in ((4, 128, 128, 4.0, None), (8, 128, 64, 13.0, 12.0)):
        found = details[f"groups of {k}"] = grouped(k, prompt, response, args.rounds)
        print(k, json.dumps(found), flush=True)
        for name, least in (("auto", target), ("mask", alone)):
            ratio = found["seconds"]["pair rows"] / found["seconds"][name]
            if least is not None:
                what = f"groups of {k} responses, {name} layout: times faster than pair rows; arithmetic bound {found['bound']:.1f}"
                claims.append({"claim": what, "target": f">= {least}", "measured": ratio, "passed": ratio >= least})
        worst = max(found["apart"].values())
        what = f"groups of {k} responses: gradients, relative distance to pair rows"
        claims.append({"claim": what, "target": "< 2e-5", "measured": worst, "passed": worst < 2e-5})
    votes = one_forward()
    same = votes["1 vote"] == votes["10 votes"]
    claims.append(
        {"claim": "ten votes on one pair: tokens computed", "target": "as for one", "measured": votes["10 votes"], "passed": same}
    )
    bytes_of = memory()
    share = bytes_of["cupel"] / bytes_of["trl"]
    what = "peak memory of a step over the loaded model, vocabulary 32,768: share of TRL's"
    claims.append({"claim": what, "target": "<= 0.2", "measured": share, "passed": share <= 0.2})
    details |= {"peak bytes": bytes_of, "trl": trl.__version__, "load at start and end": [load[0], os.getloadavg()[0]]}
    write_result(
        "policy_step",
        claims,
        n=f"{args.rounds} rounds",
        seeds=[0],
        command=f"python benchmarks/policy_step.py --rounds {args.rounds}",
        details=details,
    )


if __name__ == "__main__":
    parser = arguments(__doc__, data=False)
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds after one that warms up; the fastest counts")
    parser.add_argument("--peak", choices=("trl", "cupel"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak)
    else:
        main(given)
