"""What is lost when the training of a policy is killed: SIGKILL at random steps, every run resumed, the final bytes compared.

    python benchmarks/policy_resume.py [--kills 20] [--steps 60]

A tiny Llama with a tokenizer made from the bundled comparisons is trained with DPO under EM per annotator, a moving reference and dropout
in its adapter, in a process of its own. Each kill falls when the log reaches a drawn step, a drawn fraction of a second later; the same
command then goes on in the same folder. Some kills fall before the first step, while texts are tokenised. At the end model, records,
metrics, log and the last checkpoint are compared byte for byte with those of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import HERE, arguments, write_result

DATA = HERE.parent / "examples" / "data" / "ukp_votes.parquet"
CHILD = """
import json, sys, torch
torch.set_num_threads(1)
from cupel.learners.policy.learner import train_policy
from cupel.learners.policy.options import options_of
train_policy(options_of(json.loads(sys.argv[1])))
"""


def make_model(place: Path) -> None:
    """A model of 60,000 weights and a byte-pair tokenizer of 2,000 tokens, trained on the bundled texts."""
    import pyarrow.parquet as pq
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = pq.read_table(DATA)["response_a"].to_pylist()[:2000]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=["<s>", "</s>"], show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(place)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)


def options(root: Path, out: str, steps: int) -> dict[str, Any]:
    return {
        "data": str(root / "votes.parquet"), "model": str(root / "model"), "out": str(root / out), "steps": steps, "batch_size": 4,
        "max_length": 256, "truncation": "shorten_response", "treatment": "em:flip=0.2,by=annotator", "reference": "ema:0.95",
        "learning_rate": 1e-3, "lora": 4, "lora_dropout": 0.1, "save_every": 2, "evaluate_every": 20, "heldout": 0.1, "epochs": 10,
        "device": "cpu",
    }  # fmt: skip


def start(values: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(values)], env=environment, stderr=subprocess.DEVNULL)


def step_of(out: Path) -> int:
    """The last step in the log, -1 where there is none."""
    try:
        lines = (out / "log.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else -1
    except (OSError, ValueError, KeyError, IndexError):
        return -1


def main() -> None:
    parser = arguments(__doc__, data=False)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    from cupel.records.files import sha256_file

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(DATA).slice(0, 400), root / "votes.parquet")
        make_model(root / "model")
        plain = start(options(root, "plain", given.steps))
        assert plain.wait() == 0, "the undisturbed run failed"
        early = [-1] * min(3, given.kills)
        moments = early + sorted(draw.sample(range(1, given.steps), given.kills - len(early)))
        killed: list[int] = []
        out = root / "killed"
        for moment in moments:
            child, began = start(options(root, "killed", given.steps)), time.monotonic()
            before = step_of(out)
            wait = draw.uniform(0.5, 4.0) if moment < 0 else draw.uniform(0, 0.05)
            while child.poll() is None and (time.monotonic() - began < wait if moment < 0 else step_of(out) < max(moment, before)):
                time.sleep(0.002)
            if moment >= 0:
                time.sleep(wait)
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                killed.append(step_of(out))
            child.wait()
            print(f"kill at step {moment}: the log held {step_of(out)}", flush=True)
        last = start(options(root, "killed", given.steps))
        assert last.wait() == 0, "the resumed run failed"
        checkpoint = sorted((root / "plain" / "checkpoints").glob("step-*"))[-1].name
        names = ["model", "records.parquet", "metrics.json", "log.jsonl", f"checkpoints/{checkpoint}"]
        same = {name: sha256_file(root / "plain" / name) == sha256_file(out / name) for name in names}
    claims = [
        {"claim": "SIGKILLs that interrupted a training run", "target": f"{given.kills}", "measured": len(killed),
         "passed": len(killed) == given.kills},
        {"claim": "model, records, metrics, log and last checkpoint byte for byte those of an undisturbed run", "target": "all",
         "measured": sum(same.values()) / len(same), "passed": all(same.values())},
    ]  # fmt: skip
    command = f"python benchmarks/policy_resume.py --kills {given.kills} --steps {given.steps}"
    write_result("policy_resume", claims, n=given.kills, seeds=[0], command=command, details={"kills at step": killed, "same": same})


if __name__ == "__main__":
    main()
