"""Preferences that go round: i over j, j over k, k over i, within one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cupel.audit.checks._build import clean, found, not_applicable, percent
from cupel.audit.checks._circles import strongest_circles
from cupel.audit.checks._stats import Share, clustered_ratio
from cupel.audit.checks.context import Context
from cupel.audit.types import Finding, Scope
from cupel.records.keys import dense
from cupel.records.schema import Votes
from cupel.votes.intervals import wilson

NAME = "cycles"
SCOPE: Scope = "row"
COST = 1

_MIN_TRIADS = 30
#: circles of three that a finding lists
_LISTED = 20


@dataclass(frozen=True)
class Triads:
    """Per edge of a digraph, int64: `cyclic` 3-cycles and `triads` in all through it; `gain` = 3-cycles removed by turning it
    round.

    Sums over edges count each triad three times.
    """

    cyclic: np.ndarray
    triads: np.ndarray
    gain: np.ndarray


def cyclic_triads(winner: np.ndarray, loser: np.ndarray, n_nodes: int) -> Triads:
    """3-cycles through each edge winner -> loser (a graph with no edge in both directions, none twice).

    With the adjacency matrix M, (M M)[j, i] counts the paths j -> k -> i that close the edge i -> j to a cycle (their sum over
    edges is trace(M^3)), and (M M)[i, j] the triads that a reversal would close.

    >>> cyclic_triads(np.array([0, 1, 2]), np.array([1, 2, 0]), 3).cyclic.tolist()
    [1, 1, 1]
    """
    from scipy.sparse import csr_matrix

    edges: Any = csr_matrix((np.ones(len(winner), dtype=np.int64), (winner, loser)), shape=(n_nodes, n_nodes))
    undirected = edges + edges.T
    two = (edges @ edges).tocsr()
    paths = (undirected @ undirected).tocsr()
    if not len(winner):
        none = np.zeros(0, dtype=np.int64)
        return Triads(none, none, none)
    closing = np.asarray(two[loser, winner]).reshape(-1).astype(np.int64)
    opening = np.asarray(two[winner, loser]).reshape(-1).astype(np.int64)
    return Triads(closing, np.asarray(paths[winner, loser]).reshape(-1).astype(np.int64), closing - opening)


def zeta(cycles: int, n: int) -> float:
    """Coefficient of consistency of a complete tournament on n items, 1 - d / d_max (Kendall and Babington Smith 1940).

    d_max = (n^3 - n)/24 for odd n, (n^3 - 4n)/24 for even n; NaN below 3 items.

    >>> round(zeta(2, 5), 3)
    0.6
    """
    if n < 3:
        return float("nan")
    return 1 - cycles / ((n**3 - n) / 24 if n % 2 else (n**3 - 4 * n) / 24)


def hodge_cyclicity(i: np.ndarray, j: np.ndarray, wins_i: np.ndarray, wins_j: np.ndarray, n_nodes: int) -> tuple[np.ndarray, float]:
    """(scores [n_nodes], cyclicity in [0, 1]): share of the comparison flow that no ranking explains (HodgeRank, Jiang et al.
    2011).

    Minimises sum_e w_e (Y_e - (s_i - s_j))^2 with Y = log((wins_i + .5) / (wins_j + .5)) and w_e the comparisons on the edge;
    cyclicity is the residual energy over the total energy. Scores have mean 0 within each connected component.

    >>> s, c = hodge_cyclicity(np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([8, 8, 2]), np.array([2, 2, 8]), 3)
    >>> round(c, 3)
    1.0
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import lsqr

    flow = np.log((wins_i + 0.5) / (wins_j + 0.5))
    root = np.sqrt(wins_i + wins_j)
    m = len(i)
    rows = np.concatenate([np.arange(m), np.arange(m)])
    incidence = csr_matrix((np.concatenate([root, -root]), (rows, np.concatenate([i, j]))), shape=(m, n_nodes))
    scores = lsqr(incidence, root * flow, atol=1e-10, btol=1e-10, iter_lim=2000)[0]
    total = float(((root * flow) ** 2).sum())
    residual = float(((root * flow - incidence @ scores) ** 2).sum())
    return scores, residual / total if total > 0 else 0.0


def check(votes: Votes, context: Context) -> Finding:
    """Share of triads of responses (compared each with each under one prompt, majorities counted) whose preferences form a cycle.

    Coin flips make 1/4 of the triads cyclic, a ranking none. Finding when the lower 95 % end of the share (prompts as clusters) is
    above .05, a fifth of what coin flips give, from at least 30 triads; Severity: warning from .125, half way to coin flips, else
    info. Rows: votes in the direction of edges whose reversal would remove more cycles than it makes, the likeliest wrong ones *if*
    true preferences are transitive. `details["strongest"]` lists circles of three by their weakest margin (votes for minus votes
    against), with the id of a vote for each step; the report draws them.
    """
    shared = context.shared(votes)
    size = np.int64(shared.response_id.max(initial=0) + 1)
    use = np.flatnonzero(shared.decided)
    prompt = shared.prompt_id[shared.prompt[use]]
    side_a, side_b = (shared.response_id[side[use]] for side in (shared.first, shared.second))
    code = np.concatenate([prompt * size + side_a, prompt * size + side_b])
    node = dense(code)
    nodes = np.zeros(int(node.max(initial=-1)) + 1, dtype=np.int64)
    nodes[node] = code
    a, b = node[: len(use)], node[len(use) :]
    low, high = np.minimum(a, b), np.maximum(a, b)
    sign = np.where(a < b, votes.sign[use], -votes.sign[use]).astype(np.int64)
    edge = dense(low, high)
    n_edges = int(edge.max(initial=-1)) + 1
    up = np.bincount(edge[sign > 0], minlength=n_edges)
    down = np.bincount(edge[sign < 0], minlength=n_edges)
    i, j = np.zeros((2, n_edges), dtype=np.int64)
    i[edge], j[edge] = low, high
    strict = np.flatnonzero(up != down)
    winner = np.where(up[strict] > down[strict], i[strict], j[strict])
    loser = np.where(up[strict] > down[strict], j[strict], i[strict])
    triads = cyclic_triads(winner, loser, len(nodes))
    n_triads, n_cyclic = int(triads.triads.sum()) // 3, int(triads.cyclic.sum()) // 3
    if n_triads < _MIN_TRIADS:
        return not_applicable(
            NAME, SCOPE, f"{n_triads:,} triads of responses are compared each with each; a share needs {_MIN_TRIADS}", n_triads
        )
    # the share and its clusters, from edge sums: each prompt brings its own triads
    owner = nodes[winner] // size
    place = dense(owner)
    cyclic = np.bincount(place, weights=triads.cyclic) / 3
    whole = np.bincount(place, weights=triads.triads) / 3
    keep = whole > 0
    share = _share_of_triads(cyclic[keep], whole[keep])
    cyclicity = hodge_cyclicity(i, j, up, down, len(nodes))[1]
    details = {
        "cyclic_triads": n_cyclic,
        "triads": n_triads,
        "share": round(share.value, 6),
        "low": round(share.low, 6),
        "high": round(share.high, 6),
        "share_of_coin_flips": 0.25,
        "prompts": int(keep.sum()),
        "hodge_cyclicity": round(cyclicity, 6),
    }
    told = f"{n_cyclic:,} of {n_triads:,} triads of responses are cyclic ({percent(share.value)}; coin flips give 25 %)"
    if share.low <= 0.05:
        return clean(NAME, SCOPE, n_triads, told, details)
    at = np.full(n_edges, -1, dtype=np.int64)
    at[strict] = np.arange(len(strict))
    stated = np.where(sign == np.sign(up - down)[edge], at[edge], -1)  # the edge whose direction a vote states
    details["strongest"] = _strongest(votes, use, stated, winner, loser, np.abs(up - down)[strict])
    suspect = np.zeros(n_edges, dtype=np.int64)
    suspect[strict] = np.where(triads.gain > 0, np.where(up[strict] > down[strict], 1, -1), 0)
    rows = use[(suspect[edge] != 0) & (suspect[edge] == sign)]
    return found(
        votes,
        rows,
        name=NAME,
        scope=SCOPE,
        severity="warning" if share.value >= 0.125 else "info",
        message=told + f"; {len(rows):,} votes are in the direction of an edge whose reversal would remove more cycles than it makes",
        remedy="cupel review OUT",
        count=n_cyclic,
        n=n_triads,
        details=details,
    )


def _strongest(
    votes: Votes, use: np.ndarray, stated: np.ndarray, winner: np.ndarray, loser: np.ndarray, margin: np.ndarray
) -> list[dict[str, Any]]:
    """The strongest circles as `Cyclicity.recorded()` holds them, items numbered as they come, with the id of a vote for each step."""
    circles = strongest_circles(winner, loser, margin, _LISTED)
    kept = np.flatnonzero(np.isin(stated, circles))
    edges, where = np.unique(stated[kept], return_index=True)
    row = dict(zip(edges.tolist(), use[kept[where]].tolist(), strict=True))
    items: dict[int, int] = {}
    return [
        {
            "items": [items.setdefault(int(winner[e]), len(items)) for e in circle],
            "margins": (margins := [int(margin[e]) for e in circle]),
            "strength": min(margins),
            "votes": [votes.ids[row[e]].as_py() for e in circle],
        }
        for circle in circles.tolist()
    ]


def _share_of_triads(cyclic: np.ndarray, triads: np.ndarray) -> Share:
    """Cyclic share with its interval over prompts; of a single prompt, from the number of its independent comparisons."""
    if len(triads) > 1:
        return clustered_ratio(cyclic, triads)
    # triads share edges: m items have m (m - 1) / 2 independent comparisons and m (m - 1)(m - 2) / 6 triads
    n = float(triads.sum())
    items = (6 * n) ** (1 / 3) + 1
    effective = min(n, items * (items - 1) / 2)
    share = float(cyclic.sum()) / n
    return Share(share, *wilson(share * effective, effective), int(n), 1)
