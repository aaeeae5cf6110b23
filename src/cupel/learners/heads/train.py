"""Votes in; a head or several, what they reach on held-out votes, and what they did with every record, out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cupel.errors import InputError
from cupel.learners.familiar import Familiar
from cupel.learners.heads.crm import flip_rate, kept_by, review
from cupel.learners.heads.data import Comparisons
from cupel.learners.heads.fit import Fitted, Progress, check_fit, fit
from cupel.learners.heads.inputs import Known, comparisons, features_of
from cupel.learners.heads.margins import margins
from cupel.learners.heads.model import HeadReward
from cupel.learners.heads.options import HeadOptions
from cupel.learners.heads.preference import PreferenceReward
from cupel.learners.models.names import reads_of, settings_of
from cupel.learners.sides import RawSides, Scaling, raw_sides
from cupel.learners.threads import one_blas_thread
from cupel.noise.names import parse as parse_treatment
from cupel.noise.types import Treatment
from cupel.objectives.names import parse as parse_objective
from cupel.objectives.types import Objective
from cupel.records.schema import BOTH_BAD, HELDOUT, SKIP, Votes
from cupel.records.splits import assign
from cupel.votes.intervals import cluster_bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

DRAWS = 500


@dataclass(frozen=True)
class TrainedHead:
    """model; metrics; records: per comparison trained on what each head made of it; kept: how often those of whom were kept."""

    model: HeadReward | PreferenceReward
    metrics: dict[str, Any]
    records: pa.Table
    kept: pa.Table

    def save(self, directory: str | Path) -> Path:
        """Write the model, metrics.json, records.parquet and kept.parquet; of several heads each also alone, in member-K."""
        from cupel.records.files import write_json, write_parquet

        place = self.model.save(directory)
        write_json(place / "metrics.json", self.metrics)
        write_parquet(place / "records.parquet", self.records)
        write_parquet(place / "kept.parquet", self.kept)
        if self.metrics["members"] > 1 or self.metrics["peers"]:
            for k in range(self.metrics["peers"] or self.metrics["members"]):
                self.model.member(k).save(place / f"member-{k}")
        return place


def train_head(
    votes: Votes, options: HeadOptions | None = None, *, encoder: str = "static", cache: str | Path | None = None,
    vectors: tuple[np.ndarray, np.ndarray] | None = None, sides: RawSides | None = None, device: str = "cpu", allow_download: bool = False,
    progress: Progress | None = None,
) -> TrainedHead:  # fmt: skip
    """Heads on frozen embeddings and surface facts, reading (p, w) of the votes that are not held out.

    Rows whose split is HELDOUT stay held out; where there are none, whole groups with the share `heldout` of the rows are. The scaling of
    the features is fitted on the sides of the training rows. vectors, sides: as `cupel.learners.reward.train_reward`.
    InputError where no row has a preference and a weight above 0, and as `check_fit`.
    """
    from cupel.encode import load_encoder

    options = options or HeadOptions()
    objective, treatment = parsed(options)
    if treatment.corrects and votes.meta.get("target") == "consensus":
        raise InputError(
            f"treatment {treatment.name} on data whose p is already a consensus of its votes would correct the noise twice. "
            "Use no treatment, or curate without consensus."
        )
    loaded = load_encoder(encoder, device=device, allow_download=allow_download)
    use = (votes.w > 0) & (votes.outcome != BOTH_BAD) & (votes.outcome != SKIP)
    if not (use & (votes.p != 0.5)).any():
        raise InputError(f"none of the {len(votes):,} rows has a preference and a weight above 0: there is nothing to learn from")
    sides = raw_sides(votes, loaded, cache=cache, vectors=vectors) if sides is None else sides
    if not (votes.split == HELDOUT).any() and options.heldout > 0:
        votes = assign(votes, heldout=options.heldout, seed=options.seed)
    held = votes.split == HELDOUT
    train, test = np.flatnonzero(use & ~held), np.flatnonzero(use & held)
    if not len(train):
        raise InputError(f"all {int(use.sum()):,} usable rows are held out: there is nothing to learn from")
    place = Path(cache) if cache else None
    with one_blas_thread():
        first, second = sides.first[train], sides.second[train]
        spread = np.union1d(first, second)
        scaling = Scaling.fit(RawSides(sides.embedding[spread], sides.facts[spread], sides.length[spread], first, second))
        reads = reads_of(options.model)
        columns = options.features or ("all" if settings_of(options.model)[0].named else "")
        known = Known.of(votes, reads, column=options.context, context_as=options.context_as, features=columns)
        told: dict[str, Any] = {"known": known, "scaling": scaling, "encoder": loaded, "cache": place}
        table = comparisons(votes, sides, reads=reads, vectors=None if vectors is None else vectors[0], **told)
        data = table.take(train)
        features = features_of(votes, sides, known, scaling)
        eta: dict[str, Any] | None = None
        if options.peers and not options.treatment:
            check_fit(objective, review(options, options.eta or 0.0), options, data, range(options.heads))
            eta = {"rate": options.eta, "basis": "stated"} if options.eta is not None else None
            eta = eta or flip_rate(features, data, objective, options, progress=progress)
            treatment = review(options, float(eta["rate"]))
        found = fit(features, data, objective, treatment, options, progress=progress)
        familiar = Familiar.of(features, data.first, data.second, votes.take(train), seed=options.seed)
    info = {**options.recorded(), "treatment": treatment.name, "encoder": loaded.name, "n_train": len(train), "n_heldout": len(test)}
    whole = (scaling, loaded.name, loaded.hash)
    model: HeadReward | PreferenceReward
    if options.head == "scalar" and not known.features:
        model = HeadReward(found.weights, *whole, info, familiar, place, {"encoder": loaded})
    else:
        model = PreferenceReward(found.models, options.model, *whole, known, info, familiar, place, {"encoder": loaded})
    metrics = {**info, "eta": eta, "epochs_log": found.epochs, "treatment_state": _small(found), "heldout_result": None}
    if len(test):
        metrics["heldout_result"] = held_out(found, features, table.take(test), options.seed)
    metrics["split"] = votes.meta.get("split")
    return TrainedHead(model, metrics, _records(data, found), kept_by(data, found.tallies))


def parsed(options: HeadOptions) -> tuple[Objective, Treatment]:
    """Objective and treatment of a run; InputError for texts that name neither. No treatment is the identity (peer review, with peers)."""
    try:
        treatment = parse_treatment(options.treatment or "identity")
        return parse_objective(options.objective), review(options, 0.0) if options.peers and not options.treatment else treatment
    except ValueError as error:
        raise InputError(str(error)) from error


def held_out(found: Fitted, features: np.ndarray, test: Comparisons, seed: int) -> dict[str, Any]:
    """Log loss and accuracy of each head and of their mean on held-out votes, with 95 % intervals over groups, and how far heads differ.

    log_loss: mean of -p log s(m) - (1 - p) log s(-m), m the difference of two scores; accuracy: over votes with a preference, a margin
    of 0 counts one half. disagreement: share of comparisons on which not all heads have the same sign; spread: mean standard deviation
    of the margin over heads.
    """
    table = margins(found.models, features, test)
    out: dict[str, Any] = {"n": len(test), "heads": [_quality(one, test, seed) for one in table]}
    if len(table) > 1:
        out["ensemble"] = _quality(table.mean(axis=0), test, seed)
        out["disagreement"] = float(((table > 0).any(axis=0) & (table <= 0).any(axis=0)).mean())
        out["spread"] = float(table.std(axis=0, ddof=1).mean())
    return out


def _quality(margin: np.ndarray, test: Comparisons, seed: int) -> dict[str, Any]:
    loss = test.p * np.logaddexp(0, -margin) + (1 - test.p) * np.logaddexp(0, margin)
    said = np.flatnonzero(test.p != 0.5)
    hit = 0.5 + 0.5 * np.sign(margin[said] * (test.p[said] - 0.5))
    out: dict[str, Any] = {}
    for name, values, group in (("log_loss", loss, test.group), ("accuracy", hit, test.group[said])):
        if not len(values):
            out[name] = None
            continue
        ends = (0.0, 1.0) if name == "accuracy" else (0.0, np.inf)
        found = cluster_bootstrap(values, group, seed=seed, draws=DRAWS, clip=ends)
        out[name] = {"estimate": found.estimate, "low": found.low, "high": found.high, "n": len(values), "groups": found.groups}
    return out


def _records(data: Comparisons, found: Fitted) -> pa.Table:
    """id, p_given, w_given, and per head kept_K (share of passes), margin_mean_K, margin_variance_K (towards the label), p_K and w_K."""
    import pyarrow as pa

    columns: dict[str, Any] = {"id": pa.array(data.ids, pa.string()), "p_given": data.p, "w_given": data.w}
    for k, tally in enumerate(found.tallies):
        columns |= {f"kept_{k}": tally.frequency, f"margin_mean_{k}": tally.mean, f"margin_variance_{k}": tally.variance}
        columns |= {f"p_{k}": tally.p, f"w_{k}": tally.w}
    return pa.table(columns)


def _small(found: Fitted) -> list[dict[str, Any]]:
    """Tensors of the treatments' states that are a few numbers, for people."""
    return [{name: x.tolist() for name, x in sorted(state.items()) if x.numel() <= 64} for state in found.states]
