"""Problem details (RFC 9457): every error answer has one form, says what to mend, and tells no internals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import BaseRoute, Route

from common.errors import OverloadedError
from common.http.pretty import PrettyJSONResponse

PROBLEM_JSON: Final = "application/problem+json"

_BLANK: Final = "about:blank"
_INVALID: Final = "urn:saga-lab:problem:invalid-request"
_MOST_FAULTS: Final = 20


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    location: str = Field(description="body, path, query or header", examples=["body"])
    pointer: str = Field(description="JSON pointer (RFC 6901) within the location", examples=["/quantity"])
    detail: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """Why a request was not fulfilled (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URI of the kind of problem", examples=[_BLANK])
    title: str = Field(description="the kind of problem in words", examples=["Not Found"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(
        description="what is wrong this time, and how to mend it", examples=["No such order."]
    )
    instance: str = Field(description="the path that was asked for", examples=["/orders"])
    errors: list[Fault] | None = Field(None, description="each fault of an invalid request")


class ProblemError(HTTPException):
    """Ends a request with a problem; `more` holds further members of the document."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        kind: str = _BLANK,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind
        self.more = dict(more or {})


def problem_responses(**meanings: str) -> dict[int | str, dict[str, Any]]:
    """Declare problems in OpenAPI: `problem_responses(not_found="...")`, by HTTP's names."""
    schema = {"$ref": "#/components/schemas/Problem"}
    declared: dict[int | str, dict[str, Any]] = {}
    for name, meaning in meanings.items():
        status = HTTPStatus[name.upper()]
        content = {PROBLEM_JSON: {"schema": schema, "example": _example(status, meaning)}}
        declared[int(status)] = {"description": meaning, "content": content}
    return declared


def answer_with_problems(
    app: FastAPI, routes: Sequence[BaseRoute], request_failed: Callable[[SQLAlchemyError], None]
) -> None:
    """Turn every error of the app into a problem document; `routes` are those that clients are told of.

    `request_failed` hears why the database could not be used, and sees to the log.
    """

    async def on_database_error(request: Request, error: Exception) -> PrettyJSONResponse:
        if isinstance(error, SQLAlchemyError):
            request_failed(error)
        detail = (
            "The service can't use its database at the moment. Try again; an Idempotency-Key makes that safe."
        )
        return _respond(request, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"})

    async def on_overload(request: Request, error: Exception) -> PrettyJSONResponse:
        detail = f"The service takes nothing more at the moment: {error}. Try again; nothing was changed."
        return _respond(request, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"})

    async def on_wrong_method(request: Request, _: Exception) -> PrettyJSONResponse:
        # Starlette names the methods of one route at most, and RFC 9110 asks for all of the path.
        path = request.scope["path"]
        here = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
        allowed = ", ".join(sorted({method for route in here for method in route.methods or ()})) or "GET"
        detail = f"{request.method} can't be used here; {allowed} can."
        return _respond(request, HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})

    app.add_exception_handler(HTTPStatus.METHOD_NOT_ALLOWED, on_wrong_method)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(SQLAlchemyError, on_database_error)
    app.add_exception_handler(OverloadedError, on_overload)
    app.add_exception_handler(Exception, _on_bug)


def _example(status: HTTPStatus, detail: str) -> dict[str, Any]:
    return {"type": _BLANK, "title": status.phrase, "status": status, "detail": detail, "instance": "/orders"}


def _respond(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str = _BLANK,
    headers: Mapping[str, str] | None = None,
    **more: Any,  # noqa: ANN401 - members of the document
) -> PrettyJSONResponse:
    title = HTTPStatus(status).phrase
    document = {"type": kind, "title": title, "status": status, "detail": detail}
    document |= {"instance": quote(request.scope["path"], errors="replace"), **more}
    return PrettyJSONResponse(document, status, headers, media_type=PROBLEM_JSON)


async def _on_http_error(request: Request, error: Exception) -> PrettyJSONResponse:
    match error:
        case ProblemError():
            return _respond(
                request, error.status_code, error.detail, kind=error.kind, headers=error.headers, **error.more
            )
        case StarletteHTTPException(status_code=HTTPStatus.NOT_FOUND):
            return _respond(request, HTTPStatus.NOT_FOUND, "Nothing is here; /docs shows what there is.")
        case StarletteHTTPException():
            return _respond(request, error.status_code, error.detail, headers=error.headers)
        case _:
            raise error


async def _on_invalid(request: Request, error: Exception) -> PrettyJSONResponse:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    shown = [
        Fault(location=str(fault["loc"][0]), pointer=_pointer(fault["loc"][1:]), detail=str(fault["msg"]))
        for fault in faults[:_MOST_FAULTS]
    ]
    detail = f"The request has {len(faults)} fault{'s' * (len(faults) != 1)}; nothing was changed."
    errors = [fault.model_dump() for fault in shown]
    return _respond(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind=_INVALID, errors=errors)


async def _on_bug(request: Request, _: Exception) -> PrettyJSONResponse:
    # The server logs the error itself, with its traceback.
    detail = "The service has made a mistake; its log tells more."
    return _respond(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _pointer(path: Sequence[str | int]) -> str:
    # A field's name is the client's: it may hold half a surrogate pair, which no answer can.
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts).encode("utf-8", "backslashreplace").decode()
