"""Settings by environment variable; each has a default that works on one machine with nothing else installed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.domain.decision import Rules
from common.errors import ConfigurationError

DEFAULT_STOCK: Final = {"laptop": 100, "phone": 100, "headphones": 100}


class Settings(BaseSettings):
    """What an operator may set. Field `kafka_bootstrap_servers` is the variable `KAFKA_BOOTSTRAP_SERVERS`, and so on."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    kafka_bootstrap_servers: str | None = Field(
        None, description="broker addresses, HOST:PORT[,HOST:PORT...]; without it an embedded broker is started"
    )
    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of every topic")
    fetch_max_wait_ms: int = Field(
        100,
        ge=1,
        le=30_000,
        description="milliseconds that the broker may hold an empty fetch; a few on the embedded broker",
    )
    max_poll_records: int = Field(500, ge=1, le=10_000, description="records in one batch, at most")
    data_dir: Path | None = Field(
        None, description="folder of the services' SQLite databases; without it a temporary one"
    )
    http_host: str = Field("127.0.0.1", description="address that the HTTP servers bind to")
    http_port: int | None = Field(
        None, ge=1, le=65535, description="HTTP port of a service that is started alone; each has a default"
    )
    payment_limit: Annotated[Decimal, Field(ge=0, decimal_places=2, max_digits=12)] = Field(
        Decimal("500.00"), description="a payment above this amount is declined"
    )
    initial_stock: dict[str, Annotated[int, Field(ge=0)]] = Field(
        DEFAULT_STOCK, description="stock of items that the Inventory service has no row for yet, as JSON"
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )

    @property
    def rules(self) -> Rules:
        """The business rules among the settings."""
        return Rules(payment_limit_cents=int(self.payment_limit * 100))


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigurationError: a variable has an unusable value; the text names it and what is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = (f"{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors())
        message = "Bad setting in the environment: " + "; ".join(faults)
        raise ConfigurationError(message) from error


def describe_settings() -> str:
    """The settings with defaults and meanings, for help texts."""
    lines = [
        f"  {name.upper()}\n      {field.description} (default: {field.default})"
        for name, field in Settings.model_fields.items()
    ]
    return "environment variables:\n" + "\n".join(lines)
