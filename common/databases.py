"""Which database each service owns: an SQLite file, or a schema on the PostgreSQL server that is set."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Table

from common.errors import ConfigurationError
from common.services import ORDERS
from common.settings import DEFAULT_DATA_DIR, Settings
from common.store.database import Database, Synchronous
from common.store.postgresql import drop_schema, postgresql_engine, server_place
from common.store.schema import IDEMPOTENCY
from common.wiring import Mode, Wiring


def database_for(wiring: Wiring, settings: Settings, run: str | None = None) -> Database:
    """Open the service's database.

    `run` names a run whose broker goes with it, and so do the data: in files they needn't survive a power
    cut, and on PostgreSQL they are in schemas of the run's own, which `drop_schemas` removes.

    Raises:
        ConfigurationError: the folder can't be used.
        SQLAlchemyError: the database can't be opened.
    """
    tables = tables_of(wiring)
    synchronous: Synchronous = "FULL" if run is None else "OFF"
    server = settings.database_server
    if server is not None:
        return Database(server, tables, synchronous=synchronous, schema=schema_of(wiring, run))
    file = _data_folder(wiring, settings) / f"{wiring.name}.db"
    return Database(f"sqlite:///{file}", tables, synchronous=synchronous)


def tables_of(wiring: Wiring) -> tuple[Table, ...]:
    """The tables that a service has beside those of its runtime."""
    own = wiring.domain.storage.tables
    return (*own, IDEMPOTENCY) if ORDERS.table in own else own


def schema_of(wiring: Wiring, run: str | None = None) -> str:
    """The schema that a service's tables are in, such as `orchestrated_inventory`."""
    return "_".join(filter(None, (wiring.mode, wiring.name, run)))


def data_place(mode: Mode, settings: Settings, folder: Path, run: str | None = None) -> str:
    """Where a mode's data are, for a person to read."""
    server = settings.database_server
    if server is None:
        return f"{folder} (removed at the end)" if settings.lasting_data_dir is None else str(folder)
    schemas = f"{server_place(server)}, schemas {mode.name}_*"
    return schemas if run is None else f"{schemas}_{run} (removed at the end)"


def drop_schemas(mode: Mode, settings: Settings, run: str) -> None:
    """Remove what a run has left on the PostgreSQL server, if one is set.

    Raises:
        SQLAlchemyError: the server can't be used.
    """
    server = settings.database_server
    if server is None:
        return
    engine = postgresql_engine(server, None)
    try:
        with engine.begin() as connection:
            for wiring in mode.services:
                drop_schema(connection, schema_of(wiring, run))
    finally:
        engine.dispose()


def _data_folder(wiring: Wiring, settings: Settings) -> Path:
    # Never a temporary one: the broker keeps the group's offsets, and what is consumed doesn't come again.
    root = settings.data_dir or DEFAULT_DATA_DIR
    folder = root.resolve() / wiring.mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR {root} can't be used: {error.strerror}") from error
    return folder
