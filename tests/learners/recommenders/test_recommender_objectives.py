"""Which objectives the models of sequences take, as the page on them says: all that their sides carry, and each of them trains."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cupel.errors import InputError
from cupel.interactions.log import Log
from cupel.learners.recommenders.fit import check_fit, fit
from cupel.learners.recommenders.options import RecommenderOptions
from cupel.learners.recommenders.records import form_of
from cupel.learners.recommenders.types import Known
from cupel.noise.names import parse as treatment
from cupel.objectives.names import available, parse

PAGE = Path(__file__).resolve().parents[3] / "docs" / "generative-recommenders.md"
SMALL = {
    "sasrec": "sasrec:dim=4,heads=1,layers=1,length=4",
    "tiger": "tiger:dim=4,heads=1,layers=1,encoder_layers=1,width=4,codes=3,last=9,levels=2",
    "mender": "mender:dim=4,heads=1,layers=1,width=4,codes=3,last=9,levels=2,inputs=6",
}


def table() -> dict[str, dict[str, str]]:
    """{model: {objective: records}} as the page has it."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (pairs|single items) \| (yes)?[^|]*\| (yes)?[^|]*\|$", text, re.MULTILINE)
    found: dict[str, dict[str, str]] = {name: {} for name in SMALL}
    for names, records, one, others in rows:
        for name in re.findall(r"`(\w+)`", names):
            for model in [*(["sasrec"] if one else []), *(["tiger", "mender"] if others else [])]:
                found[model][name] = records.split(" ")[0]
    return found


@pytest.fixture(scope="module")
def known() -> Known:
    rng = np.random.default_rng(0)
    item = np.concatenate([rng.permutation(9)[:4] for _ in range(4)])
    log = Log.of([f"u{k}" for k in np.repeat(np.arange(4), 4)], [f"i{k}" for k in item], time=np.tile(np.arange(4), 4))
    vectors = [rng.normal(size=(n, 6)).astype(np.float32) for n in (len(log.items), len(log), 4)]
    return Known(log, item_vectors=vectors[0], event_vectors=vectors[1], user_vectors=vectors[2])


@pytest.mark.parametrize("model", sorted(SMALL))
def test_the_page_names_what_fits_and_nothing_else(model: str) -> None:
    found = {}
    for name in available():
        objective, options = parse(name), RecommenderOptions(model=SMALL[model], objective=name)
        try:
            check_fit(objective, treatment("identity"), options)
        except InputError:
            continue
        found[name] = form_of(options, objective)
    assert found == table()[model]


@pytest.mark.parametrize(
    ("model", "names"), [("sasrec", ("davidson", "bpo")), ("tiger", ("simpo", "sft")), ("mender", ("orpo", "squared_score"))]
)
def test_objectives_of_every_row_train(model: str, names: tuple[str, ...], known: Known) -> None:
    for name in names:
        assert name in table()[model]
        found = fit(known, parse(name), treatment("identity"), RecommenderOptions(model=SMALL[model], objective=name, epochs=1))
        assert np.isfinite(found.epochs[0]["loss"])
