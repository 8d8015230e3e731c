"""What the app changes in MONAI Label's server: computing does not stop it from answering, and it ends in order."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from fastapi.routing import APIRoute
from monailabel.app import app
from monailabel.config import settings
from monailabel.endpoints import batch_infer, infer, train
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import background_executors

from monai_regplugins.apps.label.answers import DICOM_SUFFIX
from monai_regplugins.apps.label.uploads import as_http
from monai_regplugins.apps.label.worker import Worker

__all__ = ["compute_in", "end_in_order"]

Endpoint = Callable[..., Awaitable[Any]]


@functools.wraps(infer.api_run_inference)
async def _infer(**parameters: Any) -> Any:
    """MONAI Label's endpoint, whose DICOM segmentations are the app's own."""
    if parameters["output"] == infer.ResultType.dicom_seg:
        asked = {**json.loads(parameters["params"] or "{}"), "result_extension": DICOM_SUFFIX}
        parameters |= {"output": infer.ResultType.image, "params": json.dumps(asked)}
    return await infer.api_run_inference(**parameters)


# those of MONAI Label that compute in the thread that answers all requests
COMPUTING: dict[str, Endpoint] = {
    "/infer/{model}": _infer,
    "/batch/infer/{model}": batch_infer.api_run,
    "/train/{model}": train.api_run_model,
}


def compute_in(worker: Worker) -> None:
    """Let a worker do what takes time."""
    for path, endpoint in COMPUTING.items():
        route = APIRoute(f"{settings.MONAI_LABEL_API_STR}{path}", _handed_to(worker, endpoint), methods=["POST"])
        app.router.routes.insert(0, route)  # the first route that fits is taken


def _handed_to(worker: Worker, endpoint: Endpoint) -> Endpoint:
    """An endpoint with the same parameters whose work is done by a worker."""

    async def handed(**parameters: Any) -> Any:
        with as_http():
            return await worker.run(lambda: asyncio.run(_finished(endpoint, parameters)))

    handed.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined] # FastAPI reads it
    return handed


async def _finished(endpoint: Endpoint, parameters: dict[str, Any]) -> Any:
    return await endpoint(**parameters)


def end_in_order(worker: Worker) -> None:
    """Let SIGTERM and SIGINT end the tasks in the background, then the server, then Python as always.

    By itself uvicorn raises the signal again, so that nothing is cleaned up. A second signal does not wait for the
    request that is being computed.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):  # another program runs the app, and ends it in its own way
        return

    def end(number: int, frame: Any) -> None:
        server.force_exit, server.should_exit = server.should_exit, True
        worker.close()
        for method, executor in background_executors.items():
            executor.shutdown(wait=False, cancel_futures=True)
            AsyncTask.stop(method)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
