"""The commands of the documentation run as printed, in the order in which they are printed."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

from loyalty_pipelines.cli import main
from loyalty_pipelines.db import programs, repairs, sources
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.repairs import Adjustment
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.presets import read_preset
from tests.shops import create_django_shop

ROOT = Path(__file__).parent.parent.parent
DOCS = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
# What the reader fills in.
ANN = "00000000-0000-4000-8000-000000000011"
BOB = "00000000-0000-4000-8000-000000000012"
NAMES = {
    "MERCHANT": "1",
    "CUSTOMER": ANN,
    "FROM": BOB,
    "INTO": ANN,
    "FILE": "shop.yaml",
    "orders.csv.gz": "orders.csv",
}
# Run by the developer, by CI and by tests of their own; here only their targets are looked up.
MAKE = re.compile(r"^make (\S+)")
FINDS_PROBLEMS = (
    "loyalty status",
    "loyalty award",
    "loyalty queue retry",
    "loyalty notifications send",
    "loyalty integrity check",
    "loyalty subscriptions check",
    "loyalty reports subscriptions",
    "loyalty alerts check",
    "loyalty alerts close",
    "loyalty metrics push",
    "loyalty contracts check",
    "loyalty subscriptions check",
    "loyalty subscriptions apply",
    # The plan of the test is none that was applied.
    "loyalty subscriptions undo",
)
SHELL = re.compile(r"[<>|&;$]")
# Runs until Ctrl-C: has a test of its own.
ENDLESS = ("loyalty up",)


def commands(document: str) -> list[str]:
    """Return the commands of a document in order: lines of its code blocks, and code within sentences."""
    content = (ROOT / document).read_text()
    found = re.findall(r"^ *((?:loyalty|make) .+)$|`(loyalty [^`\n]+)`", content, re.MULTILINE)
    lines = [(line or span).split("  #")[0].strip() for line, span in found]
    return [line for line in lines if line]


def test_there_are_documents_with_commands() -> None:
    assert len([document for document in DOCS if commands(document)]) >= 4


# What loads Great Expectations takes its seconds in one process.
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(one, marks=[pytest.mark.xdist_group("great_expectations")] if "contracts" in one else [])
        for one in DOCS
        if commands(one)
    ],
)
def test_the_commands_of_a_document_run_as_printed(
    document: str, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    _make_django_shop(engine)
    (tmp_path / "shop.yaml").write_text(read_preset("django_shop"))
    (tmp_path / "orders.csv").write_text(
        f"order_id,customer_id,total,status,paid_at\n7,{ANN},19.99,paid,2026-01-31 12:00\n"
    )
    (tmp_path / "balances.csv").write_text(f"customer_id,points\n{BOB},120\n")
    environment = {
        **os.environ,
        "LOYALTY_DATABASE_URL": database_url,
        "LOYALTY_MAIL_URL": f"folder://{tmp_path}/mails",
        "LOYALTY_ALERT_EMAIL_TO": "ops@example.com",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if document != "README.md":
        # README's commands do the same; here it would cost three processes for each document.
        with engine.begin() as conn:
            sources.apply(conn, parse_mapping(read_preset("django_shop")))
        run(_programme(), environment, tmp_path)
    for command in commands(document):
        if command.startswith("loyalty orders import"):
            _forget_the_mapping(engine)
        number = _failed_mail(engine) if command.startswith("loyalty notifications") else 0
        number = _parked_item(engine) if command.startswith("loyalty queue") else number
        number = _changed_history(engine) if command.startswith("loyalty integrity") else number
        number, plan = _planned_fix(engine) if command.startswith("loyalty subscriptions") else (number, 0)
        run_id = _run_that_took_points(engine) if "RUN_ID" in command else ""
        filled = re.sub(r"\bPLAN\b", str(plan), command.replace("RUN_ID", run_id))
        run(re.sub(r"\bNUMBER\b", str(number), filled), environment, tmp_path)


def run(command: str, environment: dict[str, str], folder: Path) -> None:
    """Run one command of a document; exit status 1 of those that find problems says something about the shop."""
    if found := MAKE.match(command):
        made = subprocess.run(["make", "-n", found[1]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return
    if command.startswith("export ") or command in ENDLESS:
        return
    for name, value in NAMES.items():
        command = re.sub(rf"\b{re.escape(name)}\b", value, command)
    status, out, err = execute(command, environment, folder)
    allowed = {0, 1} if command.startswith(FINDS_PROBLEMS) else {0}
    assert status in allowed, f"{command}\n{out}\n{err}"
    assert "Traceback" not in err


def execute(command: str, environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """Run a command; return its exit status and what it printed.

    One that needs a shell gets one; the others are run here: a process each would be most of these tests' time.
    """
    if SHELL.search(command) or not command.startswith("loyalty "):
        ended = subprocess.run(
            command, shell=True, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, shlex.split(command)[1:], env=environment, prog_name="loyalty")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def _parked_item(engine: Engine) -> int:
    """Return the number of an open item of the queue, parked; whatever was done about the one before."""
    with engine.begin() as conn:
        _make_account(conn)
        number = conn.execute(
            text("SELECT loyalty.report_failed_update(:ann, 0, 1000000, 'no-such-order', p_merchant_id => '1')"),
            {"ann": ANN},
        ).scalar_one()
        conn.execute(text("UPDATE loyalty.reconciliation_queue SET parked_at = now() WHERE resolved_at IS NULL"))
    return number


def _make_account(conn: Connection) -> None:
    statement = "INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('1', :ann) ON CONFLICT DO NOTHING"
    conn.execute(text(statement), {"ann": ANN})


def _failed_mail(engine: Engine) -> int:
    """Return the number of a mail that has failed; whatever was done about the one before."""
    with engine.begin() as conn:
        return conn.execute(
            text(
                "INSERT INTO loyalty.notifications "
                "(merchant_id, dedupe_key, template, customer_id, status, settled_at) "
                "VALUES ('1', gen_random_uuid()::text, 'loyalty_enrollment', :ann, 'failed', now()) "
                "RETURNING notification_id"
            ),
            {"ann": ANN},
        ).scalar_one()


def _changed_history(engine: Engine) -> int:
    """Return the number of a finding that can be accepted; whatever was done about the one before."""
    with engine.begin() as conn:
        _make_account(conn)
        return conn.execute(
            text(
                "INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id) "
                "SELECT '1', 'integrity', 'history_changed', 'error', 'account', coalesce(max(object_id::int), 0) + 9 "
                "FROM loyalty.findings WHERE class = 'history_changed' RETURNING finding_id"
            )
        ).scalar_one()


def _planned_fix(engine: Engine) -> tuple[int, int]:
    """Return the numbers of an open finding and of its plan; whatever was done about the one before."""
    with engine.begin() as conn:
        return tuple(
            conn.execute(
                text(
                    "WITH f AS (INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type,"
                    " object_id, policy) VALUES ('1', 'subscriptions', 'subscription_without_payment', 'error',"
                    " 'subscription', gen_random_uuid()::text, 'P') RETURNING *) INSERT INTO loyalty.fix_plans"
                    " (merchant_id, fix_key, finding_id, class, object_type, object_id, policy, action, before, after,"
                    " evidence, explanation, planned_by, expires_at) SELECT merchant_id, object_id, finding_id, class,"
                    " object_type, object_id, policy, 'update_subscription', '{}', '{}', '{}', 'It is cancelled.', 't',"
                    " now() + interval '1 day' FROM f RETURNING finding_id, plan_id"
                )
            ).one()
        )


def _run_that_took_points(engine: Engine) -> str:
    """Return the id of an expiry run that took points of the customer."""
    run_id = str(uuid.uuid4())
    points = Adjustment(merchant_id="1", customer_id=ANN, points=10, reason="r", actor="test", reference=run_id)
    with engine.begin() as conn:
        programs.set_version(conn, "1", changes={"points_expiration_days": 365}, valid_from=None, actor="test")
    # The first run computes all dates by the programme that was set.
    list(expire_merchants(engine, ["1"], actor="test"))
    with engine.begin() as conn:
        repairs.adjust(conn, points)
        conn.execute(text("UPDATE loyalty.accounts SET expires_at = now() - interval '1 hour'"))
        conn.execute(text("UPDATE loyalty.accounts SET warned_for = expires_at"))
    (done,) = expire_merchants(engine, ["1"], actor="test", run_id=run_id)
    assert done.accounts_expired
    return run_id


def _programme() -> str:
    return "loyalty programs set 1 --points-per-unit 1 --valid-from 2020-01-01T00:00:00Z"


def _make_django_shop(engine: Engine) -> None:
    with engine.begin() as conn:
        create_django_shop(conn)
        conn.execute(text("INSERT INTO merchants_merchant (id, name, timezone) VALUES (1, 'One', 'Europe/Luxembourg')"))
        conn.execute(text("INSERT INTO crm_contact (id, merchant_id) VALUES (:ann, 1)"), {"ann": ANN})
        conn.execute(
            text(
                "INSERT INTO orders_order (merchant_id, contact_id, total, currency, payment_status, paid_at) "
                "VALUES (1, :ann, 19.99, 'EUR', 'paid', now())"
            ),
            {"ann": ANN},
        )


def _forget_the_mapping(engine: Engine) -> None:
    """Importing a file is for a machine without a shop: forget the one of the commands before."""
    with engine.begin() as conn:
        conn.execute(text("TRUNCATE loyalty.source_mapping"))
