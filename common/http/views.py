"""What a stored row looks like to clients: money as exact decimal text, and every field explained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, get_type_hints

from msgspec.structs import fields
from pydantic import BaseModel, Field, create_model

from common.store.journal import Change
from common.store.rows import RowTable

_CENTS: Final = "_cents"

Money = Annotated[str, Field(pattern=r"^\d+\.\d\d$")]
"""Decimal text with two places."""
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, microseconds."""

_NOTES: Final[dict[str, tuple[str, Any]]] = {
    "order_id": ("the order, a UUIDv7", "019aa0de-7f9c-7c3a-9d51-0c2b6d6a4f10"),
    "customer_id": ("who ordered; null if that isn't known here", "cust-1"),
    "item": ("what was ordered; null if that isn't known here", "laptop"),
    "quantity": ("pieces", 1),
    "price": ("price of one piece", "200.00"),
    "total": ("price times quantity", "200.00"),
    "amount": ("what was to be charged", "200.00"),
    "available": ("pieces that no order holds", 99),
    "status": ("where it stands", None),
    "state": ("where the saga stands", None),
    "begun": ("steps that may have had an effect, and are not undone", ["reserve"]),
    "reason": ("why it failed, or is given up; null if it is not", None),
    "definition_version": ("version of the saga's table", 1),
    "created_at": ("when it came into being", "2026-01-02T03:04:05.678901Z"),
    "updated_at": ("when it last changed", "2026-01-02T03:04:05.701234Z"),
}


class ChangeView(BaseModel):
    """A change of state."""

    from_status: str = Field(alias="from", examples=["PENDING"])
    to_status: str = Field(alias="to", examples=["COMPLETED"])
    at: Time = Field(examples=["2026-01-02T03:04:05.701234Z"])
    cause: str = Field(
        description="id of the message that caused it; for an order's first change, the order's",
        examples=["019aa0de-7f9c-7c3a-9d51-0c2b6d6a4f10-1f0c3e5d7a9b2c4d"],
    )


def money(cents: int) -> str:
    """Cents as decimal text: 20000 is 200.00."""
    return f"{cents // 100}.{cents % 100:02d}"


@cache
def view_model(table: RowTable[Any]) -> type[BaseModel]:
    """The form in which a table's rows are shown."""
    hints = get_type_hints(table.row_type)
    shown: dict[str, Any] = {}
    for field in fields(table.row_type):
        name = field.name.removesuffix(_CENTS)
        shown[name] = _shown(name, Money if field.name.endswith(_CENTS) else hints[field.name])
        if name == "price":
            shown["total"] = _shown("total", Money)
    for stamp in ("created_at", "updated_at"):
        shown[stamp] = _shown(stamp, Time)
    model: type[BaseModel] = create_model(
        table.row_type.__name__, __doc__=f"A row of {table.table.name}.", **shown
    )
    return model


def detail_model(view: type[BaseModel]) -> type[BaseModel]:
    """A row with its history, oldest change first."""
    model: type[BaseModel] = create_model(
        f"{view.__name__}WithHistory",
        __base__=view,
        __doc__="A row with its history.",
        history=(list[ChangeView], ...),
    )
    return model


def view(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored row as it is shown."""
    shown: dict[str, Any] = {}
    for name, value in stored.items():
        shown[name.removesuffix(_CENTS)] = money(value) if name.endswith(_CENTS) else value
        if name == "price_cents":
            shown["total"] = money(value * stored["quantity"])
    return shown


def change_view(change: Change) -> dict[str, Any]:
    """A change of state as it is shown."""
    return {
        "from": change.from_status,
        "to": change.to_status,
        "at": change.at,
        "cause": change.cause_id,
    }


def _shown(name: str, kind: Any) -> tuple[Any, Any]:  # noqa: ANN401 - an annotation
    description, example = _NOTES[name]
    return kind, Field(description=description, examples=None if example is None else [example])
