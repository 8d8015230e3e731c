from __future__ import annotations

import asyncio
import threading

import pytest

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.worker import Worker


def test_the_loop_goes_on_and_the_queue_has_an_end() -> None:
    done, begun, order = threading.Event(), threading.Event(), list[int]()

    def first() -> int:
        begun.set()
        assert done.wait(10)
        order.append(1)
        return 1

    async def ask() -> list[int]:
        worker = Worker(most=2)
        asked = [asyncio.create_task(worker.run(first)), asyncio.create_task(worker.run(lambda: order.append(2) or 2))]
        while not begun.is_set():
            await asyncio.sleep(0.01)  # the loop is free meanwhile
        with pytest.raises(RequestError, match="busy with 2 requests") as caught:
            await worker.run(lambda: 3)
        assert caught.value.status == 503
        done.set()
        found = await asyncio.gather(*asked)
        assert await worker.run(lambda: 4) == 4  # there is room again
        return found

    assert asyncio.run(ask()) == [1, 2]
    assert order == [1, 2]


def test_errors_come_out() -> None:
    async def ask() -> None:
        worker = Worker()
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.run(lambda: 5) == 5

    asyncio.run(ask())


def test_what_waits_is_refused_at_the_end_and_what_is_computed_is_finished() -> None:
    done, begun = threading.Event(), threading.Event()

    def first() -> int:
        begun.set()
        assert done.wait(10)
        return 1

    async def ask() -> None:
        worker = Worker()
        computed, waiting = asyncio.create_task(worker.run(first)), asyncio.create_task(worker.run(lambda: 2))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        worker.close()
        for refused in (waiting, worker.run(lambda: 3)):
            with pytest.raises(RequestError, match="about to end") as caught:
                await refused
            assert caught.value.status == 503
        done.set()
        assert await computed == 1

    asyncio.run(ask())
