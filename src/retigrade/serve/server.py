"""The HTTP server: its socket, its limits and its end."""

from __future__ import annotations

import logging
import socket
import sys

import uvicorn

from retigrade.errors import UsageError
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig

_SHUTDOWN_SECONDS = 60
_KEEP_ALIVE_SECONDS = 20


def run(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted.

    Raises UsageError where the port is taken or the database cannot be used, BundleError where the bundle cannot.
    """
    listener = listen(config.host, config.port)
    try:
        app = create_app(config)
        _log_to_stderr()
        host, port = listener.getsockname()[:2]
        sys.stderr.write(f"retigrade serves at http://{f'[{host}]' if ':' in host else host}:{port}\n")
        sys.stderr.flush()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        server.run(sockets=[listener])
    finally:
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; UsageError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop the other program there, or give another --port"
        ) from error
    return listener


def _log_to_stderr() -> None:
    """Write one line of JSON for each request; no name of a file or patient is in it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("retigrade.serve.access")
    access.handlers = [handler]
    access.setLevel(logging.INFO)
    access.propagate = False
