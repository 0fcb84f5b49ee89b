"""A project in which everything goes wrong, each in a function of its own."""

import ctypes
import io
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

HELD: list[bytearray] = []
MIB = 2**20


def wrong_value() -> None:
    raise ValueError("the threshold must be below 1")


def wrapped() -> None:
    try:
        {"late": 1}["delay"]
    except KeyError as error:
        raise RuntimeError("cannot prepare") from error


def while_handling() -> None:
    try:
        int("x")
    except ValueError:
        len(5)  # type: ignore[arg-type]


def nothing_there() -> Any:
    found: Any = None
    return found.rows


def wrong_assertion() -> None:
    assert sum([1, 2]) == 4, "the parts do not add up"


def for_ever() -> None:
    for_ever()


def own_name_missing() -> None:
    from shapes import CORNERS  # type: ignore[import-not-found]  # noqa: F401


def syntax() -> None:
    import unfinished  # type: ignore[import-not-found]  # noqa: F401


def leaves() -> None:
    sys.exit(3)


def leaves_at_once() -> None:
    os._exit(7)


def native_crash() -> None:
    ctypes.string_at(0)


def package_missing() -> None:
    import no_such_package_anywhere  # type: ignore[import-not-found]  # noqa: F401


def secret_missing() -> str:
    return os.environ["WAREHOUSE_PASSWORD_OF_TESTS"]


def disk_full() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("rows")


def refused(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def not_allowed(path: str) -> None:
    Path(path).mkdir()
    os.setuid(65534)
    Path(path, "file").write_text("")


def ulimit() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
    HELD.append(bytearray(8 * 2**30))


def grows(mib: int, until: str, *, ready: str = "") -> None:
    for _ in range(mib // 8):
        HELD.append(bytearray(os.urandom(MIB) * 8))
    Path(ready).touch() if ready else None
    waits(until)


def waits(until: str, *, ready: str = "") -> None:
    Path(ready).touch() if ready else None
    while not Path(until).exists():
        time.sleep(0.01)


def notes_pid(pid: str, until: str) -> None:
    Path(f"{pid}.new").write_text(str(os.getpid()))
    Path(f"{pid}.new").rename(pid)
    waits(until)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def slow_service() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname(), timeout=0.1).recv(1)


def bad_json(path: str) -> Any:
    return json.loads(Path(path).read_text())


def bad_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def missing_file(path: str) -> str:
    return Path(path).read_text()


def bad_csv() -> Any:
    import pandas as pd

    return pd.read_csv(io.StringIO("a,b\n1,2\n1,2,3,4\n"))


def missing_column() -> Any:
    import pandas as pd

    return pd.DataFrame({"a": [1]})["delay"]


def bad_number() -> Any:
    import pandas as pd

    return pd.Series(["1", "two"]).astype(float)


def bad_parquet(path: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path)


def wrong_labels() -> Any:
    import pandas as pd

    from operators.data.examples import Examples

    times = pd.to_datetime(["2026-01-01"], utc=True)
    return Examples(pd.DataFrame({"event_timestamp": times, "late": [2]}), label="late")
