"""Documents that are written at the end, to a file or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from common.errors import ConfigurationError

STANDARD_OUTPUT: Final = "-"


def check_writable(option: str, target: str | None) -> None:
    """Say before a run, not after it, that its result can't be kept; leave nothing behind by the trial.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    if target is None or target == STANDARD_OUTPUT:
        return
    path = Path(target)
    is_new = not path.exists()

    def attempt() -> None:
        path.open("a", encoding="utf-8").close()
        if is_new:
            # Of a link to nowhere, it is the file that would be new.
            path.resolve().unlink()

    if path.is_fifo() or path.is_char_device():
        return  # to open it and close it again would be the end of it for whoever reads there

    writing(f"{option} {target}", attempt)


def write_document(option: str, target: str | None, document: BaseModel) -> None:
    """Write a document, if that is wanted.

    Raises:
        ConfigurationError: it can't be written.
    """
    if target is None:
        return
    text = document.model_dump_json(indent=2) + "\n"
    if target == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        writing(f"{option} {target}", lambda: Path(target).write_text(text, encoding="utf-8"))


def writing(what: str, write: Callable[[], object]) -> None:
    """Write something.

    Raises:
        ConfigurationError: it can't be written.
    """
    try:
        write()
    except OSError as error:
        message = f"{what}: can't be written: {error.strerror}."
        raise ConfigurationError(message) from error
