"""The same bits on any number of cores: linear algebra on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra on one thread while the block runs, so that sums are taken in one order whatever the number of cores.

    The libraries of numpy and scipy split a product by the threads they may use, and its last bits with it. Work that is worth several
    cores is divided by us, into parts that do not depend on their number.
    """
    import scipy.linalg  # noqa: F401  # its library has to be there to be told
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
