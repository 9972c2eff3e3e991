"""The name in a setting decides which model proposes, and a wrong one does not start."""

import pytest
from pydantic import SecretStr, ValidationError

from services.classifier.app import _regimes
from services.classifier.config import Settings
from services.classifier.domain.prices import ModelEndedError, UnknownPriceError
from services.classifier.models import models_of, provider_of
from services.runtime.config import MissingSettingError
from services.runtime.process import ProcessInvalidError, load
from tests.unit.classifier.test_prices import OWN


def settings(key: str | None = None, ollama_url: str | None = "http://model.test") -> Settings:
    return Settings(
        database_url="postgresql://nowhere",
        kafka_bootstrap="nowhere:1",
        anthropic_api_key=None if key is None else SecretStr(key),
        anthropic_url="http://model.test",
        ollama_url=ollama_url,
    )


@pytest.mark.parametrize("name", ["nearest", "claude:claude-haiku-5-5", "ollama:llama3.2:3b"])
def test_a_provider_has_the_name_it_was_asked_for_by(name: str) -> None:
    assert provider_of(name, load("support"), settings("key")).name == name


@pytest.mark.parametrize("name", ["", "claude", "ollama:", "gpt:4", "nearest:x"])
def test_an_unknown_name_does_not_start_and_those_that_are_known_are_named(name: str) -> None:
    with pytest.raises(ProcessInvalidError, match=r"nearest.*claude-haiku-5-5.*any of ollama"):
        provider_of(name, load("support"), settings("key"))


@pytest.mark.parametrize("key", ["key", None])
def test_a_model_without_a_price_does_not_start_whatever_else_is_missing(key: str | None) -> None:
    with pytest.raises(UnknownPriceError, match=r"claude-haiku-4-5.*claude-opus-5-5.*any of ollama.*prices\.toml"):
        provider_of("claude:unheard-of", load("support"), settings(key))


@pytest.mark.parametrize("name", ["claude:claude-opus-4-20250514", "ollama:claude-opus-4-20250514"])
def test_a_model_past_its_end_of_life_does_not_start_and_those_that_are_left_are_named(name: str) -> None:
    with pytest.raises(ModelEndedError, match=r"2026-06-15: name one of claude-haiku-4-5"):
        provider_of(name, load("support"), settings("key"))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("claude:claude-haiku-5-5", "NIGHTSHIFT_ANTHROPIC_API_KEY"),
        ("ollama:llama3.2:3b", "NIGHTSHIFT_OLLAMA_URL"),
    ],
)
def test_a_missing_setting_is_named(name: str, missing: str) -> None:
    with pytest.raises(MissingSettingError, match=missing):
        provider_of(name, load("support"), settings(ollama_url=None))


async def test_a_model_that_is_told_to_think_otherwise_is_another_regime() -> None:
    process, own = load("support"), OWN.replace("claude-of-mine", "claude-haiku-5-5")

    async def regime(prices: str | None) -> str:
        named = settings("key").model_copy(update={"prices": prices, "model": "claude:claude-haiku-5-5"})
        known, _ = await _regimes(process, models_of(process, named))
        return known["claude:claude-haiku-5-5"]

    assert await regime(None) == await regime(own + 'effort = "low"\n')
    assert await regime(None) != await regime(own + 'effort = "high"\n')
    assert await regime(None) != await regime(own)


def test_an_address_that_is_none_does_not_start() -> None:
    with pytest.raises(ValidationError, match="ollama_url"):
        settings(ollama_url="127.0.0.1:11434")


def test_a_model_of_ones_own_price_list_starts() -> None:
    own = settings("key").model_copy(update={"prices": OWN})

    assert provider_of("claude:claude-of-mine", load("support"), own).name == "claude:claude-of-mine"


CHAIN = {"model": {"default": "claude:claude-haiku-5-5", "fallback": ["ollama:llama3.2:3b", "nearest"]}}


def test_the_first_choice_comes_before_its_fallbacks_and_each_is_asked_once() -> None:
    process = load("support", overrides=CHAIN)
    chosen = settings("key").model_copy(update={"model": "nearest"})

    assert [one.name for one in models_of(process, settings("key"))] == [
        "claude:claude-haiku-5-5",
        "ollama:llama3.2:3b",
        "nearest",
    ]
    assert [one.name for one in models_of(process, chosen)] == ["nearest", "ollama:llama3.2:3b"]


def test_a_fallback_that_could_not_be_asked_does_not_start() -> None:
    with pytest.raises(MissingSettingError, match="NIGHTSHIFT_OLLAMA_URL"):
        models_of(load("support", overrides=CHAIN), settings("key", ollama_url=None))


def test_a_failure_that_nobody_knows_does_not_start() -> None:
    with pytest.raises(ProcessInvalidError, match="falls_back_on"):
        load("support", overrides={"model": {"falls_back_on": ["bad weather"]}})
