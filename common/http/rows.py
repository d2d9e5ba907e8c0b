"""One read-only router for every table: a page of rows, and one row with its history.

Reads have a connection of their own, in a thread of FastAPI's pool: they never wait for a write.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, create_model
from sqlalchemy import ColumnElement, func, select

from common.http.problems import ProblemError, problem_responses
from common.http.views import change_view, detail_model, view, view_model
from common.store.database import Database
from common.store.journal import history
from common.store.rows import RowTable

_ORDER_KEY: Final = "order_id"
_NAME: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,100}$"
_STATUS_COLUMNS: Final = ("status", "state")
_NO_DATABASE: Final = {"service_unavailable": "The database can't be used."}
_AFTER: Final = "the last key of the page before"

Limit = Annotated[int, Query(ge=1, le=200, description="rows in the page, at most")]
OrderId = Annotated[UUID, Path(description="the order's id")]
AfterOrder = Annotated[UUID | None, Query(description=_AFTER)]
AfterName = Annotated[str | None, Query(description=_AFTER, pattern=_NAME)]


class Rows:
    """A service's rows of one table, as clients see them."""

    def __init__(self, table: RowTable[Any], database: Database) -> None:
        self._table = table.table
        self._key = table.table.c[table.key]
        self._database = database
        self.by_order = table.key == _ORDER_KEY
        """Whether the rows are about orders; those come newest first, as ids are time-ordered."""
        self.path = f"/{table.table.name}"
        self.thing = table.row_type.__name__.lower()

    def page(self, limit: int, after: str | None, wanted: Mapping[str, str]) -> dict[str, Any]:
        """A page: at most `limit` rows with the `wanted` values, behind the one with the key `after`."""
        matching = [self._table.c[name] == value for name, value in wanted.items()]
        beyond = [self._beyond(after)] if after is not None else []
        order = self._key.desc() if self.by_order else self._key
        query = select(self._table).where(*matching, *beyond).order_by(order).limit(limit + 1)
        count = select(func.count()).select_from(self._table).where(*matching)
        with self._database.read() as connection:
            found = [row._asdict() for row in connection.execute(query)]
            total = connection.scalar(count)
        rows, more = found[:limit], len(found) > limit
        following = {**wanted, "limit": limit, "after": rows[-1][self._key.name]} if more else None
        return {
            "items": [view(row) for row in rows],
            "total": total,
            "next": f"{self.path}?{urlencode(following)}" if following else None,
        }

    def one(self, key: str) -> dict[str, Any]:
        """A row with its history; a problem if there is none."""
        with self._database.read() as connection:
            found = connection.execute(select(self._table).where(self._key == key)).first()
            if found is None:
                raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no such {self.thing} here.")
            changes = history(connection, key) if self.by_order else []
        shown = view(found._asdict())
        return {**shown, "history": [change_view(change) for change in changes]} if self.by_order else shown

    def _beyond(self, key: str) -> ColumnElement[bool]:
        return self._key < key if self.by_order else self._key > key


def rows_router(table: RowTable[Any], database: Database) -> APIRouter:
    """`GET /things` and `GET /things/{key}` for a table of things."""
    rows = Rows(table, database)
    router = APIRouter(tags=[table.table.name])
    add = _add_rows_by_order if rows.by_order else _add_rows_by_name
    add(router, rows, table)
    return router


def _add_rows_by_order(router: APIRouter, rows: Rows, table: RowTable[Any]) -> None:
    model = view_model(table)
    status, values = _status_column(table)
    # A parameter's name can't be computed; its alias can.
    only = Query(None, alias=status, pattern=f"^({'|'.join(values)})$", description="only these")

    @router.get(rows.path, **_page_route(rows, model, "newest first"))
    def page(limit: Limit = 50, after: AfterOrder = None, wanted: str | None = only) -> dict[str, Any]:
        return rows.page(limit, str(after) if after else None, {status: wanted} if wanted else {})

    @router.get(f"{rows.path}/{{{table.key}}}", **_row_route(rows, detail_model(model)))
    def one(order_id: OrderId) -> dict[str, Any]:
        return rows.one(str(order_id))


def _add_rows_by_name(router: APIRouter, rows: Rows, table: RowTable[Any]) -> None:
    model = view_model(table)
    key = Path(alias=table.key, pattern=_NAME)

    @router.get(rows.path, **_page_route(rows, model, f"by {table.key}"))
    def page(limit: Limit = 50, after: AfterName = None) -> dict[str, Any]:
        return rows.page(limit, after, {})

    # A name may hold a slash.
    @router.get(f"{rows.path}/{{{table.key}:path}}", **_row_route(rows, model))
    def one(name: str = key) -> dict[str, Any]:
        return rows.one(name)


def _page_route(rows: Rows, model: type[BaseModel], order: str) -> dict[str, Any]:
    plural = rows.path.removeprefix("/")
    return {
        "name": f"list_{plural}",
        "summary": f"List {plural}, {order}, a page at a time",
        "response_model": _page_model(model),
        "responses": problem_responses(unprocessable_entity="A parameter is invalid.", **_NO_DATABASE),
    }


def _row_route(rows: Rows, model: type[BaseModel]) -> dict[str, Any]:
    meanings = {
        "not_found": f"There is no such {rows.thing} here.",
        "unprocessable_entity": "The key is invalid.",
    }
    return {
        "name": f"get_{rows.thing}",
        "summary": f"Get one {rows.thing}",
        "response_model": model,
        "responses": problem_responses(**meanings, **_NO_DATABASE),
    }


def _page_model(model: type[BaseModel]) -> type[BaseModel]:
    page: type[BaseModel] = create_model(
        f"{model.__name__}Page",
        __doc__="A page of rows.",
        items=(list[model], ...),  # type: ignore[valid-type] # made at run time
        total=(int, Field(description="rows on all pages", examples=[1])),
        next=(str | None, Field(description="where the next page is; null on the last one")),
    )
    return page


def _status_column(table: RowTable[Any]) -> tuple[str, tuple[str, ...]]:
    """The column that says where a row stands, with its possible values; none if there is no such column."""
    for name, kind in get_type_hints(table.row_type).items():
        if name in _STATUS_COLUMNS and isinstance(kind, type) and issubclass(kind, StrEnum):
            return name, tuple(kind)
    return "", ()
