"""Who reaches the playground: the gate before the page, addresses and ports."""

import asyncio
import re
import socket
from typing import Any

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'esamp[play]'")

from esamp.cli import main
from esamp.errors import InputError, OptionError
from esamp.play.access import AccessGate, Message, Receive, Send
from esamp.play.server import LOCAL, address, is_local, listen

TOKEN = "a-token-of-ours"


async def page(scope: Message, receive: Receive, send: Send) -> None:
    """The application behind the gate."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"yes")]})
    await send({"type": "http.response.body", "body": b"the page"})


def get(gate: AccessGate, path: str = "/", *, kind: str = "http", **headers: str) -> tuple[Any, dict[str, str], str]:
    """Status, headers and body of the answer to a request; of a refused WebSocket its code."""
    where, _, query = path.partition("?")
    sent = {"host": "127.0.0.1:7860", **headers}
    scope = {
        "type": kind,
        "path": where,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
        "server": ("127.0.0.1", 7860),
    }
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    asyncio.run(gate(scope, None, send))  # type: ignore[arg-type]
    if messages[0]["type"] == "websocket.close":
        return messages[0]["code"], {}, ""
    found = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], found, messages[1]["body"].decode()


def test_without_the_token_nothing_is_served() -> None:
    gate = AccessGate(page, token=TOKEN)
    for path in ("/", "/gradio_api/info", "/?token=", "/?token=a-token", f"/?other={TOKEN}", "/?token=%C3%A9"):
        status, headers, body = get(gate, path)
        assert status == 401
        assert "x-page" not in headers
        assert TOKEN not in body
    for cookie in ("", "esamp_play_7860=", "esamp_play_7860=wrong", f"other={TOKEN}", "\xe9=;;;", "a=b; c"):
        assert get(gate, cookie=cookie)[0] == 401
    assert get(gate, kind="websocket")[0] == 1008


def test_the_address_with_the_token_sets_a_cookie_and_leads_to_the_address_without_it() -> None:
    gate = AccessGate(page, token=TOKEN)
    status, headers, body = get(gate, f"/?a=1&token={TOKEN}")
    assert (status, headers["location"], body) == (303, "/?a=1", "")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    assert get(gate, cookie=cookie)[::2] == (200, "the page")


@pytest.mark.parametrize("path", ["//elsewhere.example", "/\\elsewhere.example", "///elsewhere.example/x"])
def test_no_address_leads_to_another_server(path: str) -> None:
    _, headers, _ = get(AccessGate(page, token=TOKEN), f"{path}?token={TOKEN}")
    assert re.match(r"/[^/\\]", headers["location"])


def test_a_browser_may_ask_no_other_server() -> None:
    policy = get(AccessGate(page))[1]["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_only_a_public_page_may_be_shown_in_a_frame() -> None:
    policies = [get(gate)[1]["content-security-policy"] for gate in (AccessGate(page), AccessGate(page, hosts=LOCAL))]
    assert ["frame-ancestors 'self'" in policy for policy in policies] == [False, True]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "evil.example:7860"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"origin": "https://evil.example"}, 421),
        ({"origin": "null"}, 421),
        ({"host": ""}, 421),
    ],
    ids=str,
)
def test_other_sites_cannot_use_a_page_on_this_machine(headers: dict[str, str], status: int) -> None:
    assert get(AccessGate(page, hosts=LOCAL), **headers)[0] == status


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_addresses_of_this_machine_alone_need_no_token(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_all_other_addresses_need_one(host: str) -> None:
    assert not is_local(host)


def test_the_address_shows_the_token_once_and_a_name_that_others_can_use() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address(listening, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert address(listening, "0.0.0.0", TOKEN) == f"http://{socket.gethostname()}:{port}/?token={TOKEN}"
        assert address(listening, "::1", None) == f"http://[::1]:{port}/"


def test_a_port_in_use_is_refused_with_the_flag_to_change() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(OptionError, match=rf"port {port} of 127.0.0.1 is in use: .* --port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_a_server_decides_on_device_and_dtype_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--endpoint", "http://127.0.0.1:1/v1", "--dtype", "float32"]) == 2
    assert "--dtype belongs to a model in this process" in capsys.readouterr().err
