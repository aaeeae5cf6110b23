"""Newton's method on a design: a dense Hessian for few items, conjugate gradients for many.

The problem is convex, so a step that is shortened until the value falls enough (Armijo) always arrives, usually in five to eight
iterations; the time of one depends on cells and items, not on votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cupel.votes.ranking.design import Design

#: more parameters are solved iteratively, without forming the Hessian
DENSE_SIZE = 500


@dataclass(frozen=True)
class Optimum:
    """Where Newton stopped: parameters z, value, gradient, whether it arrived, after how many iterations, and the last step's size."""

    z: np.ndarray
    value: float
    gradient: np.ndarray
    converged: bool
    iterations: int
    step: float


def minimise(design: Design, *, tolerance: float = 1e-12, max_iterations: int = 100, start: np.ndarray | None = None) -> Optimum:
    """Parameters at which the penalised negative log likelihood of the design is least.

    Stops when the largest gradient entry is at most `tolerance` times the mean weight per item, or when a full step moves no parameter by
    more than 1e-11 or the value by more than rounding. `converged` says that the gradient is within 1e-8 of that mean weight
    (or within the tolerance asked for), and that the last step was small.
    """
    z = design.centred(design.start() if start is None else start.astype(np.float64))
    value, gradient = design.value(z), design.gradient(z)
    weight = float(design.win.sum() + design.loss.sum() + design.tie.sum())
    scale = max(2 * weight / max(design.n_items, 1), np.finfo(float).tiny)
    iterations, moved = 0, np.inf
    while np.abs(gradient).max(initial=0.0) > tolerance * scale and iterations < max_iterations:
        iterations += 1
        step = newton_step(design, z, gradient)
        slope = float(step @ gradient)
        rounding = 4e-16 * (abs(value) + weight)
        length, new_z, new_value = 1.0, z, value
        for _ in range(50):
            new_z = design.centred(z + length * step)
            new_value = design.value(new_z)
            if new_value <= value + 1e-4 * length * slope + rounding:
                break
            length *= 0.5
        else:
            break
        moved = float(np.abs(new_z - z).max(initial=0.0))
        z, value, gradient = new_z, new_value, design.gradient(new_z)
        if moved <= 1e-11 * (1 + np.abs(z).max(initial=0.0)):
            break
    size = float(np.abs(gradient).max(initial=0.0))
    arrived = size <= max(10 * tolerance, 1e-8) * scale and (moved <= 1e-2 or iterations == 0)
    return Optimum(z, value, gradient, bool(arrived), iterations, 0.0 if iterations == 0 else moved)


def newton_step(design: Design, z: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """-(Hessian of the penalised value)^-1 gradient, in the directions that the data determine."""
    if design.size <= DENSE_SIZE:
        return -np.linalg.solve(bread(design, z), gradient)
    return _conjugate(design, z, gradient)


def hessian(design: Design, z: np.ndarray) -> np.ndarray:
    """Second derivatives of the penalised negative log likelihood at z, [parameters, parameters]."""
    out = design.dense(*design.curvature(z))
    out[np.arange(design.size), np.arange(design.size)] += design.ridge
    return out


def bread(design: Design, z: np.ndarray) -> np.ndarray:
    """The Hessian made invertible by curvature along the shifts that no comparison determines."""
    found = hessian(design, z)
    return found + typical_curvature(found, design) * design.shifts


def typical_curvature(found: np.ndarray, design: Design) -> float:
    """Mean curvature of a strength: what shifts are given, which keeps the matrix well conditioned."""
    return float(np.mean(np.diag(found)[: design.n_items]))


def _conjugate(design: Design, z: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Conjugate gradients with the diagonal as preconditioner; shifts that nothing determines stay where they are."""
    from scipy.sparse.linalg import LinearOperator, cg

    dd, dt, tt = (np.broadcast_to(x, len(design.first)) for x in design.curvature(z))
    matrix, learned, end = design.incidence, design.model.learned, design.n_items + design.n_controls
    turned = matrix.T.tocsr()

    def product(v: np.ndarray) -> np.ndarray:
        v = v.reshape(-1)
        move = matrix @ v[:end]
        pull = dd * move + dt * v[-1] if learned else dd * move
        out = turned @ pull
        if learned:
            out = np.append(out, dt @ move + tt.sum() * v[-1])
        return out + design.ridge * v

    squared = matrix.copy()
    squared.data = squared.data**2
    diagonal = squared.T @ dd
    diagonal = (np.append(diagonal, tt.sum()) if learned else diagonal) + design.ridge
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    shape, kind = (design.size, design.size), np.dtype(np.float64)
    operator = LinearOperator(shape, matvec=product, dtype=kind)  # type: ignore[call-arg]
    inverse = LinearOperator(shape, matvec=lambda v: v.reshape(-1) / diagonal, dtype=kind)  # type: ignore[call-arg]
    size = float(np.linalg.norm(gradient)) / max(float(design.win.sum() + design.loss.sum() + design.tie.sum()), 1e-300)
    step, _ = cg(operator, -gradient, rtol=float(min(0.01, max(1e-10, np.sqrt(size) * 0.1))), M=inverse, maxiter=2000)
    return step
