"""The body of `POST /orders`, checked; its amount never passes through a float."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from common.messages import PlaceOrder

MAX_PRICE: Final = 1_000_000
MAX_QUANTITY: Final = 10_000

# Visible at both ends, and no control characters between.
_TEXT: Final = r"^[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])?$"
_DECIMAL: Final = r"^\d{1,7}(\.\d{1,2})?$"

Text = Annotated[str, Field(min_length=1, max_length=100, pattern=_TEXT)]


def _decimal(value: object) -> object:
    """A JSON number or decimal text as a decimal; what is neither is left for the error to name."""
    if isinstance(value, str) and not re.fullmatch(_DECIMAL, value, re.ASCII):
        raise PydanticCustomError("price_text", 'Input should be decimal text such as "199.99"')
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        raise PydanticCustomError("price_type", "Input should be a number or decimal text")
    return Decimal(value)


def _whole(value: object) -> object:
    """1.0 as 1, for JSON Schema's `integer` knows no difference; what isn't whole is left to be refused."""
    if isinstance(value, Decimal) and 1 <= value <= MAX_QUANTITY and value == value.to_integral_value():
        return int(value)
    return value


Price = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(gt=0, le=MAX_PRICE, decimal_places=2),
    WithJsonSchema(
        {
            "anyOf": [
                # No `multipleOf`: to a validator that computes with floats, 19.99 is no multiple of 0.01.
                {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": MAX_PRICE,
                    "description": "at most two decimals",
                },
                {"type": "string", "pattern": r"^(?!0+(\.0+)?$)[0-9]{1,6}(\.[0-9]{1,2})?$"},
            ]
        }
    ),
]


Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY), BeforeValidator(_whole)]


class NewOrder(BaseModel):
    """An order to be placed; unknown fields are refused, since a misspelt one would change its meaning."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"customer_id": "cust-1", "item": "laptop", "quantity": 1, "price": 200}]
        },
    )

    customer_id: Text = Field(description="who orders")
    item: Text = Field(description="what is ordered")
    quantity: Quantity = Field(description="pieces, a whole number")
    price: Price = Field(
        description='price of one piece: a JSON number or decimal text ("199.99"), with at most two decimals'
    )

    def command(self, order_id: str) -> PlaceOrder:
        """The order as the domain knows it."""
        return PlaceOrder(
            order_id=order_id,
            customer_id=self.customer_id,
            item=self.item,
            quantity=self.quantity,
            price_cents=int(self.price * 100),
        )
