"""The rules by which a failure gets its class: a table, read from the top; the first that holds is the verdict.

What is certain stands above what is likely.  A rule is a function of the facts that returns its ground or nothing.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.verdicts.facts import NEAR_LIMIT, Facts


class Class(enum.StrEnum):
    """Of what kind a failure is.  KILLED: somebody asked for it."""

    USER_CODE = "USER_CODE"
    DATA = "DATA"
    ENVIRONMENT = "ENVIRONMENT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    LOST_WORKER = "LOST_WORKER"
    PLATFORM = "PLATFORM"
    TIMEOUT = "TIMEOUT"
    UPSTREAM = "UPSTREAM"
    KILLED = "KILLED"


class Certainty(enum.StrEnum):
    """How sure a verdict is: CERTAIN is shown by the evidence, LIKELY fits it best, GUESS has little to go by."""

    CERTAIN = "CERTAIN"
    LIKELY = "LIKELY"
    GUESS = "GUESS"


@dataclass(frozen=True)
class Rule:
    """`ground` returns why the rule holds, empty when it does not."""

    name: str
    found: Class
    certainty: Certainty
    ground: Callable[[Facts], str]


RAY_LOST = tuple(
    f"ray.exceptions.{name}"
    for name in (
        "WorkerCrashedError",
        "RayActorError",
        "ActorDiedError",
        "ActorUnavailableError",
        "NodeDiedError",
        "LocalRayletDiedError",
        "OwnerDiedError",
        "ObjectLostError",
        "RaySystemError",
    )
)
MEMORY_TYPES = ("MemoryError", "pyarrow.lib.ArrowMemoryError", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError")
NATIVE = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP")
ASKED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
AIRFLOW_TIMEOUTS = (
    "airflow.sdk.exceptions.AirflowTaskTimeout",
    "airflow.exceptions.AirflowTaskTimeout",
    "airflow.sdk.exceptions.TaskDeferralTimeout",
    "airflow.exceptions.TaskDeferralTimeout",
    "AirflowTaskTimeout",
    "TaskDeferralTimeout",
)
TIMEOUTS = ("TimeoutError", "httpx.TimeoutException", "requests.exceptions.Timeout", "ray.exceptions.GetTimeoutError")
NETWORK = (
    "ConnectionError",
    "socket.gaierror",
    "ssl.SSLError",
    "httpx.TransportError",
    "requests.exceptions.ConnectionError",
    "urllib.error.URLError",
    "urllib3.exceptions.HTTPError",
    "botocore.exceptions.EndpointConnectionError",
    "sqlalchemy.exc.OperationalError",
)
CREDENTIALS = (
    "airflow.sdk.exceptions.AirflowNotFoundException",
    "airflow.exceptions.AirflowNotFoundException",
    "AirflowNotFoundException",
    "botocore.exceptions.NoCredentialsError",
    "google.auth.exceptions.DefaultCredentialsError",
    "operators.errors.SecretMissing",
)
PLATFORM_TYPES = (
    "api.errors.Unavailable",
    "api.errors.Internal",
    "airflow.sdk.exceptions.AirflowRuntimeError",
    "airflow.sdk.api.client.ServerResponseError",
    "AirflowRuntimeError",
    "ServerResponseError",
    "grpc.",
)
DATA_TYPES = (
    "operators.errors.DataError",
    "pandas.errors.",
    "pyarrow.lib.ArrowInvalid",
    "pyarrow.lib.ArrowTypeError",
    "pyarrow.lib.ArrowKeyError",
    "polars.exceptions.",
    "json.decoder.JSONDecodeError",
    "UnicodeError",
    "_csv.Error",
    "pydantic_core._pydantic_core.ValidationError",
    "jsonschema.exceptions.ValidationError",
    "pandera.errors.",
    "zipfile.BadZipFile",
    "gzip.BadGzipFile",
    "EOFError",
)
DATA_LIBRARIES = re.compile(r"(?:^|/)(pandas|pyarrow|polars|numpy|sklearn|lightgbm|xgboost|duckdb|datasets)/")
DATA_ERRORS = ("KeyError", "ValueError", "IndexError", "lightgbm.basic.LightGBMError")
UPSTREAM_REASONS = ("PipelineGone", "UpstreamFailed")
PLATFORM_REASONS = ("EngineRunLost", "RunIdCollision", "DependencyUnavailable", "EngineNotReady")
USER_REASONS = ("PipelineError", "Refused")
TIME_REASONS = ("Expired", "RunExpired", "TimedOut", "TtlExceeded")
HEARTBEAT = "heartbeat timeout"


def _exception(*names: str) -> Callable[[Facts], str]:
    def ground(facts: Facts) -> str:
        link = facts.link_of(*names)
        return f"{link.get('type')}: {str(link.get('message') or '')[:300]}".rstrip(": ") if link else ""

    return ground


def _limit(name: str) -> Callable[[Facts], str]:
    return lambda facts: (
        str(facts.ended.get("message") or f"over its {name}") if facts.ended.get("limit") == name else ""
    )


def _reason(names: Sequence[str]) -> Callable[[Facts], str]:
    return lambda facts: (facts.message or facts.reason) if facts.reason in names else ""


def _gpu_memory(facts: Facts) -> str:
    link = facts.link_of("RuntimeError")
    return str(link["message"])[:300] if link and "out of memory" in str(link.get("message")) else ""


def _killed_by_kernel(facts: Facts) -> str:
    if facts.signal != "SIGKILL" or not facts.oom_kills("cgroup"):
        return ""
    return f"SIGKILL, and the kernel's oom_kill counter of its cgroup rose by {facts.oom_kills('cgroup')}"


def _worker_killed_by_kernel(facts: Facts) -> str:
    if facts.link_of(*RAY_LOST) is None or not facts.oom_kills("cgroup"):
        return ""
    return "a worker of Ray was lost, and the kernel's oom_kill counter of its cgroup rose"


def _stopped(facts: Facts) -> str:
    return "its engine was asked to stop it" if facts.ended.get("asked") and facts.signal else ""


def _kernel_killed_somebody(facts: Facts) -> str:
    if facts.signal != "SIGKILL" or not facts.oom_kills("machine"):
        return ""
    return "SIGKILL, and the machine's oom_kill counter rose meanwhile; the kernel does not say whom it killed"


def _near_limit(facts: Facts) -> str:
    killed = facts.signal in ("SIGKILL", "") and not facts.chain and facts.ended.get("code") is None
    if not killed or facts.memory_share < NEAR_LIMIT or not facts.began:
        return ""
    return (
        f"{facts.signal or 'it vanished'} with {facts.memory_text()} in use; no counter of the kernel says it was that"
    )


def _sigkill(facts: Facts) -> str:
    if facts.signal != "SIGKILL":
        return ""
    return f"SIGKILL from outside with {facts.memory_text()} in use and no kill for memory counted"


def _asked_to_end(facts: Facts) -> str:
    if facts.signal not in ASKED:
        return ""
    return f"{facts.signal} from outside: somebody, a drain or a shutdown ended it"


def _vanished(facts: Facts) -> str:
    if not facts.began or facts.ended or facts.chain:
        return ""
    return "its process and its supervisor are both gone without a word: a restart, or all of its session was killed"


def _native_crash(facts: Facts) -> str:
    return f"{facts.signal}: native code ended the process" if facts.signal in NATIVE else ""


def _unset_variable(facts: Facts) -> str:
    link = facts.link_of("KeyError")
    if link is None or not facts.raised_in(link).endswith(("/os.py", "<frozen os>")):
        return ""
    return f"the environment variable {link.get('message')} is not set"


def _own_import(facts: Facts) -> str:
    link = facts.link_of("ImportError")
    if link is None or link.get("type") == "ModuleNotFoundError" or not facts.own_module(str(link.get("name") or "")):
        return ""
    return f"{link.get('type')}: {link.get('message')}; that module is the project's own"


def _data_library(facts: Facts) -> str:
    link = facts.link_of(*DATA_ERRORS)
    if link is None or not DATA_LIBRARIES.search(facts.raised_in(link)):
        return ""
    return f"{link.get('type')}: {str(link.get('message') or '')[:300]}, raised by the library that reads the data"


def _missing_file(facts: Facts) -> str:
    link = facts.link_of("FileNotFoundError", "IsADirectoryError", "NotADirectoryError")
    return f"{link.get('type')}: {link.get('message')}" if link else ""


def _users_line(facts: Facts) -> str:
    if not facts.chain or not facts.place:
        return ""
    return (
        f"{facts.cause.get('type')} at {facts.place.get('file')}:{facts.place.get('line')}, in the project's own code"
    )


def _raised(facts: Facts) -> str:
    if not facts.chain:
        return ""
    return f"{facts.cause.get('type')} with no line of the project's own code in it"


def _own_exit(facts: Facts) -> str:
    code = facts.ended.get("code")
    return f"the process ended itself with status {code} and said nothing" if code and not facts.chain else ""


def _airflow_killed(facts: Facts) -> str:
    line = facts.said("Process terminated by signal", "Process exited abnormally")
    return line if line and not facts.ended else ""


CERTAIN, LIKELY, GUESS = Certainty.CERTAIN, Certainty.LIKELY, Certainty.GUESS
RULES: Sequence[Rule] = (
    Rule("killed-on-request", Class.KILLED, CERTAIN, lambda facts: "somebody asked for it" if facts.asked else ""),
    Rule("marked-in-airflow", Class.KILLED, LIKELY, _reason(("ExternallyChanged",))),
    Rule("timeout-kept", Class.TIMEOUT, CERTAIN, _limit("timeout")),
    Rule("memory-limit-kept", Class.OUT_OF_MEMORY, CERTAIN, _limit("memory")),
    Rule("memory-error", Class.OUT_OF_MEMORY, CERTAIN, _exception(*MEMORY_TYPES)),
    Rule("ray-memory", Class.OUT_OF_MEMORY, CERTAIN, _exception("ray.exceptions.OutOfMemoryError")),
    Rule("gpu-memory", Class.OUT_OF_MEMORY, CERTAIN, _gpu_memory),
    Rule("kernel-killed-it", Class.OUT_OF_MEMORY, CERTAIN, _killed_by_kernel),
    Rule("kernel-killed-somebody", Class.OUT_OF_MEMORY, LIKELY, _kernel_killed_somebody),
    Rule("near-its-limit", Class.OUT_OF_MEMORY, LIKELY, _near_limit),
    Rule("kernel-killed-a-worker", Class.OUT_OF_MEMORY, LIKELY, _worker_killed_by_kernel),
    Rule("ray-worker-lost", Class.LOST_WORKER, CERTAIN, _exception(*RAY_LOST)),
    Rule("stopped", Class.KILLED, LIKELY, _stopped),
    Rule("interrupted", Class.LOST_WORKER, LIKELY, _exception("KeyboardInterrupt")),
    Rule("killed", Class.LOST_WORKER, CERTAIN, _sigkill),
    Rule("asked-to-end", Class.LOST_WORKER, LIKELY, _asked_to_end),
    Rule("native-crash", Class.USER_CODE, LIKELY, _native_crash),
    Rule("disk-full", Class.ENVIRONMENT, CERTAIN, lambda facts: facts.disk_full),
    Rule("variable-not-set", Class.ENVIRONMENT, CERTAIN, _unset_variable),
    Rule("secret-missing", Class.ENVIRONMENT, CERTAIN, _exception(*CREDENTIALS)),
    Rule("not-provided", Class.ENVIRONMENT, CERTAIN, _exception("operators.errors.NotProvided")),
    Rule("own-import", Class.USER_CODE, CERTAIN, _own_import),
    Rule("import", Class.ENVIRONMENT, CERTAIN, _exception("ImportError")),
    Rule("airflow-timeout", Class.TIMEOUT, CERTAIN, _exception(*AIRFLOW_TIMEOUTS)),
    Rule("run-timeout", Class.TIMEOUT, CERTAIN, _reason(TIME_REASONS)),
    Rule("call-timeout", Class.TIMEOUT, LIKELY, _exception(*TIMEOUTS)),
    Rule("network", Class.ENVIRONMENT, LIKELY, _exception(*NETWORK)),
    Rule("permission", Class.ENVIRONMENT, LIKELY, _exception("PermissionError")),
    Rule("platform-error", Class.PLATFORM, CERTAIN, _exception(*PLATFORM_TYPES)),
    Rule("input-gone", Class.UPSTREAM, CERTAIN, _exception("operators.errors.InputGone")),
    Rule("data-error", Class.DATA, CERTAIN, _exception(*DATA_TYPES)),
    Rule("data-library", Class.DATA, LIKELY, _data_library),
    Rule("missing-file", Class.DATA, LIKELY, _missing_file),
    Rule("wrong-input", Class.USER_CODE, LIKELY, _exception("operators.errors.UserError")),
    Rule("users-line", Class.USER_CODE, CERTAIN, _users_line),
    Rule("raised-elsewhere", Class.PLATFORM, LIKELY, _raised),
    Rule("refused", Class.USER_CODE, CERTAIN, _reason(USER_REASONS)),
    Rule("gone", Class.UPSTREAM, CERTAIN, _reason(UPSTREAM_REASONS)),
    Rule("engine", Class.PLATFORM, CERTAIN, _reason(PLATFORM_REASONS)),
    Rule("heartbeat", Class.PLATFORM, CERTAIN, lambda facts: facts.event(HEARTBEAT)),
    Rule("state-mismatch", Class.PLATFORM, LIKELY, lambda facts: facts.event("state mismatch")),
    Rule("airflow-saw-it-die", Class.LOST_WORKER, LIKELY, _airflow_killed),
    Rule("own-exit", Class.USER_CODE, LIKELY, _own_exit),
    Rule("vanished", Class.LOST_WORKER, LIKELY, _vanished),
    Rule("after-another", Class.UPSTREAM, CERTAIN, lambda facts: ", ".join(facts.upstream)),
    Rule("said-user", Class.USER_CODE, LIKELY, lambda facts: facts.message if facts.kind == "user" else ""),
    Rule("said-system", Class.PLATFORM, GUESS, lambda facts: facts.message),
    Rule("nothing-known", Class.PLATFORM, GUESS, lambda _: "it left no evidence"),
)
