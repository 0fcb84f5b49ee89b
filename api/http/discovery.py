"""What there is: groups, versions, kinds and their verbs, as kubectl looks them up.  Made from the registry alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from api.gen.michelangelo.api import options_pb2 as options
from api.http.resources import is_global
from api.kinds import Kind, kinds

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CATEGORY = "michelangelo"
# The level of Kubernetes' API that is spoken; clients compare it with their own.
MAJOR, MINOR = "1", "32"
NAMESPACES: dict[str, Any] = {
    "name": "namespaces",
    "singularName": "namespace",
    "namespaced": False,
    "kind": "Namespace",
    "verbs": ["get", "list"],
    "shortNames": ["ns"],
}


def plural(kind: Kind) -> str:
    """Return the plural as URLs have it: `pipelineruns`."""
    return kind.plural.replace("_", "")


@cache
def by_path() -> dict[tuple[str, str, str], Kind]:
    """Return every kind by group, version and plural, of which both forms are known."""
    found = {}
    for kind in kinds().values():
        group, version = kind.group_version.split("/")
        for name in (plural(kind), kind.plural):
            found[group, version, name] = kind
    return found


@cache
def group_versions() -> Sequence[str]:
    """Return every group and version, such as `michelangelo.api/v2`."""
    return sorted({kind.group_version for kind in kinds().values()})


def _names(kind: Kind) -> tuple[list[str], list[str]]:
    """Return short names and categories."""
    own: Any = kind.message.DESCRIPTOR.GetOptions()
    declared = own.Extensions[options.resource]
    short = [*declared.short_names]
    if kind.plural != plural(kind):
        short += [kind.singular, kind.plural]
    return short, sorted({CATEGORY, *declared.categories})


def _resource(kind: Kind) -> dict[str, Any]:
    short, categories = _names(kind)
    return {
        "name": plural(kind),
        "singularName": kind.name.lower(),
        "namespaced": not is_global(kind),
        "kind": kind.name,
        "verbs": VERBS,
        **({"shortNames": short} if short else {}),
        "categories": categories,
        "storageVersionHash": "",
    }


def resources(group_version: str) -> dict[str, Any]:
    """Return the APIResourceList of a group and version."""
    found = [_resource(kind) for kind in kinds().values() if kind.group_version == group_version]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def core() -> dict[str, Any]:
    """Return the APIResourceList of Kubernetes' own group: namespaces, to be read."""
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [NAMESPACES]}


def core_versions() -> dict[str, Any]:
    """Return the APIVersions of Kubernetes' own group."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(name: str) -> dict[str, Any]:
    """Return the APIGroup of a name."""
    versions = [
        {"groupVersion": found, "version": found.split("/")[1]}
        for found in group_versions()
        if found.split("/")[0] == name
    ]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[-1],
    }


def groups() -> dict[str, Any]:
    """Return the APIGroupList."""
    names = sorted({found.split("/")[0] for found in group_versions()})
    found = [{key: value for key, value in group(name).items() if key != "apiVersion"} for name in names]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def aggregated(*, of_core: bool) -> dict[str, Any]:
    """Return the APIGroupDiscoveryList: everything in one answer."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [_core_group()] if of_core else [_group(name) for name in _group_names()],
    }


def _group_names() -> list[str]:
    return sorted({found.split("/")[0] for found in group_versions()})


def _group(name: str) -> dict[str, Any]:
    versions = [
        {
            "version": found.split("/")[1],
            "freshness": "Current",
            "resources": [
                _discovered(_resource(kind), found) for kind in kinds().values() if kind.group_version == found
            ],
        }
        for found in group_versions()
        if found.split("/")[0] == name
    ]
    return {"metadata": {"name": name, "creationTimestamp": None}, "versions": versions}


def _core_group() -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": None},
        "versions": [{"version": "v1", "freshness": "Current", "resources": [_discovered(NAMESPACES, "v1")]}],
    }


def _discovered(resource: dict[str, Any], group_version: str) -> dict[str, Any]:
    of, _, version = group_version.rpartition("/")
    optional: dict[str, Any] = {key: resource[key] for key in ("shortNames", "categories") if key in resource}
    return {
        "resource": resource["name"],
        "responseKind": {"group": of, "version": version, "kind": resource["kind"]},
        "scope": "Namespaced" if resource["namespaced"] else "Cluster",
        "singularResource": resource["singularName"],
        "verbs": resource["verbs"],
        **optional,
    }


def version() -> dict[str, Any]:
    """Return the version document."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+michelangelo",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    }
