"""TRL's own losses, called on stand-ins for its trainers and models, beside ours.

TRL's loss functions are methods that read a model's outputs and a few settings; given both, they need neither a model nor a trainer.
Only results are compared.
"""

from __future__ import annotations

import runpy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cupel.objectives import by_name, length_desensitised, policy_weighted, under_divergence, weighted_sum, with_sft
from cupel.objectives.types import Objective, Side

checks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("checks.py"))))

#: what `accelerate` would be on one process
ALONE = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
LENGTH = 6

#: TRL's name -> our objective at beta 0.1
DPO_LOSSES: dict[str, tuple[dict[str, Any], Objective]] = {
    "sigmoid": ({}, by_name("sigmoid")),
    "hinge": ({}, by_name("hinge")),
    "ipo": ({}, by_name("ipo")),
    "exo_pair": ({"label_smoothing": 0.01}, by_name("exo", smoothing=0.01)),
    "nca_pair": ({}, by_name("nca")),
    "robust": ({"label_smoothing": 0.1}, by_name("sigmoid")),
    "bco_pair": ({}, by_name("bco_pair")),
    "sppo_hard": ({}, by_name("sppo")),
    "aot": ({"label_smoothing": 0.1}, by_name("aot", smoothing=0.1)),
    "aot_unpaired": ({"label_smoothing": 0.1}, by_name("aot_unpaired", smoothing=0.1)),
    "apo_zero": ({}, by_name("apo_zero")),
    "apo_down": ({}, by_name("apo_down")),
    "discopop": ({}, by_name("discopop")),
    "sft": ({}, by_name("sft")),
    "sigmoid_norm": ({}, by_name("sigmoid_norm")),
}
#: losses that TRL computes from the scores of an f-divergence (the others read log-ratios)
UNDER_DIVERGENCE = ("sigmoid", "hinge", "ipo", "exo_pair", "discopop", "sigmoid_norm")


class Model(torch.nn.Module):
    """What a trainer asks of its model apart from outputs."""

    is_gradient_checkpointing = False


def batch(seed: int, n: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Side, Side]:
    """Sides with tokens at the end of LENGTH positions, as a causal model's shifted outputs; log-probabilities are their sums."""
    generator = torch.Generator().manual_seed(seed)

    def side() -> Side:
        start = torch.randint(0, LENGTH - 1, (n, 1), generator=generator)
        mask = torch.arange(LENGTH)[None, :] >= start
        token, reference, collision = (
            torch.where(mask, -torch.rand(n, LENGTH, generator=generator, dtype=torch.float64) * 2, 0.0).to(dtype) for _ in range(3)
        )
        return Side(
            logp=token.sum(1), reference_logp=reference.sum(1), n_tokens=mask.sum(1), token_logp=token, reference_token_logp=reference,
            collision=collision, mask=mask, mismatch_log_ratio=torch.randn(n, generator=generator, dtype=torch.float64).to(dtype),
        )  # fmt: skip

    return side(), side()


def _outputs(first: Side, second: Side, tokens: Tensor) -> Any:
    zero = torch.zeros_like(tokens)
    collision = torch.cat([first.collision, second.collision])
    return SimpleNamespace(log_probs=tokens, log_sum_sq_probs=collision, entropy=zero, mean_logits=zero, is_top1=zero.bool())


def trl_dpo(first: Side, second: Side, losses: dict[str, float], **settings: Any) -> tuple[Tensor, Tensor | None]:
    """(mean loss of the step, its gradient by the token log-probabilities [2B, T]) of TRL's DPO trainer; None where it has none."""
    from trl.trainer.dpo_trainer import DPOTrainer

    tokens = torch.cat([first.token_logp, second.token_logp]).clone().requires_grad_()
    mask = torch.cat([first.mask, second.mask]).long()
    ids = torch.zeros(len(mask), LENGTH + 1, dtype=torch.long)
    reference = torch.cat([first.reference_token_logp, second.reference_token_logp])
    options = {"label_smoothing": 0.0, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "ld_alpha": None, **settings}
    stub = SimpleNamespace(
        model=Model(), accelerator=ALONE, aux_loss_enabled=False, precompute_ref_logps=False, beta=0.1,
        loss_types=list(losses), loss_weights=list(losses.values()), _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
        _tp_size=1, args=SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None),
        ref_model=lambda **_: SimpleNamespace(log_probs=reference), **{"use_weighting": False, **options},
    )  # fmt: skip
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": torch.cat([torch.zeros(len(mask), 1).long(), mask], 1),
    }  # fmt: skip
    loss = DPOTrainer._compute_loss(stub, lambda **_: _outputs(first, second, tokens), inputs, False)
    try:
        return loss.detach(), torch.autograd.grad(loss, tokens)[0]
    except RuntimeError as error:  # TRL 1.16.0 multiplies weights into a ReLU's output in place, so a weighted hinge has no gradient
        if "inplace operation" not in str(error):
            raise
        return loss.detach(), None


def ours(objective: Objective, first: Side, second: Side, p: float = 1.0) -> tuple[Tensor, Tensor]:
    """(mean of p keep + (1 - p) flip, its gradient by the token log-probabilities [2B, T])."""
    tokens = torch.cat([first.token_logp, second.token_logp]).clone().requires_grad_()
    halves = tokens.chunk(2)
    sides = [replace(side, token_logp=t, logp=t.sum(1)) for side, t in zip((first, second), halves, strict=True)]
    context = checks.context_of(objective, *sides)
    loss = checks.under(p, objective, *sides, context).mean()
    return loss.detach(), torch.autograd.grad(loss, tokens)[0]


def _compare(label: str, theirs: tuple[Tensor, Tensor | None], mine: tuple[Tensor, Tensor], first: Side, second: Side) -> Iterator[Any]:
    mask = torch.cat([first.mask, second.mask])
    yield checks.Error(f"{label} loss", float((theirs[0] - mine[0]).abs() / theirs[0].abs().clamp(min=1)))
    if theirs[1] is None:
        return
    gap = ((theirs[1] - mine[1]).abs() * mask).max()
    yield checks.Error(f"{label} gradient", float(gap / theirs[1].abs().max().clamp(min=1e-2)))


def dpo_agreement(seed: int) -> Iterator[Any]:
    """Every `loss_type`; the f-divergences; ld_alpha; use_weighting; two losses at once."""
    first, second = batch(seed)
    for name, (settings, objective) in DPO_LOSSES.items():
        p = 0.9 / 0.8 if name == "robust" else 1.0
        yield from _compare(name, trl_dpo(first, second, {name: 1.0}, **settings), ours(objective, first, second, p), first, second)
        if name != "sft":
            theirs = trl_dpo(first, second, {name: 1.0}, use_weighting=True, **settings)
            if objective.swap == "comparison":  # TRL weighs ranks with the weights of unrelated comparisons under aot
                yield from _compare(f"{name} weighted", theirs, ours(policy_weighted(objective), first, second, p), first, second)
            theirs = trl_dpo(first, second, {name: 1.0}, ld_alpha=0.3, **settings)
            yield from _compare(f"{name} ld", theirs, ours(length_desensitised(objective, 0.3), first, second, p), first, second)
    both = weighted_sum((by_name("sigmoid"), 1.0), (by_name("sft"), 0.7))
    theirs = trl_dpo(first, second, {"sigmoid": 1.0, "sft": 0.7})
    yield from _compare("sigmoid and sft", theirs, ours(both, first, second), first, second)
    yield from _compare("rpo", theirs, ours(with_sft(by_name("sigmoid"), 0.7), first, second), first, second)


def divergence_agreement(seed: int) -> Iterator[Any]:
    """Losses under f-divergences: float64, but float32 for alpha, which TRL offers in no other precision."""
    for kind, theirs_kind in (("forward_kl", "forward_kl"), ("js", "js_divergence"), ("alpha", "alpha_divergence")):
        first, second = batch(seed, dtype=torch.float32 if kind == "alpha" else torch.float64)
        for name in UNDER_DIVERGENCE:
            settings, objective = DPO_LOSSES[name]
            theirs = trl_dpo(first, second, {name: 1.0}, f_divergence_type=theirs_kind, **settings)
            yield from _compare(f"{kind} {name}", theirs, ours(under_divergence(objective, kind), first, second), first, second)


def _grads(function: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    loss = function(*leaves)
    return loss.detach(), torch.stack(torch.autograd.grad(loss.sum(), leaves))


def _each(label: str, theirs: tuple[Tensor, Tensor], mine: tuple[Tensor, Tensor]) -> Iterator[Any]:
    for what, x, y in zip(("loss", "gradient"), theirs, mine, strict=True):
        yield checks.Error(f"{label} {what}", float((x - y).abs().max() / x.abs().max().clamp(min=1)))


def reference_free_agreement(seed: int) -> Iterator[Any]:
    """The CPO trainer's losses and AlphaPO, comparison by comparison; ORPO in float32, in which TRL computes it."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    first, second = batch(seed)
    one = torch.ones(len(first))
    cases = [
        ("sigmoid", 0.0, by_name("cpo", sft=0.0)),
        ("hinge", 0.0, by_name("cpo_hinge", sft=0.0)),
        ("ipo", 0.0, by_name("cpo_ipo", sft=0.0)),
        ("simpo", 0.0, by_name("simpo", beta=0.1, gamma=0.5)),
        ("simpo", 0.25, by_name("alpha_po", beta=0.1, gamma=0.5, alpha=0.25)),
    ]
    for loss_type, alpha, objective in cases:
        averaged = loss_type in ("ipo", "simpo")
        inputs = [s.logp / s.n_tokens if averaged else s.logp for s in (first, second)]
        stub = SimpleNamespace(accelerator=ALONE, alpha=alpha, loss_type=loss_type, beta=0.1, simpo_gamma=0.5, label_smoothing=0.0)
        theirs = _grads(lambda a, b, stub=stub: CPOTrainer.cpo_loss(stub, a, b)[0], *inputs)
        mine = _grads(lambda a, b, o=objective: o.loss(Side(logp=a, n_tokens=one), Side(logp=b, n_tokens=one), {}), *inputs)
        yield from _each(f"cpo {loss_type} alpha {alpha}", theirs, mine)
    inputs = [(s.logp / s.n_tokens).float() for s in (first, second)]
    stub = SimpleNamespace(accelerator=ALONE, beta=0.1)
    orpo = by_name("orpo", beta=0.1)
    theirs = _grads(lambda a, b: -a - ORPOTrainer.odds_ratio_loss(stub, a, b)[0], *inputs)
    mine = _grads(lambda a, b: orpo.loss(Side(logp=a, n_tokens=one), Side(logp=b, n_tokens=one), {}), *inputs)
    yield from _each("orpo", theirs, mine)


def kto_agreement(seed: int) -> Iterator[Any]:
    """TRL's KTO trainer on single responses, the first sides good and the second bad: losses kto and apo_zero_unpaired."""
    from trl.trainer.kto_trainer import KTOTrainer

    first, second = batch(seed)
    n = 2 * len(first)
    for loss_type, objective in (("kto", by_name("kto", desirable=1.2, undesirable=0.7)), ("apo_zero_unpaired", by_name("apo_zero"))):
        mine = ours(objective, first, second)
        tokens = torch.cat([first.token_logp, second.token_logp]).clone().requires_grad_()
        mismatch = torch.cat([first.mismatch_log_ratio, second.mismatch_log_ratio])
        weights = (1.2, 0.7) if loss_type == "kto" else (1.0, 1.0)
        stub = SimpleNamespace(
            model=SimpleNamespace(training=True), accelerator=ALONE, aux_loss_enabled=False, precompute_ref_logps=True, beta=0.1,
            loss_type=loss_type, calculate_KL=loss_type == "kto", desirable_weight=weights[0], undesirable_weight=weights[1],
            _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, _compute_kl_logps=lambda *_, m=mismatch: m,
        )  # fmt: skip
        mask = torch.cat([first.mask, second.mask]).long()
        ids = torch.zeros(n, LENGTH + 1, dtype=torch.long)
        inputs = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "label": torch.arange(n) < len(first),
            "completion_mask": torch.cat([torch.zeros(n, 1).long(), mask], 1), "ref_KL_logps": torch.zeros(n, dtype=torch.float64),
            "ref_logps": torch.cat([first.reference_logp, second.reference_logp]),
        }  # fmt: skip
        loss = KTOTrainer._compute_loss(stub, lambda t=tokens, **_: _outputs(first, second, t), inputs, False)
        theirs = (2 * loss.detach(), 2 * torch.autograd.grad(loss, tokens)[0])  # its mean is over responses, ours over pairs
        yield from _compare(f"unpaired {loss_type}", theirs, mine, first, second)


def reward_agreement(seed: int) -> Iterator[Any]:
    """TRL's reward trainer: plain, with margins, centred."""
    from trl.trainer.reward_trainer import RewardTrainer

    generator = torch.Generator().manual_seed(seed)
    a, b, gap = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(3))
    for label, margin, centre in (("plain", None, None), ("margin", gap.abs(), None), ("centred", None, 0.01)):

        def theirs(x: Tensor, y: Tensor, margin: Tensor | None = margin, centre: float | None = centre) -> Tensor:
            stub = SimpleNamespace(
                model=SimpleNamespace(training=True), accelerator=ALONE, _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
                _tp_size=1, args=SimpleNamespace(center_rewards_coefficient=centre), aux_loss_enabled=False,
            )  # fmt: skip
            inputs = {"attention_mask": torch.ones(10, 2)} | ({} if margin is None else {"margin": margin})
            return RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=torch.cat([x, y])[:, None]), inputs)

        rating = torch.zeros(5, dtype=torch.float64) if margin is None else margin
        objective = by_name("bradley_terry", rated=0.0 if margin is None else 1.0, centre=centre or 0.0)

        def mine(x: Tensor, y: Tensor, objective: Objective = objective, rating: Tensor = rating) -> Tensor:
            return objective.loss(Side(score=x, rating=rating), Side(score=y, rating=torch.zeros_like(rating)), {}).mean()

        yield from _each(f"reward {label}", _grads(theirs, a, b), _grads(mine, a, b))


ALL_AGREEMENT = {
    "dpo": dpo_agreement, "divergence": divergence_agreement, "reference_free": reference_free_agreement, "kto": kto_agreement,
    "reward": reward_agreement,
}  # fmt: skip
