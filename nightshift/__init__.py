"""The operator's side: the command line, the embedded stack, the demo's outside world."""


class MendableError(Exception):
    """Something that the person at the shell can mend. The message says in one line what is wrong and what to do."""
