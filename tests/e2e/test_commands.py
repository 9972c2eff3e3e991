import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import orjson
import pytest

from nightshift import MendableError, trial
from nightshift.evals.examples import EvalsInvalidError, read
from nightshift.reach import process_named
from nightshift.world.deliveries import signature
from services.runtime.postgres import Connection
from tests.e2e.conftest import RunningDemo, nightshift, nightshift_alone, typed
from tests.readme import from_readme
from tests.waiting import until

_RESOLVED = """
SELECT 1 FROM reporter.event_log WHERE type = 'approval.resolved.v1'
AND convert_from(body, 'UTF8')::jsonb @> jsonb_build_object('approval_id', $1::text, 'answer', $2::text)
"""

_ANSWERED = """
SELECT case_id FROM reporter.projections WHERE kind = 'case' AND state = 'answered' ORDER BY at DESC LIMIT 1
"""


def test_status_tells_what_was_done_and_that_nothing_waits(night: RunningDemo) -> None:
    status = night.answer("status")

    assert sum(status["cases"].values()) >= 40
    assert status["runs_today"] > 0
    assert status["deliveries"]["accepted"] > 0
    assert status["deliveries"]["duplicates"] > 0
    assert {switch["process"] for switch in status["switches"]} == {"support"}
    assert "runs today" in nightshift(night.state, "status").stdout


@pytest.mark.parametrize("case_id", ["1", "support:zendesk:1"])
def test_a_case_is_told_by_its_short_id_or_its_full_one_with_what_people_wrote(
    night: RunningDemo, case_id: str
) -> None:
    told = night.answer("case", case_id)

    assert told["row"]["case_id"] == "support:zendesk:1"
    assert any(text["text"] for line in told["lines"] for text in line["texts"])


def test_a_sealed_case_shows_no_word_of_anybody(night: RunningDemo) -> None:
    told = night.answer("case", "1", "--sealed")

    assert told["lines"]
    assert not any(line["texts"] for line in told["lines"])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (from_readme("nightshift status"), "runs today"),
        (from_readme("nightshift case 42"), "support:zendesk:42"),
        (from_readme("nightshift dead-letters"), "dead letter"),
        (from_readme("nightshift doctor"), "every migration is applied"),
    ],
)
def test_at_2_a_m_one_looks_with_short_words(night: RunningDemo, command: str, says: str) -> None:
    looked = typed(command, night.state)

    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert says in looked.stdout


async def test_at_2_a_m_a_command_or_one_sql_statement_stops_it_and_it_goes_on_when_told(
    night: RunningDemo, operator: Connection
) -> None:
    switch = "SELECT paused, reason FROM control.switches WHERE process = 'support'"

    assert typed(from_readme('nightshift pause support --reason "refunds look wrong"'), night.state).returncode == 0
    assert tuple(await operator.fetchrow(switch) or ()) == (True, "refunds look wrong")

    assert typed(from_readme("nightshift resume support"), night.state).returncode == 0
    assert tuple(await operator.fetchrow(switch) or ()) == (False, "")

    await operator.execute(
        from_readme("UPDATE control.switches SET paused = true, reason = '…' WHERE process = 'support';")
    )
    assert tuple(await operator.fetchrow(switch) or ()) == (True, "…")

    assert typed("nightshift resume support", night.state).returncode == 0


def test_a_case_that_is_not_there_is_one_line_with_the_mend(night: RunningDemo) -> None:
    missing = nightshift(night.state, "case", "4711")

    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "nightshift status" in missing.stderr


async def test_an_approved_answer_is_carried_out_and_a_denied_one_is_not(
    night: RunningDemo, operator: Connection
) -> None:
    waiting = night.answer("approvals")
    assert len(waiting) >= 2
    yes, no = waiting[0], waiting[1]

    night.answer("approve", yes["approval_id"])
    night.answer("deny", no["approval_id"], "--reason", "not this one")

    await until(partial(operator.fetchval, _RESOLVED, yes["approval_id"], "approved"))
    await until(partial(operator.fetchval, _RESOLVED, no["approval_id"], "denied"))


async def test_real_cases_that_a_person_put_right_become_candidates_that_count_once_a_person_has_labelled_them(
    night: RunningDemo, operator: Connection, tmp_path: Path
) -> None:
    command = from_readme("nightshift eval support --from-log")
    answered = await operator.fetchval(_ANSWERED)
    inbox = f"http://127.0.0.1:{night.credentials['port']}/tickets/{answered.rpartition(':')[2]}"
    async with httpx.AsyncClient(trust_env=False) as agent:
        await agent.post(f"{inbox}/agent", data={"body": "Not that one: the other.", "as": "public"})
    await until(lambda: "the other." in typed(command, night.state).stdout)

    done = typed(command, night.state)
    (file := tmp_path / "evals.jsonl").write_text(done.stdout)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    [corrected] = [one for one in told if one["source"] == answered]
    proposed = [one["candidate"]["proposed"] for one in told]
    support = process_named("support").Proposal

    assert f"{len(told)} candidates" in done.stderr
    assert corrected["text"]
    assert corrected["candidate"]["why"] == "staff answered"
    assert corrected["candidate"]["proposed"].keys() == corrected["expected"].keys() == {"intent", "language"}
    with pytest.raises(EvalsInvalidError, match="line 1: a candidate from the log: say in `expected` what is right"):
        read(file, support)
    labelled = [{"text": one["text"], "expected": right} for one, right in zip(told, proposed, strict=True)]
    file.write_text("".join(f"{json.dumps(one)}\n" for one in labelled))
    assert [one.expected for one in read(file, support)] == proposed


def test_an_approval_that_nobody_asked_for_is_one_line_with_the_mend(night: RunningDemo) -> None:
    missing = nightshift(night.state, "approve", "ffffffff-0000")

    assert missing.returncode == 1
    assert "nightshift approvals" in missing.stderr


async def test_a_dead_letter_is_listed_and_tried_again_when_ordered(night: RunningDemo, operator: Connection) -> None:
    delivery = str(uuid4())
    _deliver_what_nobody_can_read(night, delivery)
    letter = await operator.fetchrow("SELECT dead_letter_id, attempts FROM ingest.dead_letters ORDER BY raised_at DESC")
    assert letter is not None
    letter_id = str(letter["dead_letter_id"])
    listed = "SELECT 1 FROM reporter.projections WHERE kind = 'dead_letter' AND key = $1"
    await until(partial(operator.fetchval, listed, letter_id))
    assert letter_id in {row["dead_letter_id"] for row in night.answer("dead-letters")}

    ordered = typed(from_readme("nightshift redrive ID").replace("ID", letter_id[:8]), night.state)

    assert "of ingest will be tried again" in ordered.stdout, ordered.stderr
    again = "SELECT 1 FROM ingest.dead_letters WHERE dead_letter_id::text = $1 AND attempts > $2"
    await until(partial(operator.fetchval, again, letter_id, letter["attempts"]))


async def letter_that_nobody_can_read(night: RunningDemo, operator: Connection) -> str:
    """The id of a dead letter of its own, listed by the reporter."""
    known = [row[0] for row in await operator.fetch("SELECT dead_letter_id FROM ingest.dead_letters")]
    _deliver_what_nobody_can_read(night, str(uuid4()))
    newest = "SELECT dead_letter_id::text FROM ingest.dead_letters WHERE dead_letter_id <> ALL($1)"
    letter: str = await operator.fetchval(newest, known)
    await until(
        partial(operator.fetchval, "SELECT 1 FROM reporter.projections WHERE kind = 'dead_letter' AND key = $1", letter)
    )
    return letter


async def test_all_that_failed_alike_is_tried_again_at_once(night: RunningDemo, operator: Connection) -> None:
    letters = [await letter_that_nobody_can_read(night, operator) for _ in range(2)]
    (cause,) = {row["cause"] for row in night.answer("dead-letters") if row["dead_letter_id"] in letters}
    which = "SELECT dead_letter_id::text, attempts FROM ingest.dead_letters WHERE dead_letter_id::text = ANY($1)"
    before = {row[0]: row[1] for row in await operator.fetch(which, letters)}

    ordered = typed(from_readme("nightshift redrive --cause CAUSE").replace("CAUSE", cause), night.state)

    assert "dead letters will be tried again" in ordered.stdout, ordered.stderr
    for letter in letters:
        again = "SELECT 1 FROM ingest.dead_letters WHERE dead_letter_id::text = $1 AND attempts > $2"
        await until(partial(operator.fetchval, again, letter, before[letter]))
        open_again = (
            "SELECT 1 FROM reporter.projections WHERE kind = 'dead_letter' AND key = $1 AND state = 'open' "
            "AND (row->>'attempts')::int > $2"
        )
        await until(partial(operator.fetchval, open_again, letter, before[letter]))


async def test_a_skipped_dead_letter_is_gone_from_the_list_and_told_with_its_reason(
    night: RunningDemo, operator: Connection
) -> None:
    letter = await letter_that_nobody_can_read(night, operator)

    line = from_readme('nightshift skip ID --reason "…"').replace("ID", letter).replace("…", "its sender was a test")
    skipped = typed(line, night.state)

    assert "will not be done" in skipped.stdout, skipped.stderr
    ended = "SELECT row->>'case_id' FROM reporter.projections WHERE kind = 'dead_letter' AND key = $1 AND state = $2"
    await until(partial(operator.fetchval, ended, letter, "skipped"))
    told = night.answer("case", await operator.fetchval(ended, letter, "skipped"))
    assert any("ended it undone: its sender was a test" in line["sentence"] for line in told["lines"])
    assert letter not in {row["dead_letter_id"] for row in night.answer("dead-letters")}


async def test_a_cause_is_listed_and_acknowledged(night: RunningDemo, operator: Connection) -> None:
    letter = await letter_that_nobody_can_read(night, operator)
    (cause,) = {row["cause"] for row in night.answer("dead-letters") if row["dead_letter_id"] == letter}
    await until(partial(operator.fetchval, "SELECT 1 FROM reporter.causes WHERE cause = $1 AND count > 0", cause))
    assert cause in typed(from_readme("nightshift causes"), night.state).stdout

    said = typed(from_readme("nightshift acknowledge CAUSE").replace("CAUSE", cause[:8]), night.state)

    assert "yours now" in said.stdout, said.stderr
    (row,) = [row for row in night.answer("causes") if row["cause"] == cause]
    assert row["acknowledged_by"]
    await until(partial(operator.fetchval, "SELECT 1 FROM reporter.event_log WHERE type = 'cause.acknowledged.v1'"))


@pytest.mark.parametrize("words", [("redrive",), ("redrive", "1", "--cause", "2"), ("acknowledge", "ffffffff")])
def test_an_order_about_nothing_is_one_line_with_the_mend(night: RunningDemo, words: tuple[str, ...]) -> None:
    refused = nightshift(night.state, *words)

    assert refused.returncode == 1
    assert "nightshift dead-letters" in refused.stderr or "nightshift causes" in refused.stderr


def test_to_skip_needs_a_reason(night: RunningDemo) -> None:
    refused = nightshift(night.state, "skip", "1", "--reason", " ")

    assert refused.returncode == 1
    assert "--reason" in refused.stderr


def test_a_rebuild_makes_the_same_projections(night: RunningDemo) -> None:
    rebuilt = night.answer("rebuild")

    assert rebuilt["cases"] >= 40
    assert rebuilt["digest"]


def test_try_needs_nothing_that_runs_and_says_which_facts_it_could_not_read() -> None:
    tried = nightshift_alone("try", "support", "Where is my order? I would like to track it.", "--json")
    answer = json.loads(tried.stdout)

    assert answer["decision"] == "hold"
    assert "fact_unread" in {reason["code"] for reason in answer["reasons"]}
    assert not any(fact["ok"] for fact in answer["facts"].values())
    assert answer["proposal"]["intent"] == "track_order"
    assert answer["cost_usd"] == "0"


def test_try_tells_a_person_facts_proposal_decision_with_its_reasons_and_cost(tmp_path: Path) -> None:
    tried = typed(from_readme('.venv/bin/nightshift try support "Where is my order?"'), tmp_path)

    assert tried.returncode == 0, tried.stderr
    assert all(word in tried.stdout.lower() for word in ("facts", "proposal", "decision", "hold", "cost")), tried.stdout


def test_try_names_the_processes_there_are() -> None:
    unknown = nightshift_alone("try", "nosuch", "Hello")

    assert unknown.returncode == 1
    assert "support" in unknown.stderr


async def test_try_names_the_models_there_are() -> None:
    with pytest.raises(MendableError, match="nearest"):
        await trial.attempt(process_named("support"), trial.Customer(text="Hello"), "nosuch")


def test_a_command_where_nothing_has_run_says_how_to_start(tmp_path: Path) -> None:
    unknown = nightshift(tmp_path, "case", "1")

    assert unknown.returncode == 1
    assert "nightshift up" in unknown.stderr


def _deliver_what_nobody_can_read(night: RunningDemo, delivery: str) -> None:
    """A signed event of a known type that lacks what it must have."""
    event = {"type": "zen:event-type:ticket.comment_added", "id": delivery, "time": "2026-11-25T22:00:00Z"}
    body = orjson.dumps({**event, "detail": {"id": "9999"}, "event": {}})
    timestamp = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    headers = {
        "content-type": "application/json",
        "x-zendesk-webhook-invocation-id": delivery,
        "x-zendesk-webhook-signature": signature(night.credentials["secret"], timestamp, body),
        "x-zendesk-webhook-signature-timestamp": timestamp,
    }
    url = f"{night.told['urls']['ingest']}/webhooks/support/zendesk"
    with httpx.Client(trust_env=False) as client:
        assert client.post(url, content=body, headers=headers).status_code == 202
