"""What `python -m orchestrated` and `python -m choreographed` do: a whole mode, or one of its services.

Exit codes: 0 for an end that was asked for, 64 for a wrong command line, 78 for what starting again can't
mend (a bad setting, a port that is taken, topics that don't fit); anything else is a crash, and worth a
restart. 64 and 78 are EX_USAGE and EX_CONFIG of BSD's sysexits.
"""

from __future__ import annotations

import asyncio
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, Final

from common.command_line import Parser
from common.errors import ConfigurationError, LabError
from common.garbage import collect_seldom
from common.service import serve
from common.settings import Settings, describe_settings, load_settings
from common.store.rows import RowTable
from common.supervisor import EX_CONFIG, supervise
from common.wiring import Mode

_EPILOG: Final = """\
orders: POST /orders places one, POST /orders/ORDER_ID/cancel cancels it as long as it is not paid for. If
undoing one has failed for good, POST /orders/ORDER_ID/retry-compensation has that tried again.

dead letters, the records that can't be processed: python -m compare dlq --help

"""


def main(mode: Mode, arguments: Sequence[str], *tables: RowTable[Any]) -> int:
    """Run the mode, or the service that is named; returns the exit code.

    `tables` are those that only this mode has, to be shown over HTTP.
    """
    service = _parse(mode, arguments)
    collect_seldom()
    try:
        return asyncio.run(_run(mode, service, tables, load_settings()))
    except LabError as error:
        sys.stderr.write(f"{mode.name}: {error}\n")
        return EX_CONFIG


def _parse(mode: Mode, arguments: Sequence[str]) -> str | None:
    parser = Parser(
        prog=f"python -m {mode.name}",
        description=f"Run the {mode.name} mode: all its services, or the one that is named.",
        epilog=_EPILOG + describe_settings(),
        formatter_class=RawDescriptionHelpFormatter,
    )
    names = [service.name for service in mode.services]
    parser.add_argument(
        "service", nargs="?", choices=names, help="default: all, each in a process of its own"
    )
    service: str | None = parser.parse_args(arguments).service
    return service


async def _run(mode: Mode, service: str | None, tables: Sequence[RowTable[Any]], settings: Settings) -> int:
    if service is None:
        return await supervise(mode, settings)
    if settings.kafka_bootstrap_servers is None:
        raise ConfigurationError(
            f"a service alone needs a broker: set KAFKA_BOOTSTRAP_SERVERS=HOST:PORT, or start all services "
            f"with `python -m {mode.name}`, which embeds one"
        )
    await serve(mode.service(service), tables, settings, settings.kafka_bootstrap_servers)
    return 0
