"""A project's module that wants a secret."""

import os


def examples() -> str:
    return os.environ["WAREHOUSE_PASSWORD_OF_TESTS"]
