"""The doors that ingest opens: those of process.toml, with what goes before it."""

import pytest

from services.ingest.app import open_doors
from services.ingest.config import Settings
from services.runtime.process import SHIPPED, load_all
from tests.fakes.acting import PROCESSES


@pytest.fixture(autouse=True)
def needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("NIGHTSHIFT_KAFKA_BOOTSTRAP", "x:9092")
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET", "a secret")


def test_overrides_go_before_what_process_toml_says_of_a_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", "support.doors.zendesk.tolerance_seconds = 10800")

    (door,) = open_doors(Settings())

    assert door.settings.tolerance_seconds == 10800


def test_processes_of_our_own_folder_run_beside_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PROCESSES_FOLDER", str(PROCESSES))
    monkeypatch.setenv("NIGHTSHIFT_PROCESSES", "tiny,support")

    assert {process.name: process.folder.parent for process in load_all(Settings()).values()} == {
        "tiny": PROCESSES,
        "support": SHIPPED,
    }
