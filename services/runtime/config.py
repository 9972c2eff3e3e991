"""The settings that every service has. Read from `NIGHTSHIFT_*`; a secret may also lie in a file named by `…_FILE`."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RuntimeSettings(BaseSettings):
    """Complete at start; nothing else reads the environment."""

    model_config = SettingsConfigDict(env_prefix="NIGHTSHIFT_", frozen=True, extra="ignore")

    database_url: str
    """This service's own role: `postgresql://nightshift_actor@host/nightshift`."""
    kafka_bootstrap: str
    kafka_replication: int = Field(default=1, ge=1)
    """Copies of each topic, where this service is the one that makes it."""
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    processes: str = "support"
    """Names of the processes this service works for, with commas between."""
    processes_folder: Path | None = None
    """Where processes lie that are mounted beside the shipped ones."""
    otlp_url: str | None = None
    """Where traces go (OTLP over HTTP); nowhere when it is not set."""
    log_level: str = "INFO"
    grace_seconds: float = Field(default=8, gt=0)
    """How long a service finishes what it holds after SIGTERM."""
    process_overrides: str = ""
    """TOML lines that go before process.toml, the process in front: `support.limits.settle_seconds = 1`."""

    @property
    def process_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.processes.split(",") if name.strip())


class MigrationSettings(BaseSettings):
    """What the migration needs."""

    model_config = SettingsConfigDict(env_prefix="NIGHTSHIFT_", frozen=True, extra="ignore")

    database_admin_url: str
    """A role that may make roles and schemas."""


class MissingSettingError(Exception):
    """A setting that process.toml names is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"setting {name} is not set: set {name}, or {name}_FILE to the path of a file that holds it")


def named_setting(name: str) -> str | None:
    """The value of a setting that process.toml names (a secret, an address), or none where it is not set."""
    if value := os.environ.get(name):
        return value
    if file := os.environ.get(f"{name}_FILE"):
        return Path(file).read_text().strip()
    return None


def required_setting(name: str) -> str:
    """Like `named_setting`; raises MissingSettingError."""
    value = named_setting(name)
    if value is None:
        raise MissingSettingError(name)
    return value
