"""What the lab and a service's process tell each other: lines of JSON, with the kind of what is told first.

The first line to the process is the `Instructions`, all others are commands. What the process tells is in
`compare.host`, which starts from here; what it is told is in `compare.processes`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from common.domain.decision import Rules
from common.envelope import Outgoing
from common.runner import BrokerLink
from common.settings import load_settings
from compare.injection import Memory
from compare.instance import Premises
from compare.scenario import Scenario

LONGEST_LINE: Final = 64 * 1024 * 1024
"""Bytes; a line may hold the records of a large batch."""


class Instructions(BaseModel):
    """All that a process has to know to be a service of a replay."""

    model_config = ConfigDict(frozen=True)

    mode: str
    service: str
    scenario: Scenario
    rules: Rules
    link: BrokerLink
    folder: Path
    orders: Mapping[str, str | None]
    """By order: the name of its specification, if it has one; empty where no fault needs to know."""
    memory: Memory
    log_level: int

    @property
    def premises(self) -> Premises:
        """What the service is built from; the environment, which is the lab's, has the settings."""
        return Premises(self.scenario, self.rules, self.link, self.folder, load_settings())


def packed(records: Iterable[Outgoing]) -> list[list[Any]]:
    """Records as JSON can hold them."""
    return [
        [
            record.id,
            record.topic,
            record.partition,
            _text(record.key),
            _text(record.value),
            [[name, _text(value)] for name, value in record.headers],
        ]
        for record in records
    ]


def unpacked(rows: Iterable[Sequence[Any]]) -> list[Outgoing]:
    """The records again."""
    return [
        Outgoing(
            id=message_id,
            topic=topic,
            partition=partition,
            key=_bytes(key),
            value=_bytes(value),
            headers=tuple((name, _bytes(text) or b"") for name, text in headers),
        )
        for message_id, topic, partition, key, value, headers in rows
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
