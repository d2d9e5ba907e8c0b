"""Health, as orchestrators of containers ask for it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from common.http.problems import ProblemError, problem_responses
from common.runner import Runner
from common.watch import Readiness

MAX_BACKLOG: Final = 10_000
"""Records in the outbox above which a service is not ready: it takes more than it can pass on."""


class Live(BaseModel):
    """The event loop turns."""

    status: str = Field("live", examples=["live"])


class Checks(BaseModel):
    """Each part that a service needs: `ok`, or what is wrong with it."""

    database: str = Field(examples=["ok"])
    broker: str = Field(description="whether the broker answers and partitions are assigned", examples=["ok"])
    outbox: str = Field(description=f"whether at most {MAX_BACKLOG} records wait in it", examples=["ok"])
    backlog: int = Field(description="records that wait to be published", examples=[0])


class Ready(BaseModel):
    """The service can do its work."""

    status: str = Field("ready", examples=["ready"])
    checks: Checks


def health_router(runner: Runner) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Is the process alive?")
    async def live() -> Live:
        return Live()

    @router.get(
        "/ready",
        summary="Can the service do its work?",
        responses=problem_responses(service_unavailable="It can't; `checks` tells why."),
    )
    async def ready() -> Ready:
        readiness = await runner.readiness()
        checks = _checks(readiness)
        if not readiness.ready or readiness.backlog > MAX_BACKLOG:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The service is not ready.",
                more={"checks": checks.model_dump()},
            )
        return Ready(checks=checks)

    return router


def _checks(readiness: Readiness) -> Checks:
    full = readiness.backlog > MAX_BACKLOG
    return Checks(
        database=readiness.database or "ok",
        broker=readiness.broker or "ok",
        outbox=f"more than {MAX_BACKLOG} records wait" if full else "ok",
        backlog=readiness.backlog,
    )
