"""Log-probabilities of responses under a reference, on disk: computed once per response, by whichever run comes first.

    FOLDER / reference.json                         what they depend on, and the schema
    FOLDER / <32 digits of the SHA-256>.safetensors  keys uint8 [n, 32], logp float32 [n]; schema "token" also
                                                     n_tokens int64 [n], token_logp float32 [sum n_tokens]

A shard's name is the checksum of its bytes. A killed run leaves whole shards, and the next one computes what is missing; batches are a
function of the rows handed in, so a run that was killed and resumed leaves the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cupel.records.files import atomic_write, write_json
from cupel.scorers.check import quiet
from cupel.scorers.groups import Groups
from cupel.scorers.reference.key import CacheError, ReferenceKey, row_key
from cupel.scorers.scorer import Scorer
from cupel.scorers.scores import Scores

Schema = Literal["sum", "token"]
#: tokens of a prompt and of a response and, where not all of the response's tokens count, which do
Row = tuple[Sequence[int], Sequence[int]] | tuple[Sequence[int], Sequence[int], Sequence[bool] | None]
_Fixed = tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...] | None]
META = "reference.json"
_NAME = 32


class ReferenceCache:
    """Stored log-probabilities of one reference.

    folder  of one store; `ReferenceCache.under(root, key)` names it by the key's digest
    schema  "sum": one number per response; "token": one per token as well
    repair  set damaged shards aside, to be computed again by `fill`, instead of raising

    Raises CacheError where the folder holds scores of another reference or schema, or a shard does not match its checksum.
    """

    def __init__(self, folder: str | os.PathLike[str], key: ReferenceKey, schema: Schema = "sum", *, repair: bool = False) -> None:
        if schema not in ("sum", "token"):
            raise ValueError(f"schema is sum or token, not {schema!r}")
        self.folder, self.key, self.schema = Path(folder), key, schema
        self._check_meta()
        self._load(repair)

    @classmethod
    def under(cls, root: str | os.PathLike[str], key: ReferenceKey, schema: Schema = "sum", *, repair: bool = False) -> ReferenceCache:
        """The store of `key` below a common folder, made if it is not there."""
        return cls(Path(root) / f"{key.digest[:32]}-{schema}", key, schema, repair=repair)

    def __len__(self) -> int:
        """Number of stored responses."""
        return len(self._keys)

    def _check_meta(self) -> None:
        path = self.folder / META
        if not path.exists():
            if any(self.folder.glob("*.safetensors")):
                raise CacheError(f"{self.folder} holds scores but no {META}: nobody knows of which reference. Choose another folder")
            write_json(path, {"schema": self.schema, "key": asdict(self.key)})
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            there, schema = ReferenceKey(**stored["key"]), stored["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{path} cannot be read ({error}). Delete {self.folder} to compute the scores again") from error
        wrong = there.differences(self.key) + ([] if schema == self.schema else [f"schema: {schema} there, {self.schema} here"])
        if wrong:
            raise CacheError(
                f"the scores in {self.folder} are of another reference ({'; '.join(wrong)}). Use the model they were made with, or another "
                f"folder: ReferenceCache.under(root, key) names it by what the scores depend on"
            )

    def _load(self, repair: bool) -> None:
        keys, logp, lengths, tokens, bad = [], [], [], [], []
        for path in sorted(self.folder.glob("*.safetensors")):
            found = _read(path, self.schema)
            if isinstance(found, str):
                bad.append((path, found))
                continue
            keys.append(found["keys"].reshape(-1).view("S32"))
            logp.append(found["logp"])
            if self.schema == "token":
                lengths.append(found["n_tokens"])
                tokens.append(found["token_logp"])
        if bad and not repair:
            raise CacheError(
                f"{len(bad)} of {len(bad) + len(keys)} shards in {self.folder} are damaged (first: {bad[0][0].name}, {bad[0][1]}). Open "
                f"the cache with repair=True to set them aside and compute their responses again"
            )
        for path, _ in bad:
            os.replace(path, path.with_suffix(".damaged"))
        everything = np.concatenate(keys) if keys else np.zeros(0, dtype="S32")
        order = np.unique(everything, return_index=True)[1]
        self._keys = everything[order]
        self._logp = (np.concatenate(logp) if logp else np.zeros(0, dtype=np.float32))[order]
        if self.schema == "token":
            n = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64)
            self._begin, self._length = (np.cumsum(n) - n)[order], n[order]
            self._tokens = np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.float32)

    def _rows(self, keys: Sequence[bytes]) -> np.ndarray:
        """Row of each key, -1 where it is not stored."""
        wanted = np.array(keys, dtype="S32")
        at = np.searchsorted(self._keys, wanted)
        inside = at < len(self._keys)
        hit = np.zeros(len(wanted), dtype=bool)
        hit[inside] = self._keys[at[inside]] == wanted[inside]
        return np.where(hit, at, -1)

    def missing(self, rows: Sequence[Row], *, position: int = 0, truncation: str = "none") -> list[int]:
        """Indices of the (prompt, response) rows that are not stored."""
        keys = [row_key(*_fixed(row), position=position, truncation=truncation) for row in rows]
        return np.flatnonzero(self._rows(keys) < 0).tolist()

    def scores(self, groups: Groups, *, position: int = 0, truncation: str = "none") -> Scores:
        """Stored scores of a batch, on its device, without gradient. CacheError where a response is not stored."""
        keys = [row_key(*row, position=position, truncation=truncation) for row in _token_lists(groups)]
        at = self._rows(keys)
        absent = np.flatnonzero(at < 0)
        if len(absent):
            raise CacheError(
                f"{len(absent)} of {len(keys)} responses have no stored reference score (first: response {absent[0]} of the batch). "
                f"Compute them with ReferenceCache.fill on the same tokens and truncation {truncation!r}, or use a live reference"
            )
        device = groups.response_ids.device
        logp = torch.from_numpy(self._logp[at]).to(device)
        n_tokens = torch.tensor(groups.n_counted, device=device)
        if self.schema == "sum":
            return Scores(logp, n_tokens)
        tokens = np.concatenate([self._tokens[self._begin[i] : self._begin[i] + self._length[i]] for i in at])
        return Scores(logp, n_tokens, token_logp=torch.from_numpy(tokens).to(device))

    def fill(
        self, scorer: Scorer, rows: Sequence[Row], *, position: int = 0, truncation: str = "none", batch_tokens: int = 8192,
        shard: int = 1024, progress: Callable[[int, int], None] | None = None,
    ) -> int:  # fmt: skip
        """Compute and store what is missing of the (prompt, response) rows; returns the number of responses computed.

        The model runs in evaluation mode. Rows of one prompt are scored together; every `shard` responses are written at once, so a
        killed run loses at most those. progress is called as progress(done, total), in distinct responses. Raises CacheError where the
        scorer's model is not the reference of this store.
        """
        now = ReferenceKey.of(scorer.model, template=self.key.template, autocast=_autocast(scorer), version=self.key.version)
        if wrong := self.key.differences(now):
            raise CacheError(f"the model at hand is not the reference of {self.folder} ({'; '.join(wrong)})")
        by_prompt: dict[tuple[int, ...], dict[_Fixed, None]] = {}
        for row in rows:
            fixed = _fixed(row)
            by_prompt.setdefault(fixed[0], {})[fixed] = None
        flat = [row for responses in by_prompt.values() for row in responses]
        computed = 0
        for start in range(0, len(flat), shard):
            part = flat[start : start + shard]
            todo = [part[i] for i in self.missing(part, position=position, truncation=truncation)]
            if todo:
                self._write([row_key(*row, position=position, truncation=truncation) for row in todo], _score(scorer, todo, batch_tokens))
                computed += len(todo)
            if progress is not None:
                progress(min(start + shard, len(flat)), len(flat))
        self._load(repair=False)
        return computed

    def _write(self, keys: list[bytes], token_logp: list[np.ndarray]) -> None:
        from safetensors.numpy import save

        tensors = {
            "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 32),
            "logp": np.array([values.sum(dtype=np.float64) for values in token_logp], dtype=np.float32),
        }
        if self.schema == "token":
            tensors["n_tokens"] = np.array([len(values) for values in token_logp], dtype=np.int64)
            tensors["token_logp"] = np.concatenate(token_logp).astype(np.float32)
        data = save(tensors)
        with atomic_write(self.folder / f"{hashlib.sha256(data).hexdigest()[:_NAME]}.safetensors") as temporary:
            temporary.write_bytes(data)


def _read(path: Path, schema: str) -> dict[str, np.ndarray] | str:
    """The tensors of a shard, or what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:_NAME] != path.stem:
            return "its checksum does not match its name"
        found = load(data)
    except (OSError, SafetensorError) as error:
        return str(error)
    wanted = {"keys", "logp"} | ({"n_tokens", "token_logp"} if schema == "token" else set())
    if not wanted <= found.keys() or found["keys"].shape != (len(found["logp"]), 32):
        return f"it holds {sorted(found)}"
    return found


def _fixed(row: Row) -> _Fixed:
    """A row that can be hashed; marks that leave nothing out are none."""
    marks = row[2] if len(row) > 2 else None
    return tuple(row[0]), tuple(row[1]), None if marks is None or all(marks) else tuple(bool(x) for x in marks)


def _score(scorer: Scorer, rows: Sequence[_Fixed], batch_tokens: int) -> list[np.ndarray]:
    """float32 log-probabilities of each row's tokens."""
    device = next(scorer.model.parameters()).device
    out: list[np.ndarray] = []
    for batch in _batches(rows, batch_tokens):
        prompts: dict[tuple[int, ...], int] = {}
        responses = [(prompts.setdefault(prompt, len(prompts)), response) for prompt, response, _ in batch]
        groups = Groups.of(list(prompts), responses, counted=[marks for _, _, marks in batch])
        with quiet(scorer):
            values = scorer(groups.to(device), needs=("logp", "tokens")).token_logp
        assert values is not None
        out += np.split(values.float().cpu().numpy(), np.cumsum(groups.n_counted)[:-1])
    return out


def _batches(rows: Sequence[_Fixed], budget: int) -> Iterator[list[_Fixed]]:
    batch: list[_Fixed] = []
    used = 0
    for row in rows:
        prompt, response, _ = row
        size = len(response) + (0 if batch and batch[-1][0] == prompt else len(prompt))
        if batch and used + size > budget:
            yield batch
            batch, used, size = [], 0, len(prompt) + len(response)
        batch.append(row)
        used += size
    if batch:
        yield batch


def _token_lists(groups: Groups) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    prompts = np.split(groups.prompt_ids.cpu().numpy(), np.cumsum(groups.prompt_lengths)[:-1])
    ends = np.cumsum(groups.response_lengths)[:-1]
    responses = np.split(groups.response_ids.cpu().numpy(), ends)
    marks = [None] * groups.n_responses if groups.counted is None else np.split(groups.counted.cpu().numpy(), ends)
    return ((prompts[g], responses[n], marks[n]) for n, g in enumerate(groups.prompt_index))


def _autocast(scorer: Scorer) -> str:
    kind = next(scorer.model.parameters()).device.type
    return str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if torch.is_autocast_enabled(kind) else "off"
