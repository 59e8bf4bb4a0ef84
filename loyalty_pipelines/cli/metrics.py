"""`loyalty metrics`: what is measured, for Prometheus."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loyalty_pipelines.cli.base import database, require_ready
from loyalty_pipelines.cli.option_types import TEXT
from loyalty_pipelines.cli.output import say

if TYPE_CHECKING:
    from loyalty_pipelines.domain.metrics import Measurements

# The collector of textfiles runs as another user.
READABLE_BY_ALL = 0o644


@click.group(invoke_without_command=True)
@click.option("--merchant", type=TEXT, help="Only this merchant's, and what there is once.")
@click.option("--output", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
              help="Replace FILE as a whole instead of printing; for node_exporter it ends in .prom.")  # fmt: skip
@click.pass_context
def metrics(context: click.Context, merchant: str | None, output: Path | None) -> None:
    """Print awards, lag, queue, findings, mails, liability and last successes in Prometheus's text format.

    It reads no ledger entry. On an error FILE stays as it was.
    """
    if context.invoked_subcommand:
        if merchant is not None or output is not None:
            raise click.UsageError(f"'{context.invoked_subcommand}' takes neither --merchant nor --output.")
        return
    from loyalty_pipelines.resources.prometheus import as_text

    text = as_text(_measured(merchant))
    if output is None:
        click.echo(text, nl=False)
    else:
        _replace(output, text)


@metrics.command("push")
def push_() -> None:
    """Push all of it to the Pushgateway that LOYALTY_METRICS_PUSH_URL names, in the place of what is there."""
    from loyalty_pipelines.domain.metrics_push import push_settings
    from loyalty_pipelines.resources.prometheus import push

    settings = push_settings(os.environ)
    push(_measured(None), settings)
    say(f"Pushed to {settings.url}.")


def _measured(merchant: str | None) -> "Measurements":
    from loyalty_pipelines.db import programs, sources
    from loyalty_pipelines.db.engine import reading
    from loyalty_pipelines.db.metrics import read_metrics

    with database() as engine, reading(engine, is_one_snapshot=True) as conn:
        require_ready(conn, is_mapping_needed=False)
        # Before a shop is mapped nobody knows its merchants.
        if merchant is not None and sources.current(conn) is not None:
            programs.require_merchant(conn, merchant)
        return read_metrics(conn, merchant_id=merchant)


def _replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file at once: who reads it meets the former one or the new one, whole."""
    try:
        # In the same folder, because a file moves at once only within one file system.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as made:
            try:
                made.write(content)
                made.flush()
                os.fchmod(made.fileno(), READABLE_BY_ALL)
                Path(made.name).replace(path)
            except BaseException:
                Path(made.name).unlink()
                raise
    except OSError as error:
        raise click.FileError(str(path), hint=error.strerror or str(error)) from error
