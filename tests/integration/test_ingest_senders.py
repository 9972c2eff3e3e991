"""What real senders send, end to end: recorded payloads, documented vectors, and the official clients."""

import hmac
import json
from pathlib import Path

import standardwebhooks
from svix.webhooks import Webhook as SvixWebhook

from connectors.form import Form
from connectors.github import GitHub
from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import NOW, STANDARD_SECRET, door, hmac_headers, intake

ROLE = "nightshift_ingest"
DATA = Path(__file__).parents[1] / "data" / "webhooks"
LONG_AGO_SECONDS = 100 * 365 * 24 * 3600
GITHUB_SECRET = "It's a Secret to Everybody"


def vectors(folder: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((DATA / folder / "vectors.json").read_text())
    return found


async def test_the_67_recorded_payloads_of_github_are_accepted_and_issues_become_events(
    migrated: MigratedDatabase,
) -> None:
    files = sorted(file for file in (DATA / "github").glob("*.json") if file.name != "vectors.json")
    assert len(files) == 67
    connector = GitHub()
    seen: set[str] = set()
    async with intake(migrated.url(ROLE), [door("github", "github", connector, GITHUB_SECRET)]) as running:
        for file in files:
            body = file.read_bytes()
            signature = hmac.digest(GITHUB_SECRET.encode(), body, "sha256").hex()
            headers = {"x-hub-signature-256": f"sha256={signature}", "x-github-delivery": file.name}

            answer = await running.post("/webhooks/support/github", body, headers)

            names = {change.identity for change in connector.receive(json.loads(body), body, NOW)}
            known = bool(names) and names <= seen  # some recordings tell one and the same comment
            assert (answer.status, answer.json["duplicate"]) == (202, known), file.name
            if not known:
                async with running.database.connection() as connection:
                    row_id = await connection.fetchval("SELECT max(id) FROM deliveries")
                    kept = await running.store.open(connection, row_id)
                assert kept is not None
                assert kept.body == body
            seen |= names

        assert await running.count("outbox") == len(seen) > 0
        assert await running.count("dead_letters") == 0


async def test_the_documented_vectors_pass_the_signature_check(migrated: MigratedDatabase) -> None:
    zendesk, slack = vectors("zendesk"), vectors("slack")
    github, standard = vectors("github"), vectors("standard-webhooks")
    secret = zendesk[0]["secret"]
    doors = [
        door("zendesk", "zendesk", Form(), secret, tolerance_seconds=LONG_AGO_SECONDS),
        door("slack", "slack", Form(), slack[0]["secret"], tolerance_seconds=LONG_AGO_SECONDS),
        door("github", "github", Form(), github[0]["secret"]),
        door("standard", "standard-webhooks", Form(), standard[0]["secret"], tolerance_seconds=LONG_AGO_SECONDS),
    ]
    async with intake(migrated.url(ROLE), doors) as running:
        for one in zendesk:
            body = (DATA / "zendesk" / one["body_file"]).read_bytes() if "body_file" in one else one["body"].encode()
            headers = {
                "x-zendesk-webhook-signature": one["signature"],
                "x-zendesk-webhook-signature-timestamp": one["timestamp"],
            }
            assert (await running.post("/webhooks/support/zendesk", body, headers)).status == 202, one["source"]
        (one,) = standard
        headers = {
            "webhook-id": one["id"],
            "webhook-timestamp": one["timestamp"],
            "webhook-signature": one["signature"],
        }
        assert (await running.post("/webhooks/support/standard", one["body"].encode(), headers)).status == 202

        # These two are signed, and no JSON: past the signature, refused by the parser.
        (one,) = slack
        headers = {"x-slack-signature": one["signature"], "x-slack-request-timestamp": one["timestamp"]}
        said = await running.post("/webhooks/support/slack", one["body"].encode(), headers)
        assert (said.status, said.json["error"]) == (400, "no_json")
        (one,) = github
        said = await running.post(
            "/webhooks/support/github", one["body"].encode(), {"x-hub-signature-256": one["signature"]}
        )
        assert (said.status, said.json["error"]) == (400, "no_json")


async def test_deliveries_of_the_official_clients_are_accepted(migrated: MigratedDatabase) -> None:
    body = '{"message": "where is it"}'
    signers = {
        "webhook": standardwebhooks.Webhook(STANDARD_SECRET).sign,
        "svix": SvixWebhook(STANDARD_SECRET).sign,
    }
    async with intake(migrated.url(ROLE)) as running:
        for family, sign in signers.items():
            headers = {
                f"{family}-id": f"msg_{family}",
                f"{family}-timestamp": str(int(NOW.timestamp())),
                f"{family}-signature": sign(f"msg_{family}", NOW, body),
            }
            good = await running.post("/webhooks/support/standard", body.encode(), headers)
            forged = await running.post("/webhooks/support/standard", body.encode() + b" ", headers)

            assert (good.status, forged.status) == (202, 401), family


async def test_each_other_scheme_is_served(migrated: MigratedDatabase) -> None:
    body = b'{"id": "f1", "message": "hello"}'
    seconds = str(int(NOW.timestamp()))
    secret = b"the secret in use"
    slack = "v0=" + hmac.digest(secret, f"v0:{seconds}:".encode() + body, "sha256").hex()
    stripe = hmac.digest(secret, f"{seconds}.".encode() + body, "sha256").hex()
    async with intake(migrated.url(ROLE)) as running:
        answers = [
            await running.post("/webhooks/support/form", body, hmac_headers(body)),
            await running.post(
                "/webhooks/support/slack",
                body,
                {"x-slack-signature": slack, "x-slack-request-timestamp": seconds},
            ),
            await running.post("/webhooks/support/stripe", body, {"stripe-signature": f"t={seconds},v1={stripe}"}),
        ]

        assert [answer.status for answer in answers] == [202] * 3
        assert await running.count("outbox") == 3


async def test_a_door_without_signatures_takes_what_comes(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE), [door("lab", "none", Form())]) as running:
        assert (await running.post("/webhooks/support/lab", b'{"id": "1"}')).status == 202
