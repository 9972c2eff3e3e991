"""Facts before guesses: read-only look-ups, made by code before the model is asked."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

import orjson

from connectors.protocol import LooksUp
from contracts.decision import FactAnswer, FactQuery
from contracts.events.proposals import FactRead
from contracts.failures import LaterError, PermanentError


async def read_facts(queries: Sequence[FactQuery], sources: Mapping[str, LooksUp]) -> dict[str, FactAnswer]:
    """Ask each source. A fact that cannot be read is an answer too (`ok` is false), and the rules hold it."""
    async with asyncio.TaskGroup() as group:
        asked = {query.name: group.create_task(_read(query, sources[query.source])) for query in queries}
    return {name: task.result() for name, task in asked.items()}


async def _read(query: FactQuery, source: LooksUp) -> FactAnswer:
    try:
        rows = await source.look_up(query.query, query.params)
    except (PermanentError, LaterError) as error:
        return FactAnswer(name=query.name, ok=False, error=error.code)
    return FactAnswer(name=query.name, ok=True, rows=tuple(rows))


def facts_json(facts: Mapping[str, FactAnswer]) -> str:
    """The answers as one text, to be sealed. Equal answers give equal text."""
    return orjson.dumps({name: vars(a) for name, a in facts.items()}, option=orjson.OPT_SORT_KEYS).decode()


def without_values(facts: Mapping[str, FactAnswer]) -> tuple[FactRead, ...]:
    """What may be seen by anybody: that it was read, and a digest."""
    return tuple(
        FactRead(
            name=name,
            ok=answer.ok,
            digest=hashlib.sha256(answer.model_dump_json().encode()).hexdigest(),
            error=answer.error,
        )
        for name, answer in sorted(facts.items())
    )
