"""`POST /orders`: what the Order service has beside the read-only routes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header

from common.http.exact_json import MAX_BODY_BYTES, ExactJSONRoute
from common.http.new_order import NewOrder
from common.http.placing import Placing
from common.http.prefer import MAX_WAIT_S, preferred_wait_s
from common.http.pretty import PrettyJSONResponse
from common.http.problems import problem_responses
from common.http.views import view_model
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
        description=f"`wait=N` (RFC 7240) waits up to N seconds, {MAX_WAIT_S} at most, for the order's end",
        examples=[["wait=5"]],
    ),
]

_HEADERS = {"Location": {"description": "where the order is", "schema": {"type": "string"}}}
_APPLIED = {"description": "the wait that was granted", "schema": {"type": "string"}}
_REPLAYED = {"description": "`true` if this is the first answer again", "schema": {"type": "string"}}
_HEADERS |= {"Preference-Applied": _APPLIED, "Idempotent-Replayed": _REPLAYED}


def orders_router(runner: Runner, closing: asyncio.Event) -> APIRouter:
    """The route that takes orders."""
    placing = Placing(runner, closing)
    router = APIRouter(tags=["orders"], route_class=ExactJSONRoute)
    order = view_model(ORDERS)
    answers: dict[int | str, dict[str, Any]] = {
        HTTPStatus.CREATED: {"model": order, "description": "It has ended.", "headers": _HEADERS},
        HTTPStatus.ACCEPTED: {"model": order, "description": "It is taken on.", "headers": _HEADERS},
    }
    problems = problem_responses(
        bad_request="The body is not JSON, or a name in it comes twice.",
        request_entity_too_large=f"The body has more than {MAX_BODY_BYTES} bytes.",
        unsupported_media_type="The body is not `application/json`.",
        unprocessable_entity="The order is invalid, or the Idempotency-Key was used for another one.",
        service_unavailable="The database can't be used.",
    )

    @router.post(
        "/orders",
        status_code=HTTPStatus.ACCEPTED,
        response_model=order,
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

    return router
