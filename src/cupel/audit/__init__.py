"""The verb `audit`: call the package, or import from its files."""

from cupel._verbs import make_callable

make_callable(__name__)
