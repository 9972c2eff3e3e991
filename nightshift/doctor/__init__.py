"""Looks at what usually goes wrong and says the mend. Changes nothing; it may start the database to ask it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from nightshift import MendableError
from nightshift.doctor import machine, models, outside
from nightshift.doctor.verdict import Level, Place
from nightshift.stack import running

CHECKS = {**machine.CHECKS, **outside.CHECKS, **models.CHECKS}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do where it is not well."""

    check: str
    level: Level
    text: str
    mend: str


async def examine(state: Path) -> AsyncIterator[Finding]:
    """Every check in turn. One that cannot be made is a problem of its own, and never the end of the others."""
    try:
        place = Place(state=state, told=running(state))
    except MendableError as error:
        yield Finding("state folder", "problem", str(error), "until then nothing else can be looked at")
        return
    for name, check in CHECKS.items():
        try:
            verdicts = await check(place)
        except Exception as error:  # noqa: BLE001  # whatever it is, the person should read it with the rest
            mend = "this check could not be made: its message says why"
            yield Finding(name, "problem", f"{type(error).__name__}: {error}", mend)
        else:
            for verdict in verdicts:
                yield Finding(name, verdict.level, verdict.text, verdict.mend)
