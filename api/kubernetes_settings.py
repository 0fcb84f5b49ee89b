"""The Kubernetes cluster that jobs of steps may run on: settings `MA_KUBERNETES…`, one frozen value.  Calls nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IN_CLUSTER = "in-cluster"
DEFAULT_NAMESPACE = "default"
# RFC 1123's label, as Kubernetes takes it.
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
# What a registry calls a repository, with or without a tag, and the digest that a tag could not change.
PINNED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}\Z")
NOT_PINNED = "must end with the digest of the image, name@sha256:…: what a tag names changes"


@dataclass(frozen=True)
class KubernetesSettings:
    """How the cluster is reached, and what its jobs are made of; `docs/kubernetes.md` explains each.

    config: path of a kubeconfig, or `in-cluster`; empty: there is no cluster.  context: of the kubeconfig, its current
    one if empty.  image: of steps that name none; pod: path of a pod template as YAML; registries: those whose
    images resources may name, or parts of one, such as `ghcr.io/team`; none is all.
    """

    config: str = ""
    context: str = ""
    namespace: str = DEFAULT_NAMESPACE
    image: str = ""
    pod: Path | None = None
    registries: tuple[str, ...] = ()

    @property
    def on(self) -> bool:
        """Whether there is a cluster."""
        return bool(self.config)

    def environ(self) -> dict[str, str]:
        """Return the variables from which `read` gives this value again."""
        return {
            "MA_KUBERNETES": self.config,
            "MA_KUBERNETES_CONTEXT": self.context,
            "MA_KUBERNETES_NAMESPACE": self.namespace,
            "MA_KUBERNETES_IMAGE": self.image,
            "MA_KUBERNETES_POD": str(self.pod or ""),
            "MA_KUBERNETES_REGISTRIES": ",".join(self.registries),
        }


VARIABLES = frozenset(KubernetesSettings().environ())


def read(environ: Mapping[str, str], faults: list[str]) -> KubernetesSettings:
    """Return the settings; `faults` gets a line for each variable that cannot be used."""
    where, pod = environ.get("MA_KUBERNETES", ""), environ.get("MA_KUBERNETES_POD", "")
    registries = environ.get("MA_KUBERNETES_REGISTRIES", "")
    found = KubernetesSettings(
        config=where if where in ("", IN_CLUSTER) else str(Path(where).absolute()),
        context=environ.get("MA_KUBERNETES_CONTEXT", ""),
        namespace=environ.get("MA_KUBERNETES_NAMESPACE") or DEFAULT_NAMESPACE,
        image=environ.get("MA_KUBERNETES_IMAGE", ""),
        pod=Path(pod).absolute() if pod else None,
        registries=tuple(one for each in registries.split(",") if (one := each.strip().rstrip("/"))),
    )
    if found.on and found.config != IN_CLUSTER and not Path(found.config).is_file():
        faults.append(
            f"MA_KUBERNETES is the path of a kubeconfig or {IN_CLUSTER}: there is no file {found.config[:200]!r}"
        )
    if NAMESPACE.match(found.namespace) is None:
        faults.append(f"MA_KUBERNETES_NAMESPACE must be the name of a namespace, not {found.namespace[:64]!r}")
    if found.image and PINNED.match(found.image) is None:
        faults.append(f"MA_KUBERNETES_IMAGE {NOT_PINNED}; not {found.image[:200]!r}")
    if any("://" in one or any(char.isspace() for char in one) for one in found.registries):
        told = "such as ghcr.io/team, with commas between them"
        faults.append(f"MA_KUBERNETES_REGISTRIES names registries, {told}; not {registries[:200]!r}")
    if found.pod is not None and not found.pod.is_file():
        faults.append(f"MA_KUBERNETES_POD is the path of a pod template: there is no file {str(found.pod)[:200]!r}")
    return found
