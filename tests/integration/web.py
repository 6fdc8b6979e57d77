"""Small web servers of the tests, on a port of their own."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers requests, and logs nothing."""

    def answer(self, content: bytes = b"", status: int = 200) -> None:
        """Answer with `content`."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        """Return what was sent."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[Quiet]) -> Iterator[str]:
    """Serve requests with `handler`; give the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def one_file(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Serve one file whatever its path; give the address and the list of paths asked for."""
    asked: list[str] = []

    class File(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.answer(content)

    with serving(File) as address:
        yield address, asked


@contextmanager
def taking() -> Iterator[tuple[str, list[bytes]]]:
    """Take whatever is put; give the address and the list of what was."""
    taken: list[bytes] = []

    class Taker(Quiet):
        def do_PUT(self) -> None:
            taken.append(self.body())
            self.answer()

    with serving(Taker) as address:
        yield address, taken
