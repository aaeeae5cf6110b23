"""What an evaluation of recommenders found: every number with its interval, as values, as JSON, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cupel.evaluate.paired import Share
from cupel.evaluate.recommending.catalogue import Shown
from cupel.evaluate.recommending.weighing import Weighing


@dataclass(frozen=True)
class Part:
    """Test events judged together: all of them, or those of rare items.

    value       {metric: {model: Share}}: metrics as "ndcg@20" (every event counts the same) and "ndcg@20 snips" (weighted); n of a Share
                is the number of events, groups of users
    difference  {metric: {model: Share}}: each model minus the reference, on the same users and draws
    """

    name: str
    events: int
    users: int
    value: Mapping[str, Mapping[str, Share]]
    difference: Mapping[str, Mapping[str, Share]]

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return {
            "name": self.name, "events": self.events, "users": self.users,
            "value": {m: {k: v.to_json() for k, v in row.items()} for m, row in self.value.items()},
            "difference": {m: {k: v.to_json() for k, v in row.items()} for m, row in self.difference.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Recommending:
    """Recommenders judged by one test log.

    names, reference  the models, and the one that differences are taken to
    headline          the metric of the verdicts, e.g. "ndcg@20"
    parts             all events first; then rare items, where some are relevant
    shown             {model: Shown} of the longest lists
    weighing          how weighted metrics were weighed; None where there are none
    seeds             training seeds of each model
    ranked, left_out  items that were ranked for each user (all), and mean number of items left out of a list because they were seen
    """

    names: tuple[str, ...]
    reference: str
    headline: str
    parts: tuple[Part, ...]
    shown: Mapping[str, Shown]
    weighing: Weighing | None
    seeds: Mapping[str, int]
    ranked: int
    left_out: float
    rare: int
    ks: tuple[int, ...]
    seed: int
    draws: int
    notes: tuple[str, ...] = ()

    @property
    def ranking(self) -> tuple[str, ...]:
        """Models by the headline metric over all events, the highest first; equal ones in the order given."""
        row = self.parts[0].value[self.headline]
        return tuple(sorted(self.names, key=lambda name: -(row[name].estimate or 0.0)))

    @property
    def verdicts(self) -> dict[str, str]:
        """What the paired interval of the headline metric says of each other model."""
        said = {}
        for name, share in self.parts[0].difference[self.headline].items():
            low, high = share.low, share.high
            if low is None or high is None or low <= 0 <= high:
                said[name] = f"cannot be told apart from {self.reference}"
            else:
                said[name] = f"{'better' if low > 0 else 'worse'} than {self.reference}"
        return said

    def to_json(self) -> dict[str, Any]:
        """What `evaluation.json` holds."""
        return {
            "models": list(self.names), "reference": self.reference, "headline": self.headline, "ranking": list(self.ranking),
            "verdicts": self.verdicts, "parts": [part.to_json() for part in self.parts],
            "shown": {name: one.to_json() for name, one in self.shown.items()},
            "weighing": None if self.weighing is None else self.weighing.to_json(), "training_seeds": dict(self.seeds),
            "items_ranked": self.ranked, "items_left_out": self.left_out, "rare_at_most": self.rare, "ks": list(self.ks),
            "seed": self.seed, "draws": self.draws, "level": 0.95, "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The evaluation in words, one fact a line."""
        whole = self.parts[0]
        out = [
            f"{whole.events:,} test events of {whole.users:,} users; all {self.ranked:,} items ranked, on average {self.left_out:,.1f} of "
            f"them left out because the user had them."
        ]
        for part in self.parts:
            for name in self.names:
                out.append(f"{self.headline}, {part.name}, {name}: {part.value[self.headline][name]}")
        for name, share in whole.difference[self.headline].items():
            out.append(f"{name} minus {self.reference}, {self.headline}: {share}; {self.verdicts[name]}.")
        if self.weighing is not None:
            w = self.weighing
            metric = next((m for m in whole.value if m.startswith(self.headline + " ")), next(m for m in whole.value if " snips" in m))
            out += [f"{metric}, {name}: {whole.value[metric][name]}" for name in self.names]
            out.append(
                f"Weights 1 / max(propensity, {w.clip:g}), propensities from {w.source}: {w.events:,} events weigh as {w.effective:,.0f} "
                f"equal ones; {100 * w.clipped:.1f} % are clipped."
            )
            out += w.warnings
        for name, one in self.shown.items():
            out.append(
                f"{name} shows {100 * one.coverage:.1f} % of the catalogue in lists of {max(self.ks)}, Gini {one.gini:.3f}, mean "
                f"popularity {one.popularity:,.1f} training events."
            )
        return [*out, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())
