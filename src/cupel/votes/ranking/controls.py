"""Features of two answers as a control of a ranking: the normalised difference of style control."""

from __future__ import annotations

import numpy as np

from cupel.errors import InputError


def style_difference(first: np.ndarray, second: np.ndarray, *, centre: bool = True) -> np.ndarray:
    """Difference of a count feature of two answers in standard deviations: float64 [n] or [n, p], for `count_votes(controls=...)`.

    x = (f - g) / (f + g + 1), then divided by its standard deviation over the votes, after its mean is taken out (centre=True, as
    public arenas do: an effect of the side shown first then goes into the items). With centre=False it is divided by its root mean square,
    and swapping sides turns its sign exactly; a slot effect takes the side. Search Arena (Miroyan et al. 2025), style control of LMArena.

    first, second: what was counted in each answer (tokens, headers, citations), >= 0, floats kept as floats. InputError where a value
    is negative or not finite, or a feature does not vary.

    >>> style_difference(np.array([4, 10, 0, 7, 3]), np.array([6, 2, 5, 7, 0])).round(4).tolist()
    [-0.4392, 0.951, -1.5754, -0.1222, 1.1857]
    """
    f, g = (np.asarray(x, dtype=np.float64) for x in (first, second))
    if f.shape != g.shape or f.ndim not in (1, 2) or not len(f):
        raise InputError(f"features of both answers need one shape, [n] or [n, p] with n > 0, not {f.shape} and {g.shape}")
    bad = np.asarray(~(np.isfinite(f) & np.isfinite(g) & (f >= 0) & (g >= 0)).reshape(len(f), -1).all(axis=1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{int(bad.sum()):,} of {len(bad):,} votes have a feature that is negative or not finite (first: row {row})")
    x = (f - g) / (f + g + 1)
    if centre:
        x = x - x.mean(axis=0)
    scale = np.sqrt((x * x).mean(axis=0))
    if (flat := np.flatnonzero(np.atleast_1d(scale) < 1e-12)).size:
        raise InputError(f"feature {int(flat[0])} differs in no vote, or always by the same: it controls for nothing; leave it out")
    return x / scale
