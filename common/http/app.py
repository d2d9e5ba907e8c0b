"""A service's HTTP application: a view on its runner, which is started and stopped beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from common import __version__
from common.http.health import health_router
from common.http.orders import orders_router
from common.http.pretty import PrettyJSONResponse
from common.http.problems import Problem, answer_with_problems
from common.http.rows import rows_router
from common.runner import Runner
from common.services import ORDERS, PAYMENTS, RESERVATIONS, STOCK
from common.store.rows import RowTable

_TABLES: Final[tuple[RowTable[Any], ...]] = (ORDERS, STOCK, RESERVATIONS, PAYMENTS)
_DESCRIPTION: Final = """\
The {name} service of the {mode} mode: one of the services that carry out a saga, the processing of an order.

It has a database of its own, which its routes show; it talks to the other services over Kafka topics only.
Money is exact decimal text. Every error is a problem document (RFC 9457).
"""


def create_app(
    runner: Runner, tables: Iterable[RowTable[Any]] = (), closing: asyncio.Event | None = None
) -> FastAPI:
    """The application of the runner's service.

    `tables` are those that only this wiring has. Setting `closing` lets requests that wait come to an end.
    """
    core = runner.core
    app = FastAPI(
        title=f"{core.wiring.name.capitalize()} service ({core.wiring.mode})",
        description=_DESCRIPTION.format(name=core.wiring.name, mode=core.wiring.mode),
        version=__version__,
        default_response_class=PrettyJSONResponse,
        redirect_slashes=False,
        redoc_url=None,
    )
    own = core.wiring.domain.storage.tables
    routers = [rows_router(table, core.database) for table in (*_TABLES, *tables) if table.table in own]
    if ORDERS.table in own:
        routers.insert(0, orders_router(runner, closing or asyncio.Event()))
    routers.append(health_router(runner))
    for router in routers:
        app.include_router(router)
    routes = [route for router in routers for route in router.routes]
    answer_with_problems(app, routes, runner.request_failed)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the form of problems, which no route answers with by itself, into the OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas |= problem.pop("$defs") | {"Problem": problem}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
