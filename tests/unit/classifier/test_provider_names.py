"""The name in a setting decides which model proposes, and a wrong one does not start."""

import pytest
from pydantic import SecretStr

from services.classifier.app import provider_of
from services.classifier.config import Settings
from services.classifier.domain.prices import UnknownPriceError
from services.runtime.config import MissingSettingError
from services.runtime.process import ProcessInvalidError, load
from tests.unit.classifier.test_prices import OWN


def settings(key: str | None = None) -> Settings:
    return Settings(
        database_url="postgresql://nowhere",
        kafka_bootstrap="nowhere:1",
        anthropic_api_key=None if key is None else SecretStr(key),
        anthropic_url="http://model.test",
    )


@pytest.mark.parametrize("name", ["nearest", "claude:claude-haiku-5-5"])
def test_a_provider_has_the_name_it_was_asked_for_by(name: str) -> None:
    assert provider_of(name, load("support"), settings("key")).name == name


@pytest.mark.parametrize("name", ["", "claude", "gpt:4", "nearest:x"])
def test_an_unknown_name_does_not_start(name: str) -> None:
    with pytest.raises(ProcessInvalidError, match="nearest"):
        provider_of(name, load("support"), settings("key"))


def test_a_model_without_a_price_does_not_start() -> None:
    with pytest.raises(UnknownPriceError, match="claude-haiku-5-5"):
        provider_of("claude:unheard-of", load("support"), settings("key"))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(MissingSettingError, match="NIGHTSHIFT_ANTHROPIC_API_KEY"):
        provider_of("claude:claude-haiku-5-5", load("support"), settings())


def test_a_model_of_ones_own_price_list_starts() -> None:
    own = settings("key").model_copy(update={"prices": OWN})

    assert provider_of("claude:claude-of-mine", load("support"), own).name == "claude:claude-of-mine"
