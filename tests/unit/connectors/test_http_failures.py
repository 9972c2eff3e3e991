"""What happens to an HTTP call is one of the failures that the engine knows."""

import httpx
import pytest

from connectors.http_failures import failure_of, retry_after_seconds, sending
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError

DATE = "Wed, 25 Nov 2026 06:00:00 GMT"


def answer(status: int, method: str = "POST", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(
        status, headers=named, text="people's words", request=httpx.Request(method, "https://x.test/S")
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_is_no_failure(status: int) -> None:
    assert failure_of(answer(status), what="x") is None


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (answer(301), PermanentError, "rejected"),
        (answer(400), PermanentError, "rejected"),
        (answer(401), LaterError, "forbidden"),
        (answer(403), LaterError, "forbidden"),
        (answer(404), PermanentError, "gone"),
        (answer(409), ConflictError, "conflict"),
        (answer(410), PermanentError, "gone"),
        (answer(418), PermanentError, "rejected"),
        (answer(422), PermanentError, "unprocessable"),
        (answer(429), LaterError, "rate_limited"),
        (answer(500), OutcomeUnknownError, "server_error"),
        (answer(500, "GET"), LaterError, "server_error"),
        (answer(503), OutcomeUnknownError, "server_error"),
        (answer(503, "GET"), LaterError, "server_error"),
        (answer(503, retry_after="1"), LaterError, "unavailable"),
        (answer(504, "PUT", retry_after="1"), OutcomeUnknownError, "server_error"),
    ],
)
def test_each_answer_has_its_failure(response: httpx.Response, kind: type[Exception], code: str) -> None:
    failure = failure_of(response, what="zendesk")

    assert type(failure) is kind
    assert getattr(failure, "code", None) == code
    assert str(failure) == f"zendesk answered {response.status_code}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "30"}, 30.0),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "3600"}, 3600.0),
        ({"retry_after": "3601"}, 3600.0),
        ({"retry_after": "1e300"}, 3600.0),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Wed, 25 Nov 2026 06:01:00 GMT", "date": DATE}, 60.0),
        ({"retry_after": "Wed, 25 Nov 2026 05:59:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Wed, 25 Nov 2026 06:01:00 GMT"}, None),
        ({"retry_after": "Wed, 99 Nov 2026 06:01:00 GMT", "date": DATE}, None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(answer(429, **headers)) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_of_nothing_is_still_a_wait(status: int) -> None:
    failure = failure_of(answer(status, retry_after="0"), what="x")

    assert isinstance(failure, LaterError)
    assert failure.seconds > 0


@pytest.mark.parametrize(
    ("error", "with_effect", "without"),
    [
        (httpx.ConnectError("x"), LaterError, LaterError),
        (httpx.ConnectTimeout("x"), LaterError, LaterError),
        (httpx.PoolTimeout("x"), LaterError, LaterError),
        (httpx.ReadTimeout("x"), OutcomeUnknownError, LaterError),
        (httpx.WriteTimeout("x"), OutcomeUnknownError, LaterError),
        (httpx.ReadError("x"), OutcomeUnknownError, LaterError),
        (httpx.WriteError("x"), OutcomeUnknownError, LaterError),
        (httpx.RemoteProtocolError("x"), OutcomeUnknownError, LaterError),
        (TimeoutError(), OutcomeUnknownError, LaterError),
        (httpx.UnsupportedProtocol("x"), PermanentError, PermanentError),
        (httpx.InvalidURL("x"), PermanentError, PermanentError),
    ],
)
def test_each_exception_has_its_failure(
    error: Exception, with_effect: type[Exception], without: type[Exception]
) -> None:
    for has_effect, expected in ((True, with_effect), (False, without)):
        with pytest.raises(Exception, match="x") as failed, sending("x", has_effect=has_effect):
            raise error
        assert type(failed.value) is expected
        assert failed.value.__cause__ is error


def test_our_own_failures_pass_through() -> None:
    with pytest.raises(ConflictError), sending("x", has_effect=True):
        raise ConflictError("changed")
