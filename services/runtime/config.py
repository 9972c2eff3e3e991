"""The settings that every service has. Each is read from `NIGHTSHIFT_*`, or from a file named by `NIGHTSHIFT_…_FILE`.

So Docker and Kubernetes may mount any of them as a secret. A variable or file that is empty is one that is not set.
"""

import os
import ssl
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "NIGHTSHIFT_"


class _Named(PydanticBaseSettingsSource):
    """Every setting by `named_setting`, as those are that process.toml names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return named_setting(PREFIX + field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: named_setting(PREFIX + name.upper()) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}


class _Settings(BaseSettings):
    """Complete at start; nothing else reads the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What a caller gives goes before what the environment says."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _Named(settings_cls)


class KafkaSettings(_Settings):
    """Where the broker is, and how it wants to be spoken to."""

    kafka_bootstrap: str
    """`host:port`, with commas between several."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ca: str | None = None
    """The certificates (PEM) of whoever signed the broker's; None: those that the machine trusts."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL_"):
            if self.kafka_sasl_username is None or self.kafka_sasl_password is None:
                raise ValueError("SASL needs kafka_sasl_username and kafka_sasl_password")
        elif self.kafka_sasl_username is not None or self.kafka_sasl_password is not None:
            raise ValueError("a name or password is set, so kafka_security_protocol must be SASL_SSL or SASL_PLAINTEXT")
        if self.kafka_ca is not None and not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError("kafka_ca is set, so kafka_security_protocol must be SSL or SASL_SSL")
        if self.kafka_security_protocol.endswith("SSL"):
            try:
                self.kafka_tls  # noqa: B018  # made once, and here, so that a fault in it is told at start
            except (ssl.SSLError, ValueError):
                raise ValueError("kafka_ca holds no certificate: give the text of a PEM file") from None
        return self

    @cached_property
    def kafka_tls(self) -> ssl.SSLContext:
        """By which the broker's certificate is judged."""
        return ssl.create_default_context(cadata=self.kafka_ca)

    def client(self) -> dict[str, Any]:
        """What any client of aiokafka is told."""
        told: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap,
            "security_protocol": self.kafka_security_protocol,
        }
        if self.kafka_security_protocol.endswith("SSL"):
            told["ssl_context"] = self.kafka_tls
        if self.kafka_sasl_password is not None:
            told |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_sasl_username,
                "sasl_plain_password": self.kafka_sasl_password.get_secret_value(),
            }
        return told


class RuntimeSettings(KafkaSettings):
    """What every service has."""

    database_url: str
    """This service's own role: `postgresql://nightshift_actor@host/nightshift`."""
    kafka_partitions: int = Field(default=4, ge=1)
    """Of each topic, where this service is the one that makes it: so many of each service can share the work."""
    kafka_replication: int = Field(default=1, ge=1)
    """Copies of each topic, where this service is the one that makes it."""
    kafka_idempotence: bool = True
    """Let the broker recognise what a producer sends twice. Only for a broker that cannot: false."""
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


class MigrationSettings(_Settings):
    """What the migration needs."""

    database_admin_url: str
    """A role that may make roles and schemas."""
    ingest_database_url: str | None = None
    """What ingest is given as its database_url: its role gets the password that is in it. None: as it is."""
    classifier_database_url: str | None = None
    actor_database_url: str | None = None
    reporter_database_url: str | None = None

    @property
    def passwords(self) -> dict[str, str]:
        """By role: the passwords of these addresses."""
        urls = (
            self.ingest_database_url,
            self.classifier_database_url,
            self.actor_database_url,
            self.reporter_database_url,
        )
        logins = [urlsplit(url) for url in urls if url is not None]
        return {unquote(one.username): unquote(one.password) for one in logins if one.username and one.password}


class MissingSettingError(Exception):
    """A setting that is needed is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"setting {name} is not set: set {name}, or {name}_FILE to the path of a file that holds it")


class UnreadableSettingError(Exception):
    """A setting's file that is not there, or no text. What it holds is not quoted: it may be a secret."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the file that {name}_FILE names {why}")


def named_setting(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The value of a setting, or none where it is not set. Raises UnreadableSettingError."""
    if value := environment.get(name):
        return value
    if file := environment.get(f"{name}_FILE"):
        try:
            told = Path(file).read_bytes()
            return told.decode("utf-8-sig").strip() or None
        except OSError as error:
            raise UnreadableSettingError(name, f"cannot be read ({error}): correct its path or its rights") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UnreadableSettingError(name, f"is in line {line} no longer UTF-8: save it as UTF-8") from None
    return None


def required_setting(name: str) -> str:
    """Like `named_setting`; raises MissingSettingError."""
    value = named_setting(name)
    if value is None:
        raise MissingSettingError(name)
    return value
