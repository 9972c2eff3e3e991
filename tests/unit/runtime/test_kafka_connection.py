"""What aiokafka is told of a connection that closed under uvloop."""

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

import services.runtime.kafka_clients  # noqa: F401  # whoever has our clients has their connections
from tests.waiting import until


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_a_request_over_a_transport_that_closed_a_moment_ago_finds_the_connection_broken() -> None:
    async def scenario() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            connection = AIOKafkaConnection(host, port)
            connection._reader, connection._writer = reader, writer = await asyncio.open_connection(host, port)
            connection._read_task = asyncio.create_task(reader.read())
            writer.transport.abort()
            await until(connection._read_task.done)
            with pytest.raises(RuntimeError, match="the handler is closed"):
                writer.write(b"this is what uvloop raises")

            with pytest.raises(KafkaConnectionError):
                await connection.send(ApiVersionRequest())

        assert not connection.connected(), "the next request makes a new one"

    uvloop.run(scenario())
