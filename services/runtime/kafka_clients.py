"""Clients of the broker that end in time, whole, and alone, and whose connections break as aiokafka expects."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError, NoError
from aiokafka.protocol.group import HeartbeatRequest

from contracts.envelope import Record

RECORD_BYTES_MAX = 1_000_000
"""The broker's limit; intake's limit on bodies lies below it (process.Door)."""
PUBLISH_SECONDS_MAX = 30.0
PRODUCER_END_SECONDS = 2.0


_send = AIOKafkaConnection.send


def _send_or_break(connection: AIOKafkaConnection, *request: Any, **named: Any) -> Any:
    """Send, or say that the connection is broken.

    Of a transport that closed a moment ago uvloop raises a RuntimeError, and aiokafka awaits an OSError: its own tasks
    would die of it, unheard, and whoever waits for metadata, a join or a fetch would wait for ever (aiokafka #1038).
    """
    try:
        return _send(connection, *request, **named)
    except KafkaError:  # which is a RuntimeError
        raise
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is broken: {error}") from error


AIOKafkaConnection.send = _send_or_break


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # it has no types
    """A consumer that ends whole, and alone.

    aiokafka lets the cancellation of its own tasks out of `stop`, and whoever stopped it would end as if told to: the
    link of a service that runs on and hears nothing. What comes after in `stop` would not be closed either.
    """

    _closed: bool | None

    async def start(self) -> None:
        """See AIOKafkaConsumer."""
        await super().start()
        self._leave_formed_alone()  # aiokafka leaves also while it runs: where a batch takes minutes

    async def stop(self) -> None:
        """See AIOKafkaConsumer."""
        if self._closed is False:  # none before it was made whole
            self._closed = True
            self._leave_formed_alone()  # also after a start that failed halfway
            for part in (self._coordinator, self._fetcher, self._client):
                if part is not None:
                    await _ended(part.close())

    def _leave_formed_alone(self) -> None:
        if isinstance(self._coordinator, GroupCoordinator):
            self._coordinator._maybe_leave_group = partial(_leave, self._coordinator)  # noqa: SLF001  # no public way


async def _leave(coordinator: GroupCoordinator) -> None:
    """Leave a group that is formed. One that is not forgets us after a session, as if we had died.

    Who leads a group of the embedded broker and leaves while it is forming leads it for ever: nobody joins it again.
    """
    if await _is_formed(coordinator):
        await GroupCoordinator._maybe_leave_group(coordinator)  # noqa: SLF001  # there is no public way


async def _is_formed(coordinator: GroupCoordinator) -> bool:
    """By a heartbeat, for which the embedded broker looks who is dead: else leaving would make it, and form anew."""
    if coordinator.generation <= 0 or coordinator._rejoin_needed_fut.done():  # noqa: SLF001  # as above
        return False
    heartbeat = HeartbeatRequest(coordinator.group_id, coordinator.generation, coordinator.member_id)
    try:
        answer = await coordinator._send_req(heartbeat)  # noqa: SLF001  # as above
    except KafkaError:
        return False
    return bool(answer.error_code == NoError.errno)


async def _ended(closing: Awaitable[object]) -> None:
    """Wait, and be cancelled only by who cancels us."""
    try:
        await closing
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


class Producer:
    """Publishes records and tells which the broker will never take. Not connected at first.

    A client that lost a record is replaced: an idempotent one has counted it, and the broker would refuse whatever
    follows with a later number.
    """

    def __init__(self) -> None:
        self._make: Callable[[], AIOKafkaProducer] | None = None
        self._client: AIOKafkaProducer | None = None
        self._making = asyncio.Lock()

    def attach(self, client: AIOKafkaProducer, make: Callable[[], AIOKafkaProducer]) -> None:
        """Publish with this client, and with new ones in its place."""
        self._client, self._make = client, make

    async def detach(self) -> None:
        """The broker is not connected any more."""
        client, self._client, self._make = self._client, None, None
        if client is not None:
            await end(client)

    async def publish(self, records: Sequence[Record]) -> Sequence[str | None]:
        """See relay.Publisher."""
        client = await self._connected()
        try:
            async with asyncio.timeout(PUBLISH_SECONDS_MAX):
                ends = await _publish(client, records)
        except (KafkaError, TimeoutError) as error:
            await self._drop(client)
            raise ConnectionError(type(error).__name__) from error
        failures = [how for how in ends if isinstance(how, KafkaError)]
        if failures:
            await self._drop(client)
        for failure in failures:
            if not isinstance(failure, MessageSizeTooLargeError):
                raise ConnectionError(type(failure).__name__) from failure
        return [None if how is None else "too_large" for how in ends]

    async def _connected(self) -> AIOKafkaProducer:
        async with self._making:
            make = self._make
            if make is None:
                raise ConnectionError("the broker is not connected")
            if self._client is None:
                client = make()
                try:
                    await client.start()
                except KafkaError as error:
                    await end(client)
                    raise ConnectionError(type(error).__name__) from error
                if self._make is not make:
                    await end(client)
                    raise ConnectionError("the broker went away meanwhile")
                self._client = client
            return self._client

    async def _drop(self, client: AIOKafkaProducer) -> None:
        if self._client is client:
            self._client = None
            await end(client)


async def _publish(client: AIOKafkaProducer, records: Sequence[Record]) -> list[KafkaError | str | None]:
    """How each record ended; none where the broker has it."""
    sent: list[Awaitable[object] | str] = []
    for record in records:
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        try:
            sent.append(await client.send(record.topic, record.body, key=record.key.encode(), headers=headers))
        except MessageSizeTooLargeError:  # of the client itself: the broker never saw it
            sent.append("too_large")
    try:
        return [one if isinstance(one, str) else await _end_of(one) for one in sent]
    except BaseException:  # told to stop waiting: how the others end is of no interest, and asyncio should not complain
        for one in sent:
            if isinstance(one, asyncio.Future):
                one.add_done_callback(_unheard)
        raise


def _unheard(sent: "asyncio.Future[object]") -> None:
    if not sent.cancelled():
        sent.exception()


async def end(client: AIOKafkaProducer) -> None:
    """Stop a producer. What it cannot deliver soon is given up, for the outbox has it still.

    aiokafka has no such limit: an idempotent producer tries for as long as the broker is away or a topic is missing.
    """
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(PRODUCER_END_SECONDS):
            await _ended(client.stop())
            return
    sending = client._sender.sender_task  # noqa: SLF001  # there is no public way, here and below
    while sending is not None and not sending.done():
        sending.cancel()  # it waits for its requests one by one, and each time once more
        await asyncio.sleep(0)
    client._message_accumulator.fail_all(KafkaConnectionError("given up"))  # noqa: SLF001  # as above
    await client.client.close()


async def _end_of(sent: Awaitable[object]) -> KafkaError | None:
    """Wait for one record; each is waited for, also after another failed."""
    try:
        await sent
    except KafkaError as error:
        return error
    return None
