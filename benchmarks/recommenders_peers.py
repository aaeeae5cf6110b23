"""One model of `implicit` or `cornac` on pairs from a file; run by the interpreter of an environment that has them, not by cupel's.

python benchmarks/recommenders_peers.py PAIRS.npz NAME SETTINGS_JSON SCORES.npy
"""

from __future__ import annotations

import json
import sys

import numpy as np


def scores_of(name: str, settings: dict, user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scores of all users and items."""
    if name.startswith("implicit"):
        from implicit.als import AlternatingLeastSquares
        from implicit.bpr import BayesianPersonalizedRanking
        from scipy.sparse import csr_matrix

        made = AlternatingLeastSquares if "ALS" in name else BayesianPersonalizedRanking
        model = made(**settings, random_state=0, num_threads=1)
        model.fit(csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape), show_progress=False)
        return model.user_factors @ model.item_factors.T
    from cornac.data import Dataset
    from cornac.models import BPR

    data = Dataset.from_uir([(str(u), str(i), 1.0) for u, i in zip(user, item, strict=True)])
    model = BPR(**settings, seed=0, num_threads=1, verbose=False).fit(data)
    out = np.full(shape, -1e9)
    inside = np.array([int(i) for i in data.item_ids])
    for place, u in enumerate(data.user_ids):
        out[int(u), inside] = model.score(place)
    return out


if __name__ == "__main__":
    pairs, name, settings, target = sys.argv[1:]
    held = np.load(pairs)
    np.save(target, scores_of(name, json.loads(settings), held["user"], held["item"], tuple(held["shape"])).astype(np.float32))
