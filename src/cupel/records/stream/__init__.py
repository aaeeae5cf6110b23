"""Files larger than memory: read in batches into a spool on disk, and the same `Votes` as reading at once would give.

`read_stream` imports, `batches` walks through votes in parts that hold only their own texts, `convert_stream` writes them in another
format part by part. What stays in memory grows with the number of rows by a few integers, never with the texts.
"""

from __future__ import annotations

from cupel.records.stream.importer import read_stream
from cupel.records.stream.opening import ABOVE, CannotStream, worth_streaming
from cupel.records.stream.parts import batches, convert_stream

__all__ = ["ABOVE", "CannotStream", "batches", "convert_stream", "read_stream", "worth_streaming"]
