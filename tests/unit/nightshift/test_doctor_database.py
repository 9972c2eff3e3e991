"""What the doctor says of a database's versions."""

import pytest

from nightshift.doctor.outside import _with_vector
from nightshift.doctor.verdict import Verdict


@pytest.mark.parametrize(
    ("offered", "made", "found"),
    [
        ("0.8.0", None, Verdict("ok", "pgvector 0.8.0")),
        ("0.10.0", "0.8.6", Verdict("ok", "pgvector 0.8.6")),
        (
            "0.7.4",
            None,
            Verdict("problem", "pgvector 0.7.4", "install pgvector 0.8 or newer on the database's machine"),
        ),
        (
            "0.8.0",
            "0.7.4",
            Verdict(
                "problem",
                "pgvector 0.7.4",
                "type ALTER EXTENSION vector UPDATE in the database, as the extension's owner",
            ),
        ),
    ],
)
def test_a_pgvector_that_is_too_old_is_found_with_its_mend(offered: str, made: str | None, found: Verdict) -> None:
    assert _with_vector("pgvector", offered, made) == found
