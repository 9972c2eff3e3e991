"""The chaos suite: each scenario runs the whole system, and is judged by the outside's books and the event log.

`--short` makes each as small as continuous integration needs it, `--seed` plays another night, `--figures FILE` writes
the table that ends the run as JSON.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from tests.chaos.figures import Figures, table
from tests.chaos.system import Plan, System, run
from tests.conftest import server_folder
from tests.stacks import Embedded, Stack

_MEASURED = "figures"
"""A property of each report: so a run on several processes (`-n 2`) ends in one table as well."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="each scenario as small as continuous integration needs it")
    parser.addoption("--seed", type=int, default=4, help="another night, other moments")
    parser.addoption("--figures", type=Path, help="write what was measured to this file, as JSON")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [one for several in terminalreporter.stats.values() for one in several]
    measured = [
        Figures(**json.loads(value))
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == _MEASURED
    ]
    if measured:
        terminalreporter.section("chaos")
        for line in table(measured):
            terminalreporter.write_line(line)
    if measured and (file := config.getoption("figures")) is not None:
        file.write_text(json.dumps([one.json() for one in measured], indent=2) + "\n")


@dataclass(frozen=True)
class Chaos:
    """What a scenario is given."""

    stack: Stack
    state: Path
    logs: Path
    seed: int
    short: bool
    figures: Figures

    def size(self, *, full: int, short: int) -> int:
        """How many, or how long."""
        return short if self.short else full

    @asynccontextmanager
    async def system(self, plan: Plan, **postgres: str) -> AsyncIterator[System]:
        """The whole system, ready, for the length of the block. `postgres`: settings of the server."""
        async with run(self.stack, self.state, self.logs, replace(plan, seed=self.seed), self.figures, postgres) as one:
            yield one


@pytest.fixture
def chaos(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Chaos]:
    """One scenario on the stack under test; its row of the table is kept whatever happens."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    figures = Figures(
        scenario=name,
        stack="embedded" if isinstance(stack, Embedded) else "real",
        seed=request.config.getoption("seed"),
    )
    began = time.monotonic()
    with server_folder() as folder:
        yield Chaos(stack, folder, tmp_path, figures.seed, request.config.getoption("short"), figures)
    figures.seconds = time.monotonic() - began
    request.node.user_properties.append((_MEASURED, json.dumps(asdict(figures))))
