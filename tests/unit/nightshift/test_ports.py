"""Ports are chosen some time before they are listened on; what is chosen is nobody else's meanwhile."""

import subprocess
import sys

import pytest

from nightshift.embedded import child
from nightshift.supervisor import PROJECT


def elsewhere(expression: str) -> str:
    """What another process says of it, at its end."""
    program = f"from nightshift.embedded import child; print({expression})"
    return subprocess.check_output([sys.executable, "-c", program], cwd=PROJECT, text=True).strip()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has names that end with their process")
def test_a_port_is_given_once_for_as_long_as_the_process_runs_that_was_given_it() -> None:
    ours = child.free_port()
    theirs = int(elsewhere("child.free_port()"))

    assert not child._is_ours(ours)
    assert elsewhere(f"child._is_ours({ours})") == "False"
    assert child._is_ours(theirs)
