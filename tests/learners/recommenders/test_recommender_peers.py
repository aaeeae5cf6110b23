"""Two recommenders that review each other: what each reads of the other, what they keep, and that an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import cupel.learners.recommenders.fit as loop
from cupel.cli import app
from cupel.errors import InputError
from cupel.interactions.log import Log, Split, by_user
from cupel.interactions.metrics import ranked
from cupel.interactions.planted import inject
from cupel.interactions.writing import write_log
from cupel.learners.recommenders.fit import Fitted, fit
from cupel.learners.recommenders.names import build
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.peers import Both, Kept
from cupel.learners.recommenders.records import Drawer, Form
from cupel.learners.recommenders.saved import load, save
from cupel.learners.recommenders.types import Known, Recommender, top
from cupel.noise.names import parse
from cupel.noise.types import State, Target, Terms, Treatment
from cupel.objectives.names import by_name

REVIEW = "peer_review:drop=0.25,ramp=0"


def trained(log: Log, treatment: str | Treatment, objective: str = "bradley_terry", more: dict[str, Any] | None = None, **options: Any):
    plain = {"model": "mf:dim=8", "epochs": 4, "batch_size": 128, "learning_rate": 0.05}
    treat = parse(treatment) if isinstance(treatment, str) else treatment
    return fit(Known(log), by_name(objective), treat, RecommenderOptions(**{**plain, **options}), **(more or {}))


def same(one: Recommender, other: Recommender) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def both_of(found: Fitted) -> tuple[Recommender, Recommender]:
    assert found.peer is not None
    return found.model, found.peer


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of seeds 0 and 1 change places; draws are as they were."""

    def other(text: str, users: int, items: int, seed: int) -> Recommender:
        return build(text, users, items, 1 - seed)

    monkeypatch.setattr(loop, "build", other)


@pytest.mark.parametrize("optimiser", ["adam", "rows_adagrad"])
def test_where_nothing_is_dropped_each_is_trained_as_alone(tastes: Split, optimiser: str, request: pytest.FixtureRequest) -> None:
    """Card 09, oracle 1, bit for bit."""
    first, second = both_of(trained(tastes.train, "peer_review:drop=0", optimiser=optimiser))
    assert same(first, trained(tastes.train, "identity", optimiser=optimiser).model)
    request.getfixturevalue("swapped")
    assert same(second, trained(tastes.train, "identity", optimiser=optimiser).model)
    assert not same(first, second)


@pytest.mark.parametrize("optimiser", ["adam", "rows_adagrad"])
@pytest.mark.parametrize("treatment", [REVIEW, f"{REVIEW},level=epoch", "em:flip=0.2,by=annotator,evidence=peer,warmup=0"])
def test_swapped_roles_give_swapped_results(tastes: Split, treatment: str, optimiser: str, request: pytest.FixtureRequest) -> None:
    """Card 09, oracle 5: each learns by the other, and neither is favoured by being the first."""
    one = trained(tastes.train, treatment, optimiser=optimiser)
    request.getfixturevalue("swapped")
    other = trained(tastes.train, treatment, optimiser=optimiser)
    for a, b in zip(both_of(one), reversed(both_of(other)), strict=True):
        assert same(a, b)
    assert one.peer_state is not None
    assert all(torch.equal(x, other.state[name]) for name, x in one.peer_state.items())
    np.testing.assert_array_equal(one.kept, other.kept)


def test_each_reads_the_losses_of_the_other_before_either_moves(tastes: Split) -> None:
    """The terms of both treatments, step by step: the same records; what one calls its own the other calls its peer's."""
    seen: list[tuple[Terms, Target]] = []
    inner = parse(REVIEW)

    def target(given: Target, terms: Terms, state: State) -> Target:
        used = inner.target(given, terms, state)
        seen.append((terms, used))
        return used

    trained(tastes.train, inner._replace(target=target), epochs=2, negatives=2)
    assert len(seen) == 2 * 2 * 4
    for (one, used), (other, _) in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(one.record, other.record)
        for mine, theirs in (("keep", "peer_keep"), ("flip", "peer_flip")):
            assert torch.equal(getattr(one, mine), getattr(other, theirs))
            assert torch.equal(getattr(other, mine), getattr(one, theirs))
        assert not torch.allclose(one.keep, other.keep)
        assert one.peer_flip is not None
        assert one.peer_keep is not None
        kept = torch.argsort(one.peer_flip - one.peer_keep, descending=True, stable=True)[: round(0.75 * len(one.keep))]
        assert set(torch.nonzero(used.w)[:, 0].tolist()) == set(kept.tolist())


def own_half(model: Recommender, log: Log) -> float:
    found = top(model, np.arange(60), 5, seen=by_user(log))
    return float(((found >= 20) == (np.arange(60) % 2 == 1)[:, None]).mean())


@pytest.mark.parametrize("objective", ["bradley_terry", "bpo"])
def test_peers_leave_out_what_was_planted(tastes: Split, objective: str) -> None:
    """Three false events for ten true ones: what is kept is purer than what was given, and the model no worse than a plain one."""
    n = len(tastes.train)
    log = inject(tastes.train, 0.3, avoid=(tastes.validation, tastes.test))
    more = {"epochs": 15, "batch_size": 256, "l2": 0.01, "negatives": 2}
    found = trained(log, "peer_review:drop=0.23,ramp=5", objective, **more)
    assert found.kept is not None
    assert found.kept[:n].sum() / found.kept.sum() > n / len(log) + 0.02
    assert found.kept[:n].mean() > found.kept[n:].mean() + 0.1
    plain = trained(log, "identity", objective, **more).model
    for model in both_of(found):
        assert own_half(model, log) >= own_half(plain, log)


def test_validation_decides_by_the_mean_of_both(tastes: Split) -> None:
    more = {"validation": tastes.validation}
    found = trained(tastes.train, REVIEW, more=more, epochs=30, every=2, patience=2, learning_rate=0.15)
    lines = [line for line in found.epochs if "ndcg@20" in line]
    assert all(line["ndcg@20"] == pytest.approx(np.mean(line["ndcg@20 of each"])) for line in lines)
    at = int(np.argmax([line["ndcg@20"] for line in lines]))
    assert found.best_epoch == lines[at]["epoch"] < found.epochs[-1]["epoch"]
    assert {"kept", "disagreement", "peer_loss"} <= set(found.epochs[0])
    relevant, users = by_user(tastes.validation), np.arange(60)
    for model, said in zip(both_of(found), lines[at]["ndcg@20 of each"], strict=True):
        now = ranked(top(model, users, 20, seen=by_user(tastes.train)), relevant, users, [20])["ndcg@20"].mean()
        assert now == pytest.approx(said), "both are kept as they were after the same pass"


class Killed(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize(
    ("model", "objective", "treatment", "optimiser"),
    [
        ("mf:dim=8", "bradley_terry", REVIEW, "adamw"),
        ("mf:dim=8", "bpo", f"{REVIEW},level=epoch", "rows_adagrad"),
        ("sgl:dim=8", "bradley_terry", "em:flip=0.1,evidence=peer,warmup=0", "adam"),
    ],
)
def test_an_interrupted_pair_goes_on_to_the_same_bytes(
    tastes: Split, tmp_path: Path, model: str, objective: str, treatment: str, optimiser: str
) -> None:
    place = (tmp_path / "state", "key")

    def run(**more: Any) -> Fitted:
        more["validation"] = tastes.validation
        options = {"model": model, "optimiser": optimiser, "epochs": 4, "every": 1, "batch_size": 128}
        return trained(tastes.train, treatment, objective, more, **options)

    def pull(stage: str, done: int, total: int) -> None:
        if done > 0.7 * total:
            raise Killed

    whole = run()
    with pytest.raises(Killed):
        run(progress=pull, resume=place)
    assert place[0].is_file()
    again = run(resume=place)
    assert not place[0].exists()
    assert again.epochs == whole.epochs
    for one, other in zip(both_of(whole), both_of(again), strict=True):
        assert same(one, other)
    assert again.peer_state is not None
    assert whole.peer_state is not None
    for one, other in ((whole.state, again.state), (whole.peer_state, again.peer_state)):
        assert all(torch.equal(one[name], other[name]) for name in one)
    np.testing.assert_array_equal(whole.kept, again.kept)


@pytest.mark.parametrize("form", ["pairs", "single", "all"])
@pytest.mark.parametrize("batches", ["events", "users"])
def test_what_was_kept_is_counted_as_the_slow_way_counts_it(tastes: Split, form: Form, batches: str) -> None:
    log = tastes.train
    drawer = Drawer(log, RecommenderOptions(negatives=3, batch_size=40, records=form), form, batches)
    kept, seen, times = Kept(drawer.rows), np.zeros(len(log)), np.zeros(len(log))
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(2):
        step = drawer.draw(drawer.order(0)[:20], generator, None)
        size = step.items.shape
        used = [torch.from_numpy(rng.integers(0, 2, size[0] * (size[1] - (form == "pairs")))) for _ in range(2)]
        kept.add(step, used, form)
        for w in used:
            w = w.view(size[0], -1).numpy()
            for b in range(size[0]):
                if form == "all":
                    for event in np.flatnonzero(log.user == int(step.user[b])):
                        seen[event], times[event] = seen[event] + 1, times[event] + w[b, log.item[event]]
                else:
                    event = int(step.event[b])
                    seen[event], times[event] = seen[event] + 1, times[event] + (w[b].mean() if form == "pairs" else w[b, 0])
    expected = np.where(seen > 0, times / np.maximum(seen, 1), np.nan)
    np.testing.assert_allclose(kept.frequency, expected)


def test_a_chain_selects_by_epoch_too(tastes: Split) -> None:
    """The selection of a pass is made before its first step, whatever stands beside it in a chain."""
    from cupel.noise.chain import chain

    chained = chain(parse(f"{REVIEW},level=epoch"), parse("tempered:power=0.9"), parse("em:flip=0.1,by=group,warmup=0"))
    found = trained(tastes.train, chained, epochs=3)
    kept = found.state["0.peer_review/kept@record"]
    assert int((kept > 0).sum()) == round(0.75 * len(tastes.train))
    assert [line["kept"] for line in found.epochs] == pytest.approx([1.0, 0.75, 0.75])


def test_folders_hold_the_peer_beside_the_model(tastes: Split, tmp_path: Path) -> None:
    found = trained(tastes.train, REVIEW, epochs=1, seed=3)
    first, second = both_of(found)
    save(tmp_path / "out", first, Known(tastes.train), text="mf:dim=8", seed=3, peer=second)
    users = torch.arange(60)
    for place, model in ((tmp_path / "out", first), (tmp_path / "out" / "peer", second)):
        assert torch.equal(load(place).model.scores(users), model.scores(users))
    torch.testing.assert_close(Both([first, second]).scores(users), (first.scores(users) + second.scores(users)) / 2)


def test_pairs_that_cannot_review_are_refused(tastes: Split) -> None:
    with pytest.raises(InputError, match="begin alike stay alike"):
        trained(tastes.train, REVIEW, model="mf:dim=8,std=0")
    with pytest.raises(InputError, match="give batch_size=2"):
        trained(tastes.train, REVIEW, batch_size=1)
    assert trained(tastes.train, REVIEW, model="popularity").peer is None


def test_the_command_line_trains_a_pair(tastes: Split, tmp_path: Path) -> None:
    source = tmp_path / "log.parquet"
    write_log(tastes.train, source)
    words = ["train", "recommender", str(source), "--model", "mf:dim=8", "--epochs", "4", "--batch-size", "64", "--treatment", REVIEW]
    ended = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--json"])
    assert ended.exit_code == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["peer"]["test"]["n_users"] == said["both"]["test"]["n_users"] == said["test"]["n_users"]
    table = pq.read_table(tmp_path / "out" / "kept.parquet")
    train = pq.read_table(tmp_path / "out" / "train.parquet")
    assert table.column_names == ["user", "item", "kept"]
    assert table["user"].to_pylist() == [str(x) for x in train["user"].to_pylist()]
    assert 0.5 < np.mean(table["kept"].to_pylist()) < 1
    one, other = load(tmp_path / "out").model, load(tmp_path / "out" / "peer").model
    assert not same(one, other)
