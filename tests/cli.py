"""The command line as a test runs it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from loyalty_pipelines.cli import main


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout; fails when there is anything else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs `loyalty ...` on one database."""

    url: str | None

    def run(self, *args: str | Path, database: str | None = None) -> Outcome:
        """Run a command; an error that nobody expects fails the test."""
        result = CliRunner().invoke(
            main, [str(arg) for arg in args], env={"LOYALTY_DATABASE_URL": database or self.url}, prog_name="loyalty"
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(status=result.exit_code, out=result.stdout, err=result.stderr)

    def ok(self, *args: str | Path) -> Outcome:
        """Run a command that must succeed."""
        found = self.run(*args)
        assert found.status == 0, found
        return found

    def refused(self, status: int, *args: str | Path) -> str:
        """Run a command that must fail with `status` and one error line on stderr; return that line."""
        found = self.run(*args)
        assert found.status == status, found
        lines = [line for line in found.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, found
        assert "Traceback" not in found.err
        return lines[0]


def write_orders(path: Path, header: str, lines: Iterable[str]) -> Path:
    """Write an order file."""
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path
