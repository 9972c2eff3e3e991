"""The reporter's settings: the only place of this service that reads the environment."""

from pydantic import Field, SecretStr

from services.runtime.config import RuntimeSettings


class ReporterSettings(RuntimeSettings):
    """What every service has, and who may see the console."""

    console_token: SecretStr = Field(min_length=16)
    """Of the link that opens a session: `http://…/?token=…`. Whoever has it sees everything."""
    console_session_hours: float = Field(default=12, gt=0)
    tell_urls: SecretStr = SecretStr("")
    """Who is told of what needs a person: URLs as apprise writes them, with blanks or line ends between."""
    tell_escalation_urls: SecretStr = SecretStr("")
    """Who is told when nobody acknowledged it."""


class RebuildSettings(RuntimeSettings):
    """A rebuild talks to no broker."""

    kafka_bootstrap: str = ""
