"""TRL's reward trainer with any objective of scores and any treatment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer as Upstream

from cupel.adapters.trl.choice import setting
from cupel.adapters.trl.hooks import output
from cupel.adapters.trl.learner import Learner
from cupel.errors import InputError, RecordError
from cupel.objectives.names import by_name
from cupel.objectives.types import Objective, Side


class RewardTrainer(Learner, Upstream):
    """TRL's RewardTrainer, with `objective=`, `treatment=` and the columns weight, p, annotator, group and id of its data sets.

    objective: a name with its arguments ("bradley_terry", "thurstone", "reward_hinge:margin=1"), or an Objective; None is Bradley-Terry
    with TRL's `center_rewards_coefficient` and, where the data has one, its column `margin`. treatment: as in `DPOTrainer`.
    A margin is what the two scores should differ by, at least 0: a property of the pair, which a flipped label keeps.
    """

    upstream, config = Upstream, RewardConfig
    why = {"rating": "It stands for the margin of a pair: add a column 'margin'"}  # noqa: RUF012

    def default_objective(self, args: Any, train: Any) -> Objective:
        """Bradley-Terry, with margins where the data has them and centring where TRL's arguments ask for it."""
        centre = setting(args, self.config, "center_rewards_coefficient") or 0.0
        return by_name("bradley_terry", rated=1.0 if "margin" in train.column_names else 0.0, centre=centre)

    def check_arguments(self, args: Any, train: Any, *, chosen: bool) -> None:
        """InputError where a margin or centring would have no effect; RecordError where a margin is negative."""
        if chosen and setting(args, self.config, "center_rewards_coefficient"):
            raise InputError(
                f"center_rewards_coefficient would have no effect beside the objective {self.objective.name}: use "
                f"objective='bradley_terry:centre=...', or leave objective out"
            )
        self._rated = "margin" in train.column_names
        if self._rated and "rating" not in self.objective.needs:
            raise InputError(
                f"the objective {self.objective.name} does not read the column 'margin': use objective='bradley_terry:rated=1', leave "
                f"objective out, or remove the column"
            )
        if self._rated:
            margins = np.array([np.nan if x is None else float(x) for x in train.with_format(None)["margin"]])
            wrong = np.flatnonzero(~(margins >= 0))
            if len(wrong):
                raise RecordError(
                    f"margin is not a number of at least 0 in {len(wrong):,} of {len(margins):,} rows (first: row {wrong[0]}): it is what "
                    f"chosen is better by. Swap the sides of these rows, or set p to 0"
                )

    def gives(self, args: Any) -> frozenset[str]:
        """Scores, and margins where the data has them."""
        return frozenset({"score", "rating"} if self._rated else {"score"})

    def sides(self, outputs: Any, inputs: Mapping[str, Any]) -> tuple[Side, Side]:
        """Scores of both responses; the margin of a pair as the rating of the first over a second at 0."""
        scores: Tensor = output(outputs, "logits", Upstream).squeeze(-1)
        first, second = scores.chunk(2)
        if "rating" not in self.objective.needs:
            return Side(score=first), Side(score=second)
        margin = inputs["margin"].to(first.dtype)
        return Side(score=first, rating=margin), Side(score=second, rating=margin * 0)
