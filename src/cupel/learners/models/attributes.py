"""Several attributes of a response and one goal: attributes are read off its vector, goodness is their weighted sum.

HelpSteer2: Wang et al. 2024, arXiv:2406.08673. A linear layer with bias gives helpfulness, correctness, coherence, complexity and
verbosity; goodness is 0.65, 0.8 and 0.45 times the first three. Fitted to ratings (`ratings.fit_ratings`) the attributes mean something by
themselves, and verbosity is learned so that goodness need not absorb it. Trained on comparisons alone only goodness is identified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cupel.errors import InputError
from cupel.learners.models.types import Explanation, Given, PreferenceModel, Shape, linear, normal

#: the five attributes of HelpSteer and HelpSteer2, rated 0 to 4, and the published weights of their goodness
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
GOAL = (0.65, 0.8, 0.45, 0.0, 0.0)


class AttributeReward(PreferenceModel):
    """Goodness g . (W x + b) of a response x with attributes W x + b. In comparisons the bias cancels.

    attributes  their names, between slashes
    goal        weights of goodness in that order, between slashes; empty: 1 / A each
    learn       head: training moves W (and b); goal: the weights of goodness; both
    seed        of the first values of W
    What `fit_ratings` and `fit_goal` measure is kept in buffers (NaN: not measured) and shown by `explain`. InputError for names or weights
    that do not fit.

    >>> from cupel.learners.models.types import Given, Shape
    >>> model = AttributeReward(Shape(width=5))
    >>> _ = model.head.weight.data.copy_(torch.eye(5)), model.head.bias.data.zero_()
    >>> x = torch.tensor([[4.0, 4.0, 4.0, 2.0, 2.0], [3.2, 3.5, 3.9, 1.0, 4.0]])
    >>> [round(s, 3) for s in model.score(model.represent(x), Given()).tolist()]
    [7.6, 6.635]
    """

    name = "attributes"
    summary = "several attributes (ratings) of a response, and goodness as their weighted sum"

    def __init__(
        self, shape: Shape, *, attributes: str = "/".join(HELPSTEER), goal: str = "/".join(f"{g:g}" for g in GOAL), learn: str = "head",
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(shape)
        self.attributes = tuple(part.strip() for part in attributes.split("/"))
        if "" in self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"attributes:attributes holds different names between slashes, e.g. use/tone, not {attributes!r}")
        if learn not in ("head", "goal", "both"):
            raise InputError(f"attributes:learn is head, goal or both, not {learn!r}")
        weights = _weights(goal, self.attributes)
        self.learn = learn
        generator = torch.Generator().manual_seed(seed)
        self.head = linear(generator, shape.width, len(self.attributes))
        self.goal = normal(generator, len(self.attributes))
        self.goal.data.copy_(torch.tensor(weights))
        self.head.requires_grad_(learn != "goal")
        self.goal.requires_grad_(learn != "head")
        self.r2: Tensor
        self.goal_low: Tensor
        self.goal_high: Tensor
        self.share: Tensor
        for name in ("r2", "goal_low", "goal_high", "share"):
            self.register_buffer(name, torch.full((len(self.attributes),), float("nan")))

    def decayed(self, name: str) -> bool:
        """The weights of the head; the goal is not pulled to 0."""
        return name == "head.weight"

    def represent(self, x: Tensor) -> Tensor:
        """The attributes of each response, [m, A]."""
        return self.head(x)

    def score(self, z: Tensor, given: Given) -> Tensor:
        """Goodness, [m]."""
        return z @ self.goal

    def explain(self, people: Sequence[str] = (), contexts: Sequence[str] = ()) -> Explanation:
        """Per attribute: R^2 on unseen responses, goal weight with its interval, and its share of the variance of goodness (they sum to 1).

        The share of verbosity is how far goodness goes by length of speech; below 0 it counts against what the others reward.
        """
        columns = {"r2": self.r2, "goal": self.goal.detach(), "low": self.goal_low, "high": self.goal_high, "share": self.share}
        table = {name: [None if v != v else float(v) for v in values.tolist()] for name, values in columns.items()}
        words = []
        if bool(self.r2.isnan().all()):
            words.append("not fitted to ratings: the attributes are directions of one reward, and only goodness means something")
        share = dict(zip(self.attributes, self.share.tolist(), strict=True)).get("verbosity", float("nan"))
        if share == share:
            words.append(f"verbosity carries {share:.0%} of the variance of goodness")
        return Explanation(tuple(words), {"attributes": {"attribute": list(self.attributes), **table}})


def goodness(ratings: np.ndarray, goal: Sequence[float] = GOAL) -> np.ndarray:
    """Weighted sum of ratings [..., A], float64 [...]; by default the published weights of helpfulness, correctness, coherence, complexity
    and verbosity. They were tuned on RewardBench's prompts: do not judge models there by them.

    >>> round(float(goodness(np.array([4, 4, 4, 2, 2]))), 3)
    7.6
    """  # fmt: skip
    values, weights = np.asarray(ratings, np.float64), np.asarray(goal, np.float64)
    if values.shape[-1] != len(weights):
        raise InputError(f"{values.shape[-1]} attributes, {len(weights)} weights of the goal")
    return values @ weights


def _weights(text: str, attributes: Sequence[str]) -> list[float]:
    if not text.strip():
        return [1 / len(attributes)] * len(attributes)
    try:
        found = [float(part) for part in text.split("/")]
    except ValueError:
        found = []
    if len(found) != len(attributes) or not np.isfinite(found).all():
        raise InputError(
            f"attributes:goal holds {len(attributes)} numbers between slashes, one for each of {', '.join(attributes)}; not {text!r}"
        )
    return found


MODEL = AttributeReward
