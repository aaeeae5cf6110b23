"""The Ray adapter gives what the same functions give in one process; runs where ray is installed (`pip install .[ray]`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cupel.errors import EncoderError, InputError

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install cupel[ray]"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

TEXTS = [f"argument {i}: plastic bottles number {i * 7 % 13} should {'not ' * (i % 2)}be banned" for i in range(600)]
TEXTS += ["", "e\u0301 \U0001f600"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100_000_000)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def test_vectors_have_the_bytes_of_one_process(ray: Any) -> None:
    from cupel.adapters.ray import encode
    from cupel.encode import load_encoder

    dataset = ray.data.from_items([{"row": i, "text": text} for i, text in enumerate(TEXTS)]).repartition(5)
    rows = sorted(encode(dataset, "text", batch=100).take_all(), key=lambda row: row["row"])
    assert [row["text"] for row in rows] == TEXTS
    assert np.stack([row["vector"] for row in rows]).tobytes() == load_encoder("static").encode(TEXTS).tobytes()


def test_refusals(ray: Any) -> None:
    from cupel.adapters.ray import encode

    dataset = ray.data.from_items([{"text": "a", "vector": 1}])
    with pytest.raises(InputError, match=r"no column 'texts'; its columns: text, vector"):
        encode(dataset, "texts")
    with pytest.raises(InputError, match="already"):
        encode(dataset, "text")
    with pytest.raises(EncoderError, match="does not exist"):
        encode(dataset, "text", into="v", encoder="./nowhere")


def test_near_duplicates_are_those_of_one_process(ray: Any) -> None:
    import pyarrow as pa

    from cupel.adapters.ray import near_duplicates
    from cupel.records.near_duplicates import near_duplicates as search

    texts = [f"{text} because nobody needs them and tap water is as good as any other water" for text in TEXTS]
    here = search(pa.array(texts), at_least=0.7)
    there = near_duplicates(ray.data.from_items([{"text": text} for text in texts]).repartition(7), "text", at_least=0.7)
    assert len(here.pairs) > 50
    assert here.cluster.tolist() == there.cluster.tolist()
    assert here.pairs.tolist() == there.pairs.tolist()
    assert here.similarity.tolist() == there.similarity.tolist()
