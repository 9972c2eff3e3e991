"""The three kinds of failure, so that a connector or a step can say which one it met.

- PermanentError: trying again cannot help; the work becomes a dead letter.
- LaterError: the other side named a time (429, 503, an open breaker); the work waits until then and no attempt is
  counted.
- OutcomeUnknownError: a call with a side effect was sent and no definite answer came; read back before trying again.
- anything else: retried with backoff a bounded number of times, then a dead letter.

`services/runtime/failures.py` is the one place that tells them apart.
"""


class PermanentError(Exception):
    """Trying again cannot help.

    `code` is a word of a closed set, fit for a metric label; the message never holds people's text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LaterError(Exception):
    """The other side asked for patience: do not try before `seconds` have passed."""

    def __init__(self, code: str, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.code = code
        self.seconds = seconds


class OutcomeUnknownError(Exception):
    """The request may or may not have been carried out (timeout, cut connection, 5xx after sending)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConflictError(Exception):
    """The object changed since the stamp of the intent was taken: the request was certainly not carried out (409)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = "conflict"
