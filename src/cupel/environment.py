"""Facts about the installation: versions, encoder, cache, devices."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "scipy", "scikit-learn", "pyarrow", "tokenizers", "model2vec", "safetensors")
_OPTIONAL = ("torch", "transformers", "datasets", "pandas")


def versions() -> dict[str, str]:
    """Versions of cupel, Python and the packages whose arithmetic enters a result.

    >>> "cupel" in versions()
    True
    """
    from cupel import __version__

    found = {"cupel": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = metadata.version(name)
    return found


def diagnose(encoder: str = "static", *, device: str = "cpu", allow_download: bool = False) -> dict[str, Any]:
    """What `cupel doctor` prints."""
    from cupel.encode import load_encoder
    from cupel.encode.cache import default_cache_dir
    from cupel.encode.describe import describe

    optional: dict[str, str] = {}
    for name in _OPTIONAL:
        try:
            optional[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            optional[name] = "not installed"
    cache = Path(default_cache_dir())
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    return {
        "versions": versions(),
        "optional": optional,
        "encoder": asdict(describe(load_encoder(encoder, device=device, allow_download=allow_download))),
        "cache": {"folder": str(cache), "megabytes": round(size / 1e6, 1)},
        "devices": {"cpu_threads": os.cpu_count() or 1, "cuda": _cuda()},
    }


def _cuda() -> str:
    try:
        import torch
    except ImportError:
        return "not known: torch is not installed"
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
