"""Fixtures of all tests: servers that are started once per session, when the first test asks for one."""

from tests.etcd_servers import etcd, etcd_url
from tests.servers import postgres, postgres_url

__all__ = ["etcd", "etcd_url", "postgres", "postgres_url"]
