"""The examples of docs/checkout.md, and the shop that they are run against."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.shop import Shop

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "checkout.md"


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, in the order of the document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def expected_output(language: str) -> str:
    """Return the text block that says what the example of a language prints."""
    (found,) = re.findall(
        rf"^```{language}\n.*?^```\n\nprints\n\n```text\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    return found


@contextmanager
def shop_with_login(shop: Shop) -> Iterator[str]:
    """Give the customers of the document 100 points each, and make its login; yield the URL to connect with."""
    for customer in ("ann", "bob", "cat"):
        shop.order(f"first of {customer}", "100.00", customer=customer)
    shop.award()
    (create_role,) = (block for block in blocks("sql") if "CREATE ROLE" in block)
    name = f"shop_checkout_{shop.engine.url.database}"
    shop.run(create_role.replace("shop_checkout", name))
    url = shop.engine.url.set(drivername="postgresql", username=name)
    yield url.render_as_string(hide_password=False)
    shop.run(f"DROP ROLE {name}")
