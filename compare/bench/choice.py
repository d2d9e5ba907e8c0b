"""What is to be measured, by the arguments of the command, and the settings that all of it has in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from common.errors import ConfigurationError
from common.settings import Settings
from compare.bench.campaign import Plan
from compare.bench.document import SettingsUsed
from compare.bench.environment import database
from compare.bench.relay import relay_of
from compare.bench.saturation import NEAR
from compare.bench.spec import CLOSED, IDLE, Phase, server_for
from compare.lab import EMBEDDED, MODES
from compare.peers import PEERS

_RATES: Final = (100.0, 300.0, 1000.0)
_QUICK_RATES: Final = (200.0,)
_IDLE_ORDERS: Final = 200
_QUICK_IDLE_ORDERS: Final = 30
_QUICK_S: Final = 52.0
_SCALING_ORDERS: Final = 100_000
_SCALING_S: Final = 3600.0
_STEPS: Final = (100, 10, 1)
_INSTANCES: Final = {1: "1 instance", 2: "2 instances", 3: "3 instances"}
_SAMPLES: Final = 20
"""Of each measurement, on the way."""


class Choice:
    """What the arguments come to.

    Raises:
        ConfigurationError: they don't fit each other, or this machine.
    """

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        self.notes: list[str] = []
        """What a person should know before."""
        self._arguments = arguments
        self._settings = settings
        self._address: str = arguments.broker or settings.kafka_bootstrap_servers or EMBEDDED
        if arguments.instances > 1 and self._address == EMBEDDED:
            raise ConfigurationError(
                "--instances: the embedded broker has room for one instance of a service; "
                "name another with --broker."
            )
        if arguments.scaling and (arguments.quick or arguments.rates):
            raise ConfigurationError(
                "--scaling has its own loads: leave out --quick and --rates; fewer --orders make it shorter."
            )
        quick: bool = arguments.quick
        self._orders: int = arguments.orders or (
            _SCALING_ORDERS if arguments.scaling else 800 if quick else 4_000
        )
        self._seconds: float = arguments.seconds or (
            _SCALING_S if arguments.scaling else 1.5 if quick else 10.0
        )
        self._repeats: int = arguments.repeats or (1 if arguments.scaling else 3 if quick else 6)
        self._warm_up = 100 if quick else 500
        self._partitions: int = arguments.partitions or settings.topic_partitions
        modes = list(MODES) if arguments.mode == "both" else [arguments.mode]
        self.peers = self._peers(arguments.peers)
        self._subjects = (*(name for mode in modes for name in (mode, relay_of(mode))), *self.peers)
        secret = settings.database_url
        self._database = database(
            None if secret is None else server_for(secret.get_secret_value(), arguments.durability)
        )
        self.plans = self._scaling() if arguments.scaling else (self._plan(self._phases()),)

    def used(self) -> SettingsUsed:
        """The settings, for the document."""
        arguments = self._arguments
        return SettingsUsed(
            broker=self._address,
            partitions=self._partitions,
            fetch_max_wait_ms=2 if self._address == EMBEDDED else self._settings.fetch_max_wait_ms,
            max_poll_records=self._settings.max_poll_records,
            database=self._database,
            durability=arguments.durability,
            processes=arguments.processes or arguments.instances > 1,
            instances=arguments.instances,
            orders=self._orders,
            concurrency=arguments.concurrency,
            seconds=self._seconds,
            declined=arguments.declined,
            items=arguments.items,
            warm_up=self._warm_up,
            repeats=self._repeats,
        )

    def _phases(self) -> tuple[Phase, ...]:
        arguments, seconds = self._arguments, self._seconds
        idle = _QUICK_IDLE_ORDERS if arguments.quick else _IDLE_ORDERS
        rates = arguments.rates or (_QUICK_RATES if arguments.quick else _RATES)
        # What is near its limit a subject is offered only if that is asked for.
        below = None if arguments.rates else NEAR
        return (
            Phase(name=CLOSED, concurrency=arguments.concurrency, orders=self._orders, seconds=seconds),
            Phase(name=IDLE, concurrency=1, orders=idle, seconds=seconds),
            *(
                Phase(
                    name=f"{rate:g}/s",
                    rate=rate,
                    orders=max(1, round(rate * seconds)),
                    seconds=seconds,
                    below=below,
                )
                for rate in rates
            ),
        )

    def _scaling(self) -> tuple[Plan, ...]:
        sizes = [max(1, self._orders // step) for step in _STEPS]
        plans = [self._plan((self._many(f"{size:,} orders", size),), size // _SAMPLES) for size in sizes]
        if self._address != EMBEDDED:
            size = sizes[1]
            plans += [
                self._plan((self._many(name, size),), size // _SAMPLES, instances=number)
                for number, name in _INSTANCES.items()
            ]
        return tuple(plans)

    def _many(self, name: str, orders: int) -> Phase:
        return Phase(name=name, concurrency=self._arguments.concurrency, orders=orders, seconds=self._seconds)

    def _plan(self, phases: tuple[Phase, ...], sample_every: int = 0, instances: int | None = None) -> Plan:
        arguments = self._arguments
        instances_ = instances or arguments.instances
        return Plan(
            address=self._address,
            subjects=self._subjects,
            phases=phases,
            repeats=self._repeats,
            declined=arguments.declined,
            items=arguments.items,
            warm_up=self._warm_up,
            partitions=self._partitions,
            durability=arguments.durability,
            processes=arguments.processes or instances is not None or arguments.instances > 1,
            instances=instances_,
            sample_every=sample_every,
            within_s=_QUICK_S if arguments.quick else None,
        )

    def _peers(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The peers that were asked for; of all, those that can run here, and a word about the others."""
        if wanted is None:
            return ()
        with_server = self._settings.database_server is not None
        found = []
        for name in wanted or PEERS:
            peer = PEERS[name]
            why_not = peer.missing() or peer.unfit(with_server=with_server)
            if why_not is None:
                found.append(name)
            elif wanted:
                raise ConfigurationError(f"--peers {name}: {why_not}.")
            else:
                self.notes.append(f"Left out: {name}: {why_not}.")
        return tuple(found)
