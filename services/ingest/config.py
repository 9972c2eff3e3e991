"""Ingest's settings; the only place that reads the environment."""

from collections.abc import Sequence

from pydantic import Field

from connectors.signatures import key_of
from services.runtime.config import RuntimeSettings, named_setting, required_setting
from services.runtime.process import Door, ProcessInvalidError


class Settings(RuntimeSettings):
    """Complete at start. Secrets of doors are settings that process.toml names."""

    zendesk_user_id: str | None = None
    """The user that Nightshift writes as in Zendesk: its changes are marked as ours. Not set: nothing is."""
    writers: int = Field(default=1, ge=1, le=8)
    """Groups of deliveries that are committed side by side, each over a connection of its own.

    One costs least for each delivery, since its groups are largest; more help where a commit takes long.
    """
    waiting_max: int = Field(default=2000, gt=0)
    """Deliveries that may wait for each writer; further ones are answered 503."""
    seen_days: int = Field(default=90, gt=0)
    """How long a replay is recognised."""
    reconcile_seconds: float = Field(default=300, gt=0)
    """How often the intake is compared with the provider's own list."""
    reconcile_grace_seconds: float = Field(default=120, ge=0)
    """A younger update is not missed yet: its webhook may be under way."""
    list_calls_per_minute: float = Field(default=7.5, gt=0)
    """Zendesk allows 10 to everybody together who lists, 30 with the high-volume add-on."""


def secrets_of(door: Door) -> Sequence[str]:
    """The first secret is required, further ones (while one is rotated) are not.

    Raises MissingSettingError, ProcessInvalidError.
    """
    if door.scheme == "none":
        return ()
    if not door.secret_settings:
        raise ProcessInvalidError(f"a door that signs by {door.scheme!r} needs secret_settings, or scheme = 'none'")
    first, *others = door.secret_settings
    found = {first: required_setting(first)} | {name: value for name in others if (value := named_setting(name))}
    for name, secret in found.items():
        try:
            key_of(door.scheme, secret)
        except ValueError as error:
            raise ProcessInvalidError(f"setting {name}: {error}") from None
    return tuple(found.values())
