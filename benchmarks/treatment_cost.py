"""What a chain of three treatments costs: against a plain -logsigmoid, and as a share of a training step of a small language model.

The first: one `preference_loss` with em per annotator, small-loss selection and Dr. DPO's weights on 10^6 comparisons of scores, forward,
against `-logsigmoid(a - b)` on the same tensors, interleaved. The second: a step (forward and backward of both sides, optimiser) of a
decoder of about 10 million parameters on 8 comparisons of 512 tokens, with `preference_loss` and the treatment's update timed inside it.
Timings mean nothing on a busy machine.

    python benchmarks/treatment_cost.py [--n 1000000] [--repeats 15] [--steps 4]
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import arguments, write_result

from cupel.noise.chain import chain
from cupel.noise.em import em
from cupel.noise.fixed import identity
from cupel.noise.loss import preference_loss, preference_terms
from cupel.noise.robust import distributionally_robust
from cupel.noise.selection import small_loss
from cupel.noise.step import merge_terms
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives import Side, by_name

WIDTH, LAYERS, HEADS, VOCABULARY, TOKENS, BATCH = 320, 6, 8, 8192, 512, 8


def main() -> int:
    parser = arguments(__doc__, data=False)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    big, step = many(options.n, options.repeats), training(options.steps)
    claims = [
        {
            "claim": "share of preference_loss with a chain of three and its update in a step of a 10 M-parameter model, 8 x 512 tokens",
            "target": "under 1 %; on 10^6 comparisons its time over a plain -logsigmoid is stated",
            "measured": {"share": step["share"], "times -logsigmoid": big["ratio"]}, "n": BATCH, "passed": step["share"] < 0.01,
        }
    ]  # fmt: skip
    write_result(
        "treatment_cost", claims, n=None, seeds=(0,), command="python benchmarks/treatment_cost.py",
        details={"many": big, "step": step, "threads": torch.get_num_threads()},
    )  # fmt: skip
    return 0 if all(claim["passed"] for claim in claims) else 1


def three():
    return chain(em(0.1, by="annotator", warmup=0), small_loss(0.1, ramp=0), distributionally_robust(1.0))


def many(n: int, repeats: int) -> dict:
    """Seconds of each call, interleaved; the ratio of medians and the quartiles of the paired ratios."""
    rng = np.random.default_rng(0)
    score = [torch.tensor(rng.normal(size=n), dtype=torch.float32) for _ in range(2)]
    first, second = Side(score=score[0]), Side(score=score[1])
    spec = DataSpec(annotators=tuple(f"a{i}" for i in range(50)))
    terms = bare_terms(torch.zeros(n))._replace(annotator=torch.tensor(rng.integers(50, size=n)))
    target, objective, treatment = Target(torch.ones(n), torch.ones(n)), by_name("bradley_terry"), three()
    state = treatment.init(spec)
    calls = {
        "plain": lambda: -torch.nn.functional.logsigmoid(score[0] - score[1]),
        "identity": lambda: preference_loss(objective, identity(), first, second, target, terms, {}),
        "chain": lambda: preference_loss(objective, treatment, first, second, target, terms, state),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    paired = np.array(seconds["chain"]) / np.array(seconds["plain"])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": median, "ratio": median["chain"] / median["plain"], "ratio_identity": median["identity"] / median["plain"],
        "low": float(np.quantile(paired, 0.25)), "high": float(np.quantile(paired, 0.75)),
    }  # fmt: skip


def training(steps: int) -> dict:
    """Median seconds of a step and of what the treatment takes of it (loss from sides, target, update), after one step to warm up."""
    model = decoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    spec = DataSpec(records=tuple(map(str, range(BATCH))), annotators=("a", "b", "c", "d"))
    treatment, objective = three(), by_name("sigmoid", beta=0.1)
    state = treatment.init(spec)
    whole, ours = [], []
    for turn in range(steps + 1):
        tokens = torch.randint(VOCABULARY, (2 * BATCH, TOKENS + 1), generator=generator)
        reference = torch.full((BATCH,), -4600.0)
        began = time.perf_counter()
        optimiser.zero_grad()
        logits = model(tokens[:, :-1])
        logp = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(2 * BATCH, TOKENS)
        sides = [Side(logp=x.sum(1), reference_logp=reference, n_tokens=torch.full((BATCH,), TOKENS)) for x in logp.chunk(2)]
        entered = time.perf_counter()
        annotator = torch.arange(BATCH) % 4
        terms = bare_terms(torch.zeros(BATCH), step=turn)._replace(annotator=annotator)
        loss, _, seen = preference_terms(
            objective, treatment, sides[0], sides[1], Target(torch.ones(BATCH), torch.ones(BATCH)), terms, state
        )
        state = treatment.update(merge_terms([seen]), state)
        left = time.perf_counter()
        loss.mean().backward()
        optimiser.step()
        ended = time.perf_counter()
        if turn:
            whole.append(ended - began)
            ours.append(left - entered)
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "step_seconds": statistics.median(whole),
        "treatment_seconds": statistics.median(ours), "share": statistics.median(ours) / statistics.median(whole),
    }  # fmt: skip


def decoder() -> torch.nn.Module:
    """A causal transformer of about 10 million parameters with tied embeddings."""

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = torch.nn.Embedding(VOCABULARY, WIDTH)
            self.place = torch.nn.Embedding(TOKENS, WIDTH)
            layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            self.body = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.register_buffer("causal", torch.nn.Transformer.generate_square_subsequent_mask(TOKENS))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
            return self.body(x, mask=self.causal, is_causal=True) @ self.token.weight.T

    return Decoder()


if __name__ == "__main__":
    sys.exit(main())
