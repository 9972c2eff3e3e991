"""Every setting that is missing is named at once, before anything starts."""

from pathlib import Path

import pytest

from nightshift import MendableError
from nightshift.commands.up import up
from nightshift.doctor.outside import settings, zendesk
from nightshift.doctor.verdict import Place
from nightshift.needed import OF_VENDORS, missing_settings
from services.classifier.config import Settings
from services.classifier.models import provider_of
from services.runtime.config import MissingSettingError
from services.runtime.process import SHIPPED, load

NEEDED = [
    "NIGHTSHIFT_ZENDESK_URL",
    "NIGHTSHIFT_ZENDESK_EMAIL",
    "NIGHTSHIFT_ZENDESK_TOKEN",
    "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET",
    "NIGHTSHIFT_SHOP_URL",
]


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NEEDED, "NIGHTSHIFT_MODEL", "NIGHTSHIFT_PROCESSES", *OF_VENDORS.values()):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_up_names_all_that_is_missing_and_starts_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"

    with pytest.raises(MendableError) as refused:
        up(state)

    assert all(name in str(refused.value) for name in NEEDED)
    assert not state.exists()


def test_a_setting_in_a_file_and_one_of_no_use_are_not_missing(tmp_path: Path) -> None:
    (token := tmp_path / "token").write_text("secret")
    given = {"NIGHTSHIFT_ZENDESK_TOKEN_FILE": str(token), "NIGHTSHIFT_SHOP_URL": "postgresql://"}

    missing = missing_settings([load("support", SHIPPED)] * 2, given)

    assert missing == [name for name in NEEDED if name not in {"NIGHTSHIFT_ZENDESK_TOKEN", "NIGHTSHIFT_SHOP_URL"}]


@pytest.mark.parametrize("model", ["claude:claude-haiku-4-5", "ollama:qwen3:8b"])
def test_a_model_needs_what_the_classifier_asks_for(model: str) -> None:
    support = load("support", SHIPPED, {"model": {"fallback": [model]}})
    vendor = OF_VENDORS[model.partition(":")[0]]

    assert missing_settings([support], dict.fromkeys(NEEDED, "set")) == [vendor]
    with pytest.raises(MissingSettingError, match=vendor):
        provider_of(model, support, Settings(database_url="postgresql://", kafka_bootstrap="-"))


async def test_the_doctor_names_them_too_and_finds_a_problem_where_some_are_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = Place(state=tmp_path, told=None)
    (none_is_set,) = await settings(place)
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_URL", "https://example.com")
    (some_are,) = await settings(place)

    assert all(name in none_is_set.text for name in NEEDED)
    assert (none_is_set.level, some_are.level) == ("warning", "problem")
    assert "NIGHTSHIFT_ZENDESK_URL" not in some_are.text
    assert [verdict.level for verdict in await zendesk(place)] == ["ok"]
