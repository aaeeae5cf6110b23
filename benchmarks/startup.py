"""What a user waits for before any work: `import cupel`, `cupel --help`, and the base installation (seconds and megabytes).

    python benchmarks/startup.py [--runs 20] [--no-install]

Times are medians of fresh processes, with the process's own start subtracted for the import (`python -c pass` is timed beside it).
The installation is a plain `pip install -c constraints.txt .` into a new environment; its seconds depend on the network and on the
cache of pip, so they are stated and not judged.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import HERE, arguments, stopwatch, write_result

ROOT = HERE.parent
HEAVY = ("torch", "transformers", "pandas", "polars", "matplotlib")


def seconds_of(command: list[str], runs: int) -> np.ndarray:
    """Seconds of each of `runs` fresh processes, after one that warms the file cache."""
    taken = []
    for _ in range(runs + 1):
        with stopwatch() as clock:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(clock[0])
    return np.array(taken[1:])


def median_interval(values: np.ndarray, seed: int = 0, draws: int = 2000) -> list[float]:
    """95 % percentile bootstrap interval of the median."""
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(values, size=(draws, len(values))), axis=1)
    return [round(float(end), 4) for end in np.quantile(medians, [0.025, 0.975])]


def install(directory: Path) -> tuple[float, float, list[str]]:
    """(seconds, megabytes of site-packages, heavy packages found) of a base installation into a new environment."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", "."]
    with stopwatch() as clock:
        subprocess.run(pip, check=True, cwd=ROOT)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6
    probe = f"import importlib.util as u; print(*[n for n in {HEAVY!r} if u.find_spec(n)])"
    found = subprocess.run([python, "-c", probe], check=True, capture_output=True, text=True, cwd=directory).stdout.split()
    return clock[0], size, found


def main() -> None:
    """Measure and write the claims."""
    parser = arguments(__doc__, data=False)
    parser.add_argument("--runs", type=int, default=20, help="processes per median")
    parser.add_argument("--no-install", action="store_true", help="skip the installation into a new environment")
    args = parser.parse_args()
    empty = seconds_of([sys.executable, "-c", "pass"], args.runs)
    imported = seconds_of([sys.executable, "-c", "import cupel"], args.runs)
    own = imported - np.median(empty)
    shown = seconds_of([str(Path(sys.executable).parent / "cupel"), "--help"], args.runs)
    claims = [
        {
            "claim": "import cupel, seconds beyond an empty Python",
            "target": "< 0.1",
            "measured": round(float(np.median(own)), 4),
            "interval": median_interval(own),
            "passed": np.median(own) < 0.1,
        },
        {
            "claim": "cupel --help, seconds from start to end",
            "target": "< 0.5",
            "measured": round(float(np.median(shown)), 4),
            "interval": median_interval(shown),
            "passed": np.median(shown) < 0.5,
        },
    ]
    if not args.no_install:
        with tempfile.TemporaryDirectory() as directory:
            seconds, megabytes, heavy = install(Path(directory) / "venv")
        claims.append(
            {
                "claim": "base installation into an empty environment, pip itself included",
                "target": "megabytes <= 600; none of " + ", ".join(HEAVY),
                "measured": {"megabytes": round(megabytes), "seconds": round(seconds)},
                "n": 1,
                "passed": megabytes <= 600 and not heavy,
            }
        )
    write_result("startup", claims, n=args.runs, seeds=[0], command="python benchmarks/startup.py")


if __name__ == "__main__":
    main()
