"""The transformers backend: sentence-transformers and plain transformers folders, on any torch device. Needs `cupel[train]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cupel.encode.base import Progress, check_texts, encoder_hash, hash_files
from cupel.errors import EncoderError

_TOKENS_PER_BATCH = 8192  # padded tokens in one forward pass
_NO_WINDOW = 1 << 20


class TransformerEncoder:
    """Vectors of a transformers encoder: mean (or first) position of the last layer over the attention mask, normalised.

    Pooling and window are read from sentence-transformers' files where the folder has them; else mean pooling and the model's own
    window. Texts are sorted by length and padded on the right, whatever side the tokenizer prefers; a vector does not depend on its
    batch (within 1e-5). Longer texts are cut at `window` tokens; `token_counts` counts without the window. Nothing is
    downloaded and no code from the folder is run; weights must be safetensors.

    device: a torch device, as "cpu", "cuda", "cuda:1", "mps".
    """

    shard = 512

    def __init__(self, folder: Path, name: str, device: str = "cpu") -> None:
        torch, transformers = _import_backend(name)
        try:
            self._device = torch.device(device)
            self.pooling = _pooling(folder)
            before = transformers.utils.logging.get_verbosity()
            bars = transformers.utils.logging.is_progress_bar_enabled()
            transformers.utils.logging.set_verbosity_error()
            transformers.utils.logging.disable_progress_bar()
            try:
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
                model: Any = transformers.AutoModel.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
            finally:
                transformers.utils.logging.set_verbosity(before)
                if bars:
                    transformers.utils.logging.enable_progress_bar()
            self._model = model.eval().to(self._device)
        except EncoderError:
            raise
        except Exception as error:  # the libraries raise whatever their parts raise
            first = (str(error).splitlines() or [""])[0]
            raise EncoderError(
                f"{folder} on device {device!r} cannot be loaded by transformers ({type(error).__name__}: {first})"
            ) from error
        self.name = name
        self.window = _window(folder, self._model.config, self._tokenizer)
        self.dim = int(self._model.config.hidden_size)
        used = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in {".json", ".safetensors", ".txt", ".model"}
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        how = f"transformer, {self.pooling} pooling, window {self.window}, normalised, {self._device.type}, 1"
        self.hash = encoder_hash(how, hash_files(folder, used))

    def __repr__(self) -> str:
        return f"TransformerEncoder({self.name!r}, dim={self.dim}, window={self.window}, hash={self.hash[:12]})"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, dim]: one vector of length 1 per text. Raises EncoderError where a text is not valid Unicode."""
        import torch

        check_texts(texts)
        ids = self._ids(texts, self.window)
        order = np.argsort([-len(row) for row in ids], kind="stable")
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        done = 0
        while done < len(order):
            longest = max(len(ids[order[done]]), 1)
            rows = order[done : done + max(1, _TOKENS_PER_BATCH // longest)]
            with torch.inference_mode():
                out[rows] = self._forward([ids[row] for row in rows], longest)
            done += len(rows)
            if progress is not None:
                progress(done, len(order))
        return out

    def token_counts(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: tokens per text, without special tokens and without the window."""
        check_texts(texts)
        return np.array([len(row) for row in self._ids(texts, None)], dtype=np.int64)

    def _ids(self, texts: Sequence[str], window: int | None) -> list[list[int]]:
        if not len(texts):
            return []
        return self._tokenizer(
            list(texts), add_special_tokens=window is not None, truncation=window is not None, max_length=window, padding=False,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )["input_ids"]  # fmt: skip

    def _forward(self, ids: list[list[int]], longest: int) -> np.ndarray:
        import torch

        padding = self._tokenizer.pad_token_id or 0
        padded = torch.tensor([row + [padding] * (longest - len(row)) for row in ids], device=self._device)  # [b, t]
        lengths = torch.tensor([len(row) for row in ids], device=self._device)
        mask = (torch.arange(longest, device=self._device)[None] < lengths[:, None]).long()  # [b, t]
        hidden = self._model(input_ids=padded, attention_mask=mask).last_hidden_state  # [b, t, d]
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * mask[..., None]).sum(dim=1) / lengths.clamp(min=1)[:, None]
        pooled = pooled * (lengths > 0)[:, None]  # a text without any token is the zero vector
        return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()


def _import_backend(name: str) -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise EncoderError(
            f"encoder {name!r} needs torch and transformers ({error.name} is missing). Run: python -m pip install 'cupel[train]'   "
            "or use the embedded encoder: --encoder static"
        ) from error
    return torch, transformers


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _pooling(folder: Path) -> str:
    """How positions are pooled, mean or cls, from sentence-transformers' files if there are any; EncoderError for other modules."""
    for module in _read_json(folder / "modules.json") or []:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind not in {"Transformer", "Pooling", "Normalize"}:
            raise EncoderError(
                f"{folder} has a {kind} module, which cupel does not compute. Choose a model of Transformer, Pooling and Normalize."
            )
    settings = _read_json(folder / "1_Pooling" / "config.json") or {}
    chosen = sorted(
        key.removeprefix("pooling_mode_") for key, value in settings.items() if key.startswith("pooling_mode_") and value is True
    )
    if isinstance(settings.get("pooling_mode"), str):
        chosen = [settings["pooling_mode"]]
    known = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if not chosen:
        return "mean"
    if len(chosen) > 1 or chosen[0] not in known:
        raise EncoderError(f"{folder} pools by {', '.join(chosen)}; cupel computes mean or cls pooling.")
    return known[chosen[0]]


def _window(folder: Path, config: Any, tokenizer: Any) -> int | None:
    """Tokens (special ones included) that the model reads of a text: the least of what its files state."""
    stated = [
        (_read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length"),
        getattr(config, "max_position_embeddings", None),
        tokenizer.model_max_length,
    ]
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert", "mpnet"} and stated[1]:
        stated[1] -= 2  # these count positions from the padding index on
    return min((int(size) for size in stated if isinstance(size, int) and 0 < size < _NO_WINDOW), default=None) or 512
