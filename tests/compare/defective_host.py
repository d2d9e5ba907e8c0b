"""A service's process with two defects that only a fault can show: no inbox, and a till that adds up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from msgspec import structs
from sqlalchemy import Connection

import common.core
import compare.host
from common.domain.decision import Decision, Rules
from common.domain.payment import Payment
from common.messages import ProcessPayment
from common.wiring import Mode, Wiring


def _everything(_: Connection, message_ids: Sequence[str], __: str) -> set[str]:
    return set(message_ids)


def _adding_up(service: Wiring) -> Wiring:
    decide: Final = service.domain.decide

    def charge_more(payment: Payment | None, command: Any, rules: Rules) -> Decision[Payment | None]:  # noqa: ANN401 - as the domain's
        if isinstance(command, ProcessPayment) and payment is not None:
            payment = structs.replace(payment, amount_cents=payment.amount_cents + command.amount_cents)
        return decide(payment, command, rules)

    return replace(service, domain=replace(service.domain, decide=charge_more))


def _defective(mode: Mode) -> Mode:
    services = (_adding_up(service) if service.name == "payment" else service for service in mode.services)
    return replace(mode, services=tuple(services))


if __name__ == "__main__":
    vars(common.core)["first_seen"] = _everything
    compare.host.MODES.update({name: _defective(mode) for name, mode in compare.host.MODES.items()})
    sys.exit(compare.host.main())
