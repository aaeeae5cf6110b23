"""TIGER and Mender: what their scores depend on and what not, that imitation trains them, and that wishes are heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.learners.recommenders.fit import fit
from cupel.learners.recommenders.generative.base import Generative
from cupel.learners.recommenders.models.mender import Mender
from cupel.learners.recommenders.models.tiger import Tiger
from cupel.learners.recommenders.names import build
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.types import Known, top
from cupel.noise.fixed import identity
from cupel.noise.loss import preference_loss
from cupel.noise.types import Target, bare_terms
from cupel.objectives.reference_free import sft
from cupel.objectives.types import Side

SMALL = {"levels": 2, "codes": 4, "last": 12, "dim": 16, "heads": 2, "layers": 1, "encoder_layers": 1, "width": 32, "length": 4}
ITEMS, DIM = 24, 6


def known(seed: int = 0, users: int = 7, **more: object) -> Known:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, users)
    user = np.repeat(np.arange(users), sizes)
    log = Log(
        np.arange(users).astype(str), np.arange(ITEMS).astype(str), user.astype(np.int32),
        rng.integers(0, ITEMS, len(user)).astype(np.int32),
        time=rng.permutation(len(user)), texts=tuple(f"film number {i}" for i in range(ITEMS)),
    )  # fmt: skip
    return Known(log, item_vectors=rng.normal(size=(ITEMS, DIM)).astype(np.float32), **more)  # pyright: ignore[reportArgumentType]


def wishes(n: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def tiger(data: Known) -> Tiger:
    model = Tiger(*data.log.shape, **SMALL, seed=2).eval()
    model.prepare(data)
    return model


def mender(data: Known, **more: object) -> Mender:
    model = Mender(*data.log.shape, **SMALL, inputs=DIM, seed=2, **more).eval()  # pyright: ignore[reportArgumentType]
    model.prepare(data)
    return model


@pytest.mark.parametrize("make", [tiger, mender])
def test_sides_are_of_the_history_strictly_before(make: Callable[[Known], Generative]) -> None:
    data = known()
    model = make(data)
    rows = by_user(data.log)
    for u in (0, 3, 6):
        for place, event in enumerate(rows.event[rows.start[u] : rows.start[u + 1]]):
            side = model.sides(torch.tensor([u]), torch.arange(ITEMS)[None], torch.tensor([int(event)]))
            expected = model.scores_given([rows.of(u)[:place]])[0]
            assert side.logp is not None
            torch.testing.assert_close(side.logp, expected, atol=1e-5, rtol=0)
            assert side.n_tokens is not None
            assert side.n_tokens.tolist() == [3] * ITEMS
    every = model.scores(torch.arange(7))
    for u in range(7):
        torch.testing.assert_close(every[u], model.scores_given([rows.of(u)])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [tiger, mender])
def test_padding_and_company_do_not_matter(make: Callable[[Known], Generative]) -> None:
    """Card 40, oracle 7: slots that are padding change nothing (in the official embedding variant they do)."""
    model = make(known())
    history = torch.tensor([[3, 5]])
    padded = torch.tensor([[3, 5, -1, -1]])
    wish = None if isinstance(model, Tiger) else torch.from_numpy(wishes(1))[:, None]
    more = None if wish is None else torch.cat([wish, torch.zeros(1, 3, DIM)], dim=1)
    items = torch.arange(ITEMS)[None]
    plain = model.decoder(model.memory(history, wish), model.codes[items])
    torch.testing.assert_close(model.decoder(model.memory(padded, more), model.codes[items]), plain)
    alone = model.scores_given([np.array([3, 5])])
    together = model.scores_given([np.array([1, 2, 3, 4]), np.array([3, 5]), np.array([], int)])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    assert bool(torch.isfinite(together).all())


def test_without_conditioning_wishes_change_nothing() -> None:
    """Card 40, oracle 7."""
    histories = [np.array([3, 5]), np.array([], int)]
    one, two = (torch.from_numpy(wishes(2, seed))[:, None] for seed in (0, 1))
    deaf, hearing = mender(known(), conditioning="none"), mender(known())
    assert build("mender:conditioning=none", 2, 3, seed=0).conditioning == "none"
    assert torch.equal(deaf.scores_given(histories, one), deaf.scores_given(histories, two))
    assert torch.equal(deaf.scores_given(histories, one), deaf.scores_given(histories))
    assert not torch.allclose(hearing.scores_given(histories, one), hearing.scores_given(histories, two))
    several = torch.cat([one, two], dim=1)
    turned = torch.cat([two, one], dim=1)
    torch.testing.assert_close(hearing.scores_given(histories, several), hearing.scores_given(histories, turned))


def test_an_empty_wish_is_no_wish_and_said_so() -> None:
    model = mender(known())
    wish = torch.from_numpy(wishes(2))[:, None]
    wish[1] = 0
    histories = [np.array([3, 5]), np.array([3, 5])]
    with pytest.warns(UserWarning, match="1 of 2 wishes say nothing"):
        found = model.scores_given(histories, wish)
    torch.testing.assert_close(found[1], model.scores_given(histories[1:])[0])
    said = wishes(len(known().log))
    said[3] = 0
    with pytest.warns(UserWarning, match="wishes of events say nothing"):
        mender(known(event_vectors=said))


def test_wishes_enter_by_event_and_by_user() -> None:
    data = known()
    said, last = wishes(len(data.log)), wishes(7, 8)
    model = mender(known(event_vectors=said, user_vectors=last))
    rows = by_user(data.log)
    event = int(rows.event[rows.start[2] + 1])
    found = model.score(torch.tensor([2]), torch.arange(ITEMS)[None], torch.tensor([event]))
    expected = model.scores_given([rows.of(2)[:1]], torch.from_numpy(said[event])[None, None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    expected = model.scores_given([rows.of(2)], torch.from_numpy(last[2])[None, None])
    torch.testing.assert_close(model.scores(torch.tensor([2])), expected, atol=1e-5, rtol=0)


def test_beams_are_the_top_of_the_scores() -> None:
    model = mender(known())
    histories = [np.array([3, 5]), np.array([1])]
    items, value = model.beams(histories, 5, width=ITEMS)
    found, order = model.scores_given(histories).sort(dim=1, descending=True)
    assert torch.equal(items, order[:, :5])
    torch.testing.assert_close(value, found[:, :5], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="4 beams give at most as many"):
        model.beams(histories, 5, width=4)


def test_a_saved_state_brings_its_ids() -> None:
    data = known()
    first = tiger(data)
    second = Tiger(*data.log.shape, **SMALL, seed=9).eval()
    other = known(seed=4)
    second.prepare(Known(data.log, item_vectors=other.item_vectors))
    _ = second.trie
    assert not torch.equal(first.codes, second.codes)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.scores(torch.arange(7)), second.scores(torch.arange(7)))
    assert torch.equal(second.trie.item, first.trie.item)


SETTINGS = ",".join(f"{key}={value}" for key, value in SMALL.items())
OPTIONS = RecommenderOptions(objective="sft", negatives=0, learning_rate=0.02, batch_size=60, seed=1)


def test_imitation_teaches_tiger_what_follows_what() -> None:
    """A ring of 12 items: the next code is certain, so the loss goes to 0 and the first place is right."""
    rng = np.random.default_rng(0)
    begin = rng.integers(0, 12, 40)
    item = (begin[:, None] + np.arange(5)) % 12
    log = Log(
        np.arange(40).astype(str), np.arange(12).astype(str), np.repeat(np.arange(40), 5).astype(np.int32),
        item.reshape(-1).astype(np.int32), time=np.tile(np.arange(5), 40),
    )  # fmt: skip
    data = Known(log, item_vectors=rng.normal(size=(12, DIM)).astype(np.float32))
    options = RecommenderOptions(**{**OPTIONS.recorded(), "model": f"tiger:{SETTINGS},dropout=0.0", "epochs": 25})
    found = fit(data, sft("sequence"), identity(), options)
    assert float(np.mean(top(found.model, np.arange(40), 1)[:, 0] == (begin + 5) % 12)) > 0.9
    assert found.epochs[-1]["loss"] < 0.6 * found.epochs[0]["loss"]
    again = fit(data, sft("sequence"), identity(), options)
    assert all(torch.equal(x, again.model.state_dict()[name]) for name, x in found.model.state_dict().items())


def test_mender_learns_to_do_as_it_is_told() -> None:
    """The wish is the vector of the next item, histories are noise: with the wish the item is found, without it is not."""
    rng = np.random.default_rng(0)
    data = known(users=60)
    assert data.item_vectors is not None
    target = rng.integers(0, ITEMS, 60)
    told = Known(
        data.log, item_vectors=data.item_vectors, event_vectors=data.item_vectors[data.log.item], user_vectors=data.item_vectors[target]
    )
    options = RecommenderOptions(**{**OPTIONS.recorded(), "model": f"mender:{SETTINGS},inputs={DIM},dropout=0.0", "epochs": 25})
    model = fit(told, sft("sequence"), identity(), options).model
    assert float(np.mean(top(model, np.arange(60), 3) == target[:, None])) * 3 > 0.8
    assert isinstance(model, Mender)
    histories = by_user(data.log).lists(range(60))
    items, _ = model.beams(histories, 3, width=10)
    assert float((items == torch.from_numpy(target)[:, None]).any(1).float().mean()) < 0.5


def test_negative_data_is_a_signed_weight() -> None:
    """Card 40, oracle 8: p = -weight for records that are to be unlearned gives -weight * cross-entropy, by equation (1)."""
    logp = torch.tensor([-1.0, -3.0, -2.0], dtype=torch.float64)
    side = Side(logp=logp, n_tokens=torch.full((3,), 4.0, dtype=torch.float64))
    negative = torch.tensor([False, True, False])

    def total(weight: float, bad: torch.Tensor) -> float:
        p = torch.where(bad, -weight, 1.0).double()
        terms = bare_terms(torch.zeros(3), torch.zeros(3))
        loss, _ = preference_loss(sft("sequence"), identity(), side, Side(), Target(p, torch.ones(3).double()), terms, {}, {})
        return float(loss.sum())

    plain = float(-logp.sum() / 4)
    assert total(0.7, torch.zeros(3, dtype=torch.bool)) == pytest.approx(plain)
    good = float(-logp[~negative].sum() / 4)
    assert total(0.5, negative) - good == pytest.approx(-0.5 * 3 / 4)
    assert total(1.0, negative) - good == pytest.approx(2 * (total(0.5, negative) - good))


def test_events_with_a_negative_p_are_unlearned() -> None:
    """The same through the loop: an item that is only ever taken with p < 0 ends below where it would be if it had never been seen."""
    data = known(users=30)
    bad = data.log.item % 4 == 0
    text = f"mender:{SETTINGS},inputs={DIM},dropout=0.0"
    options = RecommenderOptions(**{**OPTIONS.recorded(), "model": text, "epochs": 8})
    share = []
    for weight in (1.0, 0.0, -0.2):
        stated = Known(data.log, item_vectors=data.item_vectors, event_p=np.where(bad, weight, 1.0))
        found = fit(stated, sft("sequence"), identity(), options).model.scores(torch.arange(30))
        share.append(float(found.softmax(1)[:, ::4].sum(1).mean()))
    assert share[0] > share[1] > share[2]
    with pytest.raises(InputError, match="event_p is a finite number"):
        fit(Known(data.log, item_vectors=data.item_vectors, event_p=np.ones(3)), sft("sequence"), identity(), options)


def tiny_encoder(folder: Path) -> Path:
    """A T5 encoder of two layers, its weights from a seed, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5Model

    words = ["<pad>", "</s>", "<unk>", "find", "avoid", "war", "films", "number", "film", "Items", "Instructions", ":", ".", "none"]
    vocabulary = {word: i for i, word in enumerate([*words, *map(str, range(ITEMS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(vocabulary), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1)
    T5Model(config).save_pretrained(folder)
    return folder


def test_wishes_as_tokens(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "t5")
    model = mender(known(), conditioning="tokens", encoder=str(folder), lora=2)
    histories = [np.array([3, 5]), np.array([7])]
    one = model.scores_given(histories, [["find war films"], ["avoid war films"]])
    two = model.scores_given(histories, [["avoid war films"], ["avoid war films"]])
    assert not torch.allclose(one[0], two[0])
    torch.testing.assert_close(one[1], two[1])
    torch.testing.assert_close(model.scores_given(histories[1:], [["avoid war films"]])[0], two[1], atol=1e-5, rtol=0)
    learns = {name for name, x in model.named_parameters() if x.requires_grad}
    assert any("lora" in name for name in learns)
    assert all("lora" in name for name in learns if name.startswith("text."))
    with pytest.warns(UserWarning, match="1 of 1 wishes say nothing"):
        empty = model.scores_given(histories[:1], [[" "]])
    torch.testing.assert_close(empty, model.scores_given(histories[:1]))
    with pytest.raises(InputError, match="as texts"):
        model.scores_given(histories, torch.zeros(2, 1, DIM))
    data = known(event_texts=tuple(["find war films"] * len(known().log)))
    options = RecommenderOptions(
        **{**OPTIONS.recorded(), "model": f"mender:{SETTINGS},conditioning=tokens,encoder={folder},lora=2", "epochs": 2}
    )
    fitted = fit(data, sft("sequence"), identity(), options)
    before = {name: x for name, x in model.state_dict().items() if name.startswith("text.") and "lora" not in name}
    assert all(torch.equal(x, fitted.model.state_dict()[name]) for name, x in before.items())


def test_what_is_missing_is_said() -> None:
    data = known()
    bare = Known(data.log)
    with pytest.raises(InputError, match="needs semantic ids"):
        tiger(bare)
    with pytest.raises(InputError, match="reads item_vectors"):
        mender(Known(data.log, item_codes=tiger(data).codes.numpy()))
    with pytest.raises(InputError, match="wishes are vectors of shape"):
        mender(known(event_vectors=wishes(3)))
    with pytest.raises(InputError, match="conditioning is one of"):
        Mender(2, 3, conditioning="words")
    with pytest.raises(InputError, match="encoder=FOLDER"):
        Mender(2, 3, conditioning="tokens")
    with pytest.raises(InputError, match="outside the 24"):
        tiger(data).scores_given([np.array([ITEMS])])
    with pytest.raises(InputError, match="cannot be loaded"):
        Mender(2, 3, conditioning="tokens", encoder="./nowhere")


@pytest.mark.parametrize("name", ["tiger", "mender"])
def test_a_folder_brings_a_generative_model_back(name: str, tmp_path: Path) -> None:
    from cupel.learners.recommenders.saved import load, save

    data = known(user_vectors=wishes(7, 8))
    text = f"{name}:{SETTINGS}" + (f",inputs={DIM}" if name == "mender" else "")
    model = build(text, *data.log.shape, 3).eval()
    model.prepare(data)
    save(tmp_path / "folder", model, data, text=text, seed=3)
    again = load(tmp_path / "folder").model
    assert torch.equal(again.scores(torch.arange(7)), model.scores(torch.arange(7)))


def test_imitation_is_selected_by_the_loss_of_held_out_items() -> None:
    """select=loss: minus the log-probability of each held-out item after the whole training log, per code; items alone, no negatives."""
    data = known(users=9)
    rows = by_user(data.log)
    held = np.sort(rows.event[rows.start[1:] - 1])  # the last event of each user
    here = np.setdiff1d(np.arange(len(data.log)), held)
    rest, last = data.log.take(here), data.log.take(held)
    settings = ",".join(f"{name}={value}" for name, value in SMALL.items())
    for model, wish in ((f"tiger:{settings}", None), (f"mender:{settings},inputs={DIM}", wishes(9))):
        told = Known(rest, item_vectors=data.item_vectors, user_vectors=wish)
        o = RecommenderOptions(
            model=model, objective="sft", negatives=0, epochs=3, every=1, batch_size=8, learning_rate=1e-2, select="loss", patience=0
        )
        found = fit(told, sft(), identity(), o, validation=last)
        said = [line["heldout_loss"] for line in found.epochs]
        assert found.best_epoch == 1 + int(np.argmin(said))
        assert len(set(said)) == 3
        logp = found.model.scores(torch.arange(9))[last.user, last.item]
        assert min(said) == pytest.approx(float(-logp.mean()) / 3, abs=1e-5)
