"""Reading a JSON body exactly: floats are never used; what is ambiguous or too large is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from common.http.problems import ProblemError

MAX_BODY_BYTES: Final = 16 * 1024

_LONGEST_INT: Final = 18


class ExactJSONRoute(APIRoute):
    """A route whose body is read by `ExactJSONRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand the request over in its exact form."""
        handle = super().get_route_handler()

        async def handle_exactly(request: Request) -> Response:
            return await handle(ExactJSONRequest(request.scope, request.receive))

        return handle_exactly


class ExactJSONRequest(Request):
    """A request with a JSON body; numbers with a fraction or an exponent become decimals, as written.

    Raises:
        ProblemError: from `body` and `json`; 413 if it is too large, 415 if it isn't JSON by its header, 400
            if it isn't by its text, or if a name comes twice in an object: readers differ on which counts.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, up to the limit, whether its length was told beforehand or not."""
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                detail = f"The body may have {MAX_BODY_BYTES} bytes; this one has more."
                raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            if chunk:
                self._check_media_type()
            yield chunk

    async def json(self) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """The body's content."""
        body = await self.body()
        try:
            return json.loads(
                body.decode(),
                parse_float=Decimal,
                parse_int=_parse_int,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique,
            )
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else _plain(error)
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, f"The body can't be read as JSON: {reason}."
            ) from error

    def _check_media_type(self) -> None:
        given = self.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            detail = "The body must be JSON: send it with the header `Content-Type: application/json`."
            raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _parse_int(text: str) -> int | Decimal:
    """Longer ones fit no field; as decimals they are refused there, without the cost of their conversion."""
    return int(text) if len(text) <= _LONGEST_INT else Decimal(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in an object")
    return found


def _plain(error: ValueError) -> str:
    """What is wrong, without a piece of the body."""
    match error:
        case json.JSONDecodeError():
            return f"{error.msg} at line {error.lineno}, column {error.colno}"
        case UnicodeDecodeError():
            return f"it is not UTF-8 from byte {error.start} on"
        case _:
            return str(error)
