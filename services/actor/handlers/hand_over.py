"""A case goes to a person, where people work: an internal note with reason and draft, itself an effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from contracts.decision import Mode, Reason
from contracts.events.decisions import HandoverPlanned
from contracts.proposed import Proposed
from contracts.sealed import UnsealableError
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.say import Cause, say
from services.runtime import outbox, switches, vault
from services.runtime.cases import StoredCase
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import CaseKeys

NO_BASIS = "0|none"
"""The basis of a case in which nobody has asked anything yet."""

_OUTPUTS = """
SELECT case_id, output FROM proposals p
WHERE (case_id, basis) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One case to hand over, for one basis. A second one for the same basis changes nothing."""

    stored: StoredCase
    basis: str
    reasons: tuple[Reason, ...]
    cause: Cause


async def hand_over(
    connection: Connection, processes: Mapping[str, Process], wanted: Sequence[Handover]
) -> dict[str, tuple[str, ...]]:
    """Plan the handovers; returns the new effects' keys by case. Cases from before a door's `start_at` are left."""
    wanted = [w for w in wanted if _is_ours_to_tell(processes[w.stored.process], w.stored)]
    if not wanted:
        return {}
    case_ids = [w.stored.case_id for w in wanted]
    keys = await vault.read(connection, case_ids)
    rows = await connection.fetch(_OUTPUTS, case_ids, [w.basis for w in wanted])
    outputs = {row["case_id"]: row["output"] for row in rows}
    planned: list[ledger.Planned] = []
    for name in sorted({w.stored.process for w in wanted}):
        process = processes[name]
        written = {action: s.mode for action, s in process.settings.actions.items()}
        modes = await switches.modes(connection, name, written)
        if modes.get(effect.HANDOVER, "watch") == "watch":
            continue
        granted = {effect.HANDOVER: modes[effect.HANDOVER]}
        for want in (w for w in wanted if w.stored.process == name):
            try:
                planned += _render(
                    process, want, keys[want.stored.case_id], outputs.get(want.stored.case_id), granted=granted
                )
            except UnsealableError:
                log.warning("a case whose text was erased is not handed over", process=name)
            except Exception as error:  # noqa: BLE001  # a process's own code; it must not stop what it is about
                log.error(  # noqa: TRY400  # a traceback may quote people's text
                    "a handover cannot be written",
                    process=name,
                    case_id=want.stored.case_id,
                    error=type(error).__name__,
                )
    fresh = await ledger.plan(connection, planned)
    return {case_id: tuple(p.key for p in planned if p.case_id == case_id and p.key in fresh) for case_id in case_ids}


async def hand_over_beside(
    connection: Connection, processes: Mapping[str, Process], wanted: Sequence[Handover]
) -> None:
    """Plan handovers that no decision names, and say each: the log explains whatever is attempted outside."""
    keys = await hand_over(connection, processes, wanted)
    await say_planned(connection, [(want, keys.get(want.stored.case_id, ())) for want in wanted])


async def say_planned(connection: Connection, planned: Sequence[tuple[Handover, tuple[str, ...]]]) -> None:
    """Record handovers with the new effects that they made; one that made none is not told."""
    fresh = [(want, keys) for want, keys in planned if keys]
    if not fresh:
        return
    now = await connection.fetchval("SELECT clock_timestamp()")
    events = [
        say(
            HandoverPlanned(basis=want.basis, reasons=want.reasons, effect_keys=keys),
            *keys,
            cause=want.cause,
            case_id=want.stored.case_id,
            process=want.stored.process,
            time=now,
        )
        for want, keys in fresh
    ]
    await outbox.append(connection, events)


def _is_ours_to_tell(process: Process, stored: StoredCase) -> bool:
    return process.case.opened_at(stored.case) >= process.starts_at(stored.door)


def _render(
    process: Process, want: Handover, keys: CaseKeys, output: str | None, *, granted: Mapping[str, Mode]
) -> list[ledger.Planned]:
    """What the process wants a person to read. Raises UnsealableError."""
    stored = want.stored
    revealed = process.case.reveal(stored.case, keys.unseal)
    proposal = _proposal(process, keys, output)
    requests = process.effects.handover(revealed, proposal, want.reasons, process.policy)
    return [
        ledger.Planned(
            case_id=stored.case_id,
            process=process.name,
            basis=want.basis,
            request=request,
            sealed=keys.seal(request.model_dump_json()),
            granted=granted,
            cause=want.cause,
            asked_at=None,
        )
        for request in requests
        if request.connector in process.settings.destinations
    ]


def _proposal(process: Process, keys: CaseKeys, output: str | None) -> Proposed | None:
    if output is None:
        return None
    try:
        return process.Proposal.model_validate_json(keys.unseal(output))
    except ValidationError:  # the reasons say so already
        return None
