"""A database and a broker of the settings, for a demo to play on: both or none, and only what works for nobody."""

from collections.abc import Mapping
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from contracts import topics
from nightshift import MendableError
from nightshift.stack import external_admin_url
from services.runtime.config import KafkaSettings
from services.runtime.kafka import BrokerForgotError, read_epoch

_BOOTSTRAP = "NIGHTSHIFT_KAFKA_BOOTSTRAP"
_LENT = ("NIGHTSHIFT_DATABASE_", "NIGHTSHIFT_KAFKA_")
_STATE = "SELECT to_regclass('reporter.event_log') IS NULL AS empty, to_regnamespace('shop') IS NOT NULL AS demo"
_EPOCH = "SELECT epoch FROM reporter.broker_epoch"


class BorrowedError(MendableError):
    """A demo must not play there, or cannot."""


async def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of both; none where not both are named, and then both are embedded. Raises BorrowedError."""
    admin_url, bootstrap = external_admin_url(environment), environment.get(_BOOTSTRAP)
    if admin_url is None or not bootstrap:
        return {}
    try:
        known, found = await _epoch_of_demo(admin_url), await _epoch_of_broker(bootstrap)
    except (OSError, asyncpg.PostgresError, KafkaError, BrokerForgotError) as error:
        raise BorrowedError(
            f"the database or the broker of the settings does not answer ({type(error).__name__}): "
            f"start it, or unset NIGHTSHIFT_DATABASE_URL and {_BOOTSTRAP} for embedded ones"
        ) from error
    if found is not None and found != known:
        raise BorrowedError(
            f"the broker at {bootstrap} holds events of another system, and a demo would mix its own with them: "
            f"name another one, or unset {_BOOTSTRAP}"
        )
    return {name: value for name, value in environment.items() if name.startswith(_LENT) and value}


async def _epoch_of_demo(admin_url: str) -> UUID | None:
    """The life of the broker that this database's demo knew; none of a database that holds nothing of ours."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        state = await connection.fetchrow(_STATE)
        assert state is not None, "it is a row of answers"
        if state["empty"]:
            return None
        if not state["demo"]:
            raise BorrowedError(
                "the database of the settings holds a system that is no demo, and a demo would let it act: "
                "name another one, or unset NIGHTSHIFT_DATABASE_URL"
            )
        epoch: UUID | None = await connection.fetchval(_EPOCH)
        return epoch
    finally:
        await connection.close()


async def _epoch_of_broker(bootstrap: str) -> UUID | None:
    """The broker's life; none while it holds nothing of ours."""
    kafka = KafkaSettings(kafka_bootstrap=bootstrap)
    consumer = AIOKafkaConsumer(**kafka.client(), enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        await consumer.start()
        return await read_epoch(consumer) if topics.EPOCH in await consumer.topics() else None
    finally:
        await consumer.stop()
