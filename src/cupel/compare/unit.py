"""What a scalar head gives an objective, and the natural unit of a score under that objective.

A head gives one number per response. Its side is: logp = score, reference_logp = 0, n_tokens = words, score = score; so the log-ratio of
DPO is the score and its margin beta times the difference of two scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.objectives.types import Context, Objective, Side

#: the needs that a scalar head can meet
MET = frozenset({"logp", "length", "reference", "score"})
#: a label of this reliability defines the unit
RELIABLE = 0.8
#: a score beyond all use
FAR = 1e4


def refusal(objective: Objective) -> str | None:
    """Why no scalar head can be trained with this objective; None if one can.

    >>> from cupel.objectives.names import by_name
    >>> refusal(by_name("sigmoid")), refusal(by_name("tdpo"))[:28]
    (None, 'tdpo needs divergence, which')
    """
    missing = sorted(objective.needs - MET)
    if missing:
        return (
            f"{objective.name} needs {', '.join(missing)}, which a head on frozen embeddings does not have: it gives one score per "
            f"response. Choose an objective of scores or summed log-probabilities"
        )
    words = torch.ones(1, dtype=torch.float64)
    low, high = (side(torch.full((1,), shift, dtype=torch.float64), words) for shift in (0.0, FAR))
    before, after = (float(_loss(objective, both, both)) for both in (low, high))
    if before - after > FAR / 100:
        return (
            f"the loss of {objective.name} falls without bound as both scores grow (it has a term that imitates the first side, which "
            f"needs real log-probabilities): a head cannot be fitted"
        )
    return None


def side(score: Tensor, tokens: Tensor | None = None) -> Side:
    """The side of responses with these scores [B] and numbers of words [B], which only objectives that ask for lengths need."""
    return Side(logp=score, n_tokens=tokens, reference_logp=torch.zeros_like(score), score=score)


def unit(objective: Objective, tokens: float = 1.0) -> tuple[float, float]:
    """(D, L): the difference of scores at which the expected loss of labels that are right four times in five is least, and the
    loss that a label gains on the way there.

    D = argmin_d .8 keep(d) + .2 flip(d), sides at +d/2 and -d/2; where the loss has no such minimum (it falls for ever), D is where keep
    has fallen from its value at 0 by three fifths of what it can. L = (keep(-D) - keep(D)) / 2. Heads are trained as score = D x . u on
    loss / L, so that one grid of ridges and one step size mean the same for every objective. Ours; for the sigmoid of slope beta,
    D = logit(.8) / beta and L = D beta / 2 (D is found on a grid of steps of 1 %).

    tokens: words of a typical response. ValueError where the loss does not fall with the margin.

    >>> from cupel.objectives.names import by_name
    >>> [round(x, 2) for x in unit(by_name("sigmoid", beta=0.5))]
    [2.79, 0.7]
    """
    points = 1401 if _alone(objective) else 176  # of coupled objectives every point is a step of its own
    d = torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-3, 4, points, dtype=torch.float64) * tokens**0.5])
    words = torch.full_like(d, tokens)
    first, second = side(d / 2, words), side(-d / 2, words)
    keep, flip = _loss(objective, first, second), _loss(objective, second, first)
    expected = RELIABLE * keep + (1 - RELIABLE) * flip
    best = int(torch.argmin(expected))
    small = 1e-6 * float((keep[0] - keep).abs().max())
    if best == 0 or float(expected[-1] - expected[best]) <= small:
        reach = float(keep[0] - keep.min())
        best = int(((keep[0] - keep) >= 0.6 * reach).int().argmax())
        if reach <= 1e-9 or best == 0:
            raise ValueError(f"the loss of {objective.name} does not fall as the first side's score grows: a head cannot be fitted")
    gain = float(flip[best] - keep[best]) / 2
    if not gain > 0:
        raise ValueError(f"the loss of {objective.name} is not smaller where the first side's score is larger: a head cannot be fitted")
    return float(d[best]), gain


def _loss(objective: Objective, first: Side, second: Side) -> Tensor:
    """Loss of each comparison by itself, [B]: as a step of its own where comparisons depend on each other."""
    with torch.no_grad():
        if _alone(objective):
            return objective.loss(first, second, {})
        rows = [(first.map(lambda x, i=i: x[i : i + 1]), second.map(lambda x, i=i: x[i : i + 1])) for i in range(len(first))]
        return torch.cat([objective.loss(a, b, context_of(objective, a, b, {})) for a, b in rows])


def _alone(objective: Objective) -> bool:
    """Whether the loss of a comparison depends on that comparison alone."""
    return objective.swap == "comparison" and objective.context is None


def context_of(objective: Objective, first: Side, second: Side, previous: Context) -> Context:
    """The statistics of the step that the objective asks for; {} where it asks for none."""
    return {} if objective.context is None else objective.context(first, second, previous)
