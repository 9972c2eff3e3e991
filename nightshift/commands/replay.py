"""`nightshift replay`: history run again, without any effect."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.text import Text

from nightshift import MendableError, progress
from nightshift.reach import Json, State, admin_url, as_json, run
from nightshift.stack import running
from services.runtime.config import named_setting

if TYPE_CHECKING:
    from nightshift.replay import decisions, reporter

app = typer.Typer()
replay = typer.Typer(
    no_args_is_help=True,
    help="Run history again from the topics, without any effect. Exit code 0: the same, 1: it differs, 2: could not.",
)
app.add_typer(replay, name="replay")

SAME, DIFFERS, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
_SHOWN_MAX = 50


@replay.command("topics")
def replay_topics(
    state: State,
    *,
    switch: Annotated[bool, typer.Option("--switch", help="Then put it in place of the live one.")] = False,
    json: Json = False,
) -> None:
    """Rebuild the reporter from the topics alone, beside the live one, and compare them byte for byte.

    The services run meanwhile: nothing of theirs is read by a consumer group or written to. Says which cases differ,
    and how. Interrupted, it goes on where it stopped when it is run again.

    With --switch the rebuilt projections become the live ones in one transaction, and the log gets the events that it
    lacks. The log only grows: where it has events that the topics do not have, nothing is switched.
    """
    from nightshift.replay import reporter  # noqa: PLC0415  # services and their libraries: slow to load

    with _ends_well(), progress.bar() as told, admin_url(state) as url:
        done = run(reporter.replay_topics(url, _bootstrap(state), switch=switch, progress=told))
    if json:
        as_json(
            {
                "events": done.events,
                "cases": done.cases,
                "resumed": done.resumed,
                "differing": done.differences.cases,
                "totals_differing": done.differences.totals,
                "in_flight": len(done.differences.in_flight),
                "in_months_put_elsewhere": done.differences.elsewhere,
                "switched": done.switched,
                "digest": done.digest,
            }
        )
    else:
        _tell_topics(done)
    raise typer.Exit(DIFFERS if done.differences else SAME)


@replay.command("decisions")
def replay_decisions(
    state: State,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 2026-11-01, 2026-11-01T22:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None,
    process: Annotated[
        str | None, typer.Option(metavar="PROCESS", help="One of them; else all of the settings.")
    ] = None,
    repropose: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Let a model propose anew: `nearest`, `claude:<model>` or `ollama:<model>`."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="What --repropose may cost in all; needed for a model that costs.")
    ] = None,
    json: Json = False,
) -> None:
    """Decide again what was decided: the rules and settings of today, the recorded proposals, facts, counts and times.

    Nothing is sent, and nothing outside is read. Says how many decisions are the same, stricter, looser, or take other
    actions, and which, with the reasons before and after. A decision whose inputs were not recorded whole is named as
    not replayable. Times without an offset are UTC. Interrupted, or stopped by the budget, it goes on where it stopped
    when it is run again.
    """
    from nightshift.replay import decisions  # noqa: PLC0415  # as above

    with _ends_well(), progress.bar() as told:
        window = decisions.Window(since=_moment("--since", since), until=_moment("--until", until), process=process)
        dollars = _dollars(budget, repropose)
        with admin_url(state) as url:
            done = run(
                decisions.replay_decisions(
                    url, _bootstrap(state), window, repropose=repropose, budget_usd=dollars, progress=told
                )
            )
    if json:
        as_json(
            {
                "decisions": len(done.compared),
                "counts": done.counts,
                "not_replayable": _whys(done),
                "policy_digests": done.policies,
                "under_other_settings": _under_others(done),
                "cost_usd": done.cost_usd,
                "resumed": done.resumed,
                "finished": done.finished,
                "cases": [one.model_dump(mode="json") for one in done.different],
            }
        )
    else:
        _tell_decisions(done)
    if done.different:
        raise typer.Exit(DIFFERS)
    raise typer.Exit(SAME if done.finished and (done.same or "not by rules" in done.counts) else COULD_NOT)


@contextmanager
def _ends_well() -> Iterator[None]:
    """Failures become a sentence and a code; what the services' code logs does not get into the answer."""
    as_it_was = structlog.get_config()
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        yield
    except MendableError as error:
        _complain(str(error), COULD_NOT)
    except Exception as error:
        if os.environ.get("NIGHTSHIFT_DEBUG"):
            raise
        said = " ".join(str(error).split())[:500]
        _complain(f"unexpected {type(error).__name__}: {said} (NIGHTSHIFT_DEBUG=1 shows where)", COULD_NOT)
    except KeyboardInterrupt:
        _complain("interrupted: the same command goes on from here", INTERRUPTED)
    finally:
        structlog.configure(**as_it_was)


def _complain(what: str, code: int) -> None:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("nightshift: ", "bold red"), what))
    raise typer.Exit(code)


def _bootstrap(state: Path) -> str:
    if address := named_setting("NIGHTSHIFT_KAFKA_BOOTSTRAP"):
        return address
    told = running(state)
    if told is None:
        raise MendableError(
            f"no broker runs in {state}, and the embedded one keeps its topics while it runs: start it with "
            "`nightshift up`, or set NIGHTSHIFT_KAFKA_BOOTSTRAP"
        )
    return str(told["kafka_bootstrap"])


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MendableError(f"{option} {text!r} is no time: write 2026-11-01, or 2026-11-01T22:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _dollars(text: str | None, model: str | None) -> Decimal:
    if model is None and text is not None:
        raise MendableError("--budget is for --repropose MODEL: the rules alone cost nothing")
    if text is None:
        if model is not None and model != "nearest":
            raise MendableError(f"{model} costs money: say with --budget how many dollars it may spend")
        return Decimal(0)
    try:
        dollars = Decimal(text.removeprefix("$"))
    except InvalidOperation as error:
        raise MendableError(f"--budget {text!r} is no amount: write dollars, such as 5 or 0.50") from error
    if not dollars.is_finite() or dollars < 0:
        raise MendableError(f"--budget {text!r} is no amount: write dollars, such as 5 or 0.50")
    return dollars


def _tell_topics(done: "reporter.Replayed") -> None:
    console, found = progress.answers(), done.differences
    again = " (going on from an interrupted replay)" if done.resumed else ""
    console.print(f"{done.events:,} events of {done.cases:,} subjects replayed from the topics{again}")
    for case_id, whats in list(found.cases.items())[:_SHOWN_MAX]:
        console.print(Text(f"  {case_id}: {', '.join(whats)}"))
    if len(found.cases) > _SHOWN_MAX:
        console.print(f"  … and {len(found.cases) - _SHOWN_MAX:,} more: --json names them all")
    if found.totals:
        console.print(f"  {found.totals:,} totals are not the sums of their rows")
    if found.in_flight:
        console.print(f"  {len(found.in_flight):,} events were on their way meanwhile and were not compared")
    if found.elsewhere:
        console.print(f"  {found.elsewhere:,} events lie in months of the log that were put elsewhere")
    same = "the live reporter is the same, byte for byte" if not found else f"{len(found.cases):,} cases differ"
    console.print(Text(same, "green" if not found else "bold red"))
    if done.switched:
        console.print(f"switched: the projections made from the topics are the live ones; digest {done.digest[:16]}")
    elif found.irreparable:
        console.print("a switch would lose something: the log has what the topics do not have")
    elif found:
        console.print("`nightshift replay topics --switch` puts the rebuilt one in place")


def _tell_decisions(done: "decisions.Replayed") -> None:
    console = progress.answers()
    again = " (going on from where it stopped)" if done.resumed else ""
    console.print(f"{len(done.compared):,} decisions run again{again}; nothing was sent")
    for outcome, count in sorted(done.counts.items(), key=lambda one: -one[1]):
        console.print(Text(f"  {count:>7,}  {outcome}"))
    for why, count in _whys(done).items():
        console.print(Text(f"  {count:>7,}  not replayable: {why}"))
    if others := _under_others(done):
        console.print(f"{others:,} of them were decided under other settings than today's")
    if done.cost_usd:
        console.print(f"${done.cost_usd} spent on models")
    for one in done.different[:_SHOWN_MAX]:
        _tell_difference(console, one)
    if len(done.different) > _SHOWN_MAX:
        console.print(f"… and {len(done.different) - _SHOWN_MAX:,} more: --json names them all")
    if not done.finished:
        console.print("the budget is used up: the same command with a larger --budget goes on from here")
    elif not done.compared:
        console.print("no decisions of that time are on the topics")


def _tell_difference(console: Console, one: "decisions.Compared") -> None:
    assert one.after is not None, "it differs from something"
    was, becomes = one.before.verdict, one.after.verdict
    turn = was if was == becomes else f"{was} → {becomes}"
    console.print(
        Text.assemble((one.case_id, "bold"), f"  {one.outcome}: {turn}  (decided {one.decided_at:%Y-%m-%d %H:%M}Z)")
    )
    for sign, verdict in (("-", one.before), ("+", one.after)):
        for reason in verdict.reasons:
            console.print(Text(f"  {sign} {reason.text} ({reason.code})"))
        for action in verdict.actions if one.outcome == "other actions" else ():
            params = ", ".join(f"{name} {value}" for name, value in action.params.items())
            console.print(Text(f"  {sign} {action.name} {params}".rstrip()))


def _whys(done: "decisions.Replayed") -> Mapping[str, int]:
    whys: dict[str, int] = {}
    for one in done.compared:
        if one.why:
            whys[one.why] = whys.get(one.why, 0) + 1
    return whys


def _under_others(done: "decisions.Replayed") -> int:
    return sum(one.policy_digest != done.policies.get(one.process) for one in done.compared)
