"""The basis: which outside change an answer answers."""

from datetime import UTC, datetime
from typing import NewType

Basis = NewType("Basis", str)
"""`<version>|<name>`; a later basis sorts after an earlier one.

One outside change has one basis, by whichever way it was learnt.
"""


def version_of(moment: datetime) -> str:
    """An orderable stamp of fixed width: `2026-11-25T06:31:24.000000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def basis_of(version: str, name: str) -> Basis:
    """`name` tells apart what shares a version: a comment's id, or `description` for a ticket's first comment."""
    return Basis(f"{version}|{name}")
