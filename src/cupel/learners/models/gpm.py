"""General preferences: a vector per response, compared by a fixed skew-symmetric form, which can hold what goes round.

    s(i > j | x) = sum over planes l of g_l(x) (a_l^i b_l^j - b_l^i a_l^j),   log-odds = s / tau

A vector is k planes of two numbers (a_l, b_l). s is antisymmetric by construction, and with enough planes every skew-symmetric matrix
of preferences has such vectors. Vectors (r, 1) give r_i - r_j: Bradley-Terry. Zhang et al. 2024 (GPM), arXiv:2410.02197.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit
from torch.nn.functional import softplus

from cupel.errors import InputError
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Reads, Shape, normal
from cupel.objectives.preference import general_score
from cupel.objectives.types import Side
from cupel.votes.cycles import Cyclicity, cyclicity

Gate = Literal["none", "softmax", "softplus"]


class GeneralPreference(PreferenceModel):
    """Vectors v = W x + c in R^dim, compared by the form above; a gate that reads the prompt alone may weigh the planes.

    dim        2k, even; one plane (2) with `normalize` gets stuck at chance for one seed in ten, hence 4
    gate       softmax: k softmax(G p), the uniform gate being 1 for every plane; softplus: softplus(G p) / ln 2, likewise; none: 1
    bias       the constant c, which begins as N(0, 1). Without it s is a form in x and x' alone and holds no difference of scores, so
               that on features with mean 0, as ours are, nobody would simply be better; the published head has none and reads states
               whose mean is far from 0
    normalize  vectors of length 1: then |s| <= the largest gate weight, so log-odds end at 1 / tau without a gate
    tau        temperature of preferences; the objective `general_preference` has its own, 0.1 too

    W and G begin as N(0, 1 / (inputs + 1)), the second number read as a variance [unverified: the card's notation; under
    `normalize` the size of W does not matter]. Paper and code differ on the gate (lambda_l squared, to the first power, in the scale
    softmax or k softmax): here it enters once, from k softmax. A gate that saw a response would break the antisymmetry. Objectives of
    scores see +-s / (2 tau); `general_preference` and its kin see vectors and gate. InputError for an odd dim, an unknown gate, a gate
    where comparisons carry no prompt vector, tau that is not positive.

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = GeneralPreference(Shape(width=2), dim=2, bias=False, normalize=False, tau=1.0)
    >>> _ = model.vectors.data.copy_(torch.eye(2))
    >>> z = model.represent(torch.tensor([[2.0, 1.0], [0.5, 1.0]]))  # (r, 1): Bradley-Terry
    >>> model.margin(z[:1], z[1:], Given()).tolist(), model.score_matrix(z).tolist()
    ([1.5], [[0.0, 1.5], [-1.5, 0.0]])
    """

    name = "gpm"
    summary = "vectors compared by a skew-symmetric form: preferences that go round"
    gives = frozenset({"score", "embedding"})

    def __init__(
        self, shape: Shape, *, dim: int = 4, gate: Gate | None = "none", bias: bool = True, normalize: bool = True, tau: float = 0.1,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if gate not in ("none", "softmax", "softplus", None):
            raise InputError(f"gpm:gate is none, softmax or softplus, not {gate!r}")
        if dim < 2 or dim % 2:
            raise InputError(f"gpm:dim counts the two numbers of each plane: an even number of at least 2, not {dim!r}")
        if not 0 < tau < float("inf"):
            raise InputError(f"gpm:tau is a positive number, not {tau!r}")
        self.reads = self.reading(gate=gate)  # pyright: ignore[reportIncompatibleVariableOverride, reportAttributeAccessIssue]
        super().__init__(shape)
        generator = torch.Generator().manual_seed(seed)
        self.dim, self.gate, self.normalize, self.tau = dim, gate or "none", normalize, float(tau)
        self.vectors = normal(generator, dim, shape.width, scale=(shape.width + 1) ** -0.5)
        self.constant = nn.Parameter(torch.randn(dim, generator=torch.Generator().manual_seed(seed + 1))) if bias else None
        self.planes: nn.Parameter | None = None
        if self.gate != "none":
            self.planes = normal(generator, dim // 2, shape.prompt, scale=(shape.prompt + 1) ** -0.5)

    @classmethod
    def reading(cls, **settings: Any) -> frozenset[Reads]:
        """The prompt, where there is a gate."""
        return frozenset() if settings.get("gate", "none") in ("none", None) else frozenset({"prompt"})

    def represent(self, x: Tensor) -> Tensor:
        """The preference vectors [m, dim] of responses [m, width]; plane l is columns 2l and 2l + 1."""
        z = x @ self.vectors.T if self.constant is None else torch.addmm(self.constant, x, self.vectors.T)
        return unit(z, dim=-1) if self.normalize else z

    def gates(self, prompt: Tensor | None) -> Tensor | None:
        """[B, dim / 2] weights of the planes from prompt vectors [B, d]; None without a gate. InputError where the prompt is missing."""
        if self.planes is None:
            return None
        if prompt is None:
            raise InputError(f"the planes of this model are weighed by the prompt (gpm:gate={self.gate}), and no prompt vector is given")
        logits = prompt @ self.planes.T
        return (
            self.dim // 2 * torch.softmax(logits, dim=-1) if self.gate == "softmax" else softplus(logits) / softplus(logits.new_zeros(()))
        )

    def sides(self, first: Tensor, second: Tensor, given: Given) -> tuple[Side, Side]:
        """Scores +-s / (2 tau), vectors and gate of B comparisons."""
        gate = self.gates(given.prompt)
        half = general_score(first, second, gate) / (2 * self.tau)
        return Side(score=half, embedding=first, gate=gate), Side(score=-half, embedding=second, gate=gate)

    def score_matrix(self, z: Tensor, prompt: Tensor | None = None) -> Tensor:
        """s_ij of n responses to one prompt, [n, n], from their vectors; log-odds are s / tau. prompt [d] or [1, d] where there is a gate.

        InputError for fewer than two responses, and for scores that are not finite.
        """
        n = len(z)
        if n < 2:
            raise InputError(f"{n} response has nothing to be compared with: give at least 2")
        gate = self.gates(None if prompt is None else prompt.reshape(1, -1))
        s = general_score(z[:, None], z[None, :], None if gate is None else gate[:, None])
        bad = int((~torch.isfinite(s)).sum())
        if bad:
            raise InputError(
                f"{bad:,} of {n * n:,} scores are not finite: look at the vectors of these responses, or train with a lower rate"
            )
        return s

    def against(self, z: Tensor, opponents: Tensor, prompt: Tensor | None = None) -> Tensor:
        """[m] mean score of each response against opponents [K, dim]: the scalar export, which depends on whom they meet."""
        gate = self.gates(None if prompt is None else prompt.reshape(1, -1))
        return general_score(z[:, None], opponents[None, :], None if gate is None else gate[:, None]).mean(dim=1)

    def cycles(self, z: Tensor, prompt: Tensor | None = None) -> Cyclicity:
        """How much of the scores among these responses goes round, and the strongest 3-cycles (`cupel.votes.cycles.cyclicity`)."""
        with torch.no_grad():
            return cyclicity(self.score_matrix(z, prompt).double().numpy())

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """The planes of s as a form in the features, strongest first.

        Without gate and normalisation s(x > x') = x . A x', A = sum_l a_l b_l^T - b_l a_l^T over the rows of W, to which c is one column
        more, of a feature that is always 1. The size of a plane is the area of its two rows, sqrt(|a|^2 |b|^2 - (a . b)^2): 0 where it
        only ever says 0. Where features have names, the three that weigh most in a plane.
        """
        w, names = self.vectors.detach().double(), self.shape.names
        if self.constant is not None:
            w, names = torch.cat([w, self.constant.detach().double()[:, None]], dim=1), (*names, "1") if names else ()
        a, b = w[0::2], w[1::2]
        area = ((a * a).sum(1) * (b * b).sum(1) - (a * b).sum(1) ** 2).clamp(min=0).sqrt()
        share = area / area.sum().clamp(min=1e-300)
        order = torch.argsort(area, descending=True, stable=True)
        table: dict[str, list[Any]] = {"plane": (order + 1).tolist(), "area": area[order].tolist(), "share": share[order].tolist()}
        if self.planes is not None:
            table["pull of the prompt"] = self.planes.detach().double().norm(dim=1)[order].tolist()
        if names:
            heaviest = torch.argsort(a**2 + b**2, dim=1, descending=True, stable=True)[order, :3].tolist()
            table["features"] = [", ".join(names[j] for j in row) for row in heaviest]
        k = self.dim // 2
        many = f"{k} plane" + "s" * (k > 1)
        words = (
            f"{many}: A over B and B over C does not make A over C",
            f"the largest has {float(share.max()):.0%} of all area"
            + (f"; the prompt weighs them ({self.gate})" if self.gate != "none" else ""),
            "how much of it goes round among given responses: `cycles`",
        )
        return Explanation(words, {"planes": table})


MODEL = GeneralPreference
