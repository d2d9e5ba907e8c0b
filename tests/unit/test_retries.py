"""What fails is tried again: scheduled in the database, ever more rarely, and with one effect in the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

import choreographed
import orchestrated
from common.core import Core
from common.domain.decision import Decision
from common.errors import PermanentError
from common.messages import (
    CompleteOrder,
    FailOrder,
    InventoryRejected,
    InventoryReleased,
    InventoryReleaseFailed,
    InventoryReserved,
    Message,
    OrderCompleted,
    OrderFailed,
    Overdue,
    ProcessPayment,
    Reason,
    RefuseReservation,
    ReleaseInventory,
    ReserveInventory,
    SagaStarted,
)
from common.probe import Probe
from common.recovery import Limit, Recovery
from common.wiring import Mode, Wiring
from tests.pump import NOW, PARTITIONS, Pump, fill_stock, open_core, order_id, place_order, rows_of
from tests.unit.records import (
    INVENTORY,
    MODES,
    Failing,
    check_books,
    command,
    counters,
    counts,
    dead_letters,
    due,
    end_of,
    free_laptops,
    letters,
    on_topic,
    release,
    reopened,
    reserve,
    told,
    total,
    waiting,
    woken,
)

HOUR: Final = timedelta(hours=1)
RECOVERY: Final = Recovery()
RESERVED: Final = InventoryReserved(order_id=order_id(1), item="laptop", quantity=2)
REFUSED: Final = InventoryRejected(order_id=order_id(1), reason=Reason.DEAD_LETTER)


def inventory(folder: Path, probe: Probe, recovery: Recovery = RECOVERY) -> Core:
    """The orchestrated Inventory service, with ten laptops and a fault."""
    core = open_core(INVENTORY, folder, probe=probe, recovery=recovery)
    with core.database.write() as transaction:
        fill_stock(transaction, {"laptop": 10})
    return core


def answers_of(core: Core, until: datetime = NOW + HOUR) -> list[Message]:
    """What a service tells when it is woken whenever it wants to be."""
    return [message for _, outgoing in woken(core, until) for message in told(outgoing)]


@pytest.mark.parametrize("times", range(1, RECOVERY.retry_tries))
def test_what_fails_for_a_while_succeeds_in_the_end(times: int, tmp_path: Path) -> None:
    """After any number of failures below the limit, the command is carried out once and answered once."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=times))
    assert core.process([reserve()], NOW) == []
    assert rows_of(core)["reservations"] == []
    assert answers_of(core) == [RESERVED]
    assert free_laptops(core) == 8
    assert waiting(core) == []
    assert counters(core) == {"retried": times}
    core.database.close()


def test_what_always_fails_is_given_up(tmp_path: Path) -> None:
    """After the last try the record is a dead letter, and the refusal is told in its place, once."""
    core = inventory(tmp_path, Failing(ReserveInventory))
    core.process([reserve()], NOW)
    outgoing = [record for _, records in woken(core, NOW + HOUR) for record in records]
    assert told(outgoing) == [REFUSED]
    [letter] = letters(outgoing)
    assert (letter.reason, letter.tries, letter.origin) == ("failed", "5", "saga.commands[0]@0")
    assert "TransientError" in letter.error
    assert free_laptops(core) == 10
    assert counters(core) == {"retried": 4, "dead_letter": 1}
    assert counts(core)[0] == 0, "its id is forgotten, so that it may be replayed"
    core.database.close()


def test_the_tries_come_ever_more_rarely(tmp_path: Path) -> None:
    """Each delay is the one that the recovery has for this record and try, and is longer than the last."""
    core = inventory(tmp_path, Failing(ReserveInventory), Recovery(retry_tries=8))
    record = reserve()
    core.process([record], NOW)
    times = [NOW, *(now for now, _ in woken(core, NOW + HOUR))]
    delays = [after - before for before, after in pairwise(times)]
    message_id = dict(record.headers)["ce_id"].decode()
    assert delays == [RECOVERY.retry_delay(tries, message_id) for tries in range(1, 8)]
    assert delays == sorted(delays)
    core.database.close()


@given(st.integers(1, 10_000), st.text(max_size=20), st.floats(0.001, 10), st.floats(10, 100))
def test_a_delay_is_bounded_and_always_the_same(tries: int, key: str, first: float, longest: float) -> None:
    """The jitter takes at most a fifth away, whatever is tried again, and is the same in every run."""
    recovery = Recovery(retry_first_s=first, retry_longest_s=longest)
    delay = recovery.retry_delay(tries, key).total_seconds()
    full = min(longest, first * 2.0 ** min(tries - 1, 64))
    assert 0.8 * full - 1e-6 <= delay <= full + 1e-6
    assert recovery.retry_delay(tries, key) == recovery.retry_delay(tries, key)


def test_what_failed_together_is_not_tried_again_together() -> None:
    """The jitter spreads the tries of different messages over a fifth of the delay."""
    delays = {RECOVERY.retry_delay(8, f"message {number}") for number in range(100)}
    assert len(delays) == 100
    assert max(delays) - min(delays) > timedelta(seconds=1.5)


def test_a_person_is_waited_for_without_end() -> None:
    """A limit without a timeout has no delay, and one without a number of tries has no last."""
    assert RECOVERY.operator().delay(1, "order") is None
    assert not RECOVERY.word().is_last(10**6)
    assert [Limit(1.0, 3).is_last(tries) for tries in (1, 2, 3, 4)] == [False, False, True, True]
    longest = RECOVERY.order().delay(50, "order")
    assert longest is not None
    assert longest <= timedelta(seconds=8 * RECOVERY.order_timeout_s)


def test_the_other_orders_of_a_batch_do_not_wait(tmp_path: Path) -> None:
    """A command that fails takes nothing with it: before it or behind it, the others are done at once."""
    core = inventory(tmp_path, Failing(ReserveInventory, orders=[order_id(2)]))
    outgoing = core.process([reserve(1), reserve(2), reserve(3), release(3)], NOW)
    assert [message.order_id for message in told(outgoing)] == [order_id(1), order_id(3), order_id(3)]
    assert [row[0] for row in waiting(core)] == [order_id(2)]
    assert free_laptops(core) == 8
    core.database.close()


def test_a_half_done_decision_leaves_no_trace(tmp_path: Path) -> None:
    """Where one of a decision's messages can't be sealed, neither the others nor the new state are kept."""

    def decide(state: Any, message: Any, rules: Any) -> Decision[Any]:  # noqa: ANN401 - as a decider is declared
        after, messages, _ = INVENTORY.domain.decide(state, message, rules)
        return Decision(after, (*messages, "no message"))  # type: ignore[arg-type] # the fault that is planted

    broken = replace(INVENTORY, domain=replace(INVENTORY.domain, decide=decide))
    core = open_core(broken, tmp_path)
    assert core.process([reserve()], NOW) == []
    assert rows_of(core)["reservations"] == []
    assert counts(core) == (1, 0, 0)
    assert [row[:2] for row in waiting(core)] == [(order_id(1), 1)]
    core.database.close()


def test_a_retry_outlives_its_process(tmp_path: Path) -> None:
    """What is to be tried again is in the database, with all that the record was."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=2))
    core.process([reserve()], NOW)
    first = due(core)
    assert first is not None
    core = reopened(core, tmp_path)
    assert core.due_in(NOW) == 0, "a new instance looks what there is"
    assert core.wake(range(PARTITIONS), NOW) == []
    assert core.due_in(NOW) == (first - NOW).total_seconds()
    assert core.wake(range(PARTITIONS), first) == []
    core = reopened(core, tmp_path)
    assert answers_of(core) == [RESERVED]
    assert free_laptops(core) == 8
    core.database.close()


def test_nothing_is_tried_before_its_time_nor_by_another_owner(tmp_path: Path) -> None:
    """A retry waits for its moment, and for whoever has its partition."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=1))
    core.process([reserve(partition=1)], NOW)
    when = due(core)
    assert when is not None
    assert core.wake(range(PARTITIONS), when - timedelta(microseconds=1)) == []
    assert core.wake([0, 2], when) == []
    assert told(core.wake([1], when)) == [RESERVED]
    core.database.close()


def test_a_duplicate_that_comes_between_two_tries_is_dropped(tmp_path: Path) -> None:
    """The record is in the inbox already while it waits, so its copy has no try of its own."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=1))
    assert core.process([reserve(), reserve()], NOW) == []
    assert core.process([reserve()], NOW) == []
    assert len(waiting(core)) == 1
    assert answers_of(core) == [RESERVED]
    assert core.process([reserve()], NOW + HOUR) == []
    assert free_laptops(core) == 8
    assert counters(core) == {"duplicate": 3, "retried": 1}
    core.database.close()


def test_what_cannot_succeed_is_given_up_at_once(tmp_path: Path) -> None:
    """An error that trying again can't mend is not tried again."""
    core = inventory(tmp_path, Failing(ReserveInventory, error=PermanentError))
    outgoing = core.process([reserve()], NOW)
    assert told(outgoing) == [REFUSED]
    assert [letter.tries for letter in letters(outgoing)] == ["1"]
    assert counters(core) == {"dead_letter": 1}
    core.database.close()


def test_an_undo_has_more_tries_than_a_step(tmp_path: Path) -> None:
    """An undo is to succeed, so it is given up later, and then it is told that the goods are still held."""
    core = inventory(tmp_path, Failing(ReleaseInventory))
    core.process([reserve(), release()], NOW)
    outgoing = [record for _, records in woken(core, NOW + HOUR) for record in records]
    assert told(outgoing) == [InventoryReleaseFailed(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED)]
    assert [letter.tries for letter in letters(outgoing)] == [str(RECOVERY.undo_tries)]
    assert free_laptops(core) == 8
    core.database.close()


def test_an_undo_may_overtake_the_step_that_is_tried_again(tmp_path: Path) -> None:
    """While the step waits for its next try, its undo leaves a tombstone, and the step is then refused."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=1))
    undone = told(core.process([reserve(), release()], NOW))
    assert undone == [InventoryReleased(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED)]
    assert answers_of(core) == [InventoryRejected(order_id=order_id(1), reason=Reason.PAYMENT_DECLINED)]
    assert free_laptops(core) == 10
    core.database.close()


def test_giving_up_comes_too_late_for_what_is_done(tmp_path: Path) -> None:
    """Where the same step was asked for twice, and the second has succeeded, giving up the first is late."""
    probe = Failing(ReserveInventory)
    core = inventory(tmp_path, probe)
    core.process([reserve()], NOW)
    probe.times = 1
    assert told(core.process([reserve(attempt=2)], NOW)) == [RESERVED]
    probe.times = 10**9
    outgoing = [record for _, records in woken(core, NOW + HOUR) for record in records]
    assert told(outgoing) == []
    assert len(letters(outgoing)) == 1
    assert (free_laptops(core), core.counts["late"]) == (8, 1)
    core.database.close()


def test_headers_without_a_value_are_no_obstacle(tmp_path: Path) -> None:
    """A foreign header that is null on the wire must not stop the record from being kept."""
    nothing: Any = None  # Kafka permits it; the record's type doesn't, since no producer of ours does it.
    core = inventory(tmp_path, Failing(ReserveInventory, times=1))
    record = reserve()
    core.process([replace(record, headers=(*record.headers, ("foreign", nothing)))], NOW)
    assert answers_of(core) == [RESERVED]
    core.database.close()


def failing_at(wiring: Wiring, kind: type[Message], order: str) -> Wiring:
    """The service with a decider that can't decide one kind of command for one order."""

    def decide(state: Any, message: Any, rules: Any) -> Decision[Any]:  # noqa: ANN401 - as a decider is declared
        if isinstance(message, kind) and message.order_id == order:
            raise ConnectionError(order)
        return wiring.domain.decide(state, message, rules)

    return replace(wiring, domain=replace(wiring.domain, decide=decide))


def test_a_refusal_that_fails_itself_stops_nobody_else(tmp_path: Path) -> None:
    """Where not even giving up works, the record is a dead letter all the same, and the others go on."""
    wiring = failing_at(INVENTORY, RefuseReservation, order_id(1))
    core = open_core(wiring, tmp_path, probe=Failing(ReserveInventory, error=PermanentError))
    outgoing = core.process([reserve(1), reserve(2)], NOW)
    assert told(outgoing) == [structs.replace(REFUSED, order_id=order_id(2))]
    assert [letter.order_id for letter in letters(outgoing)] == [order_id(1), order_id(2)]
    core.database.close()


def test_a_deadline_that_fails_itself_is_put_off_and_stops_nobody_else(tmp_path: Path) -> None:
    """The other orders' deadlines are fired, and the one that fails comes again and again."""
    orchestrator = orchestrated.MODE.service("orchestrator")
    core = open_core(failing_at(orchestrator, Overdue, order_id(1)), tmp_path)
    started = [SagaStarted(**structs.asdict(place_order(number))) for number in (1, 2)]
    core.process([command(message) for message in started], NOW)
    outgoing = [record for _, records in woken(core, NOW + timedelta(seconds=11)) for record in records]
    assert {message.order_id for message in told(outgoing)} == {order_id(2)}
    when = due(core)
    assert when is not None
    assert when > NOW + timedelta(seconds=11)
    core.database.close()
    core = open_core(orchestrator, tmp_path)
    again = [record for _, records in woken(core, when) for record in records]
    assert [(message.order_id, type(message)) for message in told(again)] == [(order_id(1), ReserveInventory)]
    core.database.close()


def test_each_limit_is_made_of_its_own_times_and_tries() -> None:
    """A step, an order, their undoing, another's word and a person: each is waited for as it is set."""
    recovery = Recovery(undo_tries=7, step_timeout_s=1.5, order_timeout_s=2.5, deadline_tries=4)
    assert (recovery.step(), recovery.undo()) == (Limit(1.5, 4), Limit(1.5, 7))
    assert (recovery.order(), recovery.undone_order()) == (Limit(2.5, 4), Limit(2.5, 7))
    assert (recovery.word(), recovery.operator()) == (Limit(2.5, None), Limit(None, None))


@pytest.mark.parametrize(("tries", "full"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 16), (50, 16)])
def test_a_deadline_comes_ever_more_rarely_up_to_a_bound(tries: int, full: float) -> None:
    """Each interval is twice the one before it, but for its jitter, up to eight times the first."""
    delay = Limit(2.0).delay(tries, "order")
    assert delay is not None
    assert 0.8 * full <= delay.total_seconds() <= full


# Whole modes

STOCK: Final = {"laptop": 10}
ENDLESS: Final = 10**9


@MODES
@pytest.mark.parametrize("step", [ReserveInventory, ProcessPayment])
def test_a_step_that_fails_for_a_while_costs_no_order(
    mode: Mode, step: type[Message], tmp_path: Path
) -> None:
    """An order whose step fails a few times completes, and nobody is told of it."""
    pump = Pump(mode, tmp_path, STOCK, probe=lambda _: Failing(step, times=3), copies=2)
    pump.request([place_order(1), place_order(2)])
    pump.run(8)
    assert [end_of(pump.state(), number) for number in (1, 2)] == [
        ("COMPLETED", None, "RESERVED", "CHARGED")
    ] * 2
    check_books(pump, STOCK, [1, 2])
    assert total(pump, "retried") == 6
    assert dead_letters(pump) == []
    pump.close()


@MODES
@pytest.mark.parametrize(
    ("step", "reservation", "payment"),
    [(ReserveInventory, "REJECTED", None), (ProcessPayment, "RELEASED", "DECLINED")],
)
def test_a_step_that_always_fails_fails_its_order_and_no_other(
    mode: Mode, step: type[Message], reservation: str, payment: str | None, tmp_path: Path
) -> None:
    """A dead letter leads to a failure event, so that the saga ends, and the orders beside it complete."""
    probe = Failing(step, orders=[order_id(2)])
    pump = Pump(mode, tmp_path, STOCK, probe=lambda _: probe)
    pump.request(place_order(number) for number in (1, 2, 3))
    pump.run()
    assert [end_of(pump.state(), number)[0] for number in (1, 2, 3)] == ["COMPLETED", "PENDING", "COMPLETED"]
    pump.run(8)
    assert end_of(pump.state(), 2) == ("FAILED", "dead_letter", reservation, payment)
    check_books(pump, STOCK, [1, 2, 3])
    assert [letter.order_id for letter in dead_letters(pump)] == [order_id(2)]
    assert total(pump, "overdue") == 0
    pump.close()


@MODES
@pytest.mark.parametrize("error", [ConnectionError, PermanentError])
def test_past_the_pivot_completing_is_tried_for_ever(
    mode: Mode, error: type[Exception], tmp_path: Path
) -> None:
    """An order that is paid for is completed in the end, however long that fails; no deadline intervenes."""
    probe = Failing(CompleteOrder, error=error)
    pump = Pump(mode, tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1)])
    pump.run(900)
    assert end_of(pump.state()) == ("PENDING", None, "RESERVED", "CHARGED")
    assert dead_letters(pump) == []
    assert pump.cores["order"].counts["retried"] > 80
    assert (total(pump, "overdue"), total(pump, "timed_out")) == (0, 0)
    probe.times = 0
    pump.run(900)
    assert end_of(pump.state()) == ("COMPLETED", None, "RESERVED", "CHARGED")
    assert len(on_topic(pump, OrderCompleted)) == 1
    check_books(pump, STOCK, [1])
    pump.close()


@MODES
def test_failing_an_order_is_tried_for_ever(mode: Mode, tmp_path: Path) -> None:
    """An order whose effects are all undone is failed in the end, with the reason that it failed for."""
    probe = Failing(FailOrder, times=100)
    pump = Pump(mode, tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1, item="unicorn")])
    pump.run(7200)
    assert end_of(pump.state()) == ("FAILED", "unknown_item", "REJECTED", None)
    assert len(on_topic(pump, OrderFailed)) == 1
    pump.close()


@pytest.mark.parametrize("again", [True, False], ids=["fails again", "succeeds"])
def test_a_deadline_waits_for_a_retry_that_is_due_at_the_same_time(again: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    """Where both are due at once, an order is not given up beside the record that goes on with it."""
    probe = Failing(CompleteOrder)
    pump = Pump(choreographed.MODE, tmp_path, STOCK, probe=lambda _: probe)
    pump.request([place_order(1)])
    pump.run()
    order = pump.cores["order"]
    probe.times = ENDLESS if again else 0
    assert len(waiting(order)) == 1
    order.look_again()
    outgoing = order.wake(range(PARTITIONS), NOW + HOUR)
    assert told(outgoing) == ([] if again else [OrderCompleted(order_id=order_id(1))])
    assert (order.counts["overdue"], order.counts["timed_out"]) == (0, 0)
    assert rows_of(order)["orders"][0][5] == ("PENDING" if again else "COMPLETED")
    pump.close()


def test_a_command_from_outside_is_not_tried_again(tmp_path: Path) -> None:
    """Whoever asks over HTTP is told of the error at once, and asks again if need be."""
    order = choreographed.MODE.service("order")

    def decide(*_: object) -> Decision[Any]:
        raise ConnectionError

    core = open_core(replace(order, domain=replace(order.domain, decide=decide)), tmp_path)
    with pytest.raises(ConnectionError), core.database.write() as transaction:
        core.submit(transaction, [(place_order(), 0)], NOW)
    assert counts(core) == (0, 0, 0)
    assert waiting(core) == []
    core.database.close()


def test_a_retried_record_keeps_its_bytes(tmp_path: Path) -> None:
    """A record is tried again as it came, with headers that are no text."""
    core = inventory(tmp_path, Failing(ReserveInventory, times=1))
    record = command(ReserveInventory(order_id=order_id(1), item="laptop", quantity=2))
    core.process([replace(record, headers=(*record.headers, ("foreign", b"\xff\x00\xfe")))], NOW)
    core = reopened(core, tmp_path)
    assert answers_of(core) == [RESERVED]
    core.database.close()
