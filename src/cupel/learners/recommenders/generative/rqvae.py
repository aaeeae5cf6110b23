"""Semantic ids by a learned quantiser: an autoencoder whose middle is a sum of one vector per level (RQ-VAE)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cupel.errors import InputError
from cupel.learners.recommenders.attention import Dropout, reseed, seeded
from cupel.learners.recommenders.generative.ids import SemanticIds, check_vectors, finished, quantised, standardised
from cupel.objectives.quantisation import residual_quantisation


class Block(nn.Module):
    """dropout(relu(LN(W x))) + V x."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.map, self.norm, self.dropout = nn.Linear(inputs, outputs), nn.LayerNorm(outputs), Dropout(dropout)
        self.past = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs] from [B, inputs]."""
        return self.dropout(torch.relu(self.norm(self.map(x)))) + self.past(x)


def _stack(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    blocks = [Block(a, b, dropout) for a, b in pairwise(sizes[:-1])]
    return nn.Sequential(*blocks, nn.Linear(sizes[-2], sizes[-1]))


class Quantiser(nn.Module):
    """Encoder, codebooks [levels, codes, latent] and the mirrored decoder."""

    def __init__(self, inputs: int, hidden: Sequence[int], latent: int, levels: int, codes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = _stack([inputs, *hidden, latent], dropout)
        self.decoder = _stack([latent, *list(hidden)[::-1], inputs], dropout)
        self.books = nn.Parameter(torch.zeros(levels, codes, latent))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(reconstruction [B, D], what each level quantised [L, B, d], what it took [L, B, d], codes [B, L]).

        The decoder reads r_1 + sg(z - r_1), z the sum of what was taken: its gradient goes straight through to the encoder.
        """
        first = self.encoder(x)
        here, left, taken, codes = first, [], [], []
        for book in self.books:
            code = torch.cdist(here.detach(), book.detach()).argmin(dim=1)
            left.append(here)
            taken.append(book[code])
            codes.append(code)
            here = here - taken[-1].detach()
        z = torch.stack(taken).sum(0)
        return self.decoder(first + (z - first).detach()), torch.stack(left), torch.stack(taken), torch.stack(codes, dim=1)

    @torch.no_grad()
    def begin(self, x: Tensor, seed: int) -> None:
        """Codebooks by k-means of what the untrained encoder, and the levels before, leave over."""
        from sklearn.cluster import KMeans

        left = self.encoder(x).cpu().numpy()
        for level, book in enumerate(self.books):
            n = min(len(book), len(np.unique(left, axis=0)))
            means = KMeans(n, n_init=1, max_iter=100, random_state=seed + level)  # pyright: ignore[reportArgumentType]
            centres = means.fit(left).cluster_centers_.astype(np.float32)
            book[:n] = torch.from_numpy(centres).to(book)
            book[n:] = book[0]
            left = quantised(left, [centres])[1]


class Trained(NamedTuple):
    """ids; the quantiser; one line per look: epoch, loss, held-out reconstruction, codes in use per level."""

    ids: SemanticIds
    model: Quantiser
    epochs: list[dict[str, Any]]


def train_rqvae(
    vectors: np.ndarray, *, levels: int = 3, codes: int = 256, last: int | None = None, hidden: Sequence[int] = (512, 256),
    latent: int = 128, epochs: int = 500, batch_size: int = 2048, learning_rate: float = 1e-3, weight_decay: float = 0.1,
    beta: float = 0.25, dropout: float = 0.1, heldout: float = 0.05, every: int = 50, missing: str = "error", seed: int = 0,
    device: str = "cpu",
) -> Trained:  # fmt: skip
    """Semantic ids of items by RQ-VAE: card 40-mender's network and loss, `epochs` passes of AdamW (published: 8,000).

    vectors float32 [I, d], standardised per component first. Codebooks begin by k-means; the loss is
    `cupel.objectives.quantisation.residual_quantisation`. Collapse shows in `epochs` and in the ids' notes: a level that uses less than
    half of its codes is named. heldout: share of items kept from training to measure reconstruction on; `residual` of the ids is what the
    levels leave of the mean square of the latent vectors. InputError as `residual_kmeans`.
    """
    if min(levels, codes, latent, epochs, batch_size, every) < 1 or not 0 <= heldout < 1:
        raise InputError("rqvae: levels, codes, latent, epochs, batch_size and every are at least 1, heldout is a share in [0, 1)")
    there = check_vectors(vectors, missing, codes)
    x = torch.from_numpy(standardised(vectors[there])).to(device)
    draw = torch.Generator().manual_seed(seed)
    turn = torch.randperm(len(x), generator=draw)
    held, kept = turn[: int(heldout * len(x))], turn[int(heldout * len(x)) :]
    with seeded(seed):
        model = Quantiser(x.shape[1], hidden, latent, levels, codes, dropout).to(device)
    model.eval().begin(x[kept], seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    lines: list[dict[str, Any]] = []
    for epoch in range(epochs):
        model.train()
        reseed(model, draw)
        order, total = kept[torch.randperm(len(kept), generator=draw)], 0.0
        for part in order.split(batch_size):
            back, left, taken, _ = model(x[part])
            loss = residual_quantisation(x[part], back, left, taken, beta)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(part)
        if not np.isfinite(total):
            raise InputError(f"rqvae: the loss is not finite any more in pass {epoch + 1}: lower learning_rate (now {learning_rate:g})")
        if (epoch + 1) % every == 0 or epoch + 1 == epochs:
            lines.append({"epoch": epoch + 1, "loss": total / len(kept), **_look(model, x, held if len(held) else kept)})
    model.eval().requires_grad_(False)
    _, left, _, found = model(x)
    residual = [float(y.double().square().mean() / left[0].double().square().mean()) for y in _after(model, left[0])]
    ids = finished(found.cpu().numpy(), there, codes if last is None else last, codes, seed, list(model.books.cpu().numpy()), residual)
    poor = [f"level {level} uses {n} of {codes} codes" for level, n in enumerate(lines[-1]["used"]) if n < codes / 2]
    notes = (*ids.notes, *([f"the quantiser has collapsed: {', '.join(poor)}"] if poor else []))
    return Trained(SemanticIds(ids.codes, ids.sizes, ids.codebooks, ids.residual, notes), model, lines)


def rqvae(vectors: np.ndarray, **settings: Any) -> SemanticIds:
    """The ids of `train_rqvae`.

    >>> ids = rqvae(np.random.default_rng(0).normal(size=(40, 4)), levels=2, codes=4, last=30, hidden=(8,), latent=4, epochs=2)
    >>> ids.codes.shape, ids.sizes
    ((40, 3), (4, 4, 30))
    """
    return train_rqvae(vectors, **settings).ids


@torch.no_grad()
def _look(model: Quantiser, x: Tensor, held: Tensor) -> dict[str, Any]:
    model.eval()
    codes = model(x)[3]
    return {
        "reconstruction": float((model(x[held])[0] - x[held]).square().mean()), "used": [len(column.unique()) for column in codes.T],
        "prefixes": len(codes.unique(dim=0)),
    }  # fmt: skip


def _after(model: Quantiser, latent: Tensor) -> list[Tensor]:
    """What is left after each level."""
    here, out = latent, []
    for book in model.books:
        here = here - book[torch.cdist(here, book).argmin(dim=1)]
        out.append(here)
    return out
