"""Processes to work in, none of which is left when the work is over, or given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any, Final

CONTEXT: Final = get_context("spawn")


def quiet_logs() -> None:
    """Have the services say nothing: all that they complain of is done to them."""
    logging.getLogger("common").setLevel(logging.CRITICAL)
    logging.getLogger("common.batch").setLevel(logging.CRITICAL)


@contextmanager
def pool(
    workers: int, initializer: Callable[..., object] = quiet_logs, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """So many processes; after an error, or Ctrl-C, they are ended, whatever they are at."""
    with ProcessPoolExecutor(
        workers, mp_context=CONTEXT, initializer=initializer, initargs=initargs
    ) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.terminate()
            raise
