"""What a local page with buttons must refuse: other origins, other hosts, and bodies without end."""

from urllib.parse import parse_qsl

from starlette.requests import Request

BODY_BYTES_MAX = 2 * 1024 * 1024
_LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]", "testserver", "world"})


class BodyTooLargeError(Exception):
    """More than BODY_BYTES_MAX."""


def foreign(request: Request) -> bool:
    """Whether a page of somebody else, or a name that somebody else points here, sends this request."""
    host = request.headers.get("host", "")
    if host.rsplit(":", 1)[0] not in _LOCAL:
        return True
    origin = request.headers.get("origin")
    if origin is not None:
        return origin != f"{request.url.scheme}://{host}"
    return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}


async def body_of(request: Request) -> bytes:
    """The whole body. Raises BodyTooLargeError."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLargeError
    return bytes(body)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises BodyTooLargeError."""
    return dict(parse_qsl((await body_of(request)).decode("utf-8", "replace"), keep_blank_values=True))
