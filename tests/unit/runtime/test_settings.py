"""Settings: from the environment, or from a file that it names."""

import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from nightshift.stack import external_admin_url
from services.actor.config import ZendeskAccount
from services.classifier.config import Settings as ClassifierSettings
from services.reporter.config import ReporterSettings
from services.runtime.config import (
    KafkaSettings,
    MigrationSettings,
    RuntimeSettings,
    UnreadableSettingError,
    named_setting,
)

SECRET = "a secret with 24 letters"


@pytest.fixture(autouse=True)
def needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every service must have."""
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("NIGHTSHIFT_KAFKA_BOOTSTRAP", "x:9092")


def mount(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """As Docker and Kubernetes do: a file of its own, and only its path in the environment."""
    (folder / name).write_text(f"{SECRET}\n")
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{name}_FILE", str(folder / name))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (RuntimeSettings, "database_url"),
        (MigrationSettings, "database_admin_url"),
        (ClassifierSettings, "anthropic_api_key"),
        (ReporterSettings, "console_token"),
    ],
)
def test_every_secret_of_a_service_may_lie_in_a_file(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings: type[RuntimeSettings | MigrationSettings],
    field: str,
) -> None:
    mount(monkeypatch, tmp_path, f"NIGHTSHIFT_{field.upper()}")

    value = getattr(settings(), field)

    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == SECRET


def test_zendesks_token_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_URL", "https://x")
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_EMAIL", "x@x")
    mount(monkeypatch, tmp_path, "NIGHTSHIFT_ZENDESK_TOKEN")

    assert ZendeskAccount().token == SECRET


def test_the_environment_goes_before_the_file_and_an_empty_variable_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount(monkeypatch, tmp_path, "NIGHTSHIFT_LOG_LEVEL")
    monkeypatch.setenv("NIGHTSHIFT_LOG_LEVEL", "DEBUG")
    assert RuntimeSettings().log_level == "DEBUG"

    monkeypatch.setenv("NIGHTSHIFT_LOG_LEVEL", "")
    assert named_setting("NIGHTSHIFT_LOG_LEVEL") == SECRET
    assert RuntimeSettings().log_level == SECRET


def test_a_database_of_the_users_own_may_be_named_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://mine\n")

    assert external_admin_url({"NIGHTSHIFT_DATABASE_URL_FILE": str(tmp_path / "url")}) == "postgresql://mine"
    assert external_admin_url({}) is None


def test_a_file_that_is_empty_is_a_setting_that_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")

    assert named_setting("KEY", {"KEY_FILE": str(tmp_path / "key")}) is None


def test_the_migration_learns_each_roles_password_from_the_services_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_ADMIN_URL", "postgresql://admin@db/n")
    monkeypatch.setenv("NIGHTSHIFT_ACTOR_DATABASE_URL", "postgresql://nightshift_actor:a%40b@db/n")
    monkeypatch.setenv("NIGHTSHIFT_INGEST_DATABASE_URL", "postgresql://nightshift_ingest@db/n")

    assert MigrationSettings().passwords == {"nightshift_actor": "a@b"}


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "SASL needs kafka_sasl_username and kafka_sasl_password"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "nightshift"},
            "SASL needs kafka_sasl_username and kafka_sasl_password",
        ),
        ({"kafka_sasl_password": "a password"}, "kafka_security_protocol must be SASL_SSL or SASL_PLAINTEXT"),
        ({"kafka_ca": "-----BEGIN CERTIFICATE-----"}, "kafka_security_protocol must be SSL or SASL_SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_ca": "no certificate"}, "give the text of a PEM file"),
        ({"kafka_security_protocol": "TLS"}, "'SASL_SSL'"),
    ],
)
def test_a_broker_s_security_that_is_half_told_is_refused_with_its_mend(given: dict[str, str], mend: str) -> None:
    with pytest.raises(ValidationError, match=mend) as refused:
        KafkaSettings.model_validate({"kafka_bootstrap": "nowhere:1"} | given)

    assert "a password" not in str(refused.value)


def test_a_client_is_told_the_broker_s_name_and_password() -> None:
    settings = KafkaSettings.model_validate(
        {
            "kafka_bootstrap": "nowhere:1",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_username": "nightshift",
            "kafka_sasl_password": "a password",
        }
    )

    told = settings.client()
    assert told.pop("ssl_context").verify_mode is ssl.CERT_REQUIRED
    assert told == {
        "bootstrap_servers": "nowhere:1",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "nightshift",
        "sasl_plain_password": "a password",
    }
    assert "a password" not in repr(settings)


def test_a_file_that_is_no_utf_8_is_refused_with_its_line_and_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prices.toml").write_bytes("as_of = 2026-11-27\n# für uns\n".encode("latin-1"))
    monkeypatch.setenv("NIGHTSHIFT_PRICES_FILE", str(tmp_path / "prices.toml"))

    with pytest.raises(UnreadableSettingError, match=r"NIGHTSHIFT_PRICES_FILE.* line 2 .*save it as UTF-8") as refused:
        ClassifierSettings()

    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_named_with_its_setting_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(
        UnreadableSettingError, match=rf"KEY_FILE names cannot be read .*{tmp_path}/gone.*: correct its path"
    ):
        named_setting("KEY", {"KEY_FILE": str(tmp_path / "gone")})


def test_a_mark_of_the_byte_order_before_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfkey")

    assert named_setting("KEY", {"KEY_FILE": str(tmp_path / "key")}) == "key"
