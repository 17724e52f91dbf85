"""An application on a real socket, and the bytes that a test sends it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retigrade.serve.server import listen, make_server

BASE = "http://127.0.0.1"


@contextmanager
def on_a_socket(app: Any) -> Iterator[int]:
    """Run an application on a real socket; yields the port."""
    listener = listen("127.0.0.1", 0)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def talk(port: int, data: bytes, *, seconds: float = 10) -> bytes:
    """Send bytes over one connection and return all that comes back until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer
