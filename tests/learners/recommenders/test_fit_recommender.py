"""Every recommender learns from any objective and treatment, repeats itself, and comes back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, Split, by_user
from cupel.interactions.metrics import best, ranked, tie_order
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.names import available
from cupel.learners.recommenders.options import RecommenderOptions, recommender_options
from cupel.learners.recommenders.records import Drawer
from cupel.learners.recommenders.sampling import Unseen
from cupel.learners.recommenders.saved import load, save
from cupel.learners.recommenders.types import Known, Recommender, top
from cupel.noise.names import TREATMENTS, parse
from cupel.objectives.names import by_name

QUICK = {"epochs": 12, "batch_size": 128, "learning_rate": 0.02}


def own_half(model: Recommender, split: Split) -> float:
    """Share of the five items shown first that belong to the user's own half."""
    found = top(model, np.arange(60), 5, seen=by_user(split.train))
    return float(((found >= 20) == (np.arange(60) % 2 == 1)[:, None]).mean())


def trained(split: Split, objective: str = "bradley_terry", treatment: str = "identity", **options: object) -> Recommender:
    o = RecommenderOptions(**{**QUICK, "model": "mf:dim=8", **options})  # pyright: ignore[reportArgumentType]: a test's own words
    return fit(Known(split.train), by_name(objective), parse(treatment), o).model


@pytest.mark.parametrize("objective", ["bradley_terry", "reward_hinge", "thurstone", "bpo"])
@pytest.mark.parametrize(
    "treatment", ["identity", "em:flip=0.1,by=annotator", "unbiased:flip=0.1", "tempered:power=0.7", "trimmed:share=0.1"]
)
def test_any_objective_and_treatment_learns_the_two_tastes(tastes: Split, objective: str, treatment: str) -> None:
    assert own_half(trained(tastes, objective, treatment), tastes) > 0.75


@pytest.mark.parametrize("name", sorted(set(TREATMENTS) - {"soft_labels", "votes", "certainty", "certainty_weights", "selfie"}))
def test_every_treatment_runs_on_single_items(tastes: Split, name: str) -> None:
    example = ",".join(f"{key}={value}" for key, value in TREATMENTS[name].example.items())
    treatment = parse(f"{name}:{example}" if example else name)
    fitted = fit(Known(tastes.train), by_name("bpo"), treatment, RecommenderOptions(epochs=2, batch_size=128))
    assert all(bool(torch.isfinite(x).all()) for x in fitted.model.parameters())


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "adagrad", "rows_adagrad"])
def test_optimisers_agree_on_what_is_liked(tastes: Split, optimiser: str) -> None:
    assert own_half(trained(tastes, optimiser=optimiser, learning_rate=0.05), tastes) > 0.75


def test_adamw_shrinks_past_its_moments(tastes: Split) -> None:
    """One step: that of adam, and rate x weight_decay times the start taken off."""
    one = {"epochs": 1, "batch_size": 1 << 10, "learning_rate": 0.1}
    still = trained(tastes, **{**one, "learning_rate": 1e-12})
    plain = trained(tastes, **one)
    shrunk = trained(tastes, **one, optimiser="adamw", weight_decay=0.5)
    for start, without, with_ in zip(still.parameters(), plain.parameters(), shrunk.parameters(), strict=True):
        torch.testing.assert_close(with_, without - 0.1 * 0.5 * start, rtol=1e-5, atol=1e-6)
    none, plainly = trained(tastes, **one, optimiser="adamw"), next(plain.parameters())
    assert torch.equal(next(none.parameters()), plainly)


def test_rows_are_the_step_of_the_whole_table(tastes: Split) -> None:
    """Gradient descent on the rows of a step is gradient descent on the tables."""
    plain, rows = (trained(tastes, optimiser=name, epochs=2, learning_rate=0.5, l2=0.1) for name in ("sgd", "rows_sgd"))
    for one, other in zip(plain.parameters(), rows.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "hard"])
def test_items_not_taken_are_never_taken_ones(tastes: Split, sampler: str) -> None:
    drawer = Drawer(tastes.train, recommender_options({"negatives": 3, "sampler": sampler}), "pairs", "events")
    model = trained(tastes, epochs=1)
    step = drawer.draw(drawer.order(0), torch.Generator().manual_seed(0), model)
    mine = set(tastes.train.pairs().tolist())
    asked = (step.user[:, None] * 40 + step.items).numpy()
    assert all(int(pair) in mine for pair in asked[:, 0])
    assert not any(int(pair) in mine for pair in asked[:, 1:].ravel())


def test_sorted_pairs_answer_as_the_table_of_bits(tastes: Split) -> None:
    bits, sorted_ = Unseen(tastes.train), Unseen(tastes.train)
    assert bits.table is not None
    sorted_.table = None
    user, item = torch.arange(60)[:, None], torch.arange(40)
    assert torch.equal(bits.taken(user, item), sorted_.taken(user, item))


def test_what_is_rarely_left_is_drawn_exactly() -> None:
    """A user who took all but one of 3,000 items is given that one."""
    log = Log(np.array(["a"]), np.arange(3000).astype(str), np.zeros(2999, np.int32), np.delete(np.arange(3000), 17).astype(np.int32))
    assert Unseen(log)(torch.zeros(4, dtype=torch.long), 2, torch.Generator().manual_seed(0)).unique().tolist() == [17]


def test_users_who_took_everything_are_left_out_and_said() -> None:
    log = Log.of([0, 0, 1], [0, 1, 0])
    fitted = fit(Known(log), by_name("bradley_terry"), parse("identity"), RecommenderOptions(epochs=1))
    assert fitted.notes == ("1 users took every item: their events teach nothing here and are left out",)
    with pytest.raises(InputError, match="every user took everything"):
        fit(Known(Log.of([0, 0], [0, 1])), by_name("bradley_terry"), parse("identity"), RecommenderOptions(epochs=1))


def test_same_seed_same_bytes_and_another_seed_another_model(tastes: Split) -> None:
    one, two, three = (trained(tastes, seed=seed, epochs=2) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(three.parameters()))


def test_the_best_state_is_kept_and_patience_ends_the_run(tastes: Split) -> None:
    o = RecommenderOptions(model="mf:dim=8", epochs=200, batch_size=128, learning_rate=0.1, every=2, patience=2)
    fitted = fit(Known(tastes.train), by_name("bradley_terry"), parse("identity"), o, validation=tastes.validation)
    seen = [line["ndcg@20"] for line in fitted.epochs if "ndcg@20" in line]
    assert len(fitted.epochs) < 200
    assert fitted.best_epoch == 2 * (1 + int(np.argmax(seen)))
    relevant, users = by_user(tastes.validation), np.arange(60)
    now = ranked(top(fitted.model, users, 20, seen=by_user(tastes.train)), relevant, users, [20])["ndcg@20"].mean()
    assert now == pytest.approx(max(seen))


class Killed(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize(
    ("model", "objective", "treatment", "optimiser"),
    [
        ("mf:dim=8", "bradley_terry", "em:flip=0.1,by=annotator,warmup=0", "adam"),
        ("mf:dim=8", "bpo", "missed:rate=0.5,by=pair,form=surrogate,learn=0.01", "rows_adagrad"),
        ("sgl:dim=8", "bradley_terry", "identity", "adam"),
        ("sasrec:dim=8", "bpo", "identity", "adagrad"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tastes: Split, tmp_path: Path, model: str, objective: str, treatment: str, optimiser: str
) -> None:
    o = RecommenderOptions(model=model, epochs=6, every=2, batch_size=64, optimiser=optimiser, learning_rate=0.05)  # pyright: ignore[reportArgumentType]: one of the words

    def run(progress: Any = None, resume: Any = None) -> Any:
        given = {"validation": tastes.validation, "progress": progress, "resume": resume}
        return fit(Known(tastes.train), by_name(objective), parse(treatment), o, **given)

    whole = run()
    place = (tmp_path / "state", "key")

    def pull(stage: str, done: int, total: int) -> None:
        if done > 0.7 * total:
            raise Killed

    with pytest.raises(Killed):
        run(pull, place)
    assert place[0].is_file()
    with pytest.raises(InputError, match="other options"):
        run(None, (place[0], "another"))
    again = run(None, place)
    assert not place[0].exists()
    assert again.epochs == whole.epochs
    assert again.best_epoch == whole.best_epoch
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(whole.state[name], again.state[name]) for name in whole.state)


def test_selection_by_the_same_estimator_stops_a_loss_without_a_floor() -> None:
    """On events without a pattern the inverse-propensity loss falls for ever in training, and not on held-out events."""
    rng = np.random.default_rng(0)
    log = Log.of(np.repeat(np.arange(60), 12), rng.integers(0, 40, 720))
    train, heldout = log.take(np.arange(720) % 12 < 8), log.take(np.arange(720) % 12 >= 8)
    o = RecommenderOptions(model="mf:dim=8", epochs=60, batch_size=128, learning_rate=0.1, every=2, patience=2, select="loss")
    fitted = fit(Known(train), by_name("bpo"), parse("propensity:exposure=0.5"), o, validation=heldout)
    assert len(fitted.epochs) < 60
    assert fitted.best_epoch < len(fitted.epochs)
    assert fitted.epochs[-1]["loss"] < min(0.0, fitted.epochs[0]["loss"])


def everything(split: Split) -> Known:
    """The log with vectors of items and users, for the models that read them."""
    rng = np.random.default_rng(5)
    items = rng.normal(size=(40, 256)).astype(np.float32)
    return Known(split.train, item_vectors=items, user_vectors=rng.normal(size=(60, 256)).astype(np.float32))


@pytest.mark.parametrize("name", sorted(available()))
def test_folders_give_the_scores_back(tastes: Split, name: str, tmp_path: Path) -> None:
    model = available()[name]
    known = everything(tastes)
    objective = "bradley_terry" if "score" in model.gives else "sft"
    o = RecommenderOptions(model=name, objective=objective, epochs=1, batch_size=64, seed=4)
    fitted = fit(known, by_name(objective), parse("identity"), o)
    place = tmp_path / name
    save(place, fitted.model, known, text=name, seed=4)
    again = load(place)
    users = torch.arange(7)
    assert torch.equal(again.model.scores(users), fitted.model.scores(users))
    assert again.known.log.users.tolist() == tastes.train.users.tolist()


@pytest.mark.parametrize("name", sorted(available()))
def test_scores_do_not_depend_on_who_else_is_scored(tastes: Split, name: str) -> None:
    objective = "bradley_terry" if "score" in available()[name].gives else "sft"
    fitted = fit(everything(tastes), by_name(objective), parse("identity"), RecommenderOptions(model=name, epochs=1, batch_size=64))
    together, alone = fitted.model.scores(torch.arange(9)), fitted.model.scores(torch.tensor([5]))
    torch.testing.assert_close(together[5:6], alone, rtol=1e-4, atol=1e-5)


def test_ties_are_ordered_as_the_slow_way_orders_them() -> None:
    class Stepped(Recommender):
        name = "stepped"

        def scores(self, user: torch.Tensor) -> torch.Tensor:
            return table[user]

    table = torch.randint(0, 4, (50, 33), generator=torch.Generator().manual_seed(0)).float()
    model = Stepped(50, 33)
    model.register_buffer("there", torch.zeros(1))
    assert np.array_equal(top(model, np.arange(50), 7), best(table.numpy(), 7, tie_order(33)))
    table[:, 4:] = -torch.inf  # lists that end early: ties among what is left are ordered too
    assert np.array_equal(top(model, np.arange(50), 7), best(table.numpy(), 7, tie_order(33)))


def test_what_makes_no_sense_is_refused(tastes: Split) -> None:
    known = Known(tastes.train)
    for objective, treatment, options, said in (
        ("sigmoid", "identity", {}, "needs logp, reference"),
        ("bradley_terry", "identity", {"records": "single"}, "compares two items"),
        ("bradley_terry", "peer_review:level=epoch", {"select": "loss"}, "selected among those of training"),
        ("bradley_terry", "identity", {"model": "popularity", "learning_rate": -1.0}, "positive number"),
    ):
        with pytest.raises(InputError, match=said):
            fit(known, by_name(objective), parse(treatment), recommender_options(options))
    with pytest.raises(InputError, match="split one log"):
        fit(known, by_name("bradley_terry"), parse("identity"), RecommenderOptions(epochs=1), validation=Log.of([0], [0]))


def test_no_recommender_defines_a_loss_or_a_treatment() -> None:
    """Losses and treatments live in cupel.objectives and cupel.noise alone: here nobody takes a logarithm of a probability."""
    from pathlib import Path

    import cupel.learners.recommenders as package

    words = ("logsigmoid", "softplus", "cross_entropy", "log_softmax", "nll_loss", "mse_loss", "Treatment(", "Objective(", "_bce", "hinge")
    allowed = {("generative", "log_softmax"), ("tiger", "log_softmax"), ("mender", "log_softmax")}  # scores that are log-probabilities
    for file in Path(str(package.__file__)).parent.rglob("*.py"):
        text = file.read_text("utf-8")
        where = {file.stem, file.parent.name}
        found = [word for word in words if word in text and not any((part, word) in allowed for part in where)]
        assert not found, f"{file.name} has {found[0]}: losses belong to cupel.objectives, treatments to cupel.noise"
