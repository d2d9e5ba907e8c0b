"""`python -m compare dlq`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from common.command_line import Parser
from common.dead_letters import DeadLetter, original
from common.errors import ConfigurationError
from common.settings import is_address, load_settings
from compare.dlq import DeadLetters, is_whole, place

_NONE: Final = "There are no dead letters."
_COLUMNS: Final = ("place", "time", "service", "reason", "tries", "type", "order", "id")


def add_dlq(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "dlq",
        help="list, show or replay the dead letters of a broker: records that could not be processed",
        description="Dead letters are records that a service could not process; their topics end with .dlq.",
        epilog="ID is that of a message, or TOPIC:PARTITION@OFFSET of a dead letter.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="one line for each, newest last")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", help="all that is known of one: headers, body, error, stack")
    show.add_argument("ids", metavar="ID", nargs="+")
    show.set_defaults(act=_show)
    again = actions.add_parser(
        "replay", help="put the originals on their topics once more, under the same ids; safe to repeat"
    )
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", default=[])
    which.add_argument("--all", action="store_true", help="all that there are")
    again.add_argument("--dry-run", action="store_true", help="only say what would be replayed")
    again.set_defaults(act=_replay)
    for action in (listing, show, again):
        action.add_argument(
            "--broker",
            metavar="HOST:PORT[,...]",
            type=_addresses,
            help="the broker (default: KAFKA_BOOTSTRAP_SERVERS); a live mode prints that of its embedded one",
        )
        action.add_argument(
            "--topic", help="only those of this topic; `saga.commands` is `saga.commands.dlq`"
        )
        action.add_argument("--json", action="store_true", help="print them as a JSON array")
        action.set_defaults(do=_run, meant="done")


def _addresses(text: str) -> str:
    if not all(map(is_address, text.split(","))):
        message = f"{text!r} is not HOST:PORT[,HOST:PORT...]"
        raise argparse.ArgumentTypeError(message)
    return text


def _run(arguments: argparse.Namespace) -> int:
    address = arguments.broker or load_settings().kafka_bootstrap_servers
    if address is None:
        message = (
            "Which broker? Name it with --broker HOST:PORT, or by KAFKA_BOOTSTRAP_SERVERS; "
            "a live mode prints the address of its embedded one when it is ready."
        )
        raise ConfigurationError(message)
    found = asyncio.run(DeadLetters.read(address, arguments.topic))
    text: str = arguments.act(arguments, found)
    sys.stdout.write(f"{text}\n")
    return 0


def _list(arguments: argparse.Namespace, found: DeadLetters) -> str:
    if arguments.json:
        return as_json(found.letters)
    return as_table(found.letters) if found.letters else _NONE


def _show(arguments: argparse.Namespace, found: DeadLetters) -> str:
    chosen = found.find(arguments.ids)
    return as_json(chosen) if arguments.json else "\n\n".join(map(as_text, chosen))


def _replay(arguments: argparse.Namespace, found: DeadLetters) -> str:
    chosen = found.letters if arguments.all else found.find(arguments.ids)
    records = found.originals(chosen)
    if records and not arguments.dry_run:
        asyncio.run(found.replay(records))
    if arguments.json:
        return as_json(chosen)
    done = "would be" if arguments.dry_run else "is"
    lines = [f"{record.id} {done} on {record.topic}[{record.partition}] again" for record in records]
    if torsos := [letter for letter in chosen if not is_whole(letter)]:
        lines.append(f"{len(torsos)} without a readable id, or without their body, are left as they are")
    return "\n".join(lines) or _NONE


def as_table(letters: Sequence[DeadLetter]) -> str:
    """One line for each, below a line of headings."""
    rows = [_COLUMNS, *(_row(letter) for letter in letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def as_text(letter: DeadLetter) -> str:
    """All that is known of a letter."""
    facts = {
        "order": letter.order_id,
        "time": letter.at,
        "service": letter.service,
        "reason": f"{letter.reason}, at try {letter.tries}" if letter.tries else letter.reason,
        "origin": letter.origin,
        "error": letter.error,
    }
    known = {name: value for name, value in facts.items() if value}
    parts = {
        place(letter): _lines(known),
        "headers": _lines(_headers(letter)),
        "body": [_printable(_body(letter))],
        "stack": list(map(_printable, letter.stack.splitlines())),
    }
    return "\n".join(
        line for name, lines in parts.items() for line in (name, *(f"  {line}" for line in lines))
    )


def _lines(values: Mapping[str, str]) -> list[str]:
    return [f"{_printable(name)}: {_printable(value)}" for name, value in values.items()]


def as_json(letters: Iterable[DeadLetter]) -> str:
    """A JSON array with all that is known of each."""
    documents = [
        {
            "topic": letter.record.topic,
            "partition": letter.record.partition,
            "offset": letter.record.offset,
            "time": letter.at,
            "service": letter.service,
            "reason": letter.reason,
            "tries": letter.tries,
            "type": letter.message_type,
            "order_id": letter.order_id,
            "id": letter.message_id,
            "origin": letter.origin,
            "error": letter.error,
            "stack": letter.stack,
            "headers": _headers(letter),
            "body": _body(letter),
        }
        for letter in letters
    ]
    return json.dumps(documents, indent=2)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    shown = (
        letter.at.partition(".")[0],
        letter.service,
        letter.reason,
        letter.tries,
        letter.message_type,
        letter.order_id,
        letter.message_id,
    )
    return (place(letter), *(_printable(text) or "-" for text in shown))


def _headers(letter: DeadLetter) -> dict[str, str]:
    """Those of the original, as text where they are."""
    headers = original(letter.record, letter.record.topic).headers
    return {name: _as_text(value) for name, value in headers}


def _body(letter: DeadLetter) -> str:
    return _as_text(letter.record.value)


def _as_text(value: bytes | None) -> str:
    """The text that it is, or hexadecimal digits."""
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return f"0x{(value or b'').hex()}"


def _printable(text: str) -> str:
    """In one line, and without what a terminal would take for commands."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
