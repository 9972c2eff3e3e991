"""What the appender says of its own health."""

from dataclasses import dataclass, field

from services.reporter.handlers.append import STUCK_SECONDS, Appender, Projector
from services.reporter.ports import Log


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class StoreThatIsSlow:
    """Looks at the appender's health while a batch is in hand, then is away."""

    clock: Clock
    seconds: float
    appender: Appender = field(init=False)
    said: str | None = None

    def transaction(self) -> "StoreThatIsSlow":
        return self

    async def __aenter__(self) -> Log:
        self.clock.now += self.seconds
        self.said = await self.appender.stuck()
        raise ConnectionError("Postgres is away")

    async def __aexit__(self, *_: object) -> None:
        """It is never entered."""


async def said_after(seconds: float) -> tuple[str | None, str | None]:
    clock = Clock()
    store = StoreThatIsSlow(clock, seconds)
    store.appender = Appender(store, Projector({}), clock)
    try:
        await store.appender.take([])
    except ConnectionError:
        clock.now += 1000
    return store.said, await store.appender.stuck()


async def test_a_batch_in_hand_for_too_long_is_unhealthy_and_one_given_up_is_not() -> None:
    assert await said_after(STUCK_SECONDS) == (None, None)

    said, afterwards = await said_after(STUCK_SECONDS + 1)
    assert said == "a batch of events is in hand since 61 s"
    assert afterwards is None
