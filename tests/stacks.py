"""The two stacks that the same tests run on: the embedded one, and Apache Kafka and Postgres in containers.

A test gets a `Postgres` and a `Broker` and does not ask which. `pytest --stack=real` chooses the containers.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

import asyncpg
import docker
from docker.errors import DockerException
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer

from nightshift.embedded.broker import EmbeddedBroker, speaks_kafka
from nightshift.embedded.child import free_port
from nightshift.embedded.postgres import EmbeddedPostgres
from nightshift.stack import as_role

KAFKA_IMAGE = "apache/kafka:4.4.0"
POSTGRES_IMAGE = "pgvector/pgvector:pg17"
START_SECONDS_MAX = 90
_PASSWORD = "not-a-secret"
_DATA_INSIDE = "/data"


class Postgres(Protocol):
    """A server with pgvector, for the length of a `with` block."""

    admin: str
    """The role that makes databases and migrates them."""

    def url(self, role: str, database: str) -> str:
        """The address of a database, as a role in full: `nightshift_actor`. `postgres` is the superuser."""

    def kill(self) -> None:
        """`kill -9`."""

    def restart(self) -> None:
        """After `kill`: on the same address, with everything that was committed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Broker(Protocol):
    """A broker on one address, for the length of a `with` block."""

    is_kafka: bool
    """Whether it is Kafka itself, with a memory, limits and copies."""

    port: int
    """Where it listens."""

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""

    @property
    def settings(self) -> Mapping[str, str]:
        """What a service is told of it."""

    def kill(self) -> None:
        """`kill -9`."""

    def start(self) -> object:
        """After `kill`: on the same address, with what it kept; an embedded one keeps nothing."""

    def start_empty(self) -> object:
        """After `kill`: on the same address, with nothing."""

    def away(self) -> AbstractContextManager[None]:
        """It hangs and answers nobody, for the length of the block."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class WheelPostgres(EmbeddedPostgres):
    """The embedded server."""

    admin = "postgres"


class WheelBroker(EmbeddedBroker):
    """The embedded broker."""

    is_kafka = False

    def __init__(self, folder: Path, advertised_port: int | None) -> None:
        super().__init__(folder)
        self._advertised_port = advertised_port or self.port

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._advertised_port}"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"NIGHTSHIFT_KAFKA_BOOTSTRAP": self.bootstrap, "NIGHTSHIFT_KAFKA_IDEMPOTENCE": "false"}

    def start_empty(self) -> object:
        return self.start()

    @contextmanager
    def away(self) -> Iterator[None]:
        assert self.pid is not None, "it runs"
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


class _Container:
    """A container on one port of 127.0.0.1, which it keeps when it is killed and started again."""

    volumes: Mapping[str, str] = MappingProxyType({})
    """A folder here, by the folder inside."""

    def __init__(self, image: str, port_inside: int, is_up: Callable[[], bool], **environment: str) -> None:
        self.port = free_port()
        self._image = image
        self._port_inside = port_inside
        self._is_up = is_up
        self._environment = environment
        self._command = ""
        self._container: DockerContainer | None = None

    def start_empty(self) -> Self:
        """A new container, in place of the one there was."""
        self.remove()
        container = DockerContainer(self._image).with_envs(**self._environment)
        container.ports[str(self._port_inside)] = ("127.0.0.1", self.port)  # type: ignore[assignment]  # as docker takes it
        if self._command:
            container.with_command(self._command)
        for inside, here in self.volumes.items():
            container.with_volume_mapping(here, inside, mode="rw")
        self._container = container.start()
        self._await()
        return self

    def start(self) -> Self:
        """Start the one that was killed."""
        self.wrapped.start()
        self._await()
        return self

    def kill(self) -> None:
        self.wrapped.kill("SIGKILL")
        self.wrapped.wait()

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        self.wrapped.reload()
        return str(self.wrapped.status) == "exited"

    def remove(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None

    @property
    def wrapped(self) -> Container:
        assert self._container is not None, "it was started"
        return self._container.get_wrapped_container()

    def _await(self) -> None:
        give_up = time.monotonic() + START_SECONDS_MAX
        while not self._is_up():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{self._image} is not up: {self.wrapped.logs(tail=20).decode(errors='replace')}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        try:
            return self.start_empty()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_: object) -> None:
        self.remove()


class ContainerPostgres(_Container):
    """Postgres as managed ones are: with a password, and for us a role that is no superuser."""

    admin = "operator"

    def __init__(self, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(POSTGRES_IMAGE, 5432, self._answers, POSTGRES_PASSWORD=_PASSWORD)
        self._command = " ".join(["postgres", *(f"-c {name}={value}" for name, value in settings.items())])

    def start_empty(self) -> Self:
        super().start_empty()
        self.ask("CREATE EXTENSION vector", database="template1")
        self.ask(f"CREATE ROLE {self.admin} LOGIN CREATEDB CREATEROLE PASSWORD '{_PASSWORD}'")
        self.ask(f"CREATE DATABASE nightshift OWNER {self.admin}")
        return self

    def restart(self) -> None:
        self.start()

    def url(self, role: str, database: str) -> str:
        """A service's role is taken on by the admin's login, as `nightshift up` does it."""
        if role not in ("postgres", self.admin):
            return as_role(self.url(self.admin, database), role)
        return f"postgresql://{role}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str, *, database: str = "postgres") -> None:
        """One statement as the superuser."""
        run_sql(self.url("postgres", database), statement)

    def _answers(self) -> bool:
        try:
            self.ask("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True


class ContainerBroker(_Container):
    """One Kafka, broker and controller, whose data lie in the container, or in a folder here."""

    is_kafka = True

    def __init__(
        self, advertised_port: int | None = None, *, password: str | None = None, data: Path | None = None
    ) -> None:
        """`password`: of its one user, `nightshift`, whom it then asks for it (SASL PLAIN)."""
        super().__init__(KAFKA_IMAGE, 9092, lambda: speaks_kafka("127.0.0.1", self.port))
        self._advertised_port = advertised_port or self.port
        # The broker connects to itself by the address that it advertises to others of its kind: the host's port is not
        # there inside.
        self._environment = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "HOST://:9092,INTERNAL://:29092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"HOST://{self.bootstrap},INTERNAL://localhost:29092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "5",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        }
        if data is not None:
            data.chmod(0o777)  # inside, another user writes
            self.volumes = {_DATA_INSIDE: str(data)}
            self._environment["KAFKA_LOG_DIRS"] = f"{_DATA_INSIDE}/logs"
        if password is not None:
            self._environment |= {
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "KAFKA_LISTENER_NAME_HOST_SASL_ENABLED_MECHANISMS": "PLAIN",
                "KAFKA_LISTENER_NAME_HOST_PLAIN_SASL_JAAS_CONFIG": (
                    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_nightshift="{password}";'
                ),
            }

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._advertised_port}"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"NIGHTSHIFT_KAFKA_BOOTSTRAP": self.bootstrap}

    @contextmanager
    def away(self) -> Iterator[None]:
        self.wrapped.pause()
        try:
            yield
        finally:
            self.wrapped.unpause()


class Stack(Protocol):
    """Makes the servers of one kind; each runs for the length of a `with` block, from the main thread."""

    def postgres(self, folder: Path, **settings: str) -> Postgres: ...

    def broker(self, folder: Path, *, advertised_port: int | None = None) -> Broker:
        """Clients reach it by `advertised_port`, where something stands between. A container's data lie in it as well,
        unless the folder is there."""


class Embedded:
    """Out of wheels, as `make demo` has them."""

    def postgres(self, folder: Path, **settings: str) -> Postgres:
        return WheelPostgres(folder, settings={"shared_buffers": "64MB", **settings})

    def broker(self, folder: Path, *, advertised_port: int | None = None) -> Broker:
        return WheelBroker(folder, advertised_port)


class Real:
    """In containers."""

    def postgres(self, folder: Path, **settings: str) -> Postgres:
        del folder
        return ContainerPostgres(settings)

    def broker(self, folder: Path, *, advertised_port: int | None = None) -> Broker:
        return ContainerBroker(advertised_port, data=folder if folder.exists() else None)


@cache
def engine_missing() -> str | None:
    """Why no container can be started here; none where one can."""
    try:
        with closing(docker.from_env(timeout=20)) as engine:
            engine.ping()
    except (DockerException, OSError) as error:
        return f"no container engine answers ({str(error)[:120]})"
    return None


def run_sql(url: str, statement: str) -> None:
    """One statement; a loop may run, and waits."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()
