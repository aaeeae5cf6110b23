"""A small ridge-logistic fit without intercept: how much to believe content, graph and other people's votes."""

from __future__ import annotations

import numpy as np


def fit_logits(x: np.ndarray, p: np.ndarray, w: np.ndarray, ridge: float = 1.0) -> tuple[np.ndarray, float]:
    """(coefficients [k], mean log loss) of sigmoid(x b) for targets p in [0, 1], weights w; the ridge acts on columns of unit size.

    minimise  sum w [softplus(x b) - p x b] + ridge/2 sum (size_k b_k)^2,  by Newton's method with halving. x float64 [n, k], few columns.

    >>> x = np.array([[1.0], [1.0], [-1.0], [1.0]])
    >>> b, loss = fit_logits(x, np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4), ridge=1e-9)
    >>> round(float(b[0]), 3)  # three of four agree: log(3)
    1.099
    """
    total = max(float(w.sum()), 1e-12)
    size = np.sqrt(np.maximum((w @ x**2) / total, 0.0))
    scale = np.where(size > 1e-12, size, np.inf)
    z = x / scale
    b = np.zeros(x.shape[1])

    def value(b: np.ndarray) -> float:
        margin = z @ b
        return float(w @ (np.logaddexp(0, margin) - p * margin) + ridge / 2 * b @ b)

    current = value(b)
    for _ in range(50):
        prob = 0.5 * (1 + np.tanh(0.5 * (z @ b)))
        gradient = z.T @ (w * (prob - p)) + ridge * b
        hessian = (z * (w * prob * (1 - prob))[:, None]).T @ z + ridge * np.eye(len(b))
        step = np.linalg.solve(hessian, gradient)
        length, new = 1.0, value(b - step)
        while new > current + 1e-12 * abs(current) and length > 1e-6:
            length /= 2
            new = value(b - length * step)
        if length <= 1e-6:
            break
        b = b - length * step
        if current - new <= 1e-10 * (1 + abs(current)):
            break
        current = new
    margin = z @ b
    return b / scale, float(w @ (np.logaddexp(0, margin) - p * margin)) / total
