"""What changed in how a model is asked is served once its evals passed, or once a person lets it."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import REGISTRY

from contracts.envelope import decode
from contracts.events.control import RegimeAdmitted
from contracts.events.proposals import ProposalMade
from contracts.failures import LaterError, PermanentError
from services.classifier.domain.regime import record_of
from services.classifier.outbound.admission import Admission, AdmittedProvider
from services.classifier.outbound.desk import KnowledgeDesk
from services.runtime.health import STALLED_SECONDS, progress_of
from services.runtime.postgres import connect
from services.runtime.process import load
from tests.conftest import MigratedDatabase
from tests.fakes.acting import tiny
from tests.fakes.admitted import admitted
from tests.fakes.ollama import FakeOllama
from tests.fakes.proposing import GOOD, Bench, ScriptedModel, bench

MODEL, NEW, OLD = "claude:claude-haiku-4-5", "new", "old"
OLLAMA = "ollama:m:1b"


@pytest.fixture
async def desk(migrated: MigratedDatabase, tmp_path: Path) -> AsyncIterator[Bench]:
    """Its process has a folder of its own, in which no record lies."""
    async with bench(migrated, replace(tiny(), folder=tmp_path)) as made:
        yield made


def admission(desk: Bench, **regimes: str) -> Admission:
    """Of a process that asks these models; `MODEL`, by the regime `NEW`, where none is named."""
    return Admission(desk.database, desk.process, regimes or {MODEL: NEW})


def record(desk: Bench, model: str, regime: str, *, passed: bool = True) -> None:
    told = {"process": "tiny", "model": model, "regime": regime, "passed": {"against": OLD} if passed else None}
    (desk.process.folder / record_of(model)).write_text(json.dumps(told))


def waits(model: str) -> float | None:
    return REGISTRY.get_sample_value("nightshift_regime_waits", {"process": "tiny", "model": model})


async def live(desk: Bench) -> list[tuple[str, str | None]]:
    """The regimes that people are shown, each with who admitted it."""
    rows = await desk.admin.fetch("SELECT regime, admitted_by FROM control.live_regimes ORDER BY regime")
    return [(row["regime"], row["admitted_by"]) for row in rows]


async def test_what_has_no_passed_eval_waits_unasked_and_is_served_once_a_person_admits_it(
    desk: Bench, migrated: MigratedDatabase
) -> None:
    gate = admission(desk)
    desk.worker.may_claim = gate.given
    await desk.hear(desk.outside.says("1"))
    await gate.look()
    waited = await desk.worker.step()
    assert (waited, desk.model.asked, waits(MODEL)) == (0, [], 1)
    assert await live(desk) == [(NEW, None)]

    await admitted(migrated.admin_url, "tiny", reason="only a typing error was mended")
    await gate.look()
    await desk.worker.step()

    assert len(await desk.said(ProposalMade)) == 1
    assert waits(MODEL) == 0
    row = await desk.admin.fetchrow("SELECT headers, body FROM control.outbox ORDER BY id DESC LIMIT 1")
    assert row is not None
    said = decode(row["headers"], row["body"])
    assert isinstance(said.data, RegimeAdmitted)
    assert (said.process, said.data.model, said.data.regime) == ("tiny", MODEL, NEW)
    assert said.data.reason == "only a typing error was mended"
    assert await live(desk) == [(NEW, said.data.by)]


async def test_a_classifier_that_is_started_again_serves_what_was_admitted_and_not_what_changed_since(
    desk: Bench, migrated: MigratedDatabase
) -> None:
    await admission(desk).look()
    await admitted(migrated.admin_url, "tiny")

    again, changed = admission(desk), admission(desk, **{MODEL: "newer"})
    await again.look()
    await changed.look()

    assert (again.given(), changed.given()) == (True, False)


@pytest.mark.parametrize(
    ("regime", "passed", "given"),
    [
        pytest.param(NEW, True, True, id="passed"),
        pytest.param(NEW, False, False, id="not passed"),
        pytest.param(OLD, True, False, id="of what was before"),
    ],
)
async def test_a_passed_record_of_exactly_this_regime_lets_it_be_served_at_once(
    desk: Bench, regime: str, *, passed: bool, given: bool
) -> None:
    record(desk, MODEL, regime, passed=passed)

    assert admission(desk).given() is given


async def test_a_record_that_cannot_be_read_is_none(desk: Bench) -> None:
    (desk.process.folder / record_of(MODEL)).write_text("{")

    assert admission(desk).given() is False


async def test_each_of_several_models_needs_its_own(desk: Bench, migrated: MigratedDatabase) -> None:
    record(desk, "nearest", "one")
    gate = admission(desk, nearest="one", claude="two", ollama="three")
    await gate.look()
    with pytest.raises(RuntimeError, match="2 different waiting regimes"):
        await admitted(migrated.admin_url, "tiny")
    assert await live(desk) == [("three", None), ("two", None)]

    record(desk, "claude", "two")
    assert admission(desk, nearest="one", claude="two", ollama="three").given() is False
    record(desk, "ollama", "three")
    assert admission(desk, nearest="one", claude="two", ollama="three").given() is True


async def test_a_model_whose_machine_is_away_is_not_asked_and_the_others_are(desk: Bench) -> None:
    there = dict[str, str]()

    async def found() -> str:
        if (regime := there.get(OLLAMA)) is None:
            raise LaterError("model_unreachable", "away", seconds=15)
        return regime

    record(desk, MODEL, NEW)
    record(desk, OLLAMA, "its weights")
    gate = Admission(desk.database, desk.process, {MODEL: NEW}, {OLLAMA: found})
    fallback = ScriptedModel(name=OLLAMA)
    desk.model.name, desk.model.answers = MODEL, [PermanentError("model_key_rejected", "401")]
    desk.provider, desk.fallback = AdmittedProvider(desk.model, gate), [AdmittedProvider(fallback, gate)]
    desk.worker = desk.new_worker()
    desk.worker.may_claim = gate.given
    await desk.hear(desk.outside.says("1"))

    for _ in range(2):
        await gate.look()
        await desk.worker.step()
        await desk.hurry()
    while_away = len(desk.model.asked), len(fallback.asked), gate.given()
    there[OLLAMA] = "its weights"
    await gate.look()
    await desk.worker.step()

    assert while_away == (2, 0, True)
    [made] = [event.data for event in await desk.said(ProposalMade)]
    assert isinstance(made, ProposalMade)
    assert [(one.model, one.code) for one in made.failed] == [(MODEL, "model_key_rejected")]
    assert len(fallback.asked) == 1


async def test_a_tag_that_was_pulled_anew_waits_for_its_evals(desk: Bench) -> None:
    pulled = FakeOllama(GOOD)
    model, known = pulled.ollama(), KnowledgeDesk(load("support"))
    record(desk, OLLAMA, known.regime(OLLAMA, "sha-1"))
    process = replace(load("support"), folder=desk.process.folder)

    async def served() -> bool:
        async def found() -> str:
            return known.regime(OLLAMA, await model.weights())

        gate = Admission(desk.database, process, {}, {OLLAMA: found})
        await gate.look()
        with contextlib.suppress(LaterError):
            gate.check(OLLAMA)
            return gate.given()
        return False

    before = await served()
    pulled.tags["m:1b"] = "sha-of-other-weights"

    assert (before, await served()) == (True, False)
    assert await live(desk) == [(known.regime(OLLAMA, "sha-of-other-weights"), None)]
    assert pulled.requests == []


async def test_whose_work_waits_to_be_admitted_is_well(desk: Bench) -> None:
    time = [0.0]
    desk.worker = replace(desk.worker, may_claim=admission(desk).given, clock=lambda: time[0])
    await desk.hear(desk.outside.says("1"))
    await desk.admin.execute("UPDATE classifier.tasks SET available_at = available_at - interval '1 hour'")
    time[0] += 2 * STALLED_SECONDS

    assert await progress_of(desk.worker)() is None


async def test_what_waits_no_more_is_shown_no_more(desk: Bench) -> None:
    await admission(desk).look()
    await desk.admin.execute("UPDATE control.regimes SET seen_at = seen_at - interval '11 s'")

    assert await live(desk) == []


@pytest.mark.parametrize("role", ["ingest", "classifier", "actor", "reporter"])
async def test_no_service_can_admit(desk: Bench, migrated: MigratedDatabase, role: str) -> None:
    await admission(desk).look()
    async with (
        connect(migrated.url(f"nightshift_{role}"), schema=role) as database,
        database.connection() as connection,
    ):
        for statement in (
            "UPDATE control.regimes SET admitted_at = now()",
            "INSERT INTO control.regimes (process, model, regime, admitted_at) VALUES ('tiny', 'm', 'r', now())",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
