"""Fixtures of all tests: servers that are started once per session, when the first test asks for one."""

from tests.servers import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]
