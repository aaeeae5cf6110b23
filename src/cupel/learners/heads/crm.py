"""Heads that review each other (CRM): the share they leave out, the treatment that makes it so, and what they kept of whom.

"Two Minds Better Than One: Collaborative Reward Modeling", arXiv:2505.10597 (card 09-crm; the schedule rho_t = 1 - min(t / T_k eta, eta)
is the co-teaching one, [unverified] for CRM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import Progress, Tally, fit
from cupel.learners.heads.margins import margins
from cupel.learners.heads.options import HeadOptions
from cupel.noise.fixed import identity
from cupel.noise.peer import peer_review
from cupel.noise.types import Treatment
from cupel.objectives.types import Objective
from cupel.votes.folds import group_folds

if TYPE_CHECKING:
    import pyarrow as pa

FOLDS = 5


def review(options: HeadOptions, eta: float) -> Treatment:
    """The treatment of CRM: each head learns from the share rho_t of the comparisons in which the others believe most.

    rho_t = 1 - min(t / ramp * eta, eta). scope=epoch is the card's safe form, a selection among all comparisons before any order is made.

    >>> review(HeadOptions(peers=2, scope="epoch"), 0.2).settings["level"]
    'epoch'
    """
    return peer_review(eta, ramp=options.ramp, level="step" if options.scope == "batch" else "epoch")


def flip_rate(
    features: np.ndarray, data: Comparisons, objective: Objective, options: HeadOptions, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Flip rate of the labels from margins of heads that did not see them (card 02, `cupel.noise.rate.estimate_flip_rate`).

    5 folds by group, each scored by a head of the same shape and objective, trained plainly on the others. Margins are flip - keep, the
    log-odds of the objective, in favour of the stated label. Ties take no part. InputError (NotIdentifiableError) where the margins do
    not tell flips from close calls, and where the rate is 1/2 or more.
    """
    from cupel.noise.rate import NotIdentifiableError, estimate_flip_rate

    margin = out_of_fold(features, data, objective, options, progress=progress)
    stated = 2 * data.p - 1
    use = (stated != 0) & (data.w > 0)
    try:
        found = estimate_flip_rate((margin * np.sign(stated))[use], weights=(data.w * np.abs(stated))[use])
    except NotIdentifiableError as error:
        raise NotIdentifiableError(f"{error}. Or state the rate: eta=0.2") from error
    if found.rate >= 0.5:
        raise InputError(f"the estimated flip rate is {found.rate:.3f}: from one half on, labels say nothing or their opposite")
    return {"rate": found.rate, "error": found.error, "low": found.low, "high": found.high, "slope": found.slope, "basis": "out-of-fold"}


def out_of_fold(
    features: np.ndarray, data: Comparisons, objective: Objective, options: HeadOptions, *, progress: Progress | None = None
) -> np.ndarray:
    """score(first) - score(second) of each comparison by a head that saw no comparison of its group, float64 [n].

    Groups of -1 and data with fewer than 5 groups are taken comparison by comparison. InputError below 5 comparisons.
    """
    n = len(data)
    group = np.where(data.group < 0, data.group.max(initial=-1) + 1 + np.arange(n), data.group)
    if len(np.unique(group)) < FOLDS:
        group = np.arange(n)
    if n < FOLDS:
        raise InputError(f"{n} comparisons cannot be cut into {FOLDS} folds: state the rate, eta=0.2")
    fold = group_folds(np.unique(group, return_inverse=True)[1].reshape(-1), FOLDS, options.seed)
    plain = replace(
        options, treatment="", members=1, peers=0, eta=None, ramp=HeadOptions.ramp, scope="batch", curriculum=False
    )  # fmt: skip
    out = np.zeros(n)
    for k in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        found = fit(features, data.take(inside), objective, identity(), plain, seeds=[options.seed], progress=progress)
        out[outside] = margins(found.models, features, data.take(outside))[0]
    return out


def kept_by(data: Comparisons, tallies: Sequence[Tally]) -> pa.Table:
    """How often the heads kept the comparisons of each annotator and each group: by, name, n, kept (mean over heads and passes).

    Selection leaves out minority preferences first; this table shows whose. Unknown annotators and groups have no row.
    """
    import pyarrow as pa

    frequency = np.mean([tally.frequency for tally in tallies], axis=0)
    out: dict[str, list[Any]] = {"by": [], "name": [], "n": [], "kept": []}
    for by, label, names in (("annotator", data.annotator, data.annotators), ("group", data.group, data.groups)):
        known = label >= 0
        count = np.bincount(label[known], minlength=len(names))
        total = np.bincount(label[known], weights=frequency[known], minlength=len(names))
        for k in np.flatnonzero(count).tolist():
            out["by"].append(by)
            out["name"].append(str(names[k]) if k < len(names) else str(k))
            out["n"].append(int(count[k]))
            out["kept"].append(float(total[k] / count[k]))
    kinds = {"by": pa.string(), "name": pa.string(), "n": pa.int64(), "kept": pa.float64()}
    return pa.table({name: pa.array(values, kinds[name]) for name, values in out.items()})
