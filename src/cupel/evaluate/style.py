"""How far a score, and the labels it is judged by, follow length and layout instead of content.

Style control (WorldPM, arXiv:2505.10527, as quoted in its reviews; features as in LMArena's style control) adds style to the model's
margin D in a logistic regression of the recorded preference,

    P(first preferred) = sigmoid(alpha D + beta . z),    z = (f_first - f_second) / (f_first + f_second [+ 1]),  0/0 = 0,          (S)

so that a model is not paid for sharing the voters' taste in style, nor fined for not sharing it. Nothing is centred: swapping the sides
of a comparison flips its margin and nothing else. Scaling z by its root mean square instead of subtracting a mean is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cupel.errors import InputError
from cupel.evaluate.calibration import checked
from cupel.evaluate.paired import Share
from cupel.evaluate.probabilities import mean
from cupel.votes.folds import group_folds
from cupel.votes.intervals import cluster_bootstrap, normal_quantile
from cupel.votes.linear_head import LinearHead

#: the columns of `style_facts`
FACTS: tuple[str, ...] = ("words", "list items", "headings", "bold")
#: ridge on the standardised coefficients, LMArena's convention
L2 = 0.5


def style_facts(texts: Sequence[str] | pa.Array) -> np.ndarray:
    """Counts of words, list items, headings and bold spans of each text: float64 [n, 4], from the surface facts of the encoder.

    >>> style_facts(["# Title\\n- one **bold** word\\n- two", ""]).tolist()
    [[5.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    from cupel.encode.surface import SURFACE, surface

    facts = surface(texts).astype(np.float64)
    column = {name: facts[:, SURFACE.index(name)] for name in ("log_words", "list_items", "log_sentences", "headings", "bold")}
    words = np.expm1(column["log_words"])
    items = column["list_items"] * np.exp(column["log_sentences"])  # the encoder keeps them per sentence
    bold = np.rint(np.expm1(column["bold"])) // 2  # it counts the marks
    return np.rint(np.stack([words, items, np.expm1(column["headings"]), bold], axis=1))


def style_ratio(first: np.ndarray, second: np.ndarray, *, plus_one: bool = False) -> np.ndarray:
    """z = (f_first - f_second) / (f_first + f_second [+ 1]), elementwise, 0/0 = 0; antisymmetric in the sides.

    >>> style_ratio(np.array([300.0, 0.0]), np.array([100.0, 0.0])).tolist()
    [0.5, 0.0]
    >>> round(float(style_ratio(np.array([300.0]), np.array([100.0]), plus_one=True)[0]), 6)
    0.498753
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if (first < 0).any() or (second < 0).any() or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("style features are counts: finite and at least 0")
    below = first + second + (1.0 if plus_one else 0.0)
    return np.divide(first - second, below, out=np.zeros(np.broadcast(first, second).shape), where=below > 0)


@dataclass(frozen=True)
class StyleControl:
    """Accuracy of a model before and after style is accounted for, with the style coefficients of the labels and of the model.

    raw, controlled  accuracy of sign(D) and of (S) against the labels
    raw_loss, controlled_loss  log loss of sigmoid(alpha' D) with its own alpha', and of (S)
    difference       controlled minus raw accuracy, paired
    alpha, alpha_error  coefficient of D in its own units (from all rows)
    names, beta, beta_error  coefficients of z / scale: log-odds per root mean square of the feature; scale: what z was divided by
    own, own_error   the same regression with the model's own choice as the label and z alone: the model's style
    crossfit         whether the accuracies and losses are of rows that their coefficients did not see
    warnings         features left out because they never vary, separable data
    """

    raw: Share
    controlled: Share
    raw_loss: Share
    controlled_loss: Share
    difference: Share
    alpha: float
    alpha_error: float
    names: tuple[str, ...]
    beta: tuple[float, ...]
    beta_error: tuple[float, ...]
    scale: tuple[float, ...]
    own: tuple[float, ...]
    own_error: tuple[float, ...]
    crossfit: bool
    warnings: tuple[str, ...]

    def interval(self, which: str, name: str) -> tuple[float, float]:
        """95 % interval (estimate +- 1.96 standard errors) of a feature's coefficient in `beta` or `own`."""
        value, error = getattr(self, which), getattr(self, f"{which}_error")
        at = self.names.index(name)
        half = normal_quantile(0.95) * error[at]
        return value[at] - half, value[at] + half

    @property
    def words(self) -> list[str]:
        """The result in sentences."""
        out = [f"Accuracy {self.raw} as it is, {self.controlled} with style accounted for (difference {self.difference})."]
        for which, whose in (("beta", "labels, at equal score,"), ("own", "model's own choices")):
            found = [
                f"{'more' if value > 0 else 'fewer'} {name} ({value:+.2f} [{low:.2f}, {high:.2f}])"
                for name, value in zip(self.names, getattr(self, which), strict=True)
                for low, high in [self.interval(which, name)]
                if low > 0 or high < 0
            ]
            out.append(
                f"The {whose} go with {', '.join(found)}." if found else f"The {whose} follow none of {', '.join(self.names)} surely."
            )
        return [*out, *self.warnings]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        shares = ("raw", "controlled", "raw_loss", "controlled_loss", "difference")
        rest = {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items() if k not in shares}
        return {**{k: getattr(self, k).to_json() for k in shares}, **rest}


def style_controlled(
    margin: np.ndarray,
    z: np.ndarray,
    sign: np.ndarray,
    group: np.ndarray | None = None,
    *,
    names: Sequence[str] = FACTS,
    crossfit: bool = True,
    l2: float = L2,
    folds: int = 2,
    seed: int = 0,
    draws: int = 1000,
) -> StyleControl:
    """Regression (S) on evaluation data: raw and style-controlled accuracy, alpha and beta with standard errors, the model's own style.

    margin D [n] of the first side, z [n, k] from `style_ratio`, sign [n] recorded preference (+1, -1, 0 left out), group [n] what
    folds and errors keep together. D and z are divided by their root mean squares before the fit, so that a ridge of `l2` on all
    coefficients does not depend on the scale of D: D -> k D changes alpha to alpha / k and nothing else. Errors: sandwich by group.
    crossfit: fit on one half of the groups, score the other, and vice versa; False over-corrects.

    >>> rng = np.random.default_rng(0)
    >>> q, s = rng.normal(size=(2, 2000))
    >>> sign = np.where(rng.random(2000) < 1 / (1 + np.exp(-1.5 * q - 1.2 * s)), 1, -1)
    >>> found = style_controlled(q, s[:, None], sign, names=["style"], draws=100)
    >>> found.controlled.estimate > found.raw.estimate, round(found.alpha, 1), round(found.beta[0], 1)
    (True, 1.6, 1.1)
    """
    margin, sign, group = checked(margin, sign, group)
    z = np.asarray(z, dtype=np.float64)
    if z.shape != (len(margin), len(names)) or not np.isfinite(z).all():
        raise InputError(f"style needs finite z of shape {(len(margin), len(names))} ({', '.join(names)}), not {z.shape}")
    rows = np.flatnonzero(sign)
    if len(rows) == 0:
        raise InputError(f"none of {len(sign):,} comparisons has a preference: style has nothing to explain")
    d, z, y, g = margin[rows], z[rows], sign[rows] > 0, group[rows]
    warnings: list[str] = []
    scale = np.sqrt(np.mean(z**2, axis=0))
    varies = scale > 1e-12
    if not varies.all():
        gone = ", ".join(name for name, v in zip(names, varies, strict=True) if not v)
        warnings.append(f"Left out because the two sides never differ in it (n = {len(rows):,}): {gone}.")
    kept = tuple(name for name, v in zip(names, varies, strict=True) if v)
    z, scale = z[:, varies] / scale[varies], scale[varies]
    spread = float(np.sqrt(np.mean(d**2))) or 1.0
    x = np.column_stack([d / spread, z])
    full = _fit(x, y, g, l2)
    if full.separable:
        warnings.append(
            f"The labels of all {len(rows):,} comparisons follow from score and style (separable data): coefficients are those of the "
            f"penalised fit (ridge {l2:g}) and would grow without it."
        )
    chose = d != 0
    own = _fit(z[chose], d[chose] > 0, g[chose], l2) if chose.any() and len(kept) else _Fit(np.zeros(len(kept)), np.zeros(len(kept)), False)
    if own.separable:
        warnings.append(f"The model's choices follow from style alone (separable data, n = {int(chose.sum()):,}).")
    told, alone = _predict(x, y, g, l2, crossfit, folds, seed), _predict(x[:, :1], y, g, l2, crossfit, folds, seed)
    towards = np.where(y, 1.0, -1.0)
    raw, controlled = (0.5 + 0.5 * np.sign(m * towards) for m in (d, told))
    return StyleControl(
        raw=mean(raw, g, seed, draws, (0.0, 1.0)), controlled=mean(controlled, g, seed, draws, (0.0, 1.0)),
        raw_loss=mean(np.logaddexp(0, -alone * towards), g, seed, draws, (0.0, np.inf)),
        controlled_loss=mean(np.logaddexp(0, -told * towards), g, seed, draws, (0.0, np.inf)),
        difference=mean(controlled - raw, g, seed, draws), alpha=float(full.theta[0] / spread), alpha_error=float(full.error[0] / spread),
        names=kept, beta=tuple(full.theta[1:].tolist()), beta_error=tuple(full.error[1:].tolist()), scale=tuple(scale.tolist()),
        own=tuple(own.theta.tolist()), own_error=tuple(own.error.tolist()), crossfit=crossfit, warnings=tuple(warnings),
    )  # fmt: skip


@dataclass(frozen=True)
class LengthReliance:
    """What a score does with length: accuracy by which side is longer, and its correlation with length within prompts.

    accuracy     {shorter_wins, longer_wins, equal_length: Share} by the recorded winner; a model that reads length has near 0 and 1
    correlation  between margin and difference of length over unique pairs, through 0 (swapping sides changes nothing)
    labels       the same between the recorded preference and the difference of length: what the labels themselves do
    """

    accuracy: Mapping[str, Share]
    correlation: Share
    labels: Share

    @property
    def words(self) -> list[str]:
        """The result in sentences."""
        names = {"shorter_wins": "the shorter side won", "longer_wins": "the longer side won", "equal_length": "both are as long"}
        out = [f"Accuracy where {names[key]}: {share}." for key, share in self.accuracy.items() if share.n]
        return [*out, f"Correlation of score and length within prompts {self.correlation}; of label and length {self.labels}."]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "accuracy": {k: v.to_json() for k, v in self.accuracy.items()}, "correlation": self.correlation.to_json(),
            "labels": self.labels.to_json(),
        }  # fmt: skip


def length_reliance(
    margin: np.ndarray, longer: np.ndarray, sign: np.ndarray, group: np.ndarray, pair: np.ndarray | None = None, *, seed: int = 0,
    draws: int = 1000,
) -> LengthReliance:  # fmt: skip
    """Accuracy where the shorter and where the longer side was preferred, and the correlation of score with length within prompts.

    margin [n], longer [n] length of the first side minus that of the second, sign [n], group [n]; pair [n] unordered pairs, of which
    the margins are counted once. Correlation: sum m l / sqrt(sum m^2 sum l^2), differences within a prompt having no mean to subtract.

    >>> found = length_reliance(np.array([1.0, -2, 1, -1]), np.array([1, -2, 1, -1]), np.array([1, 1, 1, -1]), np.arange(4), draws=100)
    >>> found.accuracy["shorter_wins"].estimate, found.accuracy["longer_wins"].estimate, round(found.correlation.estimate, 2)
    (0.0, 1.0, 1.0)
    """
    margin, sign, group = checked(margin, sign, group)
    longer = np.asarray(longer, dtype=np.float64)
    hit = 0.5 + 0.5 * np.sign(margin * sign)
    parts = {
        "shorter_wins": sign * longer < 0,
        "longer_wins": sign * longer > 0,
        "equal_length": (sign != 0) & (longer == 0),
    }
    accuracy = {key: mean(hit[rows], group[rows], seed, draws, (0.0, 1.0)) for key, rows in parts.items()}
    once = np.arange(len(margin)) if pair is None else np.unique(pair, return_index=True)[1]
    voted = np.flatnonzero(sign)
    return LengthReliance(
        accuracy,
        _correlation(margin[once], longer[once], group[once], seed, draws),
        _correlation(sign[voted], longer[voted], group[voted], seed, draws),
    )


@dataclass(frozen=True)
class StyleMatrix:
    """Accuracy of every (chosen style, rejected style), float64 [k, k], styles from plain to rich; and its three averages.

    normal: the diagonal; hard: chosen plainer than rejected (upper triangle); easy: chosen richer (lower triangle).
    """

    accuracy: np.ndarray
    easy: float
    normal: float
    hard: float
    n: int


def style_matrix(chosen: np.ndarray, rejected: np.ndarray) -> StyleMatrix:
    """Accuracy by style of scores of items answered well and badly in each of k styles: chosen, rejected float [n, k].

    Right is strictly above, as in RM-Bench (styles concise, detailed, detailed with markdown), which `evaluate.suites` reads in its own
    form with intervals; this is for scores at hand. The averages weigh the cells of a triangle equally.

    >>> found = style_matrix(np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 1.5, 2.5]]))  # a score that grows with style
    >>> found.easy, found.normal, found.hard
    (1.0, 1.0, 0.0)
    """
    chosen, rejected = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    if chosen.shape != rejected.shape or chosen.ndim != 2 or chosen.shape[1] < 2 or len(chosen) == 0:
        raise InputError(
            f"a style matrix needs scores [items, styles] of both sides, two styles or more; not {chosen.shape} and {rejected.shape}"
        )
    cells = (chosen[:, :, None] > rejected[:, None, :]).mean(axis=0)
    upper = np.triu_indices(len(cells), 1)
    return StyleMatrix(cells, float(cells.T[upper].mean()), float(np.diag(cells).mean()), float(cells[upper].mean()), len(chosen))


# ---- fits ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    theta: np.ndarray
    error: np.ndarray
    separable: bool


def _fit(x: np.ndarray, y: np.ndarray, group: np.ndarray, l2: float) -> _Fit:
    """Ridge logistic regression through the origin with sandwich errors by group; whether its margins classify every row."""
    theta = _theta(x, y, l2)
    margin = x @ theta
    p = 0.5 * (1 + np.tanh(margin / 2))
    bread = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + l2 * np.eye(x.shape[1]))
    label, index = np.unique(group, return_inverse=True)
    scores = np.zeros((len(label), x.shape[1]))
    np.add.at(scores, index.reshape(-1), x * (y - p)[:, None])
    error = np.sqrt(np.diag(bread @ (scores.T @ scores) @ bread) * len(label) / max(len(label) - 1, 1))
    return _Fit(theta, error, bool((np.where(y, margin, -margin) > 0).all()))


def _theta(x: np.ndarray, y: np.ndarray, l2: float) -> np.ndarray:
    return LinearHead(ridge=l2).fit(x, np.zeros_like(x), y.astype(np.float64)).theta_


def _predict(x: np.ndarray, y: np.ndarray, group: np.ndarray, l2: float, crossfit: bool, folds: int, seed: int) -> np.ndarray:
    if not crossfit:
        return x @ _theta(x, y, l2)
    fold, out = group_folds(group, folds, seed), np.empty(len(x))
    for k in range(int(fold.max()) + 1):
        out[fold == k] = x[fold == k] @ _theta(x[fold != k], y[fold != k], l2)
    return out


def _correlation(a: np.ndarray, b: np.ndarray, group: np.ndarray, seed: int, draws: int) -> Share:
    """Correlation through the origin with its interval by group; nothing where a side never varies."""
    if not (a.any() and b.any()):
        return Share(None, None, None, len(a), len(np.unique(group)))
    columns = np.stack([a * b, a * a, b * b], axis=1)

    def ratio(sums: np.ndarray) -> np.ndarray:
        below = np.sqrt(sums[:, 1] * sums[:, 2])
        return np.divide(sums[:, 0], below, out=np.full(len(sums), np.nan), where=below > 0)

    found = cluster_bootstrap(columns, group, seed=seed, draws=draws, statistic=ratio, clip=(-1.0, 1.0))
    known = bool(np.isfinite(found.low))
    return Share(found.estimate, found.low if known else None, found.high if known else None, len(a), found.groups)
