"""Requests that fail: what servers and prompts do to a batch, a study and its report, and what is done again."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")

from rich.console import Console

from esamp import cli
from esamp.analysis.load import load
from esamp.cli import main
from esamp.cli.progress import MeasureBar, StudyBars
from esamp.engines.base import Completion, Failure, Outcome, Request
from esamp.engines.hf import HFEngine
from esamp.engines.openai import OpenAIEngine
from esamp.errors import FailedRequestsError, InputError, PromptError, RefusedError, RequestError, UnansweredError
from esamp.methods import registry as methods
from esamp.quoting import first_words
from esamp.runs.failures import FailureRecord, Failures
from esamp.runs.output import OutputFile
from esamp.sampling import Sampling
from esamp.search.base import answer, outcomes
from esamp.study import config
from esamp.study.run import load_tasks, states
from esamp.study.store import Store
from support.scripted_server import Reply, ScriptedServer, completion

KEY = "sk-known-to-one-server"
Output = pytest.CaptureFixture[str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield server
    server.close()


@pytest.fixture
def engine(script: ScriptedServer) -> Iterator[OpenAIEngine]:
    with OpenAIEngine.load("some", retries=0, timeout=20) as loaded:
        yield loaded


def request(prompt: str = "hello", *, id: str = "r", n: int = 1, method: str = "vanilla", **options: Any) -> Request:
    sampling = Sampling(max_tokens=8)
    return Request(id, prompt, n, sampling, method, methods.get(method).options(**options), seed=1)


def kinds(found: list[Outcome]) -> dict[str, str]:
    """By the ids of the requests: ``answered``, or the name of the error."""
    return {
        each.request.id: "answered" if isinstance(each, Completion) else type(each.error).__name__ for each in found
    }


# ---- what servers answer


def choice(index: int, content: object, reason: object, **message: Any) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}


def chat(*choices: dict[str, Any]) -> Reply:
    return 200, {"choices": list(choices), "usage": {"prompt_tokens": 4, "completion_tokens": 9}}


def two(content: object, reason: object) -> Reply:
    return chat(choice(0, content, reason), choice(1, content, reason))


PART = {"type": "text", "text": "yes"}


@pytest.mark.parametrize(
    ("reply", "texts", "ends", "words"),
    [
        (chat(choice(0, "yes", "stop"), choice(1, "", "content_filter")), ["yes", ""], "stop stop", ["content_filter"]),
        (chat(choice(0, None, "content_filter: SAFETY"), choice(1, "no", "length")), ["", "no"], "stop length", None),
        (chat({"index": 0, "finish_reason": "content_filter"}, choice(1, "no", "stop")), ["", "no"], "stop stop", None),
        (two("yes", "content_filter"), ["yes", "yes"], "stop stop", ["content_filter", "content_filter"]),
        (two("yes", "eos_token"), ["yes", "yes"], "stop stop", []),
        (two("yes", "stop_sequence"), ["yes", "yes"], "stop stop", []),
        (two("yes", "STOP"), ["yes", "yes"], "stop stop", []),
        (two("yes", "max_tokens"), ["yes", "yes"], "length length", []),
        (two("yes", "tool_calls"), ["yes", "yes"], "stop stop", ["tool_calls", "tool_calls"]),
        (two(None, "function_call"), ["", ""], "stop stop", ["function_call", "function_call"]),
        (two([PART], "stop"), ["yes", "yes"], "stop stop", []),
        (two([PART, {"type": "text", "text": " no"}], "stop"), ["yes no", "yes no"], "stop stop", []),
        (two([{"type": "thinking", "thinking": [PART]}, PART], "stop"), ["yes", "yes"], "stop stop", []),
        (two(["yes"], "stop"), ["yes", "yes"], "stop stop", []),
        (two([], "stop"), ["", ""], "stop stop", []),
        (
            chat(choice(0, None, "stop", refusal="I will not"), choice(1, "yes", "stop")),
            ["I will not", "yes"],
            None,
            [],
        ),
    ],
    ids=[
        *("filtered", "filter-says-why", "filter-without-message", "filtered-late", "tgi", "tgi-stop", "capitals"),
        *("max_tokens", "tools", "function", "part", "parts", "thinking", "strings", "no-parts", "refusal"),
    ],
)
def test_answers_that_are_read(
    script: ScriptedServer,
    engine: OpenAIEngine,
    reply: Reply,
    texts: list[str],
    ends: str | None,
    words: list[str] | None,
) -> None:
    script.replies = [reply]
    asked = Request("r", ({"role": "user", "content": "hello"},), 2, Sampling(max_tokens=8), "vanilla", seed=1)
    [found] = engine.outcomes([asked])
    assert isinstance(found, Completion)
    assert [sample.text for sample in found.samples] == texts
    if ends is not None:
        assert " ".join(sample.finish_reason for sample in found.samples) == ends
    if words is not None:
        assert [sample.server_reason for sample in found.samples if sample.server_reason] == words


@pytest.mark.parametrize(
    ("reply", "error", "sentence"),
    [
        (two("yes", None), UnansweredError, "finish_reason is 'None'"),
        (two("yes", "abort"), UnansweredError, "finish_reason is 'abort'"),
        (chat(choice(0, "yes", "stop"), choice(1, "no", "error")), UnansweredError, "finish_reason is 'error'"),
        (two("", "content_filter"), PromptError, "filter withheld every sample"),
        ((200, {"choices": []}), UnansweredError, "has no choices"),
        ((200, {"error": {"message": f"upstream of {KEY} is gone"}}), UnansweredError, r"says: upstream of \*\*\* is"),
        ((200, b"<html>busy</html>"), UnansweredError, "not JSON"),
        ((500, {"error": {"message": "oops"}}), UnansweredError, "with 500: oops"),
        ((429, {"error": {"message": "slow down"}}), UnansweredError, "with 429: slow down"),
        ((400, {"error": {"message": "maximum context length is 9"}}), PromptError, "maximum context"),
        ((400, {"error": {"message": "stopped by the content management policy"}}), PromptError, "policy"),
        ((403, {"error": {"message": "your input was flagged"}}), PromptError, "flagged"),
        (None, UnansweredError, "cannot be reached"),  # the connection broke
        ((400, {"error": {"message": "roles must alternate"}}), RefusedError, "roles must alternate"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_request_without_an_answer_is_one_failure_and_the_others_go_on(
    script: ScriptedServer, engine: OpenAIEngine, reply: Reply, error: type[RequestError], sentence: str
) -> None:
    script.answer = lambda prompt: reply if prompt == "bad" else (200, completion(2))
    asked = [request(prompt, id=prompt, n=2) for prompt in ("one", "bad", "two", "three")]
    found = list(engine.outcomes(asked))
    assert kinds(found) == {"one": "answered", "two": "answered", "three": "answered", "bad": error.__name__}
    [failure] = [each for each in found if isinstance(each, Failure)]
    assert failure.error.retry == (error is UnansweredError)
    with pytest.raises(error, match=sentence) as raised:
        list(engine.generate(asked[1:2]))
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_neither_key_nor_prompt_along(
    script: ScriptedServer, engine: OpenAIEngine, status: int
) -> None:
    other = ScriptedServer()
    try:
        script.replies = [(status, f"{other.url}/elsewhere")]
        with pytest.raises(InputError, match=rf"redirects to {other.url}/elsewhere \({status}\)") as raised:
            list(engine.outcomes([request("a secret")]))
        assert not isinstance(raised.value, RequestError)  # every request would meet it
        assert not other.bodies
    finally:
        other.close()


def test_a_search_of_which_a_call_fails_is_one_failure(script: ScriptedServer, engine: OpenAIEngine) -> None:
    script.answer = lambda prompt: (500, "x") if "bad" in prompt else (200, completion(2))
    asked = [request(prompt, id=prompt, n=2, method="majority_vote") for prompt in ("bad", "good")]
    assert kinds(list(outcomes(engine, asked))) == {"bad": "UnansweredError", "good": "answered"}
    with pytest.raises(UnansweredError):
        list(answer(engine, asked))


# ---- prompts that the embedded model cannot read

LONG = "Numbers 3 5 8 9 target 24 " * 200


@pytest.fixture(scope="module")
def embedded() -> HFEngine:
    return HFEngine.load()


def test_prompts_that_do_not_fit_leave_their_batch_as_it_is(embedded: HFEngine) -> None:
    short = [request(f"Numbers {number} 5 8 target 24", id=str(number)) for number in range(3)]
    mixed = [short[0], request(LONG, id="long"), short[1], request(LONG * 2, id="longer"), short[2]]
    found = list(embedded.outcomes(mixed))
    assert kinds(found) == {**dict.fromkeys("012", "answered"), "long": "PromptError", "longer": "PromptError"}
    texts = {each.request.id: each.samples[0].text for each in found if isinstance(each, Completion)}
    assert texts == {each.request.id: each.samples[0].text for each in embedded.generate(short)}
    seconds = {each.seconds for each in found if isinstance(each, Completion)}
    assert len(seconds) == 1  # still one batch
    with pytest.raises(PromptError, match="exceed the model's context"):
        list(embedded.generate(mixed))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompts_file(path: Path, **prompts: str) -> Path:
    path.write_text("".join(json.dumps({"id": name, "prompt": text}) + "\n" for name, text in prompts.items()))
    return path


def generate(capsys: Output, source: Path, output: Path, *more: str) -> tuple[int, str]:
    flags = ["--method", "vanilla", "-n", "1", "--max-tokens", "8", "--raw"]
    code = main(["generate", "--input", str(source), "--output", str(output), *flags, *more])
    return code, capsys.readouterr().err


def test_a_batch_goes_on_behind_a_prompt_that_is_too_long_and_skips_it_the_next_time(
    capsys: Output, tmp_path: Path
) -> None:
    source = prompts_file(tmp_path / "in.jsonl", a="Numbers 1 2 target 3", b=LONG, c="Numbers 4 5 target 9")
    output = tmp_path / "out.jsonl"
    code, told = generate(capsys, source, output)
    assert code == 1
    assert "2 prompts done" in told
    assert "error: 1 of 3 prompts failed (1 would fail again and will be skipped): request 'b': " in told
    written = {line["id"]: line for line in lines(output)}
    assert written["b"]["samples"] == []
    assert written["b"]["failure"]["retry"] is False
    assert "exceed the model's context" in written["b"]["failure"]["reason"]
    assert [len(written[name]["samples"]) for name in "ac"] == [1, 1]
    before = output.read_bytes()
    code, again = generate(capsys, source, output)
    assert (code, output.read_bytes()) == (1, before)
    assert "2 prompts done" in again
    assert "2 of them before this run" in again
    assert "1 of 3 prompts failed" in again


# ---- batches at a server


def at_server(capsys: Output, source: Path, output: Path, *more: str) -> tuple[int, str]:
    return generate(capsys, source, output, "--engine", "openai", "--model", "some", *more)


def test_what_may_pass_is_tried_again_at_the_next_start(script: ScriptedServer, capsys: Output, tmp_path: Path) -> None:
    source = prompts_file(tmp_path / "in.jsonl", a="one", b="two", c="three")
    output = tmp_path / "out.jsonl"
    script.answer = lambda prompt: (200, completion(reason="abort" if prompt == "two" else "stop"))
    code, told = at_server(capsys, source, output)
    assert code == 1
    assert "1 of 3 prompts failed (1 may pass, and the same command tries them again)" in told
    script.answer, asked = None, len(script.bodies)
    assert at_server(capsys, source, output)[0] == 0
    assert [body["prompt"] for body in script.bodies[asked:]] == ["two"]
    assert [line["samples"][0]["text"] for line in lines(output) if line["id"] == "b" and line["samples"]] == [
        "an answer"
    ]
    assert at_server(capsys, source, output)[0] == 0
    assert len(script.bodies) == asked + 1


BAD = {f"bad {number}" for number in range(14)}


@pytest.mark.parametrize(("share", "stops"), [("0.1", True), ("0.5", True), ("0.9", False)])
def test_a_run_stops_at_more_than_its_share_of_failures(
    script: ScriptedServer, capsys: Output, tmp_path: Path, share: str, stops: bool
) -> None:
    source = prompts_file(tmp_path / "in.jsonl", **{f"p{number}": f"bad {number}" for number in range(15)}, a="good")
    output = tmp_path / "out.jsonl"
    script.answer = lambda prompt: (200, completion(reason=None if prompt in BAD else "stop"))
    code, told = at_server(capsys, source, output, "--max-failed", share, "--batch-rows", "1")
    assert code == 1
    assert ("stopped: " in told) == stops
    if stops:
        limit = max(10, int(16 * float(share)) + 1)
        assert f"stopped: {limit} of 16 prompts failed, more than max_failed = {share} allows" in told
        assert "--max-failed" in told
        assert len(lines(output)) == limit
    else:
        assert len(lines(output)) == 16


TOO_LONG: Reply = (400, {"error": {"message": "maximum context length is 9"}})


def test_a_batch_with_too_many_lasting_failures_asks_nothing_more(
    script: ScriptedServer, capsys: Output, tmp_path: Path
) -> None:
    source = prompts_file(tmp_path / "in.jsonl", **{f"p{number}": f"bad {number}" for number in range(12)}, a="good")
    script.answer = lambda prompt: TOO_LONG if prompt in BAD else (200, completion())
    for expected in (10, 0):
        asked = len(script.bodies)
        code, told = at_server(capsys, source, tmp_path / "out.jsonl", "--batch-rows", "1")
        assert code == 1
        assert "stopped: 10 of 13 prompts failed" in told
        assert len(script.bodies) - asked == expected


def test_a_few_failures_never_stop_a_run_and_earlier_ones_count() -> None:
    lasting = FailureRecord("too long", retry=False)
    few = Failures(20, 0.1)
    for _ in range(9):
        few.add(lasting)
    with pytest.raises(FailedRequestsError, match="stopped: 10 of 20 prompts failed"):
        few.add(lasting)
    with pytest.raises(FailedRequestsError, match="stopped"):
        Failures(20, 0.1, records=[lasting] * 10).check()
    Failures(20, 0.1).finish()


def test_a_single_prompt_that_fails_is_the_command_s_own_error(capsys: Output) -> None:
    assert main(["generate", LONG, "--method", "vanilla"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert 'esamp: error: prompt "Numbers 3 5 8 9 target 24 ' in printed.err


def test_prompts_without_a_file_show_why_they_failed(script: ScriptedServer, capsys: Output) -> None:
    script.answer = lambda prompt: (200, completion(reason="abort" if prompt == "two" else "stop"))
    flags = ["--engine", "openai", "--model", "some", "--method", "vanilla", "-n", "1"]
    assert main(["generate", "one", "two", *flags]) == 1
    out, err = capsys.readouterr()
    assert '> two\nfailed: prompt "two": ' in out
    assert "[1] an answer" in out
    assert "1 of 2 prompts failed" in err
    assert main(["generate", "one", "two", *flags, "--json"]) == 1
    told = {line["prompt"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert told["two"]["failure"]["retry"] is True
    assert "failure" not in told["one"]


def test_a_failure_in_a_file_gives_way_to_samples(tmp_path: Path) -> None:
    path, failed = tmp_path / "out.jsonl", FailureRecord("busy", retry=True)
    with OutputFile(path, {}) as file:
        for key in ("a", "b"):
            file.append(key, {"failure": failed.as_json()})
        file.append("a", {"samples": []})
        file.append("c", {"failure": {"reason": "too long", "retry": False}})
        assert (file.done, file.failed["b"]) == ({"a"}, failed)
        assert [file.is_finished(key) for key in "abcd"] == [True, False, True, False]
    with OutputFile(path, {}) as file:
        assert (file.done, set(file.failed)) == ({"a"}, {"b", "c"})


# ---- studies

TOML = """
name = "failing"
embedder = "none"
words = false
likelihood = false
groups = [2]
seeds = [0, 1]
sampling = { max_tokens = 8 }
[[models]]
model = "some"
engine = "openai"
[[tasks]]
task = "countdown"
limit = 3
[[methods]]
method = "vanilla"
[[methods]]
label = "vote [/b] :cat:"
method = "majority_vote"
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(TOML)
    return path


def run(study: Path, command: str = "run", *more: str) -> int:
    return main(["study", command, str(study), "--store", str(study.parent / "store"), *more])


def prompts_of(study: Path) -> list[str]:
    [problems] = load_tasks(config.read(study)).values()
    return [str(item.prompt) for item in problems.items]


def test_a_study_goes_on_and_its_report_leaves_failed_problems_out_of_all_methods(
    script: ScriptedServer, study: Path, capsys: Output
) -> None:
    first, second, _ = prompts_of(study)
    answers: dict[str, Reply] = {
        first: (400, {"error": {"message": "maximum context length is 9 ![x](http://y)"}}),
        second: (200, completion(2, reason="abort")),
    }
    script.answer = lambda prompt: answers.get(prompt, (200, completion(2)))
    assert run(study) == 1
    err = capsys.readouterr().err
    assert "4 groups are in" in err
    assert "8 of 12 groups failed (4 may pass, and the same command tries them again; 4 would fail again" in err
    assert run(study, "status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["failed"], told["total"]) == (4, 8, 12)
    assert sorted(each["retry"] for each in told["cells"][0]["failed"]) == [False, True]
    assert run(study, "status") == 0
    shown = capsys.readouterr().out
    assert "8 groups failed: esamp study run tries 4 of them again" in shown
    words = first_words(first)
    assert words.startswith('"Numbers ')
    where = f"vote [/b] :cat:, 2 samples, seed 0, problem countdown/test/000 ({words}): request 'countdown/test/000': "
    assert where in shown
    del answers[second]
    asked = len(script.bodies)
    assert run(study) == 1
    assert {body["prompt"] for body in script.bodies[asked:]} == {second}
    capsys.readouterr()
    assert run(study, "report", "--no-figures", "--out", str(study.parent / "report")) == 0
    printed = capsys.readouterr()
    assert (
        "2 problems. 1 more problem is left out of all methods because 4 groups failed: request 'countdown/test/000'"
        in (printed.out)
    )
    assert "maximum context length is 9 !\\[x]\\(http://y)" in printed.out
    assert "4 groups failed; their problems are left out" in printed.err
    page = (study.parent / "report" / "index.html").read_text()
    assert "1 more problem is left out of all methods because 4 groups failed" in page
    found, store = config.read(study), Store(study.parent / "store")
    [block] = load(found, store, load_tasks(found))
    assert (len(block.items), block.missing, {group.item for group in block.failed}) == (2, 1, {"countdown/test/000"})


def test_a_study_stops_at_more_than_its_share_of_failures(script: ScriptedServer, study: Path, capsys: Output) -> None:
    study.write_text(TOML.replace("limit = 3", "limit = 8"))
    script.replies = [(200, completion(2, reason=None))]
    assert run(study) == 1
    assert "stopped: 10 of 32 groups failed, more than max_failed = 0.1 allows" in capsys.readouterr().err
    assert len(list(states(config.read(study), Store(study.parent / "store"), load_tasks(config.read(study))))) == 4
    study.write_text("max_failed = 1.0\n" + study.read_text())
    assert run(study) == 1
    assert "32 of 32 groups failed" in capsys.readouterr().err


def test_a_study_with_too_many_lasting_failures_asks_nothing_more(
    script: ScriptedServer, study: Path, capsys: Output
) -> None:
    study.write_text(TOML.replace("limit = 3", "limit = 8"))
    script.replies = [TOO_LONG]
    for _ in range(2):
        asked = len(script.bodies)
        assert run(study) == 1
        assert "stopped: 10 of 32 groups failed" in capsys.readouterr().err
    assert len(script.bodies) == asked


def test_a_method_that_did_not_act_still_ends_a_study(study: Path, capsys: Output) -> None:
    text = TOML.replace('model = "some"\nengine = "openai"', 'model = "countdown"').replace("limit = 3", "limit = 1")
    study.write_text(text + '[[methods]]\nmethod = "esamp"\noptions = { warmup = 1000 }\n')
    assert run(study, "run", "--no-report-check") == 1
    assert "method 'esamp' should have acted" in capsys.readouterr().err


def test_no_words_are_kept_of_private_requests() -> None:
    kept = FailureRecord.of(PromptError("the prompt 'secret' is too long"), private=True)
    assert (kept.reason, kept.retry) == ("PromptError (its task is private)", False)


# ---- what is refused before anything runs


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('engine = "openai"', 'engine = "vlm"', r"[[models]] number 1: option 'engine' = 'vlm': choose from hf, vllm"),
        ('engine = "openai"', 'device = "cuda:77"', "[[models]] number 1: device = 'cuda:77' cannot be used"),
        ('engine = "openai"', 'engine = "openai"\ndevice = "cpu"', "number 1: device = 'cpu': the server decides"),
        ('model = "some"\nengine = "openai"', 'model = "./nowhere"\nchat = false', "[[models]] number 1: model './now"),
        ("limit = 3", 'options = { split = "train" }', "[[tasks]] number 1: split = 'train' has no end: give a limit"),
        ("limit = 3", 'options = { split = "dev" }', "[[tasks]] number 1: option 'split' = 'dev'"),
        ("limit = 3", "skip = 300", "[[tasks]] number 1: task 'countdown': skip = 300 leaves no problem"),
        ('method = "majority_vote"', 'method = "contrastive"', "lacks: leave it out, or use engine hf"),
        ('name = "failing"', 'name = "failing"\ntraces = true', "[[models]] number 1: engine 'openai' keeps no traces"),
        (
            'name = "failing"',
            'name = "failing"\nsecond_model = "./no"',
            "second_model = './no': model './no' cannot be",
        ),
        ("words = false", "max_failed = 2", "option 'max_failed' = 2"),
    ],
    ids=["engine", "device", "server", "folder", "endless", "split", "skip", "method", "traces", "second", "share"],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "start"])
def test_a_study_that_cannot_work_is_refused_with_the_place(
    script: ScriptedServer, study: Path, capsys: Output, old: str, new: str, sentence: str, dry: list[str]
) -> None:
    assert old in TOML
    study.write_text(TOML.replace(old, new))
    assert run(study, "run", *dry) in (1, 2)
    told = capsys.readouterr().err
    assert told.startswith(f"esamp: error: {study}: ")
    assert sentence in told
    assert not script.bodies


def test_a_server_without_an_address_is_refused(study: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert run(study, "run", "--dry-run") == 2
    assert f"{study}: [[models]] number 1: no server: set OPENAI_BASE_URL" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [("openai", "engine 'openai' needs openai"), ("matplotlib", "needs matplotlib")])
def test_a_dry_run_refuses_where_a_package_is_missing(
    script: ScriptedServer, study: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, missing[0], None)
    assert run(study, "run", "--dry-run") == 1
    told = capsys.readouterr().err
    assert f"error: {study}: " in told
    assert missing[1] in told


# ---- labels on the terminal


def test_labels_are_printed_as_they_are(script: ScriptedServer, study: Path, capsys: Output) -> None:
    study.write_text(TOML + '[[methods]]\nmethod = "min_p"\nsampling = { stop = ["[/INST]", "[red]"] }\n')
    assert run(study, "run", "--dry-run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "vote [/b] :cat:" in shown
    assert "['[/INST]', '[red]']" in shown


def test_bars_show_labels_as_they_are(script: ScriptedServer, study: Path) -> None:
    study.write_text(TOML.replace('model = "some"', 'model = "some"\nlabel = "[/x] :cat:"'))
    found = config.read(study)
    every = list(states(found, Store(study.parent / "store"), load_tasks(found)))
    out = StringIO()
    console = Console(file=out, width=200)
    bars, measures = StudyBars(every), MeasureBar()
    bars.model("[/x] :cat:")
    console.print(bars._progress.get_renderable())
    bars.cell(every[-1].cell, 3)
    measures.part("likelihoods under [/x] :cat:", 2)
    console.print(bars._progress.get_renderable(), measures._progress.get_renderable())
    for words in ("loading [/x] :cat:", "countdown, vote [/b] :cat:, seed 1", "likelihoods under [/x] :cat:"):
        assert words in out.getvalue()


def test_every_console_of_the_commands_prints_texts_as_they_are() -> None:
    folder = Path(cli.__file__).parent
    for file in sorted(folder.glob("*.py")):
        text = file.read_text()
        if file.name != "terminal.py":
            assert "Console(" not in text, file.name
        assert '{task.description}"' not in text.replace('TextColumn("{task.description}", markup=False)', ""), (
            file.name
        )
