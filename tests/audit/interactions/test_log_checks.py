"""Each check of a log finds what was planted for it, in those rows, and a clean log triggers none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cupel.audit.interactions.checks import all_checks, resolve, run_checks
from cupel.audit.interactions.checks.leakage import shared_pairs
from cupel.audit.interactions.context import Context, gini
from cupel.audit.interactions.result import audit_log, decide
from cupel.audit.types import Finding
from cupel.errors import InputError
from cupel.interactions.log import Log

USERS, ITEMS, START = 120, 200, 1_600_000_000


def clean_log(seed: int = 0) -> Log:
    """People who take 10 to 40 items at irregular times, some items three times as often as others."""
    rng = np.random.default_rng(seed)
    chance = np.linspace(1, 3, ITEMS) / np.linspace(1, 3, ITEMS).sum()
    user = np.repeat(np.arange(USERS), rng.integers(10, 41, USERS))
    item = np.concatenate([rng.choice(ITEMS, n, replace=False, p=chance) for n in np.bincount(user)])
    time = START + rng.integers(0, 10_000_000, len(user))
    made = Log.of(user, item, value=rng.integers(1, 6, len(user)).astype(np.float32), time=time)
    return replace(
        made, propensity=rng.uniform(0.2, 1, len(user)), event=np.array(["rating"] * len(user), dtype=object),
        texts=tuple(f"Item {name}" for name in made.items), released=np.full(len(made.items), START - 10),
    )  # fmt: skip


def one(log: Log, name: str, **context: object) -> Finding:
    return run_checks(log, Context(**context), only=[name])[0]  # pyright: ignore[reportArgumentType]


def grown(log: Log, user: list[int], item: list[int], **columns: np.ndarray) -> Log:
    """The log with further events; what is not given is that of the first."""
    new = {"user": np.array(user, np.int32), "item": np.array(item, np.int32)}
    for name in ("value", "time", "propensity", "event"):
        x = getattr(log, name)
        if x is not None:
            new[name] = columns.get(name, np.repeat(x[:1], len(user)))
    return replace(log, **{name: np.concatenate([getattr(log, name), x]) for name, x in new.items()})


def test_a_clean_log_triggers_nothing() -> None:
    log = clean_log()
    test = Log.of(["somebody"], ["0"], time=np.array([START]))
    found = audit_log(log, against={"test": test})
    assert {f.name: (f.status, f.message) for f in found.findings if f.status != "clean"} == {}
    assert [f.name for f in found.findings] == list(all_checks())
    assert found.verdict.code == "train"
    assert found.flagged().num_rows == 0


def test_copies_are_found_and_not_the_first_of_them() -> None:
    log = clean_log()
    copies = np.array([5, 5, 70])
    twice = Log.take(log, np.concatenate([np.arange(len(log)), copies]))
    found = one(twice, "duplicate_events")
    assert found.rows.tolist() == [len(log), len(log) + 1, len(log) + 2]
    assert (found.severity, one(log.take(np.r_[: len(log), :50]), "duplicate_events").severity) == ("info", "warning")
    other_time = replace(twice, time=np.arange(len(twice)) + START)
    assert one(other_time, "duplicate_events").status == "clean"
    assert "further visits" in one(replace(twice, time=None), "duplicate_events").message


def test_repeated_pairs_and_contradicting_values() -> None:
    log = clean_log()
    more = grown(log, log.user[:200].tolist(), log.item[:200].tolist(), value=np.asarray(log.value)[:200] + 1)
    found = one(more, "repeated_pairs")
    assert (found.count, found.n, found.severity, found.details["values_differ"]) == (200, len(log), "warning", 200)
    same = grown(log, log.user[:1].tolist(), log.item[:1].tolist(), time=np.array([START]))
    assert (one(same, "repeated_pairs").severity, one(same, "repeated_pairs").count) == ("info", 1)


def test_leakage_is_an_error_matched_by_name() -> None:
    log = clean_log()
    test = Log.of(
        [str(log.users[log.user[3]]), str(log.users[log.user[9]]), "new"],
        [str(log.items[log.item[3]]), str(log.items[log.item[9]]), "x"], time=np.array([START, START, START]),
    )  # fmt: skip
    found = one(log, "leakage", against={"test.csv": test})
    assert (found.rows.tolist(), found.severity) == ([3, 9], "error")
    assert found.details["after test.csv begins"] == 1.0
    assert one(log, "leakage").status == "not_applicable"
    assert audit_log(log, against={"t": test}).verdict.code == "recheck"


@pytest.mark.parametrize("seed", range(3))
def test_shared_pairs_are_those_of_a_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (Log.of([f"u{k}" for k in rng.integers(0, 9, 40)], [f"i{k}" for k in rng.integers(0, 9, 40)]) for _ in range(2))
    known = {(b.users[u], b.items[i]) for u, i in zip(b.user, b.item, strict=True)}
    assert shared_pairs(a, b).tolist() == [(a.users[u], a.items[i]) in known for u, i in zip(a.user, a.item, strict=True)]


@pytest.mark.parametrize("sign", ["fast", "even", "many"])
def test_programs_are_found_by_their_sign(sign: str) -> None:
    log = clean_log()
    rng = np.random.default_rng(1)
    n = {"fast": 150, "even": 60, "many": 3000}[sign]
    time = {
        "fast": START + rng.integers(0, 50, n), "even": START + 3600 * np.arange(n) + rng.integers(0, 60, n),
        "many": START + rng.integers(0, 10_000_000, n),
    }[sign]  # fmt: skip
    bot = grown(replace(log, users=np.append(log.users, "<b>bot</b>")), [USERS] * n, (np.arange(n) % ITEMS).tolist(), time=time)
    found = one(bot, "bot_like_users")
    assert found.rows.tolist() == list(range(len(log), len(log) + n))
    assert (found.examples, found.severity) == (("<b>bot</b>",), "warning")
    assert {name: found.details[name] for name in ("fast", "even", "many")} == {**dict.fromkeys(("fast", "even", "many"), 0), sign: 1}


def test_a_coarse_clock_makes_nobody_a_program() -> None:
    log = clean_log()
    time = START + 86400 * (np.arange(len(log)) - np.searchsorted(log.user, log.user))  # a day after the other, for everybody
    long = [u for u in range(USERS) if (log.user == u).sum() >= 30]
    assert len(long) >= 10
    found = one(replace(log, time=time), "bot_like_users")
    assert found.status == "clean"
    assert f"{len(long)} of {len(long)} users are even" in str(found.details["clock"])
    ordered = one(replace(log, time=np.arange(len(log))), "bot_like_users")
    assert "no times in seconds" in str(ordered.details["clock"])


def test_few_items_with_most_events() -> None:
    log = clean_log()
    n = 9 * len(log)
    found = one(grown(log, (np.arange(n) % USERS).tolist(), [7] * n), "popularity_concentration")
    assert (found.severity, found.examples[0]) == ("warning", str(log.items[7]))
    assert float(found.details["share_of_top"]) > 0.5
    assert one(Log.of([1] * 5, range(5)), "popularity_concentration").status == "not_applicable"


def test_gini_is_the_mean_difference() -> None:
    c = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    assert gini(c) == pytest.approx(np.abs(c[:, None] - c).mean() / (2 * c.mean()))


def test_rare_users_and_items() -> None:
    rare = Log.of([f"u{k // 3}" for k in range(90)] + ["a"] * 10, [f"i{k % 10}" for k in range(100)])
    found = one(rare, "rare_ids")
    assert (found.rows.tolist(), found.severity) == (list(range(90)), "warning")
    assert found.details == {"users": 30, "items": 0}


def test_propensities_that_few_events_decide() -> None:
    log = clean_log()
    theta = np.asarray(log.propensity).copy()
    theta[11] = 1e-6
    found = one(replace(log, propensity=theta), "propensity_overlap")
    w = 1 / theta
    assert found.severity == "warning"
    assert found.details["effective"] == pytest.approx(w.sum() ** 2 / (w**2).sum(), abs=1e-3)
    assert found.examples[0] == f"{log.users[log.user[11]]} {log.items[log.item[11]]}"
    some = np.where(np.arange(len(log)) < 0.02 * len(log), 0.009, 0.05)
    assert one(replace(log, propensity=some), "propensity_overlap").severity == "info"
    assert one(replace(log, propensity=None), "propensity_overlap").status == "not_applicable"


def test_a_user_with_everything() -> None:
    log = clean_log()
    all_of_it = grown(replace(log, users=np.append(log.users, "collector")), [USERS] * ITEMS, list(range(ITEMS)))
    found = one(all_of_it, "everything_observed")
    assert (found.count, found.n, found.examples, found.severity) == (1, USERS + 1, ("collector",), "info")


def test_times_that_cannot_be_right() -> None:
    log = clean_log()
    time = np.asarray(log.time).copy()
    time[:3] = [0, 5_000_000_000, START - 50]
    found = one(replace(log, time=time), "implausible_times")
    assert (found.rows.tolist(), found.severity) == ([0, 1, 2], "info")
    assert [found.details[k] for k in ("before_1990", "from_2100", "before_release")] == [1, 1, 1]
    time[: len(time) // 3] = START + 5
    stamped = one(replace(log, time=time), "implausible_times")
    assert (stamped.severity, stamped.count) == ("warning", 0)
    assert f"share the second {START + 5}" in stamped.message
    assert one(replace(log, time=None), "implausible_times").status == "not_applicable"
    assert one(replace(log, time=np.arange(len(log))), "implausible_times").status == "not_applicable"


def test_items_of_which_nothing_is_said() -> None:
    log = clean_log()
    assert log.texts is not None
    found = one(replace(log, texts=(" ", "", *log.texts[2:])), "items_without_text")
    assert (found.count, found.severity, found.examples) == (2, "info", tuple(log.items[:2]))
    assert one(replace(log, texts=("",) * ITEMS), "items_without_text").severity == "warning"
    assert one(replace(log, texts=None), "items_without_text").status == "not_applicable"


def test_the_verdict_follows_the_rules_in_order() -> None:
    def warning(scope: str, severity: str = "warning") -> Finding:
        return Finding(f"some_{scope}", scope, "finding", severity, message="m", remedy="r")  # pyright: ignore[reportArgumentType]

    assert decide(99, [warning("row", "error")]).code == "cannot_tell"
    assert decide(100, [warning("row", "error"), warning("row")]).code == "recheck"
    curated = decide(100, [warning("row"), warning("dataset")])
    assert (curated.code, [action.text for action in curated.actions]) == ("train_curated", ["Some row: r.", "Some dataset: r."])
    assert decide(100, [warning("dataset")]).code == "train"
    assert decide(100, [warning("row", "info")]).code == "train"


def test_names_of_checks_and_empty_logs() -> None:
    assert resolve(["bot-like-users, leakage"]) == ["bot_like_users", "leakage"]
    with pytest.raises(InputError, match=r"no checks of interactions \(first: 'bots'\)"):
        resolve(["bots"])
    with pytest.raises(InputError, match="no events"):
        audit_log(clean_log().take(np.zeros(0, np.int64)))


def test_order_of_the_file_does_not_matter_for_counts() -> None:
    log = clean_log()
    turn = np.random.default_rng(0).permutation(len(log))
    again = log.take(np.r_[np.arange(len(log)), :30])
    mixed = again.take(np.r_[turn, len(log) : len(log) + 30])
    assert [(f.name, f.count, f.message) for f in run_checks(again)] == [(f.name, f.count, f.message) for f in run_checks(mixed)]
