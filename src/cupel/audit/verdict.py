"""The verdict: a pure function of what the audit found, with its rules written out.

The rules are tried in order; the first that applies decides.

1. fewer than 100 votes state a preference                          -> cannot_tell
2. at least a quarter of the rows carry an error of the file         -> do_not_train
3. the label error is known (repeats or trusted) and low >= .40      -> do_not_train
4. the audit cannot see planted flips and the error is not known     -> cannot_tell
5. the label error is known and high <= .10                          -> train if no row needs curation, else train_curated
6. the label error is known and high <= .35                          -> train_curated
7. the label error is known (wider or higher than that)              -> recheck
8. one vote per pair: high bound <= .15                              -> train_curated
9. one vote per pair: otherwise                                      -> recheck

A label error of one half is a coin, and a set of coins teaches nothing: .40 leaves a fifth of the information (1 - 2e). .10 is where a
tuned linear head loses nothing measurable on the bundled data (benchmarks/robust_training.py). These are conventions, stated so that
they can be argued with; nothing in them is estimated from the user's data.
"""

from __future__ import annotations

from collections.abc import Sequence

from cupel.audit.types import Action, Finding, FlipRate, Power, Verdict, VerdictCode

MIN_VOTES = 100
COIN = 0.40
SMALL = 0.10
CURABLE = 0.35
SINGLE_SMALL = 0.15
BROKEN_SHARE = 0.25


def decide(
    findings: Sequence[Finding],
    flip_rate: FlipRate,
    power: Power,
    *,
    n_votes: int,
    file: str = "FILE",
    out: str = "OUT",
) -> Verdict:
    """The verdict on `n_votes` votes that state a preference.

    `file` and `out` only fill the commands of the actions. Rules and thresholds: module docstring.

    >>> from cupel.audit.types import FlipRate, Power
    >>> blind = Power(0.5, 0.48, 0.55, 0.2, {}, {}, "cannot_tell")
    >>> rate = FlipRate("single", None, 0.02, 0.5, (), 5000)
    >>> decide([], rate, blind, n_votes=5000).code
    'cannot_tell'
    """
    found = [f for f in findings if f.status == "finding"]
    broken = [f for f in found if f.scope == "row" and f.severity == "error"]
    broken_share = max((f.count / max(f.n, 1) for f in broken), default=0.0)
    known = flip_rate.basis != "single"
    blind = power.verdict == "cannot_tell"
    code = _code(n_votes, broken_share, flip_rate, known, blind, bool(broken))
    return Verdict(
        code=code,
        sentence=_sentence(code, n_votes, broken, flip_rate, power, known, blind),
        actions=tuple(_actions(code, broken, found, known, blind, file, out)),
        would_change=tuple(_would_change(code, flip_rate, known, blind, n_votes)),
    )


def _code(n: int, broken_share: float, rate: FlipRate, known: bool, blind: bool, broken: bool) -> VerdictCode:
    if n < MIN_VOTES:
        return "cannot_tell"
    if broken_share >= BROKEN_SHARE:
        return "do_not_train"
    if known and rate.low >= COIN:
        return "do_not_train"
    if blind and not known:
        return "cannot_tell"
    if known:
        if rate.high <= SMALL:
            return "train_curated" if broken else "train"
        return "train_curated" if rate.high <= CURABLE else "recheck"
    return "train_curated" if rate.high <= SINGLE_SMALL else "recheck"


def _percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def _rate_words(rate: FlipRate) -> str:
    span = f"{_percent(rate.low)} to {_percent(rate.high)}"
    if rate.basis == "single":
        return f"one vote per pair leaves the label error between {span} and allows no estimate"
    source = {"repeats": "from pairs with several votes", "trusted": "from re-checked pairs"}[rate.basis]
    if rate.estimate is None:
        return f"the label error lies between {span}, {source}"
    return f"about {_percent(rate.estimate)} of the labels are wrong ({span}, {source})"


def _sentence(code: VerdictCode, n: int, broken: list[Finding], rate: FlipRate, power: Power, known: bool, blind: bool) -> str:
    if n < MIN_VOTES:
        return f"Cannot tell: {n:,} votes state a preference, and fewer than {MIN_VOTES} say nothing about a model's power."
    if code == "do_not_train":
        if known and rate.low >= COIN:
            return f"Do not train: {_rate_words(rate)}; a coin would be wrong in half."
        worst = max(broken, key=lambda f: f.count / max(f.n, 1))
        return f"Do not train on this file: {worst.name} affects {worst.count:,} of {worst.n:,} rows."
    if code == "cannot_tell":
        return (
            f"Cannot tell: flips that cupel planted were ranked with an AUC of {power.auc:.2f} "
            f"({power.auc_low:.2f} to {power.auc_high:.2f}), too near to chance to judge rows; {_rate_words(rate)}."
        )
    if code == "train":
        return f"Train: {_rate_words(rate)}, and no row needs repair."
    if code == "train_curated":
        sight = "which rows they are cannot be told" if blind else "the doubtful rows are down-weighted"
        return f"Train on the curated rows: {_rate_words(rate)}; {sight}."
    return f"Re-check some pairs before you trust this: {_rate_words(rate)}."


def _actions(
    code: VerdictCode, broken: list[Finding], found: list[Finding], known: bool, blind: bool, file: str, out: str
) -> list[Action]:
    actions: list[Action] = []
    for finding in broken[:2]:
        actions.append(Action(f"Repair {finding.name.replace('_', ' ')}: {finding.count:,} rows. {finding.remedy}".strip()))
    review = f"cupel review {out} --n 100"
    back = f"cupel refine {file} --out {out} --trusted {out}/review.csv"
    if code in {"recheck", "cannot_tell"}:
        actions.append(Action("Have a person re-check 100 pairs blind; it costs about an hour.", review))
        actions.append(Action("Feed the answers back: the label error becomes an estimate with an interval.", back))
    elif code == "do_not_train":
        actions.append(Action("Ask how the labels were made; re-check 100 pairs to see whether anything is left.", review))
    else:
        actions.append(Action("Train on the curated rows.", f"cupel train reward {out}/train.parquet --out {out}/reward"))
        why = "to replace the assumptions by a measurement" if known else "to measure the label error"
        actions.append(Action(f"Have a person re-check 100 pairs blind, {why}.", review))
        actions.append(Action("Feed the answers back.", back))
    if blind and code != "cannot_tell":
        actions.append(Action("Do not drop or flip rows by suspicion: this encoder cannot see which are wrong. Try another one.",
                              f"cupel audit {file} --out {out} --encoder minilm"))  # fmt: skip
    for finding in [f for f in found if f.scope == "dataset" and f.severity in {"warning", "error"}][:2]:
        if finding.remedy:
            actions.append(Action(f"{finding.name.replace('_', ' ').capitalize()}: {finding.remedy}"))
    return actions


def _would_change(code: VerdictCode, rate: FlipRate, known: bool, blind: bool, n: int) -> list[str]:
    if n < MIN_VOTES:
        return [f"At least {MIN_VOTES} votes that state a preference."]
    changes = []
    if not known:
        changes.append(
            "Several votes per pair by different people, or 100 re-checked pairs, would turn the bounds into an estimate."
        )
    if blind:
        changes.append(
            "An encoder that ranks planted flips with an AUC whose lower end is at least .65 would let the audit judge rows."
        )
    if code in {"train", "train_curated"}:
        changes.append(f"A re-check that puts the label error above {_percent(CURABLE)} would turn this into a warning.")
    if code == "recheck":
        changes.append(f"A re-check whose upper end is at most {_percent(CURABLE)} would allow training on the curated rows.")
    if code == "do_not_train":
        changes.append(f"A label error whose lower end is below {_percent(COIN)}, after the annotators or the file are repaired.")
    return changes
