"""Processor time is told in finer steps than the clock ticks of `/proc`, of this process and of others."""

from __future__ import annotations

import subprocess
import sys
from time import process_time
from typing import Final

import pytest

from compare.bench.usage import Usage

_TICK_S: Final = 0.01
_BUSY: Final = """
from time import process_time
while process_time() < 0.1: pass
print(process_time(), flush=True)
input()
"""


def test_a_few_milliseconds_are_told() -> None:
    """A short phase has no more."""
    usage = Usage()
    usage.find()
    before, began = usage.cpu_s(), process_time()
    while process_time() < began + _TICK_S / 4:
        pass
    spent, really = usage.cpu_s() - before, process_time() - began
    assert spent == pytest.approx(really, abs=_TICK_S / 10)


@pytest.mark.live
def test_another_process_is_told_as_finely() -> None:
    """The broker is one, and so are services with processes of their own."""
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = float(child.stdout.readline())
        told = Usage(child.pid).broker_cpu_s()
        child.communicate("\n")
    assert told == pytest.approx(said, abs=_TICK_S / 2)


@pytest.mark.live
def test_a_broker_that_is_gone_has_no_time() -> None:
    """It has ended, so what it has spent can't be known any more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as child:
        usage = Usage(child.pid)
        child.communicate("\n")
    assert usage.broker_cpu_s() is None
