"""How one decision differs from another about the same basis: whether software goes less far by it, or farther."""

from typing import Final, Protocol

from contracts.decision import Action, Difference, Reason

_REACH: Final = ("none", "ignore", "refuse", "hold", "execute")
"""How far software may go by itself, least first. `none`: the model gave no proposal."""


class Judged(Protocol):
    """A decision as it is compared."""

    @property
    def verdict(self) -> str: ...
    @property
    def reasons(self) -> tuple[Reason, ...]: ...
    @property
    def actions(self) -> tuple[Action, ...]: ...
    @property
    def digest(self) -> str | None: ...


def difference_of(before: Judged, after: Judged) -> Difference:
    """How `after` differs from `before`. Equal digests are the same decision, byte for byte."""
    if before.digest == after.digest:
        return "same"
    was, becomes = _REACH.index(before.verdict), _REACH.index(after.verdict)
    if was != becomes:
        return "stricter" if becomes < was else "looser"
    if before.actions != after.actions:
        return "other actions"
    return "other reasons" if before.reasons != after.reasons else "other requests"
