"""Profiles: a line about each user and item, from training events alone, and its vector.

The published profiles are written by a language model (gpt-3.5-turbo) from titles, descriptions and reviews. Here a template writes them,
or any callable that answers a prompt: what a gain of RLMRec owes to text has to be judged by the profiles that were used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cupel.encode import Encoder, encode_cached, load_encoder
from cupel.errors import InputError
from cupel.interactions.log import Log, by_user
from cupel.learners.recommenders.types import Known

Generator = Callable[[str], str]


class Profiles(NamedTuple):
    """A text per user and per item, "" where there is none; notes: what was counted."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    notes: tuple[str, ...] = ()


def template_profiles(
    train: Log, titles: Sequence[str], kinds: Sequence[Sequence[str]], *, who: str = "viewer", what: str = "films", shown: int = 6,
    seed: int = 0,
) -> Profiles:  # fmt: skip
    """Profiles by template: items as the log's texts have them (or their title and kinds), users by what they took in training.

    "A {who} who enjoys {kinds} {what} such as {titles}.": at most 4 kinds with a share above .05 of the user's, in the order of that share
    over the kind's share in the catalogue (at least .02); `shown` random titles (card 34-rlmrec). A user without events has no profile.
    InputError unless there are a title and kinds for each item.

    >>> log = Log.of([0, 0, 1], [0, 1, 2])
    >>> template_profiles(log, ["Heat", "Ronin", "Big"], [["Crime"], ["Crime"], ["Comedy"]]).users
    ('A viewer who enjoys Crime films such as Heat, Ronin.', 'A viewer who enjoys Comedy films such as Big.')
    """
    if {len(titles), len(kinds)} != {len(train.items)}:
        raise InputError(f"{len(train.items):,} items need a title and kinds each; given: {len(titles):,} and {len(kinds):,}")
    names = sorted({kind for each in kinds for kind in each})
    has = np.array([[name in each for name in names] for each in kinds], dtype=float).reshape(len(kinds), len(names))
    catalogue = np.maximum(has.sum(axis=0) / max(has.sum(), 1), 0.02)
    rng, rows, users = np.random.default_rng([seed, 34]), by_user(train, order="item"), []
    for u in range(len(rows)):
        items = np.unique(rows.of(u))
        if not len(items):
            users.append("")
            continue
        share = has[items].sum(axis=0) / max(has[items].sum(), 1)
        lift = np.where(share > 0.05, share / catalogue, 0)
        best = ", ".join(names[k] for k in np.argsort(-lift, kind="stable")[:4] if lift[k] > 0)
        some = ", ".join(titles[int(i)] for i in sorted(rng.permutation(items)[:shown]))
        users.append(f"A {who} who enjoys {best + ' ' if best else ''}{what} such as {some}.")
    made = train.texts or tuple(f"{title}. {', '.join(each)}." if each else f"{title}." for title, each in zip(titles, kinds, strict=True))
    return Profiles(tuple(users), made, (f"profiles by template: {sum(not x for x in users):,} users without events have none",))


def written_profiles(train: Log, texts: Sequence[str], generator: Generator, *, shown: int = 6, seed: int = 0) -> Profiles:
    """Profiles that `generator` writes: it is given a prompt and answers with a JSON object whose "summarization" is the profile.

    texts: what is known of each item (title, attributes, description). Item prompts hold that; user prompts hold a random sample of the
    user's training items, each with its text and the profile written for it. An answer that holds no such text is a missing profile and
    is counted. `remembered` keeps answers on disk.
    """
    if len(texts) != len(train.items):
        raise InputError(f"{len(train.items):,} items need a text each; given: {len(texts):,}")
    items = tuple(_summary(generator(ITEM_PROMPT.format(text=text))) if text else "" for text in texts)
    rng, rows, users = np.random.default_rng([seed, 34]), by_user(train, order="item"), []
    for u in range(len(rows)):
        some = sorted(rng.permutation(np.unique(rows.of(u)))[:shown])
        lines = "\n".join(f"- {texts[i]} ({items[i]})" if items[i] else f"- {texts[i]}" for i in some)
        users.append(_summary(generator(USER_PROMPT.format(lines=lines))) if len(some) else "")
    none = sum(not x for x in users), sum(not x for x in items)
    return Profiles(tuple(users), items, (f"profiles were not written for {none[0]:,} users and {none[1]:,} items",))


ITEM_PROMPT = """Say in at most 200 words what kind of people would enjoy this item.
{text}
Answer with JSON: {{"summarization": "...", "reasoning": "..."}}"""

USER_PROMPT = """A person chose these items:
{lines}
Say in at most 100 words what this person enjoys.
Answer with JSON: {{"summarization": "...", "reasoning": "..."}}"""


def _summary(answer: str) -> str:
    """The text under "summarization" of the JSON object in an answer; "" where there is none."""
    begin, end = answer.find("{"), answer.rfind("}")
    try:
        found = json.loads(answer[begin : end + 1]) if 0 <= begin < end else {}
    except ValueError:
        return ""
    text = found.get("summarization", "") if isinstance(found, dict) else ""
    return text.strip() if isinstance(text, str) else ""


def remembered(generator: Generator, directory: str | Path, name: str) -> Generator:
    """The generator with its answers kept as JSON under the hash of its name and the prompt: a prompt is answered once.

    name: of the model and its settings; another name asks again.

    >>> import tempfile
    >>> asked = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     twice = remembered(lambda prompt: (asked.append(prompt), "yes")[1], folder, "made-up")
    ...     twice("a"), twice("a"), len(asked)
    ('yes', 'yes', 1)
    """
    from cupel.records.files import write_json

    place = Path(directory)

    def ask(prompt: str) -> str:
        key = hashlib.sha256("\n".join((name, prompt)).encode()).hexdigest()
        path = place / f"{key[:32]}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))["answer"]
        answer = generator(prompt)
        write_json(path, {"name": name, "prompt": prompt, "answer": answer})
        return answer

    return ask


def profile_vectors(texts: Sequence[str], ids: Sequence[str], encoder: Encoder, *, cache: str | Path | None = None) -> np.ndarray:
    """Vectors of profiles, float32 [n, d], rows of zeros for missing ones ("").

    cache: folder of vectors, `default_cache_dir()` where None. InputError, with ids, where a text that is there gets a vector of zeros
    (no word the encoder knows) or of values that are not finite, and unless there is a text per id.
    """
    if len(texts) != len(ids):
        raise InputError(f"{len(ids):,} ids need a profile each; given: {len(texts):,}")
    out = np.zeros((len(texts), encoder.dim), np.float32)
    there = np.array([i for i, text in enumerate(texts) if text], dtype=np.int64)
    if len(there):
        out[there] = encode_cached(encoder, [texts[int(i)] for i in there], cache)
    norm = np.linalg.norm(out, axis=1)
    wrong = [i for i in there.tolist() if not (np.isfinite(norm[i]) and norm[i] > 0)]
    if wrong:
        some = ", ".join(str(ids[i]) for i in wrong[:5])
        raise InputError(
            f"{len(wrong):,} of {len(there):,} profiles have no vector, or one that is not finite (first ids: {some}): "
            f'change their text, say "" for no profile, or take another encoder'
        )
    return out


def known_with(profiles: Profiles, train: Log, *, encoder: str = "static", cache: str | Path | None = None) -> Known:
    """What a recommender with text may look at: the training log and the vectors of its profiles."""
    made = load_encoder(encoder)
    users = profile_vectors(profiles.users, train.users.tolist(), made, cache=cache)
    return Known(train, profile_vectors(profiles.items, train.items.tolist(), made, cache=cache), users)
