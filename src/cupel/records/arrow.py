"""`pc`: pyarrow's compute functions, which it makes at import, where type checkers cannot see them."""

from __future__ import annotations

import importlib
from typing import Any

pc: Any = importlib.import_module("pyarrow.compute")
