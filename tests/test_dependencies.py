"""Every dependency is explained, and none is explained that is not there."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def declared() -> set[str]:
    """Names in setup.cfg, without versions and extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = [re.match(r"[\w.-]+", line) for line in "\n".join(lines).split()]
    return {name[0].lower() for name in names if name} | {"uv"}


def explained() -> set[str]:
    """Names in the first column of the tables."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ((?:`[\w.\[\]-]+`(?:, )?)+)", text, re.MULTILINE)
    return {name.split("[")[0].lower() for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_page_explains_exactly_what_is_declared() -> None:
    assert explained() == declared()
