"""Chains, states on disk, steps out of parts, and names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from cupel.errors import InputError
from cupel.noise import names
from cupel.noise.certainty import certainty
from cupel.noise.chain import chain
from cupel.noise.em import em
from cupel.noise.exposed import exposed
from cupel.noise.fixed import conservative, identity, soft_labels, unbiased, unbiased_by_side, votes
from cupel.noise.loss import check, preference_loss
from cupel.noise.missed import missed
from cupel.noise.peer import peer_review
from cupel.noise.propensity import propensity
from cupel.noise.robust import distributionally_robust, trimmed
from cupel.noise.selection import small_loss
from cupel.noise.selfie import selfie
from cupel.noise.state import axes_of, load_state, save_state, state_digest
from cupel.noise.step import merge_terms, rows_of, treat_step
from cupel.noise.types import DataSpec, Target, bare_terms
from cupel.objectives.types import Side

double = lambda x: torch.as_tensor(x, dtype=torch.float64)  # noqa: E731
SPEC = DataSpec(records=tuple(f"r{i}" for i in range(8)), annotators=("ann", "bob", "cem"), groups=("g", "h"))
CORRECTING = {
    "em": em(0.1), "unbiased": unbiased(0.1), "unbiased_by_side": unbiased_by_side(0.1, 0.2), "propensity": propensity(0.5),
    "missed": missed(0.5), "exposed": exposed(0.5),
}  # fmt: skip


def steps(margin_terms, n=6, size=8):
    gen = torch.Generator().manual_seed(3)
    soft = torch.nn.functional.softplus
    for step in range(n):
        m, other = (torch.randn(size, generator=gen, dtype=torch.float64) * 2 for _ in range(2))
        p = torch.rand(size, generator=gen, dtype=torch.float64)
        yield margin_terms(
            m, annotator=torch.randint(-1, 3, (size,), generator=gen), group=torch.randint(-1, 2, (size,), generator=gen), step=step,
            epoch=step // 2, total=n, given=Target(p, torch.ones_like(p)), peer_keep=soft(-other), peer_flip=soft(other),
        )  # fmt: skip


STATEFUL = {
    "em": lambda: em(0.2, by="annotator", warmup=0),
    "em by group": lambda: em(0.2, by="group", warmup=0),
    "em full": lambda: em(0.2, by="annotator", schedule="full", warmup=0),
    "em full for all": lambda: em(0.2, schedule="full", warmup=0, evidence="peer"),
    "em from known rates": lambda: em({"ann": 0.1, "bob": 0.3, "cem": 0.2, "": 0.2}, by="annotator", schedule="fixed"),
    "selfie": lambda: selfie(0.1, 0.25, warmup=0, buffer=20),
    "missed": lambda: missed(0.3, by="group", learn=0.2, warmup=0),
    "missed by pair": lambda: missed(0.3, by="pair", learn=0.1, dim=2, l2=0.5, warmup=0, seed=3),
    "missed by pair, items alone": lambda: missed(0.3, by="pair", form="surrogate", learn=0.1, dim=0, warmup=0, decay=0.9),
    "exposed": lambda: exposed(0.2, learn=0.5),
    "peer_review": lambda: peer_review(0.3, ramp=2, level="epoch"),
    "votes": lambda: votes({f"r{i}": (i, 1, 0) for i in range(8)}),
    "chain": lambda: chain(
        soft_labels({f"r{i}": i / 8 for i in range(8)}), em(0.2, by="annotator", warmup=0), selfie(0.1, 0.25, buffer=20)
    ),
}


@pytest.mark.parametrize("name", sorted(STATEFUL))
def test_a_resumed_run_is_the_run(name, tmp_path, margin_terms):
    """Three steps, saved, loaded into a new treatment, three more: the bytes of six steps at once."""
    straight, resumed = STATEFUL[name]().init(SPEC), STATEFUL[name]().init(SPEC)
    for step, seen in enumerate(steps(margin_terms)):
        straight = STATEFUL[name]().update(seen, straight)
        if step == 3:
            save_state(tmp_path / "state", STATEFUL[name](), resumed, SPEC)
            resumed = load_state(tmp_path / "state", STATEFUL[name](), SPEC).state
        resumed = STATEFUL[name]().update(seen, resumed)
    assert state_digest(straight) == state_digest(resumed)
    one, two = (STATEFUL[name]().target(seen.given, seen, state) for state in (straight, resumed))
    assert torch.equal(one.p, two.p)
    assert torch.equal(one.w, two.w)


@pytest.mark.parametrize("name", sorted(STATEFUL))
def test_updates_are_pure_and_states_are_float64_or_int64_on_the_cpu(name, margin_terms):
    treat = STATEFUL[name]()
    state = treat.init(SPEC)
    for seen in steps(margin_terms):
        before = state_digest(state)
        new = treat.update(seen, state)
        assert state_digest(state) == before
        assert new.keys() == state.keys()
        for tensor in new.values():
            assert tensor.dtype in (torch.float64, torch.int64)
            assert tensor.device.type == "cpu"
        state = new


def test_rows_are_found_again_by_id(tmp_path, margin_terms):
    """Data that was shuffled, lost a record and an annotator and got new ones: what is known stays with its id."""
    treat = em(0.2, by="annotator", schedule="full", warmup=0)
    state = treat.init(SPEC)
    for seen in steps(margin_terms):
        state = treat.update(seen, state)
    save_state(tmp_path / "s", treat, state, SPEC)
    other = DataSpec(records=("new", "r7", "r0", "r3"), annotators=("cem", "dan", "ann"), groups=())
    found = load_state(tmp_path / "s", treat, other)
    assert (found.known, found.new, found.gone) == (
        {"annotator": 2, "record": 3}, {"annotator": 1, "record": 1}, {"annotator": 1, "record": 5}
    )  # fmt: skip
    old = state["reliability@annotator"]
    assert found.state["reliability@annotator"].tolist() == [old[2].item(), 0.8, old[0].item()]
    assert found.state["log_odds@record"][1:].tolist() == state["log_odds@record"][[7, 0, 3]].tolist()
    assert found.state["w@record"][0] == 0, "the new record was never seen"
    names_then = [(*SPEC.annotators, None)[i] for i in state["slot@record>annotator"].tolist()]
    names_now = [(*other.annotators, None)[i] for i in found.state["slot@record>annotator"].tolist()]
    for now, then in ((1, 7), (2, 0), (3, 3)):
        assert names_now[now] == (None if names_then[then] == "bob" else names_then[then])


def test_bytes_are_the_same_in_every_process(tmp_path):
    code = (
        "import torch, sys\n"
        "from cupel.noise.em import em\nfrom cupel.noise.chain import chain\nfrom cupel.noise.selfie import selfie\n"
        "from cupel.noise.state import save_state\nfrom cupel.noise.types import DataSpec\n"
        "spec = DataSpec(annotators=('ann', 'bo\\u00e9', ''))\nt = chain(em(0.1, by='annotator'), selfie())\n"
        "save_state(sys.argv[1], t, t.init(spec), spec)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True, timeout=300, env={"PYTHONHASHSEED": "7"})
    spec, treat = DataSpec(annotators=("ann", "bo\u00e9", "")), chain(em(0.1, by="annotator"), selfie())
    save_state(tmp_path / "here", treat, treat.init(spec), spec)
    one, two = (tmp_path / "here").read_bytes(), (tmp_path / "other").read_bytes()
    assert one == two
    size = int.from_bytes(one[:8], "little")
    assert len(json.loads(one[8 : 8 + size])["__metadata__"]) == 1


def test_a_state_of_something_else_is_refused(tmp_path):
    treat = em(0.1, by="annotator")
    save_state(tmp_path / "s", treat, treat.init(SPEC), SPEC)
    with pytest.raises(InputError, match="the state of 'em', not of 'selfie'"):
        load_state(tmp_path / "s", selfie(), SPEC)
    with pytest.raises(InputError, match=r"other settings \(share\)"):
        load_state(tmp_path / "s", em(0.1, by="annotator", share=0.2), SPEC)
    found = load_state(tmp_path / "s", em(0.1, by="annotator", share=0.2), SPEC, changed_settings=True)
    assert state_digest(found.state) == state_digest(treat.init(SPEC))
    with pytest.raises(InputError, match="another form of em"):
        load_state(tmp_path / "s", em(0.1), SPEC, changed_settings=True)
    with pytest.raises(InputError, match="no state"):
        load_state(tmp_path / "none", treat, SPEC)
    (tmp_path / "bad").write_bytes(b"no tensors here")
    with pytest.raises(InputError, match="no safetensors file"):
        load_state(tmp_path / "bad", treat, SPEC)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="lacks the metadata"):
        load_state(tmp_path / "other", treat, SPEC)
    with pytest.raises(ValueError, match="float64 or int64"):
        save_state(tmp_path / "s", treat, {"reliability": torch.zeros(1)}, SPEC)
    with pytest.raises(ValueError, match="has 2 rows for 3 annotators"):
        save_state(tmp_path / "s", treat, {"reliability@annotator": double([0.1, 0.2])}, SPEC)
    with pytest.raises(ValueError, match="an axis is one of"):
        axes_of("x@pair")


# ---- chains --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", sorted(CORRECTING))
@pytest.mark.parametrize("second", sorted(CORRECTING))
def test_two_corrections_are_refused(first, second):
    with pytest.raises(ValueError, match=r"2 treatments of this chain correct p for noise \(.*\).*Keep one of them"):
        chain(CORRECTING[first], small_loss(0.1), CORRECTING[second])
    nested = chain(conservative(0.1), CORRECTING[first])
    with pytest.raises(ValueError, match="correct p for noise"):
        chain(nested, CORRECTING[second])


@pytest.mark.parametrize("first", sorted(CORRECTING))
def test_one_correction_is_fine(first):
    made = chain(conservative(0.05), CORRECTING[first], certainty(0.1), small_loss(0.1), distributionally_robust())
    assert made.corrects
    assert made.scope == "step"
    assert made.touches == {"p", "w"}


def test_what_two_corrections_would_do():
    """Why they are refused: em recovers p = .8 of a flipped fifth, and unbiased at .2 makes it 1."""
    p = Target(double([0.8]), double([1.0]))
    torch.testing.assert_close(unbiased(0.2).target(p, bare_terms(double([0.0])), {}).p, double([1.0]))


def test_a_chain_is_its_parts_in_order(margin_terms, toy):
    parts = (em(0.2, by="annotator", warmup=0), conservative(0.1), small_loss(0.25, ramp=0), distributionally_robust(0.5))
    made = chain(*parts)
    state, states = made.init(SPEC), [part.init(SPEC) for part in parts]
    for seen in steps(margin_terms):
        used, expected = made.target(seen.given, seen, state), seen.given
        new = []
        for part, own in zip(parts, states, strict=True):
            new.append(part.update(seen._replace(given=expected), own))
            expected = part.target(expected, seen, own)
        assert torch.equal(used.p, expected.p)
        assert torch.equal(used.w, expected.w)
        state, states = made.update(seen, state), new
        assert all(torch.equal(state[f"0.em/{k}"], v) for k, v in states[0].items())
    assert chain().name == "identity"
    assert chain(parts[0]) is parts[0]


def test_em_after_votes_learns_from_the_votes(margin_terms):
    """In a chain a rate is learned from the labels as the treatment meets them, not as the data had them."""
    made = chain(soft_labels({f"r{i}": 0.0 for i in range(8)}), em(0.1, share=1.0, warmup=0))
    seen = margin_terms([-5.0] * 8)  # the model says "second", as the soft labels do and the recorded ones do not
    state = made.update(seen, made.init(SPEC))
    assert state["1.em/reliability"].item() > 0.99


def test_an_objective_without_swap_refuses_the_chain_when_it_is_built(rigid):
    with pytest.raises(ValueError, match="em \\+ small_loss changes p"):
        check(rigid, chain(em(0.1), small_loss(0.1)))
    with pytest.raises(ValueError, match="looks at the loss of the flipped label"):
        check(rigid, chain(small_loss(0.1), peer_review(0.1)))
    check(rigid, chain(small_loss(0.1), trimmed(0.1), peer_review(0.1, rank="loss")))


# ---- steps out of parts --------------------------------------------------------------------------------------------------


def test_parts_of_a_step_give_the_gradient_of_the_step(toy, margin_terms):
    """Micro-batches of any size and two ranks: treated as a whole, trained in parts, the same gradient and state."""
    treat = chain(em(0.2, by="annotator", warmup=0), distributionally_robust(0.7), trimmed(0.2))
    whole = next(iter(steps(margin_terms)))
    score = double([0.3, -1.0, 2.0, 0.1, -0.2, 1.4, 0.9, -2.0]).requires_grad_()
    first, second = Side(score=score), Side(score=torch.zeros(8, dtype=torch.float64))
    state = treat.init(SPEC)
    loss, _ = preference_loss(toy, treat, first, second, whole.given, whole, state)
    (wanted,) = torch.autograd.grad(loss.sum() / 8, score)
    with torch.no_grad():
        m = score.detach()
        seen = whole._replace(keep=torch.nn.functional.softplus(-m), flip=torch.nn.functional.softplus(m))
    for parts in ([[0, 1, 2], [3], [4, 5, 6, 7]], [[7, 3], [2, 1], [0, 6, 5, 4]]):
        def take(terms, rows):
            row = torch.tensor(rows)
            values = {f: x[row] if isinstance(x, torch.Tensor) else x for f, x in terms._asdict().items() if f != "given"}
            return terms._replace(**values, given=Target(terms.given.p[row], terms.given.w[row]))

        gathered = merge_terms([take(seen, rows) for rows in parts])
        used, total = treat_step(treat, gathered, state), 0.0
        for rows in parts:
            row = torch.tensor(rows)
            part = rows_of(used, gathered.record, row)
            piece = take(whole, rows)
            sides = (side.map(lambda x, r=row: x[r]) for side in (first, second))
            value, _ = preference_loss(toy, identity(), *sides, part, piece, {})
            total = total + value.sum() / 8
        (found,) = torch.autograd.grad(total, score)
        torch.testing.assert_close(found, wanted, atol=1e-14, rtol=1e-12)
        assert state_digest(treat.update(gathered, state)) == state_digest(treat.update(merge_terms([seen]), state))


def test_merging(margin_terms):
    a = margin_terms([1.0, 2.0], record=torch.tensor([5, 1]))
    b = margin_terms([3.0], record=torch.tensor([3]))
    merged = merge_terms([b, a])
    assert merged.record.tolist() == [1, 3, 5]
    for one, two in zip(merged[:5], merge_terms([a, b])[:5], strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="different places"):
        merge_terms([a, b._replace(step=1)])
    with pytest.raises(ValueError, match="at least one part"):
        merge_terms([])
    with pytest.raises(ValueError, match=r"1 of 2 records are not in the step \(first: 9\)"):
        rows_of(Target(double([1.0, 1, 1]), double([1.0, 1, 1])), merged.record, torch.tensor([1, 9]))
    with pytest.raises(ValueError, match="occur twice"):
        rows_of(Target(double([1.0, 1]), double([1.0, 1])), torch.tensor([4, 4]), torch.tensor([4]))


# ---- names ---------------------------------------------------------------------------------------------------------------


def test_texts_name_treatments():
    made = names.parse("em:flip=0.2,by=annotator,prior=9/2,warmup=100 + trimmed:share=0.1")
    assert made.settings["0.em/flip"] == 0.2
    assert made.settings["0.em/warmup"] == 100
    assert isinstance(made.settings["0.em/warmup"], int)
    assert made.settings["0.em/prior"] == "9/2"
    assert names.parse("tempered:power=1").settings["power"] == 1.0
    assert names.parse("propensity:exposure=0.5,nonnegative=true").settings["nonnegative"] is True
    assert names.parse("em:prior=none").settings["prior"] is None
    assert names.parse("cdpo:flip=0.1").name == "conservative"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emm", "did you mean em?"), ("em:rate=0.1", "its arguments are flip"), ("em:flip", "argument=value"),
        ("em:flip=2", r"in \[0, 1\)"), ("em:flip=.1,flip=.2", "of its own"), ("unbiased + em", "correct p for noise"),
        ("votes", "from Python"), ("propensity", "needs exposure"), ("", "no treatment is called ''"),
    ],
)  # fmt: skip
def test_bad_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        names.parse(text)


@pytest.mark.parametrize("name", sorted(names.TREATMENTS))
def test_the_table_is_right(name):
    """Every name is a factory of its module, says what it is called, and its settings rebuild it."""
    entry = names.TREATMENTS[name]
    if entry.by_record:
        return
    made = names.by_name(name, **entry.example)
    assert made.name == name
    assert entry.summary
    again = names.by_name(name, **{k: v for k, v in made.settings.items() if k != "prior"})
    assert again.settings == made.settings
    assert made.touches <= {"p", "w"}
    assert name == "identity" or made.touches
    assert not made.corrects or "p" in made.touches


def test_other_packages_add_names(monkeypatch):
    point = EntryPoint("mine", "cupel.noise.fixed:identity", names.GROUP)
    monkeypatch.setattr(names, "entry_points", lambda group: [point] if group == names.GROUP else [])
    assert "mine" in names.available()
    assert names.parse("mine + em").name == "identity + em"
    taken = EntryPoint("em", "cupel.noise.fixed:identity", names.GROUP)
    monkeypatch.setattr(names, "entry_points", lambda group: [taken])
    with pytest.raises(ValueError, match="takes a name that is taken"):
        names.available()


def test_the_table_costs_no_torch():
    code = "import sys, cupel.noise.names, cupel.noise.rate; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_treatment_is_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "treatments.md").read_text(encoding="utf-8")
    assert [name for name in names.TREATMENTS if f"| `{name}` |" not in page] == []
    assert [name for name in names.ALIASES if f"`{name}`" not in page] == []


def test_every_argument_of_a_treatment_is_documented():
    """The row of arguments names each with its default."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "treatments.md").read_text(encoding="utf-8")
    table = page[page.index("## Arguments, papers, when to use") : page.index("## What is refused")]
    for name in names.TREATMENTS:
        (row,) = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        stated = dict([*item.split("="), ""][:2] for item in row[1].split(", ") if item)
        wanted = inspect.signature(names.factory(name)).parameters
        assert list(stated) == list(wanted), name
        for key, text in stated.items():
            default = wanted[key].default
            assert (text == "") == (default is inspect.Parameter.empty), (name, key)
            if text:
                assert names._value(text, (float,)) == default, (name, key)
        assert row[3], name
