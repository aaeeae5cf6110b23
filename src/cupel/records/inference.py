"""The Arrow type of values that are seen a part at a time: the one that pyarrow infers from all of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def merge(one: pa.DataType | None, two: pa.DataType | None) -> pa.DataType | None:
    """The type that pyarrow infers for values of both types together, None where it refuses.

    >>> merge(pa.int64(), pa.float64()), merge(pa.null(), pa.bool_()), merge(pa.bool_(), pa.int64()) is None
    (DataType(double), DataType(bool), True)
    """
    if one is None or two is None:
        return None
    if one == two or pa.types.is_null(two):
        return one
    if pa.types.is_null(one):
        return two
    if {one, two} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(two):
        inner = merge(one.value_type, two.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(one) and pa.types.is_struct(two):
        fields = {one.field(i).name: one.field(i).type for i in range(one.num_fields)}
        for i in range(two.num_fields):
            name = two.field(i).name
            inner = merge(fields[name], two.field(i).type) if name in fields else two.field(i).type
            if inner is None:
                return None
            fields[name] = inner
        return pa.struct(list(fields.items()))
    return None


def inferred(values: list[Any]) -> pa.Array | None:
    """The values as Arrow takes them by itself, None where it refuses."""
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError, RecursionError):
        return None


def fitted(array: pa.Array | None, values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """The values in a type that also holds those of other batches; None where one of them does not fit after all."""
    if array is not None and array.type == kind:
        return array
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
