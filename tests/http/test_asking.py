"""What can be asked of an order over HTTP: its cancellation, and that an undo which failed is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import select

from common.core import Core
from common.domain.order import OrderStatus
from common.domain.payment import PaymentStatus
from common.messages import CompleteOrder, FailCompensation, FailOrder, Message, Reason, RetryCompensation
from common.services import PAYMENTS
from orchestrated.orchestrator import SAGAS
from orchestrated.saga import SagaState
from tests.http.conftest import OrderService, ServedMode
from tests.http.test_orders import LAPTOP
from tests.http.test_problems import check_problem
from tests.http.test_reading import UNKNOWN
from tests.running import asking, until

WAITING = {"Prefer": "wait=20"}
STUCK = partial(FailCompensation, reason=Reason.TIMED_OUT)
Kind = Callable[..., Message]
ENDINGS: dict[str, tuple[tuple[Kind, ...], str, str]] = {
    "completed": ((CompleteOrder,), "COMPLETED", "its payment was faster"),
    "declined": (
        (partial(FailOrder, reason=Reason.PAYMENT_DECLINED),),
        "FAILED",
        "FAILED already (payment_declined)",
    ),
    "given up": (
        (STUCK, RetryCompensation),
        "COMPENSATING",
        "given up already (timed_out); it is being undone",
    ),
    "stuck": ((STUCK,), "COMPENSATION_FAILED", "an operator has to mend the cause"),
}


async def placed(service: OrderService) -> str:
    """The id of a new order."""
    return str((await service.client.post("/orders", json=LAPTOP)).json()["order_id"])


async def moved(service: OrderService, *kinds: Kind) -> str:
    """The id of an order to which that has happened."""
    order_id = await placed(service)
    for kind in kinds:
        command = kind(order_id=order_id)
        await service.runner.submit(asking(command))
    return order_id


async def test_a_wish_to_cancel_is_taken_on(service: OrderService) -> None:
    """A PENDING order stays PENDING, and the wish is one message, however often it comes."""
    order_id = await placed(service)
    answers = [await service.client.post(f"/orders/{order_id.upper()}/cancel") for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
        assert answer.headers["Location"] == f"/orders/{order_id}"
        assert "Preference-Applied" not in answer.headers
    first, *others = [record.id for record in service.told()]
    assert (len({first, *others}), len(set(others))) == (2, 1)
    assert service.counts() == (1, 3, 0)


async def test_waits_for_the_decision_no_longer(service: OrderService) -> None:
    """What isn't decided in time is answered with 202."""
    order_id = await placed(service)
    answer = await service.client.post(f"/orders/{order_id}/cancel", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert answer.headers["Preference-Applied"] == "wait=1"


async def test_a_cancelled_order_is_cancelled(service: OrderService) -> None:
    """To cancel it again changes nothing."""
    order_id = await moved(service, partial(FailOrder, reason=Reason.CANCELLED))
    answer = await service.client.post(f"/orders/{order_id}/cancel")
    shown = (answer.status_code, answer.json()["status"], answer.json()["reason"])
    assert shown == (200, "FAILED", "cancelled")


@pytest.mark.parametrize(("kinds", "status", "why"), ENDINGS.values(), ids=ENDINGS)
async def test_what_cannot_be_cancelled(
    service: OrderService, kinds: tuple[Kind, ...], status: str, why: str
) -> None:
    """An order that is decided is a conflict, which says why, shows the order, and changes nothing."""
    order_id = await moved(service, *kinds)
    before = service.counts()
    problem = check_problem(await service.client.post(f"/orders/{order_id}/cancel", headers=WAITING), 409)
    assert problem["type"] == "urn:saga-lab:problem:not-cancellable"
    assert why in problem["detail"]
    assert problem["order"]["status"] == status
    assert service.counts() == before


@pytest.mark.parametrize("action", ["cancel", "retry-compensation"])
async def test_no_such_order(service: OrderService, action: str) -> None:
    """An unknown order is not found, what is no id is a fault, and a GET is the wrong method."""
    check_problem(await service.client.post(f"/orders/{UNKNOWN}/{action}"), 404)
    problem = check_problem(await service.client.post(f"/orders/1/{action}"), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/order_id"]
    answer = await service.client.get(f"/orders/{UNKNOWN}/{action}")
    check_problem(answer, 405)
    assert answer.headers["Allow"] == "POST"
    assert service.counts() == (0, 0, 0)


async def test_an_operator_has_an_undo_tried_again(service: OrderService) -> None:
    """An order that is stuck is undone again, once."""
    order_id = await moved(service, STUCK)
    answer = await service.client.post(f"/orders/{order_id}/retry-compensation")
    assert (answer.status_code, answer.json()["status"]) == (202, "COMPENSATING")
    assert answer.headers["Location"] == f"/orders/{order_id}"
    before = service.counts()
    problem = check_problem(await service.client.post(f"/orders/{order_id}/retry-compensation"), 409)
    assert problem["type"] == "urn:saga-lab:problem:nothing-to-retry"
    assert problem["detail"].startswith("The order is COMPENSATING: only")
    assert service.counts() == before


async def test_operators_who_are_as_fast_as_each_other_have_an_undo_tried_again_once(
    service: OrderService,
) -> None:
    """However many ask at once, it goes out once; whoever is told of a conflict was a moment later."""
    order_id = await moved(service, STUCK)
    _, before, _ = service.counts()
    path = f"/orders/{order_id}/retry-compensation"
    answers = await asyncio.gather(*(service.client.post(path) for _ in range(5)))
    statuses = {answer.status_code for answer in answers}
    assert 202 in statuses
    assert statuses <= {202, 409}
    assert service.counts() == (1, before + 1, 0)
    assert service.order(order_id).status is OrderStatus.COMPENSATING


async def test_a_wish_that_comes_with_a_bad_one_is_answered_as_if_it_came_alone(
    service: OrderService,
) -> None:
    """What others ask for at the same moment changes no answer, though all of it is tried twice."""
    stuck, pending = await moved(service, STUCK), await placed(service)
    paths = [
        f"/orders/{stuck}/retry-compensation",
        f"/orders/{stuck}/retry-compensation",
        f"/orders/{pending}/cancel",
        f"/orders/{pending}/retry-compensation",
        f"/orders/{UNKNOWN}/cancel",
    ]
    answers = await asyncio.gather(*(service.client.post(path) for path in paths))
    assert [answer.status_code for answer in answers] == [202, 409, 202, 409, 404]


async def test_only_what_is_stuck_can_be_retried(service: OrderService) -> None:
    """For an order that goes its way there is nothing to retry."""
    order_id = await placed(service)
    check_problem(await service.client.post(f"/orders/{order_id}/retry-compensation"), 409)
    assert service.counts() == (1, 1, 0)


async def test_the_payment_was_faster(mode: ServedMode) -> None:
    """An order that is paid for can't be cancelled any more."""
    order = (await mode["order"].post("/orders", json=LAPTOP, headers=WAITING)).json()
    problem = check_problem(await mode["order"].post(f"/orders/{order['order_id']}/cancel"), 409)
    assert problem["order"] == order


def refused(core: Core, order_id: str) -> bool:
    """Whether the wish to cancel was faster, as whoever decides about that has it."""
    table, status = (
        (SAGAS.table, SagaState.COMPENSATING)
        if core.wiring.name == "orchestrator"
        else (PAYMENTS.table, PaymentStatus.REFUNDED)
    )
    with core.database.read() as connection:
        found = connection.execute(select(table).where(table.c.order_id == order_id)).mappings().first()
    return found is not None and status in found.values()


async def test_the_wish_was_faster(mode: ServedMode) -> None:
    """An order whose goods are not held yet is cancelled, and everybody who waits for that is told."""
    decider = mode.runners.get("orchestrator", mode.runners["payment"]).core
    with mode.runners["inventory"].core.database.write():
        order_id = (await mode["order"].post("/orders", json=LAPTOP)).json()["order_id"]
        path = f"/orders/{order_id}/cancel"
        waiting = [asyncio.create_task(mode["order"].post(path, headers=WAITING)) for _ in range(2)]

        async def decided() -> bool:
            return await asyncio.to_thread(refused, decider, order_id)

        await until(decided)
    answers = [*(await asyncio.gather(*waiting)), await mode["order"].post(path)]
    for answer in answers:
        shown = (answer.status_code, answer.json()["status"], answer.json()["reason"])
        assert shown == (200, "FAILED", "cancelled")
    assert (await mode["inventory"].get("/stock/laptop")).json()["available"] == 100
    payments = (await mode["payment"].get("/payments")).json()["items"]
    assert [payment["status"] for payment in payments] in ([], ["REFUNDED"])


async def test_a_race_has_one_winner(mode: ServedMode) -> None:
    """Whichever is faster, the wish or the payment, the answer and every service agree on it."""

    async def race(number: int) -> None:
        order = (await mode["order"].post("/orders", json=LAPTOP)).json()
        # A head start for the payment, of a length of its own for each.
        await mode.runners["payment"].progress(number / 100)
        answer = await mode["order"].post(f"/orders/{order['order_id']}/cancel", headers=WAITING)
        shown = (await mode["order"].get(f"/orders/{order['order_id']}")).json()
        payment = await mode["payment"].get(f"/payments/{order['order_id']}")
        paid = payment.status_code == 200 and payment.json()["status"] == "CHARGED"
        outcome = (answer.status_code, shown["status"], shown["reason"], paid)
        assert outcome in {(200, "FAILED", "cancelled", False), (409, "COMPLETED", None, True)}

    await asyncio.gather(*map(race, range(10)))
