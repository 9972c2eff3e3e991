"""Which settings the services need for the outside world: all that are missing at once, not one a start."""

import os
from collections.abc import Iterable, Mapping

from services.runtime.config import named_setting
from services.runtime.process import Process

ZENDESK = ("NIGHTSHIFT_ZENDESK_URL", "NIGHTSHIFT_ZENDESK_EMAIL", "NIGHTSHIFT_ZENDESK_TOKEN")
OF_VENDORS = {"claude": "NIGHTSHIFT_ANTHROPIC_API_KEY", "ollama": "NIGHTSHIFT_OLLAMA_URL"}


def missing_settings(processes: Iterable[Process], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names of those without which a service of these processes does not start, each once."""
    needed = dict.fromkeys(name for process in processes for name in _needed(process, environment))
    return [name for name in needed if named_setting(name, environment) is None]


def _needed(process: Process, environment: Mapping[str, str]) -> Iterable[str]:
    settings = process.settings
    connectors = {door.connector for door in settings.doors.values()}
    connectors |= {destination.connector for destination in settings.destinations.values()}
    if "zendesk" in connectors:
        yield from ZENDESK
    for door in settings.doors.values():
        if door.scheme != "none":
            yield from door.secret_settings[:1]
    for source in settings.sources.values():
        if source.connector != "none":
            yield source.url_setting
    first = named_setting("NIGHTSHIFT_MODEL", environment) or settings.model.default
    for model in (first, *settings.model.fallback):
        if (setting := OF_VENDORS.get(model.partition(":")[0])) is not None:
            yield setting
