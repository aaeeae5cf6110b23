"""One number per response: linear in its vector, or through one hidden layer. The model that all others are measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cupel.learners.heads.network import forward, initial
from cupel.learners.models.types import Given, PreferenceModel, Shape


class Scalar(PreferenceModel):
    """r(x) = x . theta, or relu(x hidden + bias) . out. There is no bias at the output: only differences of scores mean something.

    hidden  units of the hidden layer; 0: linear

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = Scalar(Shape(width=2), seed=0)
    >>> _ = model.theta.data.copy_(torch.tensor([1.0, 2.0]))
    >>> model.score(model.represent(torch.tensor([[1.0, 1.0]])), Given()).tolist()
    [3.0]
    """

    name = "scalar"
    summary = "one number per response (Bradley-Terry with a logistic objective)"

    def __init__(self, shape: Shape, *, hidden: int = 0, seed: int = 0) -> None:
        super().__init__(shape)
        for name, value in initial(shape.width, hidden, seed).items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(value)))

    def represent(self, x: Tensor) -> Tensor:
        """The score of each response, [m, 1]."""
        return forward(dict(self.named_parameters()), x)[:, None]

    def score(self, z: Tensor, given: Given) -> Tensor:
        """[m], which `represent` has made."""
        return z[:, 0]


MODEL = Scalar
