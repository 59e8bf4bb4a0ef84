"""What holds for every command: start-up, usage, errors, the database it names, init."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, create_engine, make_url

from loyalty_pipelines.embedded import EmbeddedServer
from tests.cli import Cli
from tests.shop import Shop

NOBODY = "postgresql://somebody:secret@127.0.0.1:1/shop"
HEAVY = ("dagster", "pandas", "great_expectations", "alembic", "sqlalchemy", "pydantic")


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def empty(server: EmbeddedServer) -> Iterator[Cli]:
    """The command line on a database in which nothing is installed."""
    name = f"empty_{uuid.uuid4().hex[:16]}"
    server.ensure_database(name)
    yield Cli(server.url(name))
    with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, loyalty_pipelines.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bad_usage_is_one_line_and_status_2() -> None:
    cli = Cli(NOBODY)
    assert cli.refused(2, "nonsense") == "Error: No such command 'nonsense'. See 'loyalty --help'."
    assert "--nonsense" in cli.refused(2, "award", "--nonsense")
    assert cli.refused(2, "account", "show", "m1").endswith("See 'loyalty account show --help'.")
    assert "empty or not valid UTF-8" in cli.refused(2, "account", "show", "m1", "")
    assert "empty or not valid UTF-8" in cli.refused(2, "account", "show", "m1", "\udcff")


def test_without_a_command_it_prints_its_help() -> None:
    found = Cli(NOBODY).run()
    assert found.status == 2
    assert "Commands:" in found.err


@pytest.mark.parametrize("command", [["award"], ["init"], ["programs", "list"], ["sources", "show"]])
def test_a_database_that_does_not_answer_is_one_line_without_its_password(command: list[str]) -> None:
    line = Cli(NOBODY).refused(1, *command)
    assert "Cannot reach the database postgresql://somebody:***@127.0.0.1:1/shop (LOYALTY_DATABASE_URL)" in line
    assert "Connection refused" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [(lambda url: url.set(username="nobody"), "role"), (lambda url: url.set(database="nobody"), "database")],
    ids=["user", "database"],
)
def test_a_user_or_database_that_the_server_does_not_know_is_told_from_a_server_that_is_away(
    database_url: str, elsewhere: Callable[[URL], URL], said: str
) -> None:
    line = Cli(elsewhere(make_url(database_url)).render_as_string()).refused(1, "award")
    assert f'lets nobody in: {said} "nobody" does not exist. Correct user, password and database in' in line


def test_debug_shows_the_traceback() -> None:
    environment = {**os.environ, "LOYALTY_DATABASE_URL": NOBODY}
    done = subprocess.run(
        [sys.executable, "-m", "loyalty_pipelines.cli", "--debug", "award"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["award", "up", "demo"])
@pytest.mark.parametrize("url", ["mysql://root@localhost/shop", "postgresql://u:secret@host:abc/shop"])
def test_a_url_that_cannot_be_read_says_what_it_should_be(
    url: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_HOME", str(tmp_path))
    line = Cli(url).refused(1, command)
    assert "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in line
    assert "secret" not in line


def test_it_names_the_database_on_stderr_unless_it_shall_not(cli: Cli, shop: Shop) -> None:
    assert cli.ok("award").err.startswith("database: postgresql://postgres@/")
    assert cli.ok("--quiet", "award").err == ""
    assert cli.ok("award", "--json").err == ""


def test_init_installs_and_a_second_time_changes_nothing(empty: Cli) -> None:
    assert "from version none to 00" in empty.ok("init").out
    assert "nothing was changed" in empty.ok("init").out
    again = empty.ok("init", "--json").document
    assert (again["before"] == again["after"], again["changed"]) == (True, False)


def test_init_refuses_a_schema_from_a_newer_release(cli: Cli, shop: Shop) -> None:
    shop.run("UPDATE loyalty.schema_version SET version_num = '9999'")
    assert "a newer release has upgraded this database" in cli.refused(1, "init")
    assert "a newer release has upgraded this database" in cli.refused(1, "award")


@pytest.mark.parametrize(
    "command",
    [["award"], ["programs", "list"], ["account", "show", "m", "c"], ["sources", "show"], ["sources", "withdraw"]],
)
def test_before_init_every_command_says_to_run_it(empty: Cli, command: list[str]) -> None:
    assert "run 'loyalty init'" in empty.refused(1, *command)


@pytest.mark.parametrize(
    "command",
    [["award"], ["programs", "list"], ["account", "show", "m", "c"], ["sources", "show"], ["sources", "withdraw"]],
)
def test_without_a_mapping_every_command_says_how_to_get_one(cli: Cli, command: list[str]) -> None:
    assert "loyalty sources apply --file F" in cli.refused(1, *command)


def test_a_view_that_is_gone_is_one_line(cli: Cli, shop: Shop) -> None:
    shop.run("DROP VIEW loyalty_source.merchants CASCADE")
    line = cli.refused(1, "programs", "list")
    assert 'relation "loyalty_source.merchants" does not exist' in line
    assert "loyalty init" in line


def test_a_user_without_rights_is_told_so(cli: Cli, shop: Shop, database_url: str) -> None:
    role = f"guest_{uuid.uuid4().hex[:12]}"
    shop.run(f"CREATE ROLE {role} LOGIN")
    try:
        shop.run(f"GRANT USAGE ON SCHEMA loyalty TO {role}")
        found = Cli(database_url.replace("postgres@", f"{role}@")).refused(1, "award")
    finally:
        shop.run(f"DROP OWNED BY {role}")
        shop.run(f"DROP ROLE {role}")
    assert "permission denied" in found
    assert "member of loyalty_pipeline" in found


def test_an_interrupted_command_ends_with_130_and_one_line(shop: Shop, database_url: str) -> None:
    shop.order("1", "10")
    with shop.engine.connect() as holder:
        holder.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended('loyalty.award.m1', 0))")
        process = subprocess.Popen(
            [sys.executable, "-m", "loyalty_pipelines.cli", "award"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "LOYALTY_DATABASE_URL": database_url},
        )  # fmt: skip
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = " \
            "(SELECT oid FROM pg_database WHERE datname = current_database())"  # fmt: skip
        while shop.value(waiting) == 0:
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        # The batch in work is finished first: it gets its lock and commits.
        holder.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Interrupted" in err
    assert "Traceback" not in err


def test_the_private_server_is_used_and_named_when_no_url_is_set(server: EmbeddedServer, tmp_path_factory) -> None:
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "LOYALTY_HOME": str(home), "LOYALTY_DATABASE_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "loyalty_pipelines.cli", "init"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"database: private PostgreSQL in {home}/postgres" in done.stderr


def test_the_database_of_a_refused_command_is_unchanged(cli: Cli, shop: Shop) -> None:
    cli.refused(1, "programs", "set", "nobody", "--points-per-unit", "1")
    engine = create_engine(cli.url or "")
    with engine.connect() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM loyalty.programs").scalar_one() == 1
    engine.dispose()
