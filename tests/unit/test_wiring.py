"""Each check of the wirings finds what is planted in it, and says what it has found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from msgspec.structs import asdict

import choreographed
import orchestrated
from choreographed import topics as choreographed_topics
from common.annotations import returned_messages
from common.errors import WiringError
from common.messages import (
    CancelPayment,
    CancelSaga,
    Command,
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    OrderAborted,
    OrderCancelRequested,
    OrderCompensationFailed,
    OrderCompleted,
    OrderCreated,
    OrderFailed,
    Overdue,
    PaymentDeclined,
    PaymentProcessed,
    PaymentRefunded,
    PaymentRefundFailed,
    PlaceOrder,
    ProcessPayment,
    Reason,
    RefundPayment,
    RefusePayment,
    RefuseReservation,
    ReleaseInventory,
    ReserveInventory,
    RetryCompensation,
    SagaCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    TimedOut,
)
from common.wiring import Mode, Wiring, accept, instead_of, on
from orchestrated import topics as orchestrated_topics

ORDER: Final = choreographed.MODE.service("order")
INVENTORY: Final = choreographed.MODE.service("inventory")
PAYMENT: Final = choreographed.MODE.service("payment")
MODES: Final = (orchestrated.MODE, choreographed.MODE)
ENDS: Final = {OrderCompleted, OrderFailed, OrderCompensationFailed}


def fail_order(event: PaymentDeclined | PaymentRefunded) -> FailOrder:
    """React to a payment that is not, or no longer, there."""
    return FailOrder(order_id=event.order_id, reason=event.reason)


def complete_order(event: OrderCompleted) -> CompleteOrder:
    """React to one's own fact."""
    return CompleteOrder(order_id=event.order_id)


def start_saga(event: OrderCreated) -> SagaStarted:
    """Tell a command in place of a fact."""
    return SagaStarted(**asdict(event))


def mode_with(service: Wiring) -> Mode:
    """The choreographed mode with one of its services replaced."""
    services = tuple(service if one.name == service.name else one for one in choreographed.MODE.services)
    return replace(choreographed.MODE, services=services)


def without(service: Wiring, *messages: type[Any]) -> Wiring:
    """A service that has gone deaf for some messages."""
    heard = tuple(reaction for reaction in service.reactions if reaction.message not in messages)
    return replace(service, reactions=heard)


def test_two_reactions_to_one_message_are_refused() -> None:
    """A service has one reaction to a message, and the error names the message that has two."""
    with pytest.raises(
        WiringError, match=r"choreographed/payment has 2 rows for InventoryReserved; leave one"
    ):
        replace(PAYMENT, reactions=PAYMENT.reactions * 2)


def test_two_substitutions_for_one_message_are_refused() -> None:
    """A service tells one thing in place of another, and the error names the message that has two."""
    order = orchestrated.MODE.service("order")
    with pytest.raises(WiringError, match=r"orchestrated/order has 2 rows for OrderCreated; leave one"):
        replace(order, substitutions=order.substitutions * 2)


def test_a_substitution_for_what_is_never_emitted_is_refused() -> None:
    """A service can only tell something else instead of what its domain emits."""
    with pytest.raises(
        WiringError, match=r"choreographed/payment substitutes OrderCreated, which its domain"
    ):
        replace(PAYMENT, substitutions=(instead_of(OrderCreated, start_saga),))


def test_a_command_that_the_domain_does_not_know_is_refused() -> None:
    """A service can't react with another service's command, and the error names both messages."""
    with pytest.raises(WiringError, match="payment reacts to PaymentDeclined with FailOrder, unknown to it"):
        replace(PAYMENT, reactions=(on(PaymentDeclined, fail_order),))


def test_an_event_that_nobody_hears_is_refused() -> None:
    """Every fact has a listener or ends the story, and the error names the fact and who tells it."""
    with pytest.raises(
        WiringError, match="choreographed: nobody hears the PaymentProcessed that choreographed/payment tells"
    ):
        mode_with(without(ORDER, PaymentProcessed))


def test_a_reaction_to_what_nobody_tells_is_refused() -> None:
    """Nobody waits for a message that never comes, and the error names it and who waits."""
    waiting = replace(ORDER, reactions=(*ORDER.reactions, accept(CompleteOrder)))
    with pytest.raises(WiringError, match="choreographed/order reacts to CompleteOrder, which nobody tells"):
        mode_with(waiting)


def test_a_step_that_nothing_undoes_is_refused() -> None:
    """A step before the pivot has its undo, and the error names both commands."""
    deaf = without(INVENTORY, PaymentDeclined, PaymentRefunded)
    others = without(ORDER, InventoryReleased, InventoryReleaseFailed).reactions
    informed = replace(
        ORDER, reactions=(*others, on(PaymentDeclined, fail_order), on(PaymentRefunded, fail_order))
    )
    services = (informed, deaf, PAYMENT)
    with pytest.raises(
        WiringError, match="nothing ever undoes ReserveInventory: add a reaction with ReleaseInventory"
    ):
        replace(choreographed.MODE, services=services)


def test_a_function_that_does_not_say_what_it_returns_is_refused() -> None:
    """Tables are checked by annotations, so the error names the function that lacks one."""
    with pytest.raises(WiringError, match="<lambda> must be annotated with the message it returns, not None"):
        on(PaymentProcessed, lambda event: CompleteOrder(order_id=event.order_id))


def test_a_function_that_returns_no_message_is_refused() -> None:
    """An annotation with anything but messages is refused, and the error quotes it."""

    def confused(_: PaymentProcessed) -> CompleteOrder | str:
        return "done"

    with pytest.raises(WiringError, match=r"confused must be annotated .*CompleteOrder \| str"):
        returned_messages(confused)


def test_a_reaction_that_may_be_one_of_several_is_refused() -> None:
    """A reaction leads to one command, and the error names the function that may return two."""

    def undecided(event: PaymentProcessed) -> CompleteOrder | ReserveInventory:
        return CompleteOrder(order_id=event.order_id)

    with pytest.raises(WiringError, match="undecided may return several messages; give each its own row"):
        on(PaymentProcessed, undecided)


@pytest.mark.parametrize("command", [SagaStarted, ReserveInventory, ReleaseInventory, ProcessPayment])
def test_a_command_has_no_topic_in_choreography(command: type[Command]) -> None:
    """In choreography nobody can send a command, and the error names the one that has no topic."""
    with pytest.raises(WiringError, match=f"{command.__name__} has no topic in the choreographed mode"):
        choreographed_topics.topic_of(command)


def test_a_service_that_tells_a_command_has_no_topics_in_choreography() -> None:
    """A wiring that would send a command in choreography fails as soon as its topics are asked for."""
    commanding = replace(ORDER, substitutions=(instead_of(OrderCreated, start_saga),))
    with pytest.raises(WiringError, match="SagaStarted has no topic"):
        _ = commanding.topics


def test_the_choreographed_services_listen_to_each_other() -> None:
    """Each service's subscriptions follow from its reactions."""
    heard = {service.name: service.subscriptions for service in choreographed.MODE.services}
    assert heard == {
        "order": {"inventory.events", "payments.events"},
        "inventory": {"orders.events", "payments.events"},
        "payment": {"orders.events", "inventory.events"},
    }
    assert choreographed.MODE.topics == {"orders.events", "inventory.events", "payments.events"}


def test_the_orchestrated_services_know_two_topics() -> None:
    """Domain services hear commands, the order hears of the end, and the orchestrator hears both."""
    heard = {service.name: service.subscriptions for service in orchestrated.MODE.services}
    assert heard == {
        "order": {"saga.events"},
        "orchestrator": {"saga.commands", "saga.events"},
        "inventory": {"saga.commands"},
        "payment": {"saga.commands"},
    }
    assert orchestrated.MODE.topics == {"saga.commands", "saga.events"}
    assert orchestrated_topics.topic_of(PlaceOrder) == "saga.commands"


def test_what_a_service_tells_follows_from_what_it_does() -> None:
    """A service tells the answers of the commands that it handles, each after its substitution."""
    assert PAYMENT.tells == {PaymentProcessed, PaymentDeclined, PaymentRefunded, PaymentRefundFailed}
    assert INVENTORY.tells == {
        InventoryReserved,
        InventoryRejected,
        InventoryReleased,
        InventoryReleaseFailed,
    }
    assert ORDER.tells == {OrderCreated, OrderCancelRequested, OrderAborted, *ENDS}
    assert orchestrated.MODE.service("order").tells == {SagaStarted, CancelSaga, RetryCompensation, *ENDS}
    assert orchestrated.MODE.service("orchestrator").tells == {
        ReserveInventory,
        ReleaseInventory,
        ProcessPayment,
        RefundPayment,
        CancelPayment,
        SagaCompleted,
        SagaFailed,
        SagaCompensationFailed,
    }
    assert orchestrated.MODE.service("order").told(OrderCreated) is SagaStarted
    assert ORDER.told(OrderCreated) is OrderCreated


def test_what_stands_in_for_a_command_is_told_only_where_that_command_is_heard() -> None:
    """A service that can't be asked for an undo can't report that one has failed either."""
    assert InventoryReleaseFailed not in without(INVENTORY, PaymentDeclined, PaymentRefunded).tells
    assert PaymentRefundFailed not in without(PAYMENT, OrderAborted).tells
    assert OrderAborted in replace(ORDER, deadlines={}).tells
    asked_for_nothing = replace(ORDER, domain=replace(ORDER.domain, requests=frozenset()))
    assert asked_for_nothing.tells == ORDER.tells - {OrderCancelRequested}
    assert replace(asked_for_nothing, deadlines={}).tells == ENDS


def test_dead_letters_have_topics_beside_those_that_are_read() -> None:
    """Each topic that somebody reads has one for dead letters; what only is written needs none."""
    assert choreographed.MODE.all_topics == sorted(
        topic + end
        for topic in ("orders.events", "inventory.events", "payments.events")
        for end in ("", ".dlq")
    )
    assert PAYMENT.all_topics == [
        "inventory.events",
        "inventory.events.dlq",
        "orders.events",
        "orders.events.dlq",
        "payments.events",
    ]


def test_only_a_step_is_refused_in_place_of_a_record_that_cannot_be_read() -> None:
    """An undo is asked for again in a record that may be sound, and a foreign order is none of the lab's."""
    refused = INVENTORY.instead_of_unreadable(ReserveInventory, "order-1")
    assert refused == RefuseReservation(order_id="order-1", reason=Reason.DEAD_LETTER)
    assert PAYMENT.instead_of_unreadable(ProcessPayment, "order-1") == RefusePayment(
        order_id="order-1", reason=Reason.DEAD_LETTER
    )
    assert INVENTORY.instead_of_unreadable(ReserveInventory, "line\nbreak") is None
    for service, command in (
        (INVENTORY, ReleaseInventory),
        (PAYMENT, RefundPayment),
        (PAYMENT, CancelPayment),
        (ORDER, CompleteOrder),
    ):
        assert service.instead_of_unreadable(command, "order-1") is None


def test_every_state_that_is_waited_in_can_be_asked_in_again() -> None:
    """Each status with a deadline has its own answers to a deadline that passes, wherever it is set."""
    for mode in MODES:
        for service in mode.services:
            if service.deadlines:
                assert {Overdue, TimedOut} <= service.domain.answers.keys()
    assert {str(one) for mode in MODES for one in mode.services if one.deadlines} == {
        "orchestrated/order",
        "orchestrated/orchestrator",
        "choreographed/order",
    }


def test_a_service_has_one_group_and_one_name() -> None:
    """Group and name tell the mode and the service, so that both modes can share a broker."""
    assert (ORDER.group, str(ORDER), ORDER.name) == ("choreographed.order", "choreographed/order", "order")


def test_a_service_that_a_mode_lacks_is_not_found() -> None:
    """Choreography has no orchestrator to ask for."""
    with pytest.raises(KeyError, match="orchestrator"):
        choreographed.MODE.service("orchestrator")


def test_every_message_has_a_home_in_its_mode() -> None:
    """What is heard in a mode is told there, apart from what ends the story."""
    for mode in MODES:
        told = {message for service in mode.services for message in service.tells}
        heard = {reaction.message for service in mode.services for reaction in service.reactions}
        assert told - heard == mode.final
        assert heard <= told


def test_the_ports_of_all_services_differ() -> None:
    """Both modes run side by side, so no two services share a port."""
    services = (*orchestrated.MODE.services, *choreographed.MODE.services)
    assert len({service.port for service in services}) == len(services)


def test_reserved_and_failed_are_heard_where_they_belong() -> None:
    """A look-up by type name gives the reaction, and none for what is not this service's business."""
    assert PAYMENT.reaction_to["InventoryReserved"].command is ProcessPayment
    assert InventoryReserved.__name__ not in ORDER.reaction_to
    assert {SagaCompleted, SagaFailed, SagaCompensationFailed} == {
        reaction.message for reaction in orchestrated.MODE.service("order").reactions
    }
