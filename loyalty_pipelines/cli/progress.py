"""Progress for whoever watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loyalty_pipelines.cli.base import is_quiet
from loyalty_pipelines.cli.output import console, is_terminal


@contextmanager
def progress_bar(verb: str, total: int, noun: str, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr where somebody watches; yields what advances it."""
    if as_json or is_quiet() or not is_terminal():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=total)
        yield lambda steps: progress.advance(task, steps)
