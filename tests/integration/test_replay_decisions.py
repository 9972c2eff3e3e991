"""Past decisions through the rules of today: equal bytes where nothing changed, and exactly what a change changes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from typer.testing import CliRunner

from contracts import generate
from contracts.envelope import Record
from contracts.events.decisions import DecisionMade
from contracts.failures import PermanentError
from nightshift import MendableError
from nightshift.__main__ import build
from nightshift.replay import decisions
from nightshift.replay.decisions import BEFORE_FIELDS, ERASED, NO_PROPOSAL_THERE, Replayed, Window, replay_decisions
from services.actor.domain import gate
from services.classifier.ports import Answer, AnswerLostError, Ask, Cost
from tests.conftest import MigratedDatabase
from tests.fakes.acting import PROCESSES, Bench, bench, case_of, tiny
from tests.fakes.events import event
from tests.fakes.proposing import GOOD, PlainDesk, ScriptedModel
from tests.fakes.topics import found, groups, publish
from tests.stacks import Stack


@pytest.fixture(scope="module")
def our_broker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of these tests alone: each makes the topics anew."""
    with stack.broker(tmp_path_factory.mktemp("broker")) as server:
        yield server.bootstrap


@dataclass
class Night:
    """What was decided, and where it lies."""

    admin_url: str
    bootstrap: str
    actor: Bench

    async def replay(self, **options: Any) -> Replayed:
        window = options.pop("window", Window(process="tiny"))
        return await replay_decisions(self.admin_url, self.bootstrap, window, **options)


@pytest.fixture
async def night(migrated: MigratedDatabase, our_broker: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Night]:
    """Eight tickets: three sure answers, two unsure, one refused, one whose rules failed, one held; one asked twice."""
    monkeypatch.setenv("NIGHTSHIFT_PROCESSES_FOLDER", str(PROCESSES))
    await found(our_broker)
    async with bench(migrated) as actor:
        proposals: list[Record] = []
        hear = actor.hear

        async def listening(*events: Any) -> None:
            proposals.extend(e.to_record() for e in events if e.type == "proposal.made.v1")
            await hear(*events)

        actor.hear = listening  # type: ignore[method-assign]  # what it hears lies on the topics
        for ticket, confidence in (("1", 0.9), ("2", 0.7), ("3", 0.99), ("4", 0.3), ("5", 0.1)):
            await actor.ask(ticket, confidence=confidence)
        await actor.ask("6", answer="refuse")
        await actor.ask("7", answer="raise")
        hold = "INSERT INTO actor.holds (case_id, reference, code) VALUES ($1, 'audit', 'foreign_write')"
        await actor.admin.execute(hold, case_of("8"))
        await actor.ask("8")
        actor.outside.tick()
        await actor.ask("1", confidence=0.95)
        rows = await actor.admin.fetch("SELECT topic, key, headers, body FROM actor.outbox ORDER BY id")
        said = [Record(r["topic"], r["key"], r["headers"], r["body"]) for r in rows]
        await publish(our_broker, [*proposals, *said])
        yield Night(migrated.admin_url, our_broker, actor)


async def count_of(night: Night, table: str) -> int:
    return int(await night.actor.admin.fetchval(f"SELECT count(*) FROM {table}"))


async def test_unchanged_rules_give_byte_identical_digests_and_touch_nothing(night: Night) -> None:
    tables = ("actor.effects", "actor.outbox", "actor.decisions", "reporter.event_log", "control.outbox")
    before, known = [await count_of(night, table) for table in tables], await groups(night.bootstrap)

    done = await night.replay()

    made = await night.actor.said(DecisionMade)
    assert {one.before.digest for one in done.compared} == {one.digest for one in made}
    assert [one.after.digest for one in done.compared if one.after] == [one.before.digest for one in done.compared]
    assert done.counts == {"same": 9}
    assert done.finished
    assert [await count_of(night, table) for table in tables] == before
    assert await groups(night.bootstrap) == known
    assert await count_of(night, "replay.judged") == await count_of(night, "replay.entries") == 0


async def test_a_changed_limit_changes_exactly_the_decisions_that_met_it(night: Night) -> None:
    strict = await night.replay(overrides="tiny.policy.confidence_min = 0.93")
    loose = await night.replay(overrides="tiny.policy.confidence_min = 0.2")

    assert [(one.case_id, one.outcome) for one in strict.different] == [
        (case_of("1"), "stricter"),
        (case_of("2"), "stricter"),
    ]
    assert [reason.code for one in strict.different if one.after for reason in one.after.reasons] == [
        "low_confidence"
    ] * 2
    assert [(one.case_id, one.outcome) for one in loose.different] == [(case_of("4"), "looser")]
    assert (strict.same, loose.same) == (7, 8)


async def test_modes_are_those_of_the_decision_and_not_those_of_today(night: Night) -> None:
    await night.actor.admin.execute(
        "INSERT INTO control.modes (process, action, mode) VALUES ('tiny', 'reply', 'watch')"
    )

    done = await night.replay()

    assert done.counts == {"same": 9}


async def test_a_window_holds_what_was_decided_in_it(night: Night) -> None:
    times = sorted(made.decided_at for made in await night.actor.said(DecisionMade))

    done = await night.replay(window=Window(since=times[2], until=times[5], process="tiny"))

    assert [one.decided_at for one in done.compared] == times[2:5]


async def test_what_was_recorded_before_is_named_and_never_guessed(night: Night) -> None:
    made = (await night.actor.said(DecisionMade))[0]
    old = made.model_copy(update={"decided_from": None, "digest": None})
    orphan = made.model_copy(update={"proposal_id": event("nobody").event_id})
    example = generate.EXAMPLES / "decision.made.v1.1.json"
    first = event("first version", DecisionMade.model_validate_json(example.read_bytes()), case_id=case_of("42"))
    await publish(
        night.bootstrap,
        [
            event("old", old, case_id=case_of("1")).to_record(),
            event("orphan", orphan, case_id=case_of("1")).to_record(),
            first.to_record()._replace(body=example.read_bytes()),
        ],
    )
    await night.actor.admin.execute("SELECT vault.erase($1)", case_of("3"))

    done = await night.replay()

    whys = sorted(one.why for one in done.compared if one.outcome == "not replayable")
    assert whys == sorted([BEFORE_FIELDS, BEFORE_FIELDS, ERASED, NO_PROPOSAL_THERE])
    assert done.counts["same"] == 8


async def test_what_the_rules_never_saw_is_not_theirs_to_change(night: Night) -> None:
    made = (await night.actor.said(DecisionMade))[0]
    stale = made.model_copy(update={"verdict": "ignore", "reasons": gate.STALE.reasons, "actions": ()})
    failed = made.model_copy(update={"proposal_id": None})
    await publish(
        night.bootstrap,
        [event(n, d, case_id=case_of("1")).to_record() for n, d in (("stale", stale), ("failed", failed))],
    )

    done = await night.replay(overrides="tiny.policy.confidence_min = 0.2")

    assert done.counts == {"same": 8, "looser": 1, "not by rules": 2}


async def test_an_interrupted_replay_decides_nothing_twice(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "BATCH_MAX", 3)
    seen: list[int] = []

    def interrupt(phase: str, done: int, total: int) -> None:
        del total
        if phase == "deciding again" and done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await night.replay(progress=interrupt)
    await publish(
        night.bootstrap, [event("later", (await night.actor.said(DecisionMade))[0], case_id=case_of("1")).to_record()]
    )
    done = await night.replay(progress=lambda phase, n, _: seen.append(n) if phase == "deciding again" else None)

    assert done.resumed
    assert seen == [9]
    assert done.counts == {"same": 9}, "it is the window that was begun"


async def interrupted(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that ends after its first batch."""
    monkeypatch.setattr(decisions, "BATCH_MAX", 3)

    def interrupt(phase: str, done: int, total: int) -> None:
        del done, total
        if phase == "deciding again":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await night.replay(progress=interrupt)


async def test_other_options_begin_anew(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    await interrupted(night, monkeypatch)
    done = await night.replay(overrides="tiny.policy.confidence_min = 0.2")

    assert not done.resumed
    assert done.counts == {"same": 8, "looser": 1}


async def test_rules_that_changed_since_begin_anew(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    await interrupted(night, monkeypatch)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read(file) + (b"#" if file.name == "rules.py" else b""))

    assert not (await night.replay()).resumed


FORTY_CENTS = Decimal("0.40")


def costly(*answers: str | Exception, worst_usd: Decimal = FORTY_CENTS) -> ScriptedModel:
    return ScriptedModel(worst=Cost(cost_usd=worst_usd), cost_usd=FORTY_CENTS, answers=[*answers])


class Dearer(ScriptedModel):
    """The first answer is cheap, and those after it are not."""

    async def propose(self, ask: Ask) -> Answer:
        self.cost_usd = Decimal("0.90") if self.asked else Decimal("0.10")
        await asyncio.sleep(0)
        return await super().propose(ask)


async def test_a_model_proposes_anew_under_its_budget_and_a_larger_one_goes_on(night: Night) -> None:
    model = costly('{"confidence": 0.2, "answer": "Hello!"}')
    models = {"tiny": (model, PlainDesk(tiny()))}

    poor = await night.replay(models=models, budget_usd=Decimal("1.30"))
    asked = len(model.asked)
    rich = await night.replay(models=models, budget_usd=Decimal(5))

    assert (poor.finished, poor.cost_usd, asked) == (False, Decimal("1.20"), 3)
    assert (rich.finished, rich.cost_usd, len(model.asked)) == (True, Decimal("3.60"), 9)
    assert rich.counts["stricter"] == 4
    assert [one.case_id for one in rich.different if one.outcome == "looser"] == [case_of("6")]


async def test_the_same_proposal_again_gives_the_same_digests(night: Night) -> None:
    model = ScriptedModel(answers=[GOOD])

    done = await night.replay(models={"tiny": (model, PlainDesk(tiny()))}, budget_usd=Decimal(1))

    assert {one.case_id: one.outcome for one in done.compared}[case_of("2")] == "same"


async def test_a_model_that_fails_loses_nothing_that_was_paid_for(night: Night) -> None:
    model = costly(GOOD, GOOD, PermanentError("no_money", "it costs too much"))

    with pytest.raises(MendableError, match="does not answer"):
        await night.replay(models={"tiny": (model, PlainDesk(tiny()))}, budget_usd=Decimal(9))

    assert await count_of(night, "replay.judged") == 2


async def test_answers_that_become_dearer_never_pass_the_budget(night: Night) -> None:
    model = Dearer(worst=Cost(cost_usd=Decimal("0.90")))

    done = await night.replay(models={"tiny": (model, PlainDesk(tiny()))}, budget_usd=Decimal("1.30"))

    assert (done.finished, done.cost_usd, len(model.asked)) == (False, Decimal("1.00"), 2)


async def test_a_call_that_can_take_more_than_is_left_is_not_made(night: Night) -> None:
    model = costly(GOOD, worst_usd=Decimal("0.50"))

    done = await night.replay(models={"tiny": (model, PlainDesk(tiny()))}, budget_usd=Decimal("0.89"))

    assert (done.finished, done.cost_usd, len(model.asked)) == (False, FORTY_CENTS, 1)


async def test_an_answer_that_was_lost_counts_for_the_most_and_is_remembered(night: Night) -> None:
    lost = AnswerLostError("model_timeout", "no answer", seconds=0)
    models = {"tiny": (costly(lost, GOOD, worst_usd=Decimal("0.50")), PlainDesk(tiny()))}

    first = await night.replay(models=models, budget_usd=Decimal(1))
    again = await night.replay(models=models, budget_usd=Decimal(1))

    assert [(one.finished, one.cost_usd) for one in (first, again)] == [(False, Decimal("0.90"))] * 2


async def test_the_command_says_it_in_words_and_codes_and_no_call_leaves_the_machine(
    night: Night, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.settimeout(0)
        address = f"127.0.0.1:{outside.getsockname()[1]}"
        for name in ("ZENDESK_URL", "SLACK_URL", "ANTHROPIC_URL"):
            monkeypatch.setenv(f"NIGHTSHIFT_{name}", f"http://{address}")
        monkeypatch.setenv("NIGHTSHIFT_PROCESSES", "tiny")
        monkeypatch.setenv("NIGHTSHIFT_SHOP_URL", f"postgresql://shop@{address}/shop")
        monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", night.admin_url)
        monkeypatch.setenv("NIGHTSHIFT_KAFKA_BOOTSTRAP", night.bootstrap)

        async def command(*words: str) -> Any:
            words = ("replay", *words, "--state", str(tmp_path))
            return await asyncio.to_thread(CliRunner().invoke, build(), list(words))

        same = await command("decisions", "--process", "tiny", "--json")
        monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", "tiny.policy.confidence_min = 0.2")
        differs = await command("decisions", "--process", "tiny", "--since", "2026-01-01")
        odd = await command("decisions", "--since", "yesterday")
        nobody = await command("decisions", "--process", "nobody")
        priceless = await command("decisions", "--process", "tiny", "--repropose", "claude:x")
        log_behind = await command("topics", "--json")
        with pytest.raises(BlockingIOError):
            outside.accept()

    assert (same.exit_code, orjson.loads(same.stdout)["counts"]) == (0, {"same": 9})
    assert differs.exit_code == 1
    assert f"{case_of('4')}  looser: hold → execute" in differs.stdout
    assert "- Not certain enough. (low_confidence)" in differs.stdout
    assert "9 of them were decided under other settings than today's" in differs.stdout
    assert (odd.exit_code, "is no time" in odd.stderr) == (2, True)
    assert (nobody.exit_code, "there is no process 'nobody'" in nobody.stderr) == (2, True)
    assert (priceless.exit_code, "--budget" in priceless.stderr) == (2, True)
    assert (log_behind.exit_code, "not in the log" in log_behind.stdout) == (1, True)


async def test_nothing_that_people_wrote_is_written_down(night: Night) -> None:
    def interrupt(phase: str, done: int, total: int) -> None:
        del done, total
        if phase == "deciding again":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await night.replay(progress=interrupt)

    admin = await asyncpg.connect(night.admin_url)
    content = b""
    for table in ("replay.entries", "replay.judged"):
        parts: list[bytes] = []

        async def take(data: bytes, parts: list[bytes] = parts) -> None:
            parts.append(data)

        await admin.copy_from_query(f"SELECT * FROM {table}", output=take, format="binary")
        content += b"".join(parts)
    await admin.close()
    assert b"sealed:1:" in content
    assert b"Help!" not in content
    assert b"Hello!" not in content
