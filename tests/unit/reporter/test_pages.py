"""The console while the reporter's tables cannot be read."""

import httpx

from services.reporter.domain.views import ApprovalRow, CasePage, CauseRow, DeadLetterRow, Status, Timeline
from services.reporter.inbound.console.pages import console


class AwayReads:
    """ports.Reads with Postgres down."""

    async def status(self, *, process: str | None = None) -> Status:
        raise ConnectionRefusedError(process)

    async def cases(self, *, state: str | None, page: str | None) -> CasePage:
        raise ConnectionRefusedError(state, page)

    async def timeline(self, case_id: str) -> Timeline:
        raise TimeoutError(case_id)

    async def dead_letters(self) -> list[DeadLetterRow]:
        raise ConnectionResetError

    async def approvals(self) -> list[ApprovalRow]:
        raise ConnectionResetError

    async def causes(self) -> list[CauseRow]:
        raise ConnectionResetError


class AwaySwitch:
    """ports.Stops with Postgres down."""

    async def pause(self, process: str, reason: str) -> bool:
        raise ConnectionRefusedError(process, reason)


async def test_while_postgres_is_away_each_page_says_so_and_asks_for_patience() -> None:
    transport = httpx.ASGITransport(app=console(AwayReads(), AwaySwitch(), tells=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://console.test") as browser:
        for path in ("/", "/cases", "/cases/a", "/dead-letters", "/approvals"):
            answer = await browser.get(path)

            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "Postgres does not answer" in answer.text
