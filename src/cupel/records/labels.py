"""What a vote says: words and numbers -> outcome codes, with every doubtful reading stated."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cupel.errors import RecordError
from cupel.records.arrow import pc
from cupel.records.columns import Frame
from cupel.records.schema import OUTCOMES

WORDS: dict[str, str] = {
    **dict.fromkeys(["a", "response_a", "answer_a", "output_a", "model_a", "assistant_a", "left", "first", "a wins", "[[a]]"], "a"),
    **dict.fromkeys(["b", "response_b", "answer_b", "output_b", "model_b", "assistant_b", "right", "second", "b wins", "[[b]]"], "b"),
    **dict.fromkeys(["tie", "equal", "draw", "same", "both", "both_good", "[[c]]"], "tie"),
    **dict.fromkeys(["both_bad", "tie (bothbad)", "bothbad", "both bad", "neither", "tie (both bad)"], "both_bad"),
    **dict.fromkeys(["skip", "skipped", "unsure", "n/a"], "skip"),
}


def outcomes(frame: Frame) -> np.ndarray:
    """int8 [n]: outcome codes of the vote column; -1 (and the row marked) where a label is missing or outside the vocabulary.

    Words are read without regard to case. Numbers are read as the number of the side: 1 and 2, or 0 and 1 where the columns are
    numbered so; 0 and 1 beside columns a and b are read as positions (0 = a), and that doubt is stated.
    """
    values = frame.column("vote")
    label = frame.names["vote"]
    if pa.types.is_boolean(values.type):
        values = pc.if_else(values, "true", "false")
    elif pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        values = pa.array([None if v is None or v != v else f"{v:g}" for v in values.to_pylist()], pa.large_string())
    try:
        values = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.large_string())))
    except pa.ArrowException:
        raise RecordError(f"column {label} holds {values.type}, not votes. Map another column: --map vote=COLUMN") from None
    encoded = values.dictionary_encode()
    seen = encoded.dictionary.to_pylist()
    meaning = _numbers(frame, set(seen)) | WORDS | frame.values
    codes = np.array([OUTCOMES.index(meaning[word]) if word in meaning else -1 for word in seen] + [-1], dtype=np.int8)
    index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    out = codes[index]
    for row in np.flatnonzero(out < 0):
        word = None if index[row] < 0 else seen[index[row]]
        if not word:
            frame.bad.setdefault(int(row), ("missing_label", f"column {label} has no value"))
        else:
            detail = f"column {label} says {word[:80]!r}; known: {', '.join(OUTCOMES)} (say what it means: --map vote:a={word[:40]})"
            frame.bad.setdefault(int(row), ("unknown_label", detail))
    return out


def _numbers(frame: Frame, seen: set[str | None]) -> dict[str, str]:
    """The meaning of numeric labels, or nothing where it cannot be known."""
    numbers = {word for word in seen if word in ("0", "1", "2")}
    if not numbers or frame.values:
        return {}
    if frame.first_number is not None:
        first = frame.first_number
        return {str(first): "a", str(first + 1): "b"}
    label, sides = frame.names["vote"], f"{frame.names.get('response_a', 'a')} and {frame.names.get('response_b', 'b')}"
    if numbers == {"1", "2"}:
        frame.doubts.append(f"{label}: 1 is read as the first of {sides}, 2 as the second; if not, say so: --map vote:a=2 --map vote:b=1")
        return {"1": "a", "2": "b"}
    if numbers == {"0", "1"}:
        frame.doubts.append(
            f"{label}: 0 is read as the first of {sides}, 1 as the second (positions); if 1 means that the first was "
            f"preferred, every label is "
            "inverted: say so with --map vote:a=1 --map vote:b=0"
        )
        return {"0": "a", "1": "b"}
    return {}
