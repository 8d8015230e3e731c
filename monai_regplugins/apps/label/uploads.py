"""Uploads of a request that is refused, and the error that its client gets."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_regplugins.apps.label.temporary import own_folder
from monai_regplugins.checks import InputError

__all__ = ["as_http", "is_upload"]


def is_upload(path: Any) -> bool:
    """Whether this file was uploaded to the server."""
    return isinstance(path, str) and Path(path).parent == own_folder() and Path(path).is_file()


@contextmanager
def as_http(*sent: Any) -> Iterator[None]:
    """Turn input errors into HTTP errors, and remove uploads, which the server only removes on success.

    Args:
        *sent: files of the request, removed on any error if they are uploads.
    """
    try:
        yield
    except BaseException as error:
        for path in filter(is_upload, sent):
            Path(path).unlink()
        if isinstance(error, InputError):
            raise _http_error(getattr(error, "status", 400), str(error)) from error
        if isinstance(error, MemoryError):
            raise _http_error(413, "the images are too large for the memory of this server; crop them.") from error
        raise


def _http_error(status: int, sentence: str) -> Exception:
    """FastAPI's error, which comes with MONAI Label."""
    error: Exception = importlib.import_module("fastapi").HTTPException(status, sentence)
    return error
