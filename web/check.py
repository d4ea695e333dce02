"""`python app.py --check`: do the settings, the resources' files and the database fit?

Nothing is written, started or served.
"""

import argparse
import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psycopg
from msgspec.structs import replace
from psycopg_pool import PoolTimeout

from db.data_directory import check_existing
from db.doctor.check import ADVICE, FAIL, OK, Check, print_all
from db.doctor.command import of_resource, session
from db.engine import discover
from db.pool import open_pool
from db.programs import EmbeddedServerError
from db.queries import shown
from db.resources import FOLDER, RESOURCES, WRONG
from db.session import conninfo, engine_of
from db.settings import Settings, SettingsError, as_written, read_settings, without_secrets
from db.signals import output_may_end
from db.texts import Arguments
from db.transaction import SettingsLost, Unavailable
from web.health import check_ready


def arguments() -> argparse.Namespace:
    """Return the arguments of `python app.py`. An unknown argument ends it with status 2."""
    parser = Arguments(
        prog="python app.py",
        description="Serve until SIGTERM or Ctrl-C, as environment variables say:"
        " docs/operating.md lists them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="serve nothing; tell whether settings, resources and database fit, or exit 1",
    )
    return parser.parse_args()


def check() -> bool:
    """Print a line for each setting, the resources and the database; return whether all fits."""
    logging.disable()  # psycopg's loggers would say on stderr what the lines say
    with output_may_end():
        return print_all(_checks())


def _checks() -> Iterator[Check]:
    settings = None
    faults = {}
    engine = None
    try:
        settings = read_settings()
    except SettingsError as error:
        faults = dict(error.faults)
    url = settings.database_url if settings else None
    if url is not None:
        with suppress(psycopg.Error):  # _database() reports this
            engine = discover(url)
    if settings and engine and engine != (settings.engine or engine):
        faults["ENGINE"] = f"the server is another, {engine}"
    yield from _settings(faults, engine)
    if WRONG is None:
        yield Check(OK, "resources", f"{', '.join(RESOURCES)} in {shown(FOLDER)}")
    else:
        yield Check(FAIL, "resources", str(WRONG))
    if settings is None or "ENGINE" in faults:
        yield Check(ADVICE, "database", "not looked at, for a setting is wrong")
    elif url is None:
        yield _embedded(settings)
    else:
        yield from _database(replace(settings, engine=settings.engine or engine))


def _settings(faults: dict[str, str], engine: str | None) -> Iterator[Check]:
    """Yield what each setting is and where it came from; `engine` is what the server says."""
    for field in msgspec.structs.fields(Settings):
        name = field.encode_name
        if name in faults:
            yield Check(FAIL, name, faults[name])
        elif value := os.environ.get(name):
            yield Check(OK, name, f"{_without_secrets(name, value)} (environment)")
        elif name == "ENGINE" and engine:
            yield Check(OK, name, f"{engine} (discovered)")
        else:
            yield Check(OK, name, f"{as_written(field.default)} (default)")


def _without_secrets(name: str, value: str) -> str:
    """Return a variable's value, or the part of it that is no secret."""
    if name == "API_TOKEN":
        return f"{value.count(',') + 1} of them, not shown"
    if name == "DATABASE_URL":
        return without_secrets(value)
    return value


def _embedded(settings: Settings) -> Check:
    data_dir = Path(settings.data_dir)
    try:
        check_existing(data_dir)
    except EmbeddedServerError as error:
        return Check(FAIL, "database", str(error))
    return Check(
        ADVICE,
        "database",
        "not looked at: without DATABASE_URL `python app.py` starts the embedded server, with its"
        f" data in {data_dir.absolute()}",
    )


def _database(settings: Settings) -> Iterator[Check]:
    """Yield whether the database can be reached, would serve a POST, and fits the resources."""
    try:
        with psycopg.connect(conninfo(settings)) as connection:
            yield Check(OK, "database", without_secrets(connection.info.dsn))
    except psycopg.Error as error:
        yield Check(FAIL, "database", _told(error))
        return
    if WRONG is not None:
        return
    pooler = settings.pooler
    try:
        for warning in asyncio.run(_ready(settings)):
            yield Check(ADVICE, "requests", warning)
        yield Check(OK, "requests", "a POST would be served")
    except (Unavailable, psycopg.Error) as error:
        pooler |= isinstance(error, SettingsLost)
        yield Check(FAIL, "requests", _told(error))
    # Other engines have other catalogs, and a pooler would give this session's settings to others.
    if not (engine_of(settings).folder or pooler):
        yield from _tables(settings)


async def _ready(settings: Settings) -> list[str]:
    """Return what /ready warns of. Raises Unavailable and psycopg.Error."""
    async with open_pool(replace(settings, pool_size=1)) as pool:
        # check_ready() waits too little for a distant server, and reports the timeout of this, too.
        with suppress(PoolTimeout):
            pool.give_back(await pool.take(settings.retry_deadline))
        return await check_ready(pool, list(RESOURCES))


def _tables(settings: Settings) -> Iterator[Check]:
    try:
        with session(settings) as connection:
            for resource in RESOURCES.values():
                yield from of_resource(connection, resource)
    except psycopg.Error as error:
        yield Check(FAIL, "tables", _told(error))


def _told(error: BaseException) -> str:
    """Return what an error says, and what has caused it, on one line."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    cause = f" ({_told(error.__cause__)})" if error.__cause__ else ""
    # psycopg's text has a line for each host.
    return (said or "; ".join(map(str.strip, str(error).splitlines()))) + cause
