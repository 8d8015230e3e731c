"""One thread that computes while the server goes on answering, with a queue of limited length before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from monai_regplugins.apps.label.requests import RequestError

__all__ = ["Worker"]

MOST = 16  # requests; the memory of each is that of its uploads

T = TypeVar("T")


class Worker:
    """Computes one request after the other, in the order in which they came.

    Args:
        most: how many may wait or be computed at one time.

    Example:
        >>> asyncio.run(Worker().run(lambda: 6 * 7))
        42
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self._taken, self._closed = most, 0, False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="registration")

    async def run(self, compute: Callable[[], T]) -> T:
        """Compute in the worker's thread; called by the one thread of the event loop.

        Raises:
            RequestError: When the queue is full or the server is about to end, status 503.
            BaseException: What ``compute`` raises.
        """
        if self._closed or self._taken >= self.most:
            raise self._refusal()
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, compute)
        except asyncio.CancelledError:
            if self._closed:
                raise self._refusal() from None
            raise
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Finish what is being computed, and refuse all that waits or comes."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refusal(self) -> RequestError:
        if self._closed:
            return RequestError("the server is about to end; ask again when it is back.", 503)
        return RequestError(f"the server is busy with {self._taken} requests; ask again later.", 503)
