"""Serves the page."""

import errno
import ipaddress
import socket
from contextlib import suppress

import fastapi
import gradio as gr
import uvicorn

from esamp.errors import InputError, OptionError
from esamp.play.access import PARAMETER, AccessGate, App
from esamp.play.page import appearance, build
from esamp.play.playground import Playground

LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine in a ``Host`` header."""
PATIENCE = 3
"""Seconds that open connections get when the server ends."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        OptionError: another program uses the port.
        InputError: the host is not an address of this machine, or the port may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OverflowError:
        raise OptionError(f"port = {port}: give one from 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"port {port} of {host} is in use: end the program that uses it, or give another --port (0 finds a "
                "free one)"
            ) from None
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def is_local(host: str) -> bool:
    """Whether only programs on this machine can reach the address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """The page's URL, with the token if there is one. An address that stands for all is replaced by the host's name."""
    port = listening.getsockname()[1]
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?{PARAMETER}={token}")


def application(playground: Playground, *, token: str | None, local: bool) -> App:
    """The page as an ASGI application.

    Args:
        playground: draws the samples.
        token: that visitors need; None admits everybody.
        local: whether only requests to this machine's own names are admitted.
    """
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        build(playground),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1kb",
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        **appearance(),
    )
    return AccessGate(app, token=token, hosts=LOCAL if local else None)


def serve(playground: Playground, listening: socket.socket, *, token: str | None, local: bool) -> None:
    """Serve until SIGINT or SIGTERM, then stop all runs.

    Args:
        playground: draws the samples.
        listening: see `listen`.
        token: that visitors need; None admits everybody.
        local: whether only requests to this machine's own names are admitted.
    """
    app = application(playground, token=token, local=local)
    config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=PATIENCE)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
        uvicorn.Server(config).run(sockets=[listening])
    playground.close()
