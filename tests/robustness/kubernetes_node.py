"""One real Kubernetes node on this machine for tests: etcd, API server, scheduler, controllers, kubelet, containerd.

Its binaries are those of `KUBERNETES_BINARIES` and of the PATH.  It listens on loopback and on a bridge of its own,
lies in one folder, and is ended by process id.  Pods see this machine's Python by mounts: their image is a shell.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.free_ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BINARIES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "containerd",
    "ctr",
    "runc",
    "busybox",
)
CNI = Path("/usr/lib/cni")
BRIDGE, SUBNET, GATEWAY = "ma-test0", "10.244.77.0/24", "10.244.77.1"
NAME = "localhost"
TOKEN = "token-of-the-test-node"
START_S = 240.0
TAKEN = Path(tempfile.gettempdir()) / "ma-kubernetes-node.lock"
SOCKET = "containerd.sock"


def found(name: str) -> str | None:
    """Return the path of a binary."""
    own, usual = os.environ.get("KUBERNETES_BINARIES", ""), os.environ.get("PATH", "")
    path = os.pathsep.join((own, usual, "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def missing() -> str:
    """Return what keeps a node from being started here, empty if nothing does."""
    if os.geteuid() != 0:
        return "a Kubernetes node needs root"
    absent = [name for name in BINARIES if found(name) is None]
    absent += [] if (CNI / "bridge").exists() else [str(CNI / "bridge")]
    return f"not installed: {', '.join(absent)}; KUBERNETES_BINARIES names a folder of binaries" if absent else ""


@dataclass
class Node:
    """A node in a folder of its own.  image: pinned, a shell and nothing else."""

    folder: Path
    image: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: Sequence[int] = field(default_factory=lambda: free_ports(4))

    @property
    def kubeconfig(self) -> Path:
        """How the node is reached, with every right."""
        return self.folder / "kubeconfig"

    def start(self) -> None:
        """Start everything and return when the node takes pods."""
        etcd, peer, api, kubelet = self.ports
        self._configure(kubelet)
        self._run("containerd", "-c", str(self.folder / "containerd.toml"))
        etcd_binary = Path(sys.executable).with_name("etcd")
        urls = [f"http://127.0.0.1:{port}" for port in (etcd, peer)]
        self._run(
            str(etcd_binary),
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={urls[0]}",
            f"--advertise-client-urls={urls[0]}",
            f"--listen-peer-urls={urls[1]}",
            f"--initial-advertise-peer-urls={urls[1]}",
            f"--initial-cluster=default={urls[1]}",
            "--log-level=error",
        )
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._run(
            "kube-apiserver",
            f"--etcd-servers={urls[0]}",
            f"--cert-dir={self.folder / 'certs'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={api}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=Hostname",
        )
        self._write_kubeconfig(api)
        self._until(lambda: self.kubectl("get", "--raw", "/readyz") == "ok", "the API server")
        self.image = self._images()
        own = ("--kubeconfig", str(self.kubeconfig), "--leader-elect=false", "--port=0", "--secure-port=0")
        self._run("kube-controller-manager", *own, f"--service-account-private-key-file={key}")
        self._run("kube-scheduler", *own)
        self._run(
            "kubelet",
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={self.kubeconfig}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{self.folder / SOCKET}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-pki'}",
            f"--hostname-override={NAME}",
            "--pod-infra-container-image=localhost/pause:1",
        )
        self._until(lambda: " Ready" in self.kubectl("get", "nodes"), "the node")
        self._until(lambda: "default" in self.kubectl("get", "serviceaccounts"), "the service account")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Return what kubectl prints, empty if it fails."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
        return ended.stdout if ended.returncode == 0 else ""

    def template(self, place: Path, *folders: Path, **env: str) -> Path:
        """Write a pod template whose container has this machine's Python, and folders to write in; return its path."""
        seen = ["/usr", "/lib", "/lib64", "/etc", str(ROOT), sys.base_prefix, sys.prefix]
        readable = [path for path in dict.fromkeys(seen) if Path(path).is_dir()]
        mounts, volumes = [], []
        for number, path in enumerate((*readable, *map(str, folders))):
            volumes.append({"name": f"v{number}", "hostPath": {"path": path}})
            mounts.append({"name": f"v{number}", "mountPath": path, "readOnly": path in readable})
        variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **env}
        container = {
            "name": "job",
            "volumeMounts": mounts,
            "env": [{"name": name, "value": value} for name, value in variables.items()],
        }
        place.write_text(yaml.safe_dump({"spec": {"hostPID": True, "containers": [container], "volumes": volumes}}))
        return place

    def stop(self) -> None:
        """End every process and container, and unmount what they left."""
        for name in ("kubelet", "kube-scheduler", "kube-controller-manager"):
            self._end(name)
        ctr = [str(found("ctr")), "-a", str(self.folder / SOCKET), "-n", "k8s.io"]
        tasks = subprocess.run([*ctr, "task", "ls", "-q"], capture_output=True, text=True, check=False).stdout.split()
        for task in tasks:
            subprocess.run([*ctr, "task", "kill", "-a", "-s", "KILL", task], capture_output=True, check=False)
        time.sleep(0.5)
        for task in tasks:
            subprocess.run([*ctr, "task", "rm", "-f", task], capture_output=True, check=False)
        for name in ("kube-apiserver", "etcd", "containerd"):
            self._end(name)
        with Path("/proc/mounts").open() as mounts:
            places = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{self.folder}/")]
        for place in reversed(places):
            subprocess.run(["umount", "-l", place], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)

    def _end(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, binary: str, *arguments: str) -> None:
        name = Path(binary).name
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [binary if "/" in binary else str(found(binary)), *arguments]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _until(self, holds: Any, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not holds():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                shown = ended or list(self.processes)
                logs = "\n".join(f"{name}:\n{(self.folder / f'{name}.log').read_text()[-1500:]}" for name in shown)
                raise RuntimeError(f"{what} did not come up; ended: {ended}\n{logs}")
            time.sleep(0.2)

    def _write_kubeconfig(self, port: int) -> None:
        cluster = {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority": str(self.folder / "certs/apiserver.crt"),
        }
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        self.kubeconfig.chmod(0o600)

    def _configure(self, kubelet: int) -> None:
        """Write the settings of containerd, of the pods' network and of the kubelet.

        Those of scores and cgroups are for machines on which root may not raise limits.
        """
        (self.folder / "cni").mkdir()
        runc = 'plugins."io.containerd.grpc.v1.cri"'
        (self.folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{self.folder}/containers"\nstate = "{self.folder}/state"\noom_score = 0\n'
            f'[grpc]\naddress = "{self.folder / SOCKET}"\n'
            f'[{runc}]\nsandbox_image = "localhost/pause:1"\nrestrict_oom_score_adj = true\n'
            f'[{runc}.containerd]\nsnapshotter = "overlayfs"\ndefault_runtime_name = "runc"\n'
            f'[{runc}.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n'
            f'[{runc}.cni]\nbin_dir = "{CNI}"\nconf_dir = "{self.folder}/cni"\n'
        )
        ipam = {"type": "host-local", "dataDir": str(self.folder / "addresses"), "ranges": [[{"subnet": SUBNET}]]}
        bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False}
        network = {**bridge, "ipam": {**ipam, "routes": [{"dst": "0.0.0.0/0"}]}}
        plugins = {"cniVersion": "0.4.0", "name": "test", "plugins": [network]}
        (self.folder / "cni" / "10-test.conflist").write_text(json.dumps(plugins))
        (self.folder / "kubelet.yaml").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kubelet.config.k8s.io/v1beta1",
                    "kind": "KubeletConfiguration",
                    "address": "127.0.0.1",
                    "port": kubelet,
                    "readOnlyPort": 0,
                    "healthzPort": 0,
                    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                    "authorization": {"mode": "AlwaysAllow"},
                    "cgroupDriver": "cgroupfs",
                    "enforceNodeAllocatable": ["pods"],
                    "failSwapOn": False,
                    "oomScoreAdj": 0,
                    "imageGCHighThresholdPercent": 100,
                    "evictionHard": {"nodefs.available": "1Mi", "imagefs.available": "1Mi", "memory.available": "50Mi"},
                    "makeIPTablesUtilChains": False,
                    "nodeStatusUpdateFrequency": "2s",
                    "resolvConf": "/etc/resolv.conf",
                }
            )
        )

    def _images(self) -> str:
        """Give containerd its images and return the name of a shell's, pinned."""
        ctr = [str(found("ctr")), "-a", str(self.folder / SOCKET), "-n", "k8s.io", "images"]
        pause = "trap exit TERM INT; while :; do sleep 3600 & wait $!; done"
        for name, command in (("shell", ["/bin/sh"]), ("pause", ["/bin/sh", "-c", pause])):
            archive = self.folder / f"{name}.tar"
            archive.write_bytes(_image(f"localhost/{name}:1", command))
            subprocess.run([*ctr, "import", str(archive)], check=True, capture_output=True)
        listed = subprocess.run([*ctr, "ls"], check=True, capture_output=True, text=True).stdout
        digest = next(line.split()[2] for line in listed.splitlines() if line.startswith("localhost/shell:1 "))
        pinned = f"localhost/shell@{digest}"
        subprocess.run([*ctr, "tag", "localhost/shell:1", pinned], check=True, capture_output=True)
        return pinned


def _image(tag: str, command: Sequence[str]) -> bytes:
    """Return an image of busybox as an archive that containerd imports."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        busybox = str(found("busybox"))
        tar.add(os.path.realpath(busybox), arcname="bin/busybox")
        for name in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                tar.addfile(link)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests"}],
    }
    config = json.dumps(settings).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    listed = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": [f"{digest}.tar"]}]).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in ((f"{digest}.tar", layer.getvalue()), (name, config), ("manifest.json", listed)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Node]:
    """Yield a node that is ended with the block, and with this process.  A machine has one bridge: others wait."""
    node = Node(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with TAKEN.open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        try:
            node.start()
            yield node
        finally:
            node.stop()
