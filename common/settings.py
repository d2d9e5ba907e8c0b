"""Settings by environment variable; each has a default that works on one machine, with nothing installed."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from sqlalchemy import URL

from common.domain.decision import Rules
from common.errors import ConfigurationError
from common.recovery import Recovery
from common.store.postgresql import server_url

DEFAULT_STOCK: Final = {"laptop": 100, "phone": 100, "headphones": 100}

DEFAULT_DATA_DIR: Final = Path("data")
"""Where databases are kept that must outlive the process, as the broker's offsets do."""

_DEFAULTS: Final = Recovery()
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:,\[\]]+):(?P<port>[0-9]{1,5})")
_LAST_PORT: Final = 65_535
_MOST_PIECES: Final = 1_000_000_000_000


class Settings(BaseSettings):
    """What an operator may set: field `data_dir` is the variable `DATA_DIR`, and so on."""

    # Inputs are hidden since DATABASE_URL holds a password.
    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    kafka_bootstrap_servers: str | None = Field(
        None,
        description="broker addresses, HOST:PORT[,HOST:PORT...]; without it, a whole mode embeds a broker",
    )
    topic_partitions: int = Field(3, ge=1, le=1000, description="partitions of every topic")
    fetch_max_wait_ms: int = Field(
        100,
        ge=1,
        le=30_000,
        description="milliseconds that the broker may hold an empty fetch; a few on the embedded broker",
    )
    max_poll_records: int = Field(2000, ge=1, le=10_000, description="records in one batch, at most")
    data_dir: Path | None = Field(
        None,
        description="folder of the services' SQLite databases, which instances of one service must share; "
        "without it `data` in the working directory. With the embedded broker, which they must not outlive, "
        "a new subfolder of it, and without it a temporary one",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL server, postgresql://USER:PASSWORD@HOST:PORT/DATABASE, in which each service "
        "has a schema of its own; without it, SQLite",
    )
    http_host: str = Field("127.0.0.1", description="address that the HTTP servers bind to")
    http_port: int | None = Field(
        None, ge=1, le=65535, description="HTTP port of a service that is started alone; each has a default"
    )
    payment_limit: Annotated[Decimal, Field(ge=0, decimal_places=2, max_digits=12)] = Field(
        Decimal("500.00"), description="a payment above this amount is declined"
    )
    initial_stock: dict[str, Annotated[int, Field(ge=0, le=_MOST_PIECES)]] = Field(
        DEFAULT_STOCK, description="stock of items that the Inventory service has no row for yet, as JSON"
    )
    retry_first_delay: float = Field(
        _DEFAULTS.retry_first_s,
        gt=0,
        le=60,
        description="seconds until a message that could not be processed is tried again; doubles each time",
    )
    retry_max_delay: float = Field(
        _DEFAULTS.retry_longest_s, gt=0, le=3600, description="seconds that this delay grows to, at most"
    )
    retry_tries: int = Field(
        _DEFAULTS.retry_tries,
        ge=1,
        le=1000,
        description="times that a step is tried before it goes to the dead letters, and the order fails",
    )
    undo_tries: int = Field(
        _DEFAULTS.undo_tries,
        ge=1,
        le=1000,
        description="times that an undo is tried, and asked for, before the order is COMPENSATION_FAILED",
    )
    step_timeout: float = Field(
        _DEFAULTS.step_timeout_s,
        ge=0.1,
        le=86_400,
        description="seconds for which the orchestrator waits for an answer before it asks again; "
        "doubles each time",
    )
    order_timeout: float = Field(
        _DEFAULTS.order_timeout_s,
        ge=0.1,
        le=86_400,
        description="seconds for which the Order service waits for an order's end before it asks again; "
        "likewise",
    )
    deadline_tries: int = Field(
        _DEFAULTS.deadline_tries,
        ge=1,
        le=100,
        description="times that is asked in vain before what was done is undone",
    )
    dedupe_window_hours: float = Field(
        _DEFAULTS.dedupe_window_s / 3600,
        ge=0.01,
        le=8760,
        description="hours for which ids of messages and idempotency keys are kept; what comes again later "
        "counts as new, so it is to be longer than dead letters are replayed",
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _check_addresses(cls, text: str | None) -> str | None:
        if text is not None and not all(map(is_address, text.split(","))):
            raise PydanticCustomError("addresses", "Input should be HOST:PORT[,HOST:PORT...]")
        return text

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            try:
                server_url(secret.get_secret_value())
            except ValueError as error:
                raise PydanticCustomError("database_url", "Input {fault}", {"fault": str(error)}) from None
        return secret

    @property
    def database_server(self) -> URL | None:
        """The PostgreSQL server; None for SQLite."""
        return server_url(self.database_url.get_secret_value()) if self.database_url else None

    @property
    def lasting_data_dir(self) -> Path | None:
        """The folder for data that outlives the run; None if it should not, since the broker won't either."""
        if self.data_dir is None and self.kafka_bootstrap_servers is not None:
            return DEFAULT_DATA_DIR
        return self.data_dir

    @property
    def rules(self) -> Rules:
        """The business rules among the settings."""
        return Rules(payment_limit_cents=int(self.payment_limit * 100))

    @property
    def recovery(self) -> Recovery:
        """How patient the services are, by these settings."""
        return Recovery(
            retry_first_s=self.retry_first_delay,
            retry_longest_s=self.retry_max_delay,
            retry_tries=self.retry_tries,
            undo_tries=self.undo_tries,
            step_timeout_s=self.step_timeout,
            order_timeout_s=self.order_timeout,
            deadline_tries=self.deadline_tries,
            dedupe_window_s=self.dedupe_window_hours * 3600,
        )


def is_address(text: str) -> bool:
    """Whether it is HOST:PORT; an IPv6 host stands in brackets."""
    address = _ADDRESS.fullmatch(text)
    return address is not None and 0 < int(address["port"]) <= _LAST_PORT


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigurationError: a variable has an unusable value; the text names it and what is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError("bad setting in the environment: " + "; ".join(faults)) from error
    except SettingsError as error:
        # Only INITIAL_STOCK is JSON; the error names the field and quotes nothing of its value.
        raise ConfigurationError("bad setting in the environment: INITIAL_STOCK: not JSON") from error


def describe_settings() -> str:
    """The settings with defaults and meanings, for help texts."""
    lines = [
        f"  {name.upper()}\n      {field.description} (default: {_shown(field.default)})"
        for name, field in Settings.model_fields.items()
    ]
    return "environment variables:\n" + "\n".join(lines)


def _variable(location: tuple[str | int, ...]) -> str:
    name, *within = location
    return "".join([str(name).upper(), *(f"[{part!r}]" for part in within)])


def _shown(default: Any) -> str:  # noqa: ANN401 - a setting of any type
    if default is None:
        return "none"
    if isinstance(default, float):
        return f"{default:g}"
    return json.dumps(default) if isinstance(default, dict) else str(default)
