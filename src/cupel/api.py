"""The Python surface: the verbs as functions. Thin: each calls the file that does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cupel.audit.result import Audit
    from cupel.curate.policy import Curated
    from cupel.evaluate.paired import Evaluation
    from cupel.learners.reward import RewardModel
    from cupel.pipeline import Refined
    from cupel.records.schema import Votes

Progress = Callable[[str, int, int], None]


def read(
    source: Any,
    *,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    max_bad: float = 0.01,
    heldout: float = 0.2,
    seed: int = 0,
    stream: bool | None = None,
    spool: str | Path | None = None,
) -> Votes:
    """Comparisons from a path, "-", a DataFrame, an Arrow table, a `datasets.Dataset` or a list of dicts, with a frozen split.

    map      new=column renames, e.g. {"prompt": "question", "group": "topic"}
    heldout  share of rows frozen for evaluation, by whole groups of connected prompts; labels are not looked at
    stream   whether texts stay on disk; None decides by size (docs/streaming.md); spool: the folder to keep them in
    Raises RecordError for a fault of the file, or where more than `max_bad` of the rows had to be set aside.

    >>> votes = read([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {"prompt": "3+3?", "chosen": "6", "rejected": "7"}])
    >>> len(votes), len(votes.train) + len(votes.heldout)
    (2, 2)
    """
    from cupel.records.reading import read as read_votes

    votes = read_votes(source, map=map, format=format, max_bad=max_bad, heldout=heldout, seed=seed, stream=stream, spool=spool)
    if isinstance(source, str | Path) and str(source) != "-":
        from cupel.runs import input_key

        asked = {"map": dict(map) if map else None, "format": format, "max_bad": max_bad, "heldout": heldout}
        votes = votes.with_(meta={**votes.meta, "read": {"path": str(source), "input": input_key(source), "options": asked}})
    return votes


def audit(
    votes: Votes,
    *,
    encoder: str = "static",
    only: Sequence[str] | None = None,
    against: Sequence[str] | None = None,
    trusted: str | Path | None = None,
    sample: int | None = None,
    device: str = "cpu",
    context: int | None = None,
    allow_download: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """How far these votes can be trusted, and which rows not: a frozen result. See docs/audit.md."""
    from cupel.audit.run import AuditOptions, run_audit

    options = AuditOptions(
        encoder=encoder, only=tuple(only) if only else None, against=tuple(against) if against else None, sample=sample,
        device=device, context=context, allow_download=allow_download, seed=seed,
    )  # fmt: skip
    result = run_audit(votes, options, cache=Path(cache) if cache else None, progress=progress)
    return result.with_trusted(trusted) if trusted is not None else result


def curate(audited: Audit, *, flip_above: float | None = None, drop: Sequence[str] = ()) -> Curated:
    """The data as it should be trained on, with a ledger of every change."""
    return audited.curate(flip_above=flip_above, drop=drop)


def train_reward(votes: Votes, *, encoder: str = "static", treatment: str = "none", seed: int = 0, **options: Any) -> RewardModel:
    """A linear reward head on frozen embeddings, reading (p, w); its regularisation is tuned by prompt-grouped cross-validation."""
    from cupel.learners.reward import train_reward as train

    return train(votes, encoder=encoder, treatment=treatment, seed=seed, **options)


def evaluate(*models: RewardModel, on: Votes, seed: int = 0, **options: Any) -> Evaluation:
    """Accuracy of each model and paired differences to the first, with intervals by bootstrap over prompts."""
    from cupel.evaluate.paired import evaluate as run

    return run(*models, on=on, seed=seed, **options)


def refine(source: Any, out: str | Path, **options: Any) -> Refined:
    """Audit, curate, train plain and robust, evaluate and report: the main job. Running again with the same `out` resumes."""
    from cupel.pipeline import refine as run
    from cupel.runs import RefineOptions

    return run(source, Path(out), RefineOptions(**options))
