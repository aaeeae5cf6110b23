"""What some objectives need beyond log-probabilities, computed in tiles of tokens and only on demand.

Each tile is computed again in backward (activation checkpointing of one tile), so memory stays at a few tiles of [rows, vocabulary].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cupel.scorers.anatomy import Head, ScorerError
from cupel.scorers.head import TILE_BYTES, tile_logits

#: quantity -> whether the reference's logits are needed
EXTRAS = {"collision": False, "entropy": False, "divergence": True, "tilt": True}
_ALIVE = 6  # tiles alive at a time, at most


def extras(
    wanted: frozenset[str], hidden: Tensor, target: Tensor, head: Head, reference: tuple[Tensor, Head] | None = None,
    epsilon: float = 0.01, tile_bytes: int = TILE_BYTES,
) -> dict[str, Tensor]:  # fmt: skip
    """float [M] for each wanted quantity at M positions, with p the policy and q the reference over the vocabulary:

    collision     log sum_v p_v^2
    entropy       -sum_v p_v log p_v
    divergence    KL(q || p) = sum_v q_v (log q_v - log p_v)
    tilt          `tilt_up`, `tilt_down`: log-probability of the target under logits (1 + e) f - e g and (1 - e) f + e g

    reference: the reference's hidden states at the same positions, and its head; no gradient reaches them. Raises ScorerError where a
    quantity needs a reference that is missing, or whose vocabulary has another size.
    """
    unknown = sorted(wanted - EXTRAS.keys())
    if unknown:
        raise ScorerError(f"unknown quantities {', '.join(unknown)}; there are {', '.join(EXTRAS)}")
    against = sorted(name for name in wanted if EXTRAS[name])
    if against and reference is None:
        raise ScorerError(f"{', '.join(against)} compare whole distributions: hand in a live reference, not stored log-probabilities")
    if reference is not None and len(reference[1].weight) != len(head.weight):
        raise ScorerError(f"the policy's vocabulary has {len(head.weight):,} entries, the reference's {len(reference[1].weight):,}")
    rows = max(16, tile_bytes // (4 * _ALIVE * len(head.weight)))
    names = sorted({"tilt_up", "tilt_down"} | (wanted - {"tilt"}) if "tilt" in wanted else wanted)

    def tile(h: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, g: Tensor | None) -> tuple[Tensor, ...]:
        log_p = torch.log_softmax(_logits(h, head._replace(weight=weight, bias=bias)), dim=-1)
        found: dict[str, Tensor] = {}
        if "collision" in wanted:
            found["collision"] = torch.logsumexp(2 * log_p, dim=-1)
        if "entropy" in wanted:
            found["entropy"] = -(log_p.exp() * log_p).sum(dim=-1)
        if g is not None and reference is not None:
            with torch.no_grad():
                log_q = torch.log_softmax(_logits(g, reference[1]), dim=-1)
            if "divergence" in wanted:
                found["divergence"] = (log_q.exp() * (log_q - log_p)).sum(dim=-1)
            if "tilt" in wanted:
                for name, e in (("tilt_up", epsilon), ("tilt_down", -epsilon)):
                    found[name] = torch.log_softmax((1 + e) * log_p - e * log_q, dim=-1).gather(1, y[:, None])[:, 0]
        return tuple(found[name] for name in names)

    parts = []
    for start in range(0, len(target), rows):
        part = slice(start, start + rows)
        inputs = (hidden[part], target[part], head.weight, head.bias, reference[0][part] if against and reference is not None else None)
        parts.append(checkpoint(tile, *inputs, use_reentrant=False) if torch.is_grad_enabled() else tile(*inputs))
    return {name: torch.cat(columns) for name, columns in zip(names, zip(*parts, strict=True), strict=True)}


def _logits(h: Tensor, head: Head) -> Tensor:
    x = tile_logits(h * head.scale if head.scale != 1.0 else h, head.weight, None, None)
    if head.bias is not None:
        x = x + (head.bias * head.scale).to(x.dtype)
    return x if head.softcap is None else head.softcap * torch.tanh(x / head.softcap)
