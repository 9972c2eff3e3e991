"""A search for customers' words wherever a copy could lie: every table of ours, every topic, every log."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer

from contracts import topics
from contracts.envelope import decode
from contracts.events.cases import CaseChanged
from nightshift.demo.ours import SCHEMAS
from services.runtime import vault
from services.runtime.config import KafkaSettings
from services.runtime.kafka import partitions_of
from services.runtime.postgres import Connection

PIECE_CHARS_MIN = 20
PIECE_CHARS_MAX = 60
QUIET_POLLS = 3
"""So many empty answers in a row end the reading of the topics."""

_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = ANY($1) ORDER BY 1
"""
_OPENINGS = (
    "SELECT headers::text AS headers, body FROM reporter.event_log WHERE case_id = ANY($1) AND type = 'case.opened.v1'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found."""

    pieces: int
    """How many customers' words were looked for."""
    places: tuple[str, ...]
    """Where some lie in clear: a table, a topic, a log."""
    bytes_searched: int
    logs: int
    """How many logs could be reached."""
    opened: int
    """How many of them open with their case's key: the search looked for what is there."""


def piece_of(text: str) -> str | None:
    """Words by which a text is recognised as it is, whatever it is wrapped in: no line end, nothing JSON escapes.

    None where the text has no such piece.
    """
    lines = (line.strip() for line in text.replace('"', "\n").replace("\\", "\n").replace("<", "\n").splitlines())
    longest = max(lines, key=len, default="")
    return longest[:PIECE_CHARS_MAX] if len(longest) >= PIECE_CHARS_MIN else None


async def search(admin_url: str, bootstrap: str, logs: Iterable[Path], said: Mapping[str, str]) -> Search:
    """Look for the words of `said` (a text of each case id)."""
    by_case = {case_id: piece for case_id, text in said.items() if (piece := piece_of(text)) is not None}
    needles = sorted({form for piece in by_case.values() for form in _forms(piece)})
    found: list[str] = []
    total = 0
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        for (table,) in await connection.fetch(_TABLES, [*SCHEMAS, "nightshift", "vault"]):
            content = await _table(connection, table)
            total += len(content)
            found += [f"table {table}"] if _holds(content, needles) else []
        opened = await _opened(connection, by_case)
    finally:
        await connection.close()
    for topic, content in (await _topics(KafkaSettings(kafka_bootstrap=bootstrap))).items():
        total += len(content)
        found += [f"topic {topic}"] if _holds(content, needles) else []
    reached = list(logs)
    for log in reached:
        lines = log.read_bytes()
        total += len(lines)
        found += [f"log {log.name}"] if _holds(lines, needles) else []
    return Search(pieces=len(by_case), places=tuple(found), bytes_searched=total, logs=len(reached), opened=opened)


def _forms(piece: str) -> tuple[bytes, ...]:
    """As it is, and as JSON in ASCII writes it."""
    escaped = "".join(c if c.isascii() else "".join(f"\\u{u:04x}" for u in _units(c)) for c in piece)
    return piece.encode(), escaped.encode()


def _units(character: str) -> list[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2)]


def _holds(content: bytes | bytearray, needles: Iterable[bytes]) -> bool:
    return any(needle in content for needle in needles)


async def _table(connection: Connection, table: str) -> bytearray:
    """Every column of every row: text, jsonb and bytea are written byte for byte."""
    content = bytearray()

    async def take(data: bytes) -> None:
        content.extend(data)

    await connection.copy_from_query(f"SELECT * FROM {table}", output=take, format="binary")  # noqa: S608  # of pg_tables
    return content


async def _opened(connection: Connection, by_case: Mapping[str, str]) -> int:
    """How many of the pieces are found in their case's opening, once that is opened with the case's key."""
    keys = await vault.read(connection, list(by_case))
    found = set()
    for row in await connection.fetch(_OPENINGS, list(by_case)):
        event = decode(_headers(row["headers"]), row["body"])
        assert isinstance(event.data, CaseChanged), "the type says so"
        clear = "\n".join(keys[event.case_id].unseal(text) for text in event.data.texts.values())
        if by_case[event.case_id] in clear:
            found.add(event.case_id)
    return len(found)


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = json.loads(text)
    return headers


async def _topics(kafka: KafkaSettings) -> dict[str, bytearray]:
    """Every record of every topic: key, headers, value."""
    partitions = await partitions_of(kafka)
    consumer = AIOKafkaConsumer(**kafka.client(), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    contents = {topic: bytearray() for topic in topics.ALL}
    try:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        quiet = 0
        while quiet < QUIET_POLLS:
            got = await consumer.getmany(timeout_ms=300, max_records=5000)
            quiet = 0 if got else quiet + 1
            for partition, records in got.items():
                for record in records:
                    parts = (record.key or b"", record.value or b"", *(value for _, value in record.headers))
                    contents[partition.topic].extend(b"\n".join(parts))
    finally:
        await consumer.stop()
    return contents
