"""What led to what, and what came before: the order of an order's records, and the changes beside them."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from compare.recording import StateChange
from compare.story import Told, changes_by_record, story_order
from tests.compare.planting import DECLINED_ORDER, base, record_of
from tests.compare.recordings import CHOREOGRAPHED, ORCHESTRATED

ORDER: Final = "order"


def told(at: float, id_: str, cause: str = ORDER, *, topic: str = "orders", offset: int = 0) -> Told:
    """A record of an order."""
    return Told(at, topic, 0, offset, id_, cause)


def ids(records: list[Told]) -> list[str]:
    """The ids in the order of the story."""
    return [records[index].id for index in story_order(records)]


PLACED: Final = told(0, "placed")
RESERVED: Final = told(1, "reserved", "placed", topic="inventory")
CHARGED: Final = told(2, "charged", "reserved", topic="payments")
ABORTED: Final = told(20, "aborted", offset=1)
REFUNDED: Final = told(21, "refunded", "aborted", topic="payments", offset=1)
STORY: Final = ["placed", "reserved", "charged", "aborted", "refunded"]


@given(st.permutations([PLACED, RESERVED, CHARGED, ABORTED, REFUNDED]))
def test_what_a_deadline_tells_comes_when_it_was_told(records: list[Told]) -> None:
    """It descends from the order's beginning, as its first record does, and comes long after that."""
    assert ids(records) == STORY


def test_a_cause_comes_first_whatever_the_clocks_say() -> None:
    """A service whose clock is behind can't answer before it is asked."""
    behind = RESERVED._replace(at=-5)
    assert ids([behind, PLACED, CHARGED]) == ["placed", "reserved", "charged"]


def test_a_partition_keeps_its_order_whatever_the_clocks_say() -> None:
    """What was on the same partition first comes first."""
    assert ids([told(1, "second", offset=1), told(9, "first", offset=0)]) == ["first", "second"]


def test_a_message_told_again_waits_for_the_first_telling_of_its_cause_only() -> None:
    """Its cause, too, is told again, behind it or not: the first time has led to it."""
    again = PLACED._replace(at=30, offset=2)
    assert ids([again, CHARGED, RESERVED, PLACED]) == ["placed", "reserved", "charged", "placed"]


@given(st.lists(st.builds(told, st.floats(0, 9), st.sampled_from("abc"), st.sampled_from("abc")), max_size=8))
def test_every_record_has_a_place(records: list[Told]) -> None:
    """Even where records claim to have caused each other."""
    placed = [one._replace(offset=index) for index, one in enumerate(records)]
    assert sorted(story_order(placed)) == list(range(len(placed)))


def test_a_change_stands_with_the_record_that_caused_it() -> None:
    """And what came of the request itself with the first record."""
    case = base(CHOREOGRAPHED)
    order_id = case.orders[DECLINED_ORDER].order_id
    trace = [record for record in case.recording.trace if record.order_id == order_id]
    changes = [change for change in case.recording.changes if change.order_id == order_id]
    shown, homeless = changes_by_record(trace, changes)
    assert homeless == []
    assert {
        trace[index].type: [change.to_status for change in led_to] for index, led_to in shown.items()
    } == {
        "OrderCreated": ["PENDING", "RESERVED"],
        "InventoryReserved": ["DECLINED"],
        "PaymentDeclined": ["RELEASED"],
        "InventoryReleased": ["FAILED"],
    }


def test_what_a_deadline_changes_stands_with_what_it_tells() -> None:
    """The saga's second change by one cause belongs to the command that was told in that moment."""
    case = base(ORCHESTRATED)
    started = record_of(case, DECLINED_ORDER, "SagaStarted")
    release = record_of(case, DECLINED_ORDER, "ReleaseInventory").model_copy(
        update={"causation_id": started.id, "at_ms": 5000.0}
    )
    first, second = (
        StateChange(
            order_id=started.order_id,
            service="orchestrator",
            at_ms=at_ms,
            cause_id=started.id,
            from_status="any",
            to_status=status,
        )
        for at_ms, status in ((1.0, "RESERVING_INVENTORY"), (5000.0, "COMPENSATING"))
    )
    assert changes_by_record([started, release], [first, second]) == ({0: [first], 1: [second]}, [])


def test_a_change_that_nobody_saw_the_cause_of_has_no_place() -> None:
    """It is given back, so that nothing is lost."""
    case = base(CHOREOGRAPHED)
    record = record_of(case, DECLINED_ORDER, "OrderFailed")
    change = case.recording.changes[0].model_copy(update={"cause_id": "unheard of"})
    assert changes_by_record([record], [change]) == ({}, [change])


def test_a_change_is_not_what_an_unreadable_record_has_led_to() -> None:
    """Of a message that was told again after it could not be read, the second telling has led to it."""
    case = base(CHOREOGRAPHED)
    sound = record_of(case, DECLINED_ORDER, "PaymentDeclined")
    broken = sound.model_copy(update={"poisoned": True})
    change = case.recording.changes[0].model_copy(update={"cause_id": sound.id})
    assert changes_by_record([broken, sound], [change]) == ({1: [change]}, [])
    assert changes_by_record([broken], [change]) == ({0: [change]}, [])
