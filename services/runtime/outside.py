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


def clock() -> datetime:
    """Now."""
    return datetime.fromtimestamp(time(), UTC)


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
