"""What a status other than 2xx says about a call to a model, whoever the vendor is.

429, 503, 529             LaterError, after Retry-After where it is named
408, 409, other 5xx       LaterError, after a few seconds
502, 504                  AnswerLostError (a LaterError): it may have to be paid
402 and any other 4xx     PermanentError with a code
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from connectors.http_failures import RETRY_DEFAULT_SECONDS, RETRY_MAX_SECONDS, http_date
from contracts.failures import LaterError, PermanentError
from services.classifier.ports import AnswerLostError

OVERLOADED_SECONDS: Final = 15.0
"""How long to wait where 429, 503 or 529 name no time, or 0: what waits for nothing is asked again without a pause."""
_OVERLOADED: Final = 529
_PATIENCE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, _OVERLOADED})
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT})
_OF_GATEWAYS = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})
"""What stands before the API gave up on it: the API itself may go on, and answer nobody."""
_CODES: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "model_request_rejected",
    HTTPStatus.UNAUTHORIZED: "model_key_rejected",
    HTTPStatus.PAYMENT_REQUIRED: "model_payment_required",
    HTTPStatus.FORBIDDEN: "model_forbidden",
    HTTPStatus.NOT_FOUND: "model_unknown",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "model_request_too_large",
}


def failure_of_status(status: int, headers: Mapping[str, str]) -> LaterError | PermanentError:
    """What to raise. The other side's words are left out: they may quote the customer. Header names are lower case."""
    message = f"the model answered {status}"
    asked = _retry_after_seconds(headers)
    if status in _PATIENCE:
        code = "model_rate_limited" if status == HTTPStatus.TOO_MANY_REQUESTS else "model_overloaded"
        return LaterError(code, message, seconds=asked or OVERLOADED_SECONDS)
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        later = AnswerLostError if status in _OF_GATEWAYS else LaterError
        return later("model_failed", message, seconds=asked or RETRY_DEFAULT_SECONDS)
    return PermanentError(_CODES.get(status, "model_request_rejected"), message)


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """At most an hour; none where it is missing or unreadable. A date counts from the answer's own."""
    asked = headers.get("retry-after", "").strip()
    until, now = http_date(asked), http_date(headers.get("date", ""))
    if asked.isascii() and asked.replace(".", "", 1).isdigit():
        seconds = float(asked)
    elif until is not None and now is not None:
        seconds = (until - now).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), RETRY_MAX_SECONDS)
