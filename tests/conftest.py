"""A real PostgreSQL for every test: one private server per test session, one fresh database per test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fasteners
import psycopg
import pytest
from sqlalchemy import Connection, Engine

from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.embedded import DEFAULT_SETTINGS, EmbeddedServer, start_server
from tests.shop import Shop

# Tests lose nothing that matters when the power goes.
FAST_SETTINGS = {**DEFAULT_SETTINGS, "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TEMPLATE = "loyalty_template"
# With the sample shop in it and mapped: that takes longer than a copy of the database.
SHOP_TEMPLATE = "loyalty_shop_template"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> EmbeddedServer:
    """The test session's PostgreSQL, shared by all xdist workers; it ends with the last of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    started = start_server(shared / "pg", settings=FAST_SETTINGS)
    _make_template(started, shared)
    return started


def _make_template(server: EmbeddedServer, shared: Path) -> None:
    with fasteners.InterProcessLock(shared / "template.lock"):
        if (shared / "template.done").exists():
            return
        server.ensure_database(TEMPLATE)
        engine = connect(server.url(TEMPLATE))
        upgrade(engine)
        engine.dispose()
        administer(server.url("postgres"), f"CREATE DATABASE {SHOP_TEMPLATE} TEMPLATE {TEMPLATE}")
        engine = connect(server.url(SHOP_TEMPLATE))
        with engine.begin() as conn:
            sample_shop.create(conn)
        engine.dispose()
        (shared / "template.done").touch()


@pytest.fixture
def database_template(request: pytest.FixtureRequest) -> str:
    """What the test's database is a copy of."""
    return SHOP_TEMPLATE if "shop" in request.fixturenames else TEMPLATE


@pytest.fixture
def database_url(server: EmbeddedServer, database_template: str) -> Iterator[str]:
    """The URL of a fresh database with the schema installed, dropped after the test."""
    with fresh_database(server, database_template) as url:
        yield url


@contextmanager
def fresh_database(server: EmbeddedServer, database_template: str) -> Iterator[str]:
    """A copy of the template, dropped at the end; return its URL."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    administer(server.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY FILE_COPY")
    yield server.url(name)
    administer(server.url("postgres"), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def administer(url: str, *statements: str) -> None:
    """Run statements on the database of a SQLAlchemy URL, each committed at once."""
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database with the schema installed."""
    made = connect(database_url, pool_size=4)
    yield made
    made.dispose()


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """A connection to a fresh database; what the test doesn't commit is rolled back."""
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def shop(engine: Engine) -> Shop:
    """The sample shop, mapped, with one merchant 'm1' (EUR, Europe/Luxembourg) at one point per euro."""
    made = Shop(engine)
    made.merchant("m1")
    return made


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests choose their own databases, whatever the developer's shell has set."""
    for name in [name for name in os.environ if name.startswith(("LOYALTY_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
