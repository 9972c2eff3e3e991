"""Connectors, built from what process.toml names and what the settings hold."""

from datetime import UTC, datetime
from time import time

import httpx

from connectors.http import HttpSource
from connectors.none import NoOutside
from connectors.protocol import LooksUp
from connectors.sql import SqlSource
from connectors.zendesk import Zendesk
from services.runtime.config import named_setting, required_setting
from services.runtime.process import Source

CONNECTIONS_MAX = 100


def clock() -> datetime:
    """Now."""
    return datetime.fromtimestamp(time(), UTC)


def http_client() -> httpx.AsyncClient:
    """One client a service: connections are kept, every call names its own time limit."""
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
    return httpx.AsyncClient(limits=limits, timeout=30, trust_env=False)


def zendesk(client: httpx.AsyncClient, *, timeout_seconds: float = 10.0) -> Zendesk:
    """The account of NIGHTSHIFT_ZENDESK_*. Raises MissingSettingError."""
    return Zendesk(
        base_url=required_setting("NIGHTSHIFT_ZENDESK_URL"),
        email=required_setting("NIGHTSHIFT_ZENDESK_EMAIL"),
        token=required_setting("NIGHTSHIFT_ZENDESK_TOKEN"),
        our_user_id=named_setting("NIGHTSHIFT_ZENDESK_USER_ID") or "",
        client=client,
        timeout_seconds=timeout_seconds,
    )


def source(settings: Source, client: httpx.AsyncClient) -> LooksUp:
    """A system of record. Raises MissingSettingError, or InvalidQueryError for a query that cannot be."""
    match settings.connector:
        case "none":
            return NoOutside(clock=clock, queries=settings.queries)
        case "sql":
            return SqlSource(
                url=required_setting(settings.url_setting),
                queries=settings.queries,
                timeout_seconds=settings.timeout_seconds,
            )
        case "http":
            return HttpSource(
                client=client,
                base_url=required_setting(settings.url_setting),
                queries=settings.queries,
                timeout_seconds=settings.timeout_seconds,
            )
