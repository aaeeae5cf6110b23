"""crowd-kit's consensus labels for votes that `consensus.py` wrote: run by it, in an interpreter that has crowd-kit (needs no cupel).

    python consensus_crowdkit.py FOLDER CELLS OUT
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path

#: MACE's restarts all use one seed and so are identical: one of them gives the same labels at a tenth of the time
SETTINGS = {"MACE": {"n_restarts": 1}}
MODELS = ("MajorityVote", "DawidSkene", "OneCoinDawidSkene", "GLAD", "MACE", "Wawa", "ZeroBasedSkill")


def main(folder: str, cells: str, out: str) -> int:
    try:
        import crowdkit.aggregation as models
        import pandas as pd
    except ImportError as error:
        note = {"missing": f"crowd-kit could not be imported: {error}. Install crowd-kit and pandas, or name an interpreter that has them"}
        print(note["missing"], file=sys.stderr)
        Path(out).write_text(json.dumps({"cells": [{} for _ in range(int(cells))], "note": note}))
        return 0
    versions = {package: importlib.metadata.version(package) for package in ("crowd-kit", "pandas", "numpy", "scikit-learn")}
    found, failed = [], {}
    for i in range(int(cells)):
        votes = pd.read_parquet(Path(folder) / f"{i}.parquet")
        items = range(int(votes["task"].max()) + 1)
        here = {}
        for name in MODELS:
            if name in failed:
                continue
            began = time.process_time()
            try:
                labels = getattr(models, name)(**SETTINGS.get(name, {})).fit_predict(votes)
            except Exception as error:  # a model that fails is left out and named in the result
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            here[name] = ([None if v != v else float(v) for v in labels.reindex(items)], time.process_time() - began)
        found.append(here)
        print(i, {name: round(s, 2) for name, (_, s) in here.items()}, file=sys.stderr, flush=True)
    for here in found:  # a model counts only where it worked on every cell
        for name in failed:
            here.pop(name, None)
    Path(out).write_text(json.dumps({"cells": found, "note": {"versions": versions, "failed": failed, "models": MODELS}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
