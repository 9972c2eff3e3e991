import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from nightshift.embedded.broker import BrokerError, EmbeddedBroker, speaks_kafka
from nightshift.supervisor import PROJECT


async def make_topic(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def test_a_record_that_was_sent_can_be_read(broker: str) -> None:
    await make_topic(broker, "sent-and-read")
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    await producer.send_and_wait("sent-and-read", b"hello")
    await producer.stop()

    consumer = AIOKafkaConsumer("sent-and-read", bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    try:
        assert (await consumer.getone()).value == b"hello"
    finally:
        await consumer.stop()


async def test_a_killed_broker_comes_back_empty_on_the_same_address(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as server:
        await make_topic(server.bootstrap, "forgotten")
        before = server.bootstrap
        server.kill()
        assert not speaks_kafka("127.0.0.1", server.port)

        server.start()

        assert server.bootstrap == before
        admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
        await admin.start()
        assert "forgotten" not in await admin.list_topics()
        await admin.close()


def test_the_broker_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from nightshift.embedded.broker import EmbeddedBroker
        print(EmbeddedBroker(Path(sys.argv[1])).start().pid, flush=True)
        sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()

    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_taken_port_is_refused_with_the_mend(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "one") as one, pytest.raises(BrokerError, match=f"port {one.port} .* is taken"):
        EmbeddedBroker(tmp_path / "two", port=one.port).start()


def test_a_home_that_cannot_be_written_does_not_hinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/self/no-such-home")

    with EmbeddedBroker(tmp_path) as server:
        assert speaks_kafka("127.0.0.1", server.port)
