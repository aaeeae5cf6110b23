"""Covariances of fitted parameters: from the curvature alone, robust to a wrong model, robust to clusters.

With H the penalised Hessian at the optimum and B the summed outer products of the scores of single votes,

    Fisher    H^+                      right only if the model is; with ties as half wins it is too wide
    sandwich  H^+ B H^+                Huber 1967; White 1982
    cluster   H^+ C H^+,   C = G / (G - 1) sum_g s_g s_g'   with s_g the summed score of cluster g   (Liang & Zeger 1986)

and for two clusterings V_1 + V_2 - V_12 (Cameron, Gelbach & Miller 2011), negative eigenvalues set to 0. H^+ leaves out the shift of
all strengths of a component, which no comparison determines.
"""

from __future__ import annotations

import numpy as np

from cupel.errors import InputError
from cupel.votes.ranking.cells import Cells
from cupel.votes.ranking.design import Design
from cupel.votes.ranking.newton import hessian, typical_curvature


def covariance(design: Design, z: np.ndarray, kind: str, cells: Cells) -> np.ndarray:
    """Covariance [parameters, parameters] of kind "fisher", "sandwich" or "cluster"."""
    curvature = hessian(design, z)
    weight = typical_curvature(curvature, design)
    inverse = np.linalg.inv(curvature + weight * design.shifts) - design.shifts / weight
    if kind == "fisher":
        return (inverse + inverse.T) / 2
    if kind == "sandwich":
        middle = design.dense(*design.slope_products(z))
        return _symmetric(inverse @ middle @ inverse)
    if cells.cluster is None:
        raise InputError('clustered intervals need counts that carry a cluster: count_votes(..., cluster=...); or intervals="sandwich"')
    columns = [cells.cluster[:, k] for k in range(cells.cluster.shape[1])]
    if len(columns) == 2:
        both = np.unique(cells.cluster, axis=0, return_inverse=True)[1].reshape(-1)
        one, two, joint = (_symmetric(inverse @ _middle(design, z, cells, c) @ inverse) for c in (*columns, both))
        values, vectors = np.linalg.eigh(one + two - joint)
        return _symmetric((vectors * np.maximum(values, 0)) @ vectors.T)
    return _symmetric(inverse @ _middle(design, z, cells, columns[0]) @ inverse)


def n_clusters(cells: Cells) -> int:
    """The smaller number of distinct clusters, over the cluster columns."""
    return 0 if cells.cluster is None else min(len(np.unique(column)) for column in cells.cluster.T)


def _middle(design: Design, z: np.ndarray, cells: Cells, cluster: np.ndarray) -> np.ndarray:
    """G / (G - 1) sum_g s_g s_g'."""
    from scipy.sparse import coo_array, diags_array, hstack

    by_d, by_tau = design.model.slopes(design.margin(z), design.threshold(z))
    pull = sum(cells.fine_votes[:, k] * np.broadcast_to(by_d[k], len(design.first))[cells.index] for k in range(3))
    label = np.unique(cluster, return_inverse=True)[1].reshape(-1)
    size = int(label.max(initial=-1)) + 1
    if size < 2:
        raise InputError("clustered intervals need at least two clusters among the votes that are fitted; nothing says how clusters differ")
    member = coo_array((np.ones(len(label)), (label, np.arange(len(label)))), shape=(size, len(label))).tocsr()
    score = member @ (diags_array(np.asarray(pull)) @ design.incidence[cells.index])
    if design.model.learned:
        turn = sum(cells.fine_votes[:, k] * np.broadcast_to(by_tau[k], len(design.first))[cells.index] for k in range(3))
        score = hstack([score, coo_array((member @ np.asarray(turn))[:, None])], format="csr")
    return (score.T @ score).toarray() * (size / (size - 1))


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
