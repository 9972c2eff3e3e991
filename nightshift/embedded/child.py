"""Child processes that end with their parent, `kill -9` of it included."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from signal import Signals

_PORTS = range(20_000, 32_000)  # below the kernel's ephemeral range: no outgoing connection takes one while it is ours

# Runs in the child before the real program, as a program of its own: code in a forked copy of a process with threads
# may dead-lock. Changing the user clears the death signal, so that comes first; the parent may have died meanwhile.
_BIND = """
import ctypes, os, sys
parent, signal, uid, gid, *command = sys.argv[1:]
if int(uid) >= 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid)); os.umask(0o077)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal), 0, 0, 0)
    if os.getppid() != int(parent): sys.exit("the parent is gone")
os.execv(command[0], command)
"""


def bound(command: Sequence[str | os.PathLike[str]], *, dies_by: Signals, uid: int = -1, gid: int = -1) -> list[str]:
    """`command` as one that gets `dies_by` when the thread that starts it ends: start it from the main thread.

    With `uid` and `gid` it runs as that user, without any other group. `command[0]` is an absolute path. Beyond Linux
    there is no such signal: there a child outlives a killed parent, and the next start or `nightshift doctor` finds it.
    """
    wrapper = [sys.executable, "-I", "-S", "-c", _BIND, str(os.getpid()), str(int(dies_by)), str(uid), str(gid)]
    return [*wrapper, *(os.fspath(part) for part in command)]


def last_line(log: Path, word: str = "") -> str:
    """The last line of a log that holds `word`, else the last one: why a child did not start."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if word in line), lines[-1] if lines else "it said nothing")


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no occupant
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody else is given while this process runs.

    Until its listener has started others look for one as well. Beyond Linux these may be given the same.
    """
    random = SystemRandom()
    while True:
        port = random.choice(_PORTS)
        if is_free(port) and _is_ours(port):
            return port


def _is_ours(port: int) -> bool:
    """Whether nobody was given it before. The kernel has each such name once, and forgets it with its process."""
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0nightshift-port-{port}")
    except OSError:
        name.close()
        return False
    name.detach()  # open until this process ends
    return True
