"""What schemathesis can't know of the API: it is loaded by its command line, by the name of this file."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import schemathesis


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
    """Give every request a key of its own, and its price no third decimal: the schema can't forbid that."""
    for name, value in (case.headers or {}).items():
        if name.lower() == "idempotency-key" and re.fullmatch("[!-~]{1,255}", str(value)):
            case.headers[name] = uuid4().hex
    if isinstance(case.body, dict) and isinstance(price := case.body.get("price"), float) and price > 0:
        case.body["price"] = max(0.01, round(price, 2))
