"""A service in small: answers /readyz, ends at SIGTERM unless it is `stubborn`, dies at once when `broken`."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        del format, args


def main() -> None:
    manner = os.environ.get("SMALL_SERVICE", "")
    if manner == "broken":
        sys.exit("a setting is missing")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "stubborn" else lambda *_: sys.exit(0))
    print('{"event": "ready"}', flush=True)  # noqa: T201  # its log
    HTTPServer(("127.0.0.1", int(os.environ["NIGHTSHIFT_HTTP_PORT"])), Answer).serve_forever()


if __name__ == "__main__":
    main()
