"""What the doctor says of whom to tell, without telling anybody."""

from pathlib import Path

import pytest

from nightshift.doctor.outside import telling
from nightshift.doctor.verdict import Place


@pytest.mark.parametrize(
    ("duty", "escalation", "levels"),
    [
        ("", "", ["warning"]),
        ("json://127.0.0.1:9/x", "", ["ok"]),
        ("json://127.0.0.1:9/x\nmailto://kim:pass@example.com", "json://127.0.0.1:9/y", ["ok"]),
        ("json://127.0.0.1:9/x nonsense://PASSWORD", "PASSWORD", ["problem", "problem"]),
    ],
)
async def test_urls_that_name_nobody_are_found_by_their_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, duty: str, escalation: str, levels: list[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_TELL_URLS", duty)
    monkeypatch.setenv("NIGHTSHIFT_TELL_ESCALATION_URLS", escalation)

    verdicts = await telling(Place(state=tmp_path, told=None))

    assert [verdict.level for verdict in verdicts] == levels
    assert not any("PASSWORD" in verdict.text for verdict in verdicts)
    if "problem" in levels:
        assert "URL 2 of NIGHTSHIFT_TELL_URLS" in verdicts[0].text
