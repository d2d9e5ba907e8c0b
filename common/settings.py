"""Settings by environment variable; each has a default that works on one machine, with nothing installed."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from common.domain.decision import Rules
from common.errors import ConfigurationError

DEFAULT_STOCK: Final = {"laptop": 100, "phone": 100, "headphones": 100}

DEFAULT_DATA_DIR: Final = Path("data")
"""Where databases are kept that must outlive the process, as the broker's offsets do."""

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:,\[\]]+):(?P<port>[0-9]{1,5})")
_LAST_PORT: Final = 65_535
_MOST_PIECES: Final = 1_000_000_000_000


class Settings(BaseSettings):
    """What an operator may set: field `data_dir` is the variable `DATA_DIR`, and so on."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

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
    max_poll_records: int = Field(500, ge=1, le=10_000, description="records in one batch, at most")
    data_dir: Path | None = Field(
        None,
        description="folder of the services' SQLite databases, which instances of one service must share; "
        "without it `data` in the working directory. With the embedded broker, which they must not outlive, "
        "a new subfolder of it, and without it a temporary one",
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
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _check_addresses(cls, text: str | None) -> str | None:
        if text is not None and not all(map(is_address, text.split(","))):
            raise PydanticCustomError("addresses", "Input should be HOST:PORT[,HOST:PORT...]")
        return text

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
    return json.dumps(default) if isinstance(default, dict) else str(default)
