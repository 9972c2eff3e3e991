"""What the doctor says of the models that may be asked, without asking any."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nightshift.doctor.models import models
from nightshift.doctor.verdict import Place, Verdict
from services.runtime.process import SHIPPED
from tests.serving import served


class OllamaServer:
    """Has one model; whoever asks it anything that costs tokens is found out."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"models": [{"name": "m:1b", "digest": "d"}]}'})


@pytest.fixture
async def ollama() -> AsyncIterator[tuple[OllamaServer, str]]:
    server = OllamaServer()
    async with served(server) as url:
        yield server, url


async def found(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: str) -> list[Verdict]:
    for name, value in settings.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name.upper()}", value)
    return await models(Place(state=folder, told=None))


async def test_the_shipped_model_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert await found(monkeypatch, tmp_path) == [Verdict("ok", "support may ask nearest")]


@pytest.mark.parametrize(
    ("settings", "says", "mend"),
    [
        ({"model": "claude:claude-haiku-4-5"}, "cannot ask claude:", "NIGHTSHIFT_ANTHROPIC_API_KEY"),
        ({"model": "claude:nosuch"}, "the price of 'nosuch' is not known", "price list"),
        ({"model": "nosuch"}, "there is no model 'nosuch'", "NIGHTSHIFT_MODEL"),
        ({"model": "ollama:m:1b"}, "cannot ask ollama:m:1b", "NIGHTSHIFT_OLLAMA_URL"),
        (
            {"model": "claude:claude-haiku-4-5", "anthropic_api_key": "k"},
            "not served: claude:claude-haiku-4-5 has no passed eval",
            "nightshift eval support --model claude:claude-haiku-4-5 --write",
        ),
        (
            {"process_overrides": 'support.model.fallback = ["claude:claude-haiku-4-5"]'},
            "cannot ask claude:",
            "NIGHTSHIFT_ANTHROPIC_API_KEY",
        ),
    ],
)
async def test_a_model_that_cannot_be_served_is_a_problem_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], says: str, mend: str
) -> None:
    *_, last = await found(monkeypatch, tmp_path, **settings)

    assert last.level == "problem"
    assert says in last.text
    assert mend in last.mend


@pytest.mark.parametrize(
    ("model", "says"), [("m:1b", "has no passed eval on record"), ("n:1b", "there is no n:1b there")]
)
async def test_a_machine_of_ours_is_looked_at_and_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ollama: tuple[OllamaServer, str], model: str, says: str
) -> None:
    server, url = ollama

    [verdict] = await found(monkeypatch, tmp_path, model=f"ollama:{model}", ollama_url=url)

    assert says in verdict.text
    assert "/api/chat" not in server.paths


@pytest.mark.parametrize(
    ("part", "content", "says"),
    [
        ("process.toml", b'\n[candidate]\nmodel = "claude:nosuch"\n', "the price of 'nosuch' is not known"),
        ("candidate/knowledge/x.md", b"caf\xe9", "x.md, line 1: this is no UTF-8"),
        ("knowledge/x.md", b"caf\xe9", "x.md, line 1: this is no UTF-8"),
        ("steps/answer/prompt.md", b"{{policy.nosuch}}", "it names policy.nosuch"),
    ],
)
async def test_what_a_classifier_would_not_start_with_is_found_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str, content: bytes, says: str
) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "support")
    (folder / part).parent.mkdir(parents=True, exist_ok=True)
    with (folder / part).open("ab") as file:
        file.write(content)

    *_, last = await found(monkeypatch, tmp_path, processes_folder=str(tmp_path))

    assert (last.level, says in last.text) == ("problem", True)
