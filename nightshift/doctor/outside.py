"""Checks of what Nightshift talks to: the database, the broker, Zendesk, and whether it may talk at all."""

import contextlib
import os
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from nightshift import MendableError
from nightshift.doctor.verdict import Check, Place, Verdict, fine, graded
from nightshift.embedded.broker import speaks_kafka
from nightshift.needed import ZENDESK, missing_settings
from nightshift.reach import NothingHereError, database, process_named
from services.reporter.outbound.messenger import load
from services.runtime import migrate
from services.runtime.config import KafkaSettings, named_setting
from services.runtime.months import without_next_month
from services.runtime.postgres import Connection
from services.runtime.process import Process

CLOCK_SECONDS_WISHED, CLOCK_SECONDS_MAX = 5.0, 300.0
"""Webhooks carry a time that is checked, and SLAs are minutes."""
POSTGRES_MIN = 17
VECTOR_MIN = (0, 8)
"""The first pgvector whose search goes on until enough fit the filters."""
SIGNED_IN_LATELY = timedelta(days=30)
ZENDESK_SECONDS_MAX = 10.0
LIST_SECONDS_BACK = 120
TELL = ("NIGHTSHIFT_TELL_URLS", "NIGHTSHIFT_TELL_ESCALATION_URLS")


async def the_database(place: Place) -> list[Verdict]:
    """It answers, knows vectors, agrees on the time, is migrated, and has the switches."""
    try:
        async with database(place.state) as connection:
            verdicts = [*await _version(connection), *await _its_clock(connection)]
            pending = await _pending(connection)
            if pending:
                text = f"{len(pending)} migrations are missing, the first is {pending[0]}"
                return [*verdicts, Verdict("problem", text, "`nightshift up` applies them")]
            verdicts += fine("every migration is applied")
            verdicts += await _months(connection)
            for process in loadable():
                verdicts += await _switch(connection, process)
                verdicts += await _regimes(connection, process)
                verdicts += await _modes(connection, process)
            return verdicts
    except NothingHereError:
        return fine("none yet: the first `nightshift up` makes it")
    except MendableError as error:
        return [Verdict("problem", str(error), f"read {place.state}/postgres/log, or check NIGHTSHIFT_DATABASE_URL")]


async def _version(connection: Connection) -> list[Verdict]:
    version = await connection.fetchval("SELECT split_part(current_setting('server_version'), ' ', 1)")
    vector = await connection.fetchrow(
        "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
    )
    if connection.get_server_version().major < POSTGRES_MIN:
        return [Verdict("problem", f"Postgres {version}", f"use Postgres {POSTGRES_MIN} or newer")]
    if vector is None:
        return [Verdict("problem", "pgvector is missing", "install pgvector on the database's machine")]
    return [_with_vector(f"Postgres {version} with pgvector", *vector)]


def _with_vector(text: str, offered: str, made: str | None) -> Verdict:
    """`offered` is what the server has, `made` what is in this database, if anything is yet."""
    if _parts(offered) < VECTOR_MIN:
        return Verdict("problem", f"{text} {offered}", "install pgvector 0.8 or newer on the database's machine")
    if made is not None and _parts(made) < VECTOR_MIN:
        mend = "type ALTER EXTENSION vector UPDATE in the database, as the extension's owner"
        return Verdict("problem", f"{text} {made}", mend)
    return Verdict("ok", f"{text} {made or offered}")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


async def _its_clock(connection: Connection) -> list[Verdict]:
    before = time.time()
    theirs: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return _apart("the database", theirs - (before + time.time()) / 2)


def _apart(whose: str, seconds: float) -> list[Verdict]:
    return graded(
        f"this clock and that of {whose} are {abs(seconds):.1f} s apart",
        "set the clock of this machine (chrony or systemd-timesyncd)",
        needed=abs(seconds) <= CLOCK_SECONDS_MAX,
        wished=abs(seconds) <= CLOCK_SECONDS_WISHED,
    )


async def _pending(connection: Connection) -> list[str]:
    """Names of the migrations of this build that the database has not run."""
    scopes = migrate.folders()
    wanted = [f"{scope}/{file.name}" for scope, (_, folder) in scopes.items() for file in sorted(folder.glob("*.sql"))]
    if await connection.fetchval("SELECT to_regclass('nightshift.migrations') IS NULL"):
        return wanted
    applied = {row["name"] for row in await connection.fetch("SELECT name FROM nightshift.migrations")}
    return [name for name in wanted if name not in applied]


async def _months(connection: Connection) -> list[Verdict]:
    if late := await without_next_month(connection):
        text = f"no partition for next month: {', '.join(late)}; rows go to the default one, and none is lost"
        return [Verdict("warning", text, "`nightshift up` makes it, and so does each service once a day: read its log")]
    return fine("next month's partitions are made")


async def _switch(connection: Connection, process: Process) -> list[Verdict]:
    row = await connection.fetchrow(
        "SELECT paused, reason, changed_by FROM control.switches WHERE process = $1", process.name
    )
    resume = f"`nightshift resume {process.name}` when it should go on"
    if row is None:
        return [Verdict("warning", f"{process.name} has no switch, so it is paused", resume)]
    if row["paused"]:
        text = f"{process.name} is paused by {row['changed_by']}: {row['reason'] or 'no reason given'}"
        return [Verdict("warning", text, resume)]
    return fine(f"{process.name} is switched on")


async def _regimes(connection: Connection, process: Process) -> list[Verdict]:
    """What a running classifier does not serve."""
    rows = await connection.fetch(
        "SELECT model FROM control.live_regimes WHERE process = $1 AND admitted_at IS NULL ORDER BY model", process.name
    )
    mend = (
        f"`nightshift eval {process.name} --write` and a new start, or `nightshift admit {process.name} --reason WHY`"
    )
    return [
        Verdict("problem", f"{process.name} is not served: {row['model']} has no passed eval on record", mend)
        for row in rows
    ]


async def _modes(connection: Connection, process: Process) -> list[Verdict]:
    rows = await connection.fetch("SELECT action, mode FROM control.modes WHERE process = $1", process.name)
    unknown = sorted(row["action"] for row in rows if row["action"] not in process.settings.actions)
    if unknown:
        text = f"{process.name} has modes of actions that process.toml does not know: {', '.join(unknown)}"
        return [Verdict("warning", text, "correct process.toml, or delete the rows from control.modes")]
    switched = {row["action"]: row["mode"] for row in rows}
    said = [f"{action} {switched.get(action, s.mode)}" for action, s in process.settings.actions.items()]
    return fine(f"modes of {process.name}: {', '.join(said)}")


async def broker(place: Place) -> list[Verdict]:
    """It answers in Kafka's protocol."""
    bootstrap = os.environ.get("NIGHTSHIFT_KAFKA_BOOTSTRAP") or (place.told or {}).get("kafka_bootstrap")
    if not bootstrap:
        return fine("not running; it starts with the stack")
    kafka = KafkaSettings(kafka_bootstrap=bootstrap)
    if kafka.kafka_security_protocol != "PLAINTEXT":
        return await _secured(kafka)
    silent = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not port.isdigit() or not speaks_kafka(host, int(port)):
            silent.append(address)
    mend = "intake goes on and nothing is lost; start the broker, or correct NIGHTSHIFT_KAFKA_BOOTSTRAP"
    return [Verdict("problem", f"no answer from {', '.join(silent)}", mend)] if silent else fine(f"{bootstrap} answers")


async def _secured(kafka: KafkaSettings) -> list[Verdict]:
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=5_000)
    where = f"{kafka.kafka_bootstrap} by {kafka.kafka_security_protocol}"
    try:
        await admin.start()
    except KafkaError as error:
        mend = "intake goes on and nothing is lost; correct NIGHTSHIFT_KAFKA_SECURITY_PROTOCOL, _CA, _SASL_…"
        return [Verdict("problem", f"no answer from {where} ({type(error).__name__})", mend)]
    finally:
        await admin.close()
    return fine(f"{where} answers")


async def process_files(_: Place) -> list[Verdict]:
    """process.toml and the modules of every process can be loaded."""
    try:
        return fine(", ".join(f"{process.name} ({process.folder})" for process in _processes()))
    except MendableError as error:
        return [Verdict("problem", str(error), "correct the file that it names")]


async def settings(_: Place) -> list[Verdict]:
    """The services find every setting that they need, all that are missing named at once."""
    if not (missing := missing_settings(loadable())):
        return fine("all that the services need are set")
    live = any(named_setting(setting) for setting in ZENDESK)
    mend = "set each, or NAME_FILE to the path of a file that holds it; the demo needs none of them"
    text = f"not set in this shell: {', '.join(missing)}"
    return [Verdict("problem" if live else "warning", text, mend)]


async def webhook_secrets(_: Place) -> list[Verdict]:
    """Every door that is signed has its secret; one that is not set is told by `settings`."""
    verdicts = []
    for process in loadable():
        for name, door in process.settings.doors.items():
            if door.scheme == "none":
                text = f"{process.name}/{name} takes unsigned webhooks from anybody"
                verdicts.append(Verdict("warning", text, "set a scheme in process.toml unless that is meant"))
            elif not door.secret_settings:
                text = f"{process.name}/{name} names no secret"
                verdicts.append(Verdict("problem", text, "set secret_settings of that door in process.toml"))
            elif named_setting(door.secret_settings[0]):
                verdicts += fine(f"{process.name}/{name} has its secret")
    return verdicts


async def zendesk(_: Place) -> list[Verdict]:
    """The credentials work, for a user of its own who may list what happened, and the clocks agree."""
    url, email, token = (named_setting(name) or "" for name in ZENDESK)
    if not (url and email and token):
        return fine("not configured; the demo brings its own")
    try:
        async with httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/api/v2/", auth=(f"{email}/token", token), timeout=ZENDESK_SECONDS_MAX
        ) as client:
            answer = await client.get("users/me.json")
            start = {"start_time": str(int(time.time()) - LIST_SECONDS_BACK)}
            listed = await client.get("incremental/ticket_events.json", params=start)
        user = answer.json().get("user") or {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return [
            Verdict("problem", f"{url} does not answer as Zendesk does ({type(error).__name__})", f"check {ZENDESK[0]}")
        ]
    verdicts = []
    if "date" in answer.headers:
        verdicts += _apart("Zendesk", parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time())
    return [*verdicts, *_user(answer.status_code, user, email), *_list(listed.status_code, email)]


def _list(status: int, email: str) -> list[Verdict]:
    """Whether the intake can be compared. What else is wrong with the credentials is said by `_user`."""
    if status != httpx.codes.FORBIDDEN:
        return []
    text = f"{email} may not list ticket events: whether every webhook came stays unknown"
    return [Verdict("warning", text, "make the user an admin, or empty `compared` of the door in process.toml")]


def _user(status: int, user: dict[str, object], email: str) -> list[Verdict]:
    """Whether we are let in, may write, and are alone with this user as far as one can see."""
    if not user.get("id"):  # Zendesk answers strangers 200 with an anonymous user, too
        text = f"the credentials of {email} are refused (HTTP {status})"
        return [
            Verdict("problem", text, f"make an API token in the admin centre and set {ZENDESK[1]} and {ZENDESK[2]}")
        ]
    if user.get("role") == "end-user":
        return [Verdict("problem", f"{email} is no agent", "give the user the role agent: it has to write replies")]
    last = user.get("last_login_at")
    if isinstance(last, str) and datetime.now(UTC) - datetime.fromisoformat(last) < SIGNED_IN_LATELY:
        text = f"somebody signed in as {email} on {last[:10]}"
        mend = "give Nightshift a user that no person works as: its changes are told apart by their author"
        return [Verdict("warning", text, mend)]
    return fine(f"{email} may work there, and nobody signed in as that user in the last {SIGNED_IN_LATELY.days} days")


async def telling(_: Place) -> list[Verdict]:
    """Somebody is told of what needs a person, by URLs that apprise knows. Nothing is sent."""
    verdicts = []
    for setting in TELL:
        urls = (named_setting(setting) or "").split()
        verdicts += [
            Verdict("problem", f"URL {number} of {setting} is none that apprise knows", "correct it, or take it away")
            for number in (load(urls)[1] if urls else [])
        ]
    if not named_setting(TELL[0]):
        text = "nobody is told of dead letters and of cases that wait for a person"
        verdicts.append(Verdict("warning", text, f"set {TELL[0]}, or look at the console"))
    return verdicts or fine("somebody is told of what needs a person")


def loadable() -> list[Process]:
    """None when one cannot be loaded, which is said elsewhere."""
    with contextlib.suppress(MendableError):
        return _processes()
    return []


def _processes() -> list[Process]:
    names = os.environ.get("NIGHTSHIFT_PROCESSES", "support").replace(" ", "").split(",")
    return [process_named(name) for name in names]


CHECKS: dict[str, Check] = {
    "database": the_database,
    "broker": broker,
    "processes": process_files,
    "settings": settings,
    "webhook secrets": webhook_secrets,
    "zendesk": zendesk,
    "telling": telling,
}
