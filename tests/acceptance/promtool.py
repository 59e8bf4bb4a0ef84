"""Prometheus's own tool takes the metrics, the alert rules with their tests, and the dashboard's expressions.

It comes from the distribution where it is not installed: so `make monitoring-check` runs this, `make test` does not.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli import Cli
from tests.outbox import Outbox
from tests.queued import Queue
from tests.shop import Shop

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
BUILD = ROOT / "build" / "promtool"
UNPACKED = BUILD / "usr" / "bin" / "promtool"
MISSING = (
    "promtool is not installed, and Debian's package 'prometheus' can't be had ({reason}): put promtool on the PATH; "
    "it is in every release of Prometheus."
)

Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool; fails the test with what it says when it finds something wrong, or says anything of a metric."""
    program = shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else _fetch())

    def run(*arguments: str | Path, text: str | None = None) -> str:
        done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def _fetch() -> str:
    """Unpack promtool from the distribution's package into build/promtool; nothing is installed or started."""
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        if not _download():
            _command("apt-get", "update", "-qq")
            assert _download(), "apt-get download prometheus found none"
        (package,) = BUILD.glob("*.deb")
        _command("dpkg", "-x", package, BUILD)
        package.unlink()
    except (OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        pytest.fail(MISSING.format(reason=said.strip()))
    return str(UNPACKED)


def _download() -> bool:
    """Download the package; return whether there was one (without a list of packages there is none)."""
    for former in BUILD.glob("*.deb"):
        former.unlink()
    try:
        _command("apt-get", "download", "-qq", "prometheus")
    except subprocess.CalledProcessError:
        return False
    return bool(list(BUILD.glob("*.deb")))


def _command(*arguments: str | Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(arguments, cwd=BUILD, env=environment, check=True, capture_output=True, text=True, timeout=240)


def test_the_alert_rules_are_right(promtool: Promtool) -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", MONITORING / "alerts.yaml")


def test_the_alerts_fire_when_they_should(promtool: Promtool) -> None:
    assert "SUCCESS" in promtool("test", "rules", MONITORING / "alerts.test.yaml")


def test_the_dashboards_expressions_are_right(promtool: Promtool, tmp_path: Path) -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert found
    rules = [{"record": f"panel:{at}", "expr": expr.replace("$merchant", "m1|m2")} for at, expr in enumerate(found)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", path)


def test_the_metrics_of_a_shop_with_everything_in_it_are_right(
    promtool: Promtool, shop: Shop, database_url: str
) -> None:
    merchant = 'm"2\\\n{é🦊}'
    shop.merchant(merchant, points_expiration_days=30, point_value_amount="0.01")
    for order, total in (("1", "10.00"), ("odd", "NaN")):
        shop.order(order, total, merchant=merchant)
    shop.award()
    shop.order("2", "10.00", merchant=merchant)
    Queue(shop).report("3", 5, 0)
    Outbox(shop).many(3)
    shop.run("UPDATE loyalty.notifications SET status = 'sent', settled_at = now() WHERE customer_id = 'c1'")
    shop.run(
        "INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id, "
        "points_difference, amount_at_risk, currency) VALUES (:m, 's', 'c', 'error', 'account', '1', 5, 0.05, 'EUR')",
        m=merchant,
    )
    shop.run(
        "INSERT INTO loyalty.merchant_jobs (merchant_id, job, succeeded_at, failed_at) "
        "VALUES (:m, 'balance_integrity', now(), now())",
        m=merchant,
    )
    printed = Cli(database_url).ok("metrics").out
    announced = {line.split()[2] for line in printed.splitlines() if line.startswith("# TYPE ")}
    assert announced == {line.split("{")[0].split(" ")[0] for line in printed.splitlines() if not line.startswith("#")}
    # It says nothing where it has nothing to say.
    assert promtool("check", "metrics", text=printed) == ""
