"""`cupel audit` of a log: the file is read, audited, and audit.json, flagged.parquet, report.html and run.json are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.audit.checks._build import percent
from cupel.audit.interactions.checks import resolve
from cupel.audit.interactions.result import LogAudit, audit_log
from cupel.errors import InputError, RecordError

if TYPE_CHECKING:
    from cupel.interactions.log import Log
    from cupel.runs import RefineOptions

KINDS = ("interactions", "votes")
#: columns of a table of comparisons, which is none of interactions whatever else it has
COMPARISONS = {
    "prompt", "response", "chosen", "rejected", "response_a", "response_b", "conversation_a", "conversation_b", "vote", "winner",
    "messages", "question", "instruction", "completion", "answer", "text", "preference", "model_a", "model_b", "annotator",
}  # fmt: skip
#: what the page of a log has: a log has no labels of comparisons, so no label error, worklist, annotators or trained models
SECTIONS = ("actions", "findings", "method")
#: options that concern votes and their texts only
OF_VOTES = ("heldout", "encoder", "allow_download", "trusted", "sample", "context")


def is_log(source: str, kind: str | None = None, names: Mapping[str, str] | None = None) -> bool:
    """Whether a file is to be audited as interactions: as `kind` says, else where it has a layout or the columns of a log.

    A table counts where it has a column of users, one of items and none of a comparison. Standard input never does by itself.
    """
    from cupel.interactions.formats import readers
    from cupel.interactions.places import Place, columns

    if kind is not None:
        if kind not in KINDS:
            raise InputError(f"--kind is interactions or votes, not {kind!r}")
        if kind == "interactions" and source == "-":
            raise InputError("a log of interactions is read from a file or folder, not from standard input")
        return kind == "interactions"
    path = Path(source)
    if source == "-" or not path.exists() or set(names or {}) - {"user", "item", "value", "time", "propensity", "event"}:
        return False
    try:
        place = Place(path, dict(names or {}))
        score, best = max((module.detect(place)[0], name) for name, module in readers().items())
        return score > 0 and (best != "table" or not COMPARISONS & {column.lower() for column in columns(path)})
    except (RecordError, UnicodeDecodeError):
        return False  # the reader of votes says what is wrong with it


def audit_log_file(
    source: str, out: Path, options: RefineOptions, *, kind: str | None = None, progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> LogAudit:  # fmt: skip
    """Audit a log; write audit.json, flagged.parquet, report.html and run.json into `out`. Errors as `read_log` and `audit_log`."""
    from cupel.interactions.reading import read_log
    from cupel.records.files import lock, write_json, write_parquet
    from cupel.report.html import render

    refuse_options_of_votes(options)
    resolve(options.only or ())
    log = read_log(source, map=options.map, format=options.format, max_bad=options.max_bad)
    if say:
        say(f"{len(log):,} events of {len(log.users):,} users and {len(log.items):,} items. {' '.join(log.notes)}")
    result = audit_log(
        log, against=_against(options.against), only=options.only, seed=options.seed, options={"max_bad": options.max_bad},
        progress=None if progress is None else lambda done, total: progress("checks", done, total),
    )  # fmt: skip
    run = run_record(source, options, kind, result)
    page = render(report(result, run), redact=options.redact)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        from cupel.records.files import atomic_write

        write_json(out / "audit.json", result.to_json())
        write_parquet(out / "flagged.parquet", result.flagged())
        write_json(out / "run.json", run)
        with atomic_write(out / "report.html") as temporary:
            temporary.write_bytes(page.encode())
    return result


def refuse_options_of_votes(options: RefineOptions) -> None:
    """InputError where an option was given that means nothing for interactions."""
    from cupel.runs import RefineOptions

    plain = RefineOptions()
    given = [name for name in OF_VOTES if getattr(options, name) != getattr(plain, name)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"{flags} concern votes; this is a log of interactions. Leave them out, or say --kind votes")


def _against(paths: tuple[str, ...] | None) -> dict[str, Log] | None:
    from cupel.interactions.reading import read_log

    if not paths:
        return None
    found: dict[str, Log] = {}
    for path in paths:
        name = Path(path).name
        found[name if name not in found else path] = read_log(path)
    return found


def run_record(source: str, options: RefineOptions, kind: str | None, result: LogAudit) -> dict[str, Any]:
    """`run.json`: input hash, options, seed and versions: what repeats the run."""
    from cupel.runs import command_line, input_key

    start = "cupel audit" + (f" --kind {kind}" if kind else "")
    recorded = {name: value for name, value in options.recorded().items() if name not in OF_VOTES}
    return {
        "command": command_line(start, source, options), "input": input_key(source), "options": {**recorded, "kind": "interactions"},
        "seed": options.seed, "versions": dict(result.versions),
    }  # fmt: skip


def report(audit: LogAudit, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The page's parts (`cupel.report.types.Report`) that a log fills."""
    data = audit.to_json()
    made: dict[str, Any] = {
        "title": "How far this log of interactions can be trusted",
        "sections": SECTIONS,
        "verdict": data["verdict"],
        "numbers": headline(data),
        "findings": data["findings"],
        "method": [
            "Every check reads the whole log; none trains a model, draws at random or looks at anything but the file and those to compare "
            "with. What each measures and where it draws the line is in the documentation of its name.",
            "`flagged.parquet` names the events that checks found. Nothing was changed or left out.",
            *data["notes"],
        ],
        "limits": [
            "An event that is missing cannot be seen here: what was not shown looks like what was not liked. Treatments by propensity "
            "speak of that, audits do not.",
            "Signs of programs are conventions; a shared account or an import looks the same.",
            "No errors were planted, so how many of them these checks would find is not measured.",
        ],
        "missing": {"actions": "There is nothing to do."},
    }  # fmt: skip
    if run is not None:
        made["run"] = {
            "command": run["command"], "seed": run["seed"], "input_name": Path(run["input"]["path"]).name,
            "input_sha256": run["input"]["sha256"] or "", "versions": dict(run["versions"]),
        }  # fmt: skip
    return made


def headline(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Three numbers of `audit.json`: events, how full the matrix is, how unequal the items are."""
    users, items, pairs = data["n_users"], data["n_items"], data["n_pairs"]
    return [
        {"label": "Events", "value": f"{data['n_events']:,}", "source": f"{users:,} users, {items:,} items"},
        {
            "label": "Pairs that have an event",
            "value": percent(pairs / (users * items)),
            "n": pairs,
            "source": "of all pairs of user and item",
        },
        {"label": "Gini coefficient of the items", "value": f"{data['gini']:.2f}", "n": items, "source": "0 equal, 1 one item has all"},
    ]
