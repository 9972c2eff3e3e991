"""Notices through apprise: Slack, mail, a pager, a webhook … whatever its URLs can name."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from services.reporter.domain.telling import Notice
from services.reporter.ports import Sent

if TYPE_CHECKING:
    from apprise import Apprise

SEND_SECONDS = 30.0

log = structlog.get_logger()


class AppriseMessenger:
    """ports.Messenger. A notice has arrived when one of the URLs took it."""

    def __init__(self, setting: str, urls: Sequence[str]) -> None:
        """`setting` names where the URLs stand; they are secrets and are never shown."""
        self._setting = setting
        self._urls = urls
        self._apprise: Apprise | None = None

    async def send(self, notice: Notice) -> Sent:
        try:
            return await self._send(notice)
        except Exception as error:  # noqa: BLE001  # 190 services' code: whatever one of them does, the reporter goes on
            return Sent(arrived=False, missed=(type(error).__name__,))

    async def _send(self, notice: Notice) -> Sent:
        if self._apprise is None:
            self._apprise = await asyncio.to_thread(self._load)
        if not len(self._apprise):
            return Sent(arrived=False, missed=("no valid URL",))
        from apprise import NotifyFormat, NotifyType  # noqa: PLC0415  # loaded by now

        result = await self._apprise.async_notify(
            title=notice.title,
            body=notice.body,
            body_format=NotifyFormat.TEXT,
            notify_type=NotifyType.WARNING,
            timeout=SEND_SECONDS,
        )
        missed = tuple(sorted(one.name for one in result.results if not one))
        return Sent(arrived=len(missed) < len(result.results), missed=missed)

    def _load(self) -> "Apprise":
        loaded, unknown = load(self._urls)
        for number in unknown:
            log.error("a URL is none that apprise knows", setting=self._setting, number=number)
        return loaded


def load(urls: Sequence[str]) -> tuple["Apprise", list[int]]:
    """Whom these URLs name, and the numbers, from 1 on, of those that name nobody.

    Takes a second and 20 MiB: only where somebody is told, and in a thread, for it holds up the loop.
    """
    # They log URLs, and these hold passwords. What went wrong is said by us, without them.
    for name in ("apprise", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    from apprise import Apprise, AppriseAsset  # noqa: PLC0415  # as above

    loaded = Apprise(asset=AppriseAsset(app_id="Nightshift", app_desc="Nightshift"))
    return loaded, [number for number, url in enumerate(urls, 1) if not loaded.add(url)]
