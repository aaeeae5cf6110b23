"""One family of errors; each says what, how many, which first, and the ways out.

The command line turns `exit_code` into the process's: 2 for the user's input, 3 for a threshold the user set, 1 for our fault.
"""

from __future__ import annotations


class CupelError(Exception):
    """Anything cupel raises on purpose."""

    exit_code = 1


class InputError(CupelError):
    """The user's input (a file, an option, a value) cannot be used as it is."""

    exit_code = 2


class RecordError(InputError):
    """Rows or columns of the data are unusable."""


class EncoderError(InputError):
    """An encoder is missing, or its files are not what they claim to be."""


class ThresholdError(CupelError):
    """A threshold that the user set with `--fail-on` was crossed."""

    exit_code = 3
