"""Small helpers for SQL that people read before it is applied."""

from collections.abc import Iterable

from psycopg import sql
from psycopg.abc import AdaptContext


def lines_of(parts: Iterable[sql.Composable]) -> sql.Composable:
    """Return the parts, one per line, separated by commas."""
    return sql.SQL(",\n").join(sql.SQL("    {}").format(part) for part in parts)


class Block(sql.Composable):
    """A function's body between dollar quotes whose tag does not occur in it.

    A column may be called `x$loyalty0$`; a fixed tag would end the body there, and the rest of the name would
    be run as SQL.
    """

    def __init__(self, body: sql.Composable) -> None:
        super().__init__(body)
        self._body = body

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        body = self._body.as_bytes(context)
        number = 0
        while b"$loyalty%d$" % number in body:
            number += 1
        tag = b"$loyalty%d$" % number
        return tag + body + tag
