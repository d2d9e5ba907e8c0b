"""The saga with FastStream on Kafka, without any guarantees: what one writes who follows its tutorial.

Each service subscribes to what concerns it, changes its database, and then publishes what has happened;
nothing ties these two together, and offsets are committed before a message is handled, which is FastStream's
default. A crash loses what it interrupts. So it tells what the guarantees of the others cost.

A topic holds events of one kind, a service subscribes to all that concern it, and handles several at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from aiokafka import ConsumerRecord
from fast_depends.msgspec import MsgSpecSerializer
from faststream.exceptions import FastStreamException
from faststream.kafka import KafkaBroker, KafkaMessage

from common.errors import ConfigurationError
from common.messages import (
    Charge,
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReserved,
    Message,
    OrderCreated,
    PaymentDeclined,
    PaymentProcessed,
    PlaceOrder,
    ProcessPayment,
    ReleaseInventory,
    ReserveInventory,
)
from compare.bench.subject import Costs
from compare.peers.participants import Participant
from compare.peers.peer import Peer, Terms
from compare.peers.topics import TOPICS

_WORKERS: Final = 16
"""Messages that one subscriber handles at once."""


class FastStream(Peer):
    """FastStream as its tutorial has it."""

    name: ClassVar = "faststream"
    errors: ClassVar = (FastStreamException,)

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._records = 0
        self._marked = 0
        self._under_way = 0

    async def launch(self) -> None:
        """Connect to the broker and subscribe.

        Raises:
            ConfigurationError: there is none.
        """
        bootstrap = self.terms.bootstrap
        if bootstrap is None:
            raise ConfigurationError(f"{self.name} needs a Kafka broker: name its address")
        self._broker = KafkaBroker(bootstrap, serializer=MsgSpecSerializer(), logger=None)
        self._subscribe()
        self.started.push_async_callback(self._broker.stop)
        await self._broker.start()

    async def submit(self, order: PlaceOrder) -> None:
        """Write the order down, and tell of it."""
        await self._tell(await self.services.order.carry_out(order))

    async def busy(self) -> bool:
        """Whether the end of an order is still to be told."""
        return self._under_way > 0

    def mark(self) -> None:
        """Count costs from now on."""
        super().mark()
        self._marked = self._records

    async def costs(self) -> Costs:
        """Records and commits; the size of a record is not told by FastStream."""
        costs = await super().costs()
        return Costs(records=self._records - self._marked, bytes=None, commits=costs.commits)

    def committed(self) -> int:
        """Transactions committed by the services."""
        return sum(service.tally.total for service in self.services)

    def _subscribe(self) -> None:
        on_inventory = self._subscriber(self.services.inventory, OrderCreated, PaymentDeclined)
        on_inventory(self._reserve, filter=self._of(OrderCreated))
        on_inventory(self._release, filter=self._of(PaymentDeclined))
        on_payment = self._subscriber(self.services.payment, InventoryReserved)
        on_payment(self._charge)
        on_order = self._subscriber(
            self.services.order, PaymentProcessed, InventoryRejected, InventoryReleased
        )
        on_order(self._complete, filter=self._of(PaymentProcessed))
        on_order(self._refuse, filter=self._of(InventoryRejected))
        on_order(self._fail, filter=self._of(InventoryReleased))

    def _subscriber(self, service: Participant, *events: type[Message]) -> Any:  # noqa: ANN401 - of one of several private classes
        """What a service hears, with a group of its own."""
        return self._broker.subscriber(
            *map(self._topic, events),
            group_id=f"{self.terms.run}.{service.name}",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self.terms.fetch_max_wait_ms,
            max_workers=_WORKERS,
        )

    async def _reserve(self, event: OrderCreated) -> None:
        charge = Charge(customer_id=event.customer_id, amount_cents=event.total_cents)
        command = ReserveInventory(
            order_id=event.order_id, item=event.item, quantity=event.quantity, charge=charge
        )
        await self._tell(await self.services.inventory.carry_out(command))

    async def _charge(self, event: InventoryReserved) -> None:
        if event.charge is None:
            raise ValueError(f"what is order {event.order_id} to be charged?")
        command = ProcessPayment(
            order_id=event.order_id,
            customer_id=event.charge.customer_id,
            amount_cents=event.charge.amount_cents,
        )
        await self._tell(await self.services.payment.carry_out(command))

    async def _release(self, event: PaymentDeclined) -> None:
        command = ReleaseInventory(order_id=event.order_id, reason=event.reason)
        await self._tell(await self.services.inventory.carry_out(command))

    async def _complete(self, event: PaymentProcessed) -> None:
        await self._end(CompleteOrder(order_id=event.order_id))

    async def _refuse(self, event: InventoryRejected) -> None:
        await self._end(FailOrder(order_id=event.order_id, reason=event.reason))

    async def _fail(self, event: InventoryReleased) -> None:
        await self._end(FailOrder(order_id=event.order_id, reason=event.reason))

    async def _end(self, command: CompleteOrder | FailOrder) -> None:
        self._under_way += 1
        try:
            answer = await self.services.order.carry_out(command)
            self.told(answer)
            await self._tell(answer)
        finally:
            self._under_way -= 1

    async def _tell(self, event: Message | None) -> None:
        if event is not None:
            self._records += 1
            await self._broker.publish(event, self._topic(type(event)), key=event.order_id.encode())

    def _topic(self, event: type[Message]) -> str:
        return f"{self.terms.run}.{TOPICS[event]}"

    def _of(self, event: type[Message]) -> Callable[[KafkaMessage], Awaitable[bool]]:
        topic = self._topic(event)

        # A coroutine, since FastStream would call a function in a thread.
        async def is_of(message: KafkaMessage) -> bool:
            record = message.raw_message
            return isinstance(record, ConsumerRecord) and record.topic == topic

        return is_of
