"""Who is asked, by what: the live regime of a process, and its candidate on the share of cases that a person named."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.classifier.ports import Desk, Provider
from services.runtime import candidates
from services.runtime.postgres import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """The models that are asked in turn, and who puts the question together."""

    models: Sequence[Provider]
    """The first choice, and what is asked where the one before fails."""
    desk: Desk
    digests: Mapping[str, str] = field(default_factory=dict)
    """By the name of a model: of all that its answers depend on; not there while only its machine knows."""
    is_candidate: bool = False

    def digest_of(self, place: int) -> str | None:
        """Of the model at this place; none where only its machine knows, and did not say yet."""
        return self.digests.get(self.models[place].name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A candidate that proposes instead of the live regime, for the cases that a person ordered it for."""

    process: str
    regime: Regime
    may_serve: Callable[[Connection], Awaitable[bool]]
    """Whether each of its models has a passed eval on record, or was admitted."""

    async def takes(self, connection: Connection, case_ids: Collection[str]) -> frozenset[str]:
        """Which of these cases are its own now; none where the order is for another regime."""
        order = await candidates.order_of(connection, self.process)
        if order is None or order.mode != "canary" or order.regime != self.regime.digest_of(0):
            return frozenset()
        if not await self.may_serve(connection):
            return frozenset()
        return frozenset(case_id for case_id in case_ids if order.takes("canary", case_id))
