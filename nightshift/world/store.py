"""The world's state in one file, replaced atomically: a second run goes on from it."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nightshift.world.deliveries import Delivery
from nightshift.world.model import State
from nightshift.world.slack import Message

FILE = "world.json"


class StateUnreadableError(Exception):
    """The saved state cannot be read; the message says the mend."""


@dataclass(kw_only=True)
class Saved:
    """Everything that outlives a run."""

    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    state: State
    messages: list[Message] = field(default_factory=list)
    pending: list[Delivery] = field(default_factory=list)


_SAVED = TypeAdapter(Saved)


def load(folder: Path) -> Saved | None:
    """What an earlier run saved, or none. Raises StateUnreadableError."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        return _SAVED.validate_json(file.read_bytes())
    except ValidationError as error:
        raise StateUnreadableError(f"{file} is no state of this version: move it away to begin anew") from error


def save(folder: Path, saved: Saved) -> None:
    """Replace the file: a reader, and the next run after a kill, sees the old state or the new one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{FILE}.new"
    fresh.write_bytes(_SAVED.dump_json(saved))
    fresh.replace(folder / FILE)
