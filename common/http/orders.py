"""Placing an order and asking for its end: what the Order service has beside the read-only routes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from pydantic import WithJsonSchema

from common.http.asking import Asked, Asking
from common.http.exact_json import MAX_BODY_BYTES, ExactJSONRoute
from common.http.new_order import NewOrder
from common.http.placing import Placing
from common.http.prefer import MAX_WAIT_S, preferred_wait_s
from common.http.pretty import PrettyJSONResponse
from common.http.problems import problem_responses
from common.http.rows import OrderId
from common.http.views import view_model
from common.http.waiting import Waiting
from common.runner import Runner
from common.services import ORDERS

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="makes a repeat safe: it gets the first answer again, and no second order is made; while "
        "the first request still waits for the order's end, a repeat makes 202 the answer to both",
        examples=["5a1a6f0e-9c0b-4f0e-8a53-0d0d4f7b8a11"],
    ),
]
Prefer = Annotated[
    list[str] | None,
    Header(
        alias="Prefer",
        description=f"`wait=N` (RFC 7240) waits up to N seconds, {MAX_WAIT_S} at most, for the order's end; "
        "other preferences are ignored",
    ),
    # It may come on several lines, but whatever it says is valid: what makes no sense is ignored.
    WithJsonSchema({"type": "string", "examples": ["wait=5"]}),
]

_LOCATION: Final = {"Location": {"description": "where the order is", "schema": {"type": "string"}}}
_APPLIED: Final = {
    "Preference-Applied": {"description": "the wait that was granted", "schema": {"type": "string"}}
}
_REPLAYED: Final = {
    "Idempotent-Replayed": {
        "description": "`true` if this is the first answer again",
        "schema": {"type": "string"},
    }
}
_NO_DATABASE: Final = {
    "service_unavailable": "The database can't be used, or too much waits for the broker already."
}
_NO_SUCH: Final = {"not_found": "There is no such order here.", "unprocessable_entity": "The id is invalid."}


def orders_router(runner: Runner, closing: asyncio.Event) -> APIRouter:
    """The routes that take orders, and wishes about them."""
    router = APIRouter(tags=["orders"], route_class=ExactJSONRoute)
    waiting = Waiting(runner, closing)
    _add_placing(router, Placing(runner, waiting))
    asking = Asking(runner, waiting)
    _add_cancelling(router, asking)
    _add_retrying(router, asking)
    return router


def _answer(description: str, *headers: dict[str, Any]) -> dict[str, Any]:
    """An answer that tells the order, as OpenAPI has it."""
    told = {name: meaning for some in headers for name, meaning in some.items()}
    return {"model": view_model(ORDERS), "description": description, "headers": told}


def _add_placing(router: APIRouter, placing: Placing) -> None:
    headers = (_LOCATION, _APPLIED, _REPLAYED)
    answers: dict[int | str, dict[str, Any]] = {
        HTTPStatus.CREATED: _answer("It has ended.", *headers),
        HTTPStatus.ACCEPTED: _answer("It is taken on.", *headers),
    }
    problems = problem_responses(
        bad_request="The body is not JSON, or a name in it comes twice.",
        request_entity_too_large=f"The body has more than {MAX_BODY_BYTES} bytes.",
        unsupported_media_type="The body is not `application/json`.",
        unprocessable_entity="The order is invalid, or the Idempotency-Key was used for another one.",
        **_NO_DATABASE,
    )

    @router.post(
        "/orders",
        status_code=HTTPStatus.ACCEPTED,
        response_model=view_model(ORDERS),
        responses={**answers, **problems},
        summary="Place an order",
    )
    async def place_order(
        new: NewOrder, idempotency_key: IdempotencyKey = None, prefer: Prefer = None
    ) -> PrettyJSONResponse:
        """Take an order on. It is PENDING then, and ends as COMPLETED or FAILED a moment later.

        Orders are taken while the broker is away, too; they go on when it is back.
        """
        wait_s = preferred_wait_s(prefer or [])
        answer = await placing.place(new, idempotency_key, wait_s or 0)
        headers = {"Location": f"/orders/{answer.order['order_id']}"}
        if answer.replayed:
            headers["Idempotent-Replayed"] = "true"
        elif wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s}"
        return PrettyJSONResponse(answer.order, answer.status, headers)


def _add_cancelling(router: APIRouter, asking: Asking) -> None:
    answers: dict[int | str, dict[str, Any]] = {
        HTTPStatus.OK: _answer("It is cancelled: it has FAILED, as `cancelled`.", _LOCATION, _APPLIED),
        HTTPStatus.ACCEPTED: _answer("The wish is taken on, and not decided yet.", _LOCATION, _APPLIED),
    }
    conflict = "It can't be cancelled: its payment was faster, or it has failed for another reason."

    @router.post(
        "/orders/{order_id}/cancel",
        status_code=HTTPStatus.ACCEPTED,
        response_model=view_model(ORDERS),
        responses={**answers, **problem_responses(conflict=conflict, **_NO_SUCH, **_NO_DATABASE)},
        summary="Cancel an order",
    )
    async def cancel_order(order_id: OrderId, prefer: Prefer = None) -> PrettyJSONResponse:
        """Ask for the end of a PENDING order without its effects; to ask again does no harm.

        Whether it is cancelled is decided by the Payment service: of the wish and the payment, the one that
        comes there first wins. With `Prefer: wait=N` the answer says which, if that is known in time.
        """
        wait_s = preferred_wait_s(prefer or [])
        return _told(await asking.cancel(str(order_id), wait_s or 0), wait_s)


def _add_retrying(router: APIRouter, asking: Asking) -> None:
    answers: dict[int | str, dict[str, Any]] = {
        HTTPStatus.ACCEPTED: _answer("It is being undone again.", _LOCATION)
    }
    conflict = "It is not COMPENSATION_FAILED."

    @router.post(
        "/orders/{order_id}/retry-compensation",
        status_code=HTTPStatus.ACCEPTED,
        response_model=view_model(ORDERS),
        responses={**answers, **problem_responses(conflict=conflict, **_NO_SUCH, **_NO_DATABASE)},
        summary="Undo an order again",
    )
    async def retry_compensation(order_id: OrderId) -> PrettyJSONResponse:
        """For operators: have an order that is COMPENSATION_FAILED undone, once the cause is mended."""
        return _told(await asking.retry_compensation(str(order_id)), None)


def _told(asked: Asked, wait_s: int | None) -> PrettyJSONResponse:
    headers = {"Location": f"/orders/{asked.order['order_id']}"}
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
    return PrettyJSONResponse(asked.order, asked.status, headers)
