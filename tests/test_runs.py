"""Runs: prompts that are checked, and an output file that survives whatever ends the process."""

import io
import json
import multiprocessing
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request, Sample
from esamp.errors import EsampError, InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.methods.vanilla import VanillaOptions
from esamp.runs.job import Job, RunOptions, remaining, run
from esamp.runs.output import OutputFile
from esamp.runs.prompts import Prompt, as_messages, from_texts, parse_jsonl, read_jsonl, read_text
from esamp.sampling import Sampling


class Parrot(Engine):
    """Shuffles the words of the prompt; dies before prompt number `dies_at`."""

    def __init__(self, *, dies_at: int | None = None, telemetry: Mapping[str, float] | None = None) -> None:
        self.dies_at, self.telemetry = dies_at, telemetry or {}
        self.asked: list[str] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        for number, request in enumerate(requests):
            if number == self.dies_at:
                raise KeyboardInterrupt
            self.asked.append(request.id)
            words = str(request.prompt).split()
            noise = random.Random(request.seed)
            texts = [" ".join(noise.sample(words, len(words))) for _ in range(request.n)]
            samples = [Sample(index, text, tuple(range(len(words))), "stop") for index, text in enumerate(texts)]
            if progress:
                progress(request.n, request.n * len(words))
            yield Completion(request, tuple(samples), len(words), 0.1, self.telemetry)


PROMPTS = from_texts(["one two three", "four five six", "seven eight nine"])
JOB = Job(RunOptions(method="vanilla", n=2), Sampling(), VanillaOptions())


def do(job: Job, path: Path, engine: Engine, prompts: list[Prompt] = PROMPTS) -> list[str]:
    """Run as the command does; the ids of what was generated now."""
    with OutputFile(path, job.settings()) as output:
        todo = remaining(job, prompts, output)
        return [completion.request.id for completion in run(job, todo, lambda: engine, output=output)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- prompts


def test_a_prompt_from_each_line() -> None:
    text = b"""{"prompt": "a"}

{"prompt": "b", "id": "x", "answer": 3}
{"messages": [{"role": "user", "content": "c"}], "id": 7}"""
    first, second, third = parse_jsonl(io.BytesIO(text), name="in.jsonl")
    assert (first.content, second.content) == ("a", "b")
    assert third.content == ({"role": "user", "content": "c"},)
    assert (second.id, third.id) == ("x", "7")
    assert len(first.id) == 12


def test_texts_become_users_messages_and_get_the_ids_of_messages() -> None:
    lines = [b'{"prompt": "a"}', b'{"messages": [{"role": "user", "content": "b"}]}', b'{"prompt": "b"}']
    lines += [b'{"prompt": "a"}', b'{"prompt": "a", "id": "x"}']
    plain = parse_jsonl(lines, name="in")
    given = [json.dumps({"messages": [{"role": "user", "content": text}]}).encode() for text in ("a", "b", "b", "a")]
    messages = parse_jsonl([*given, given[0][:-1] + b', "id": "x"}'], name="in")
    assert as_messages(plain) == messages
    assert as_messages(messages) == messages
    assert {prompt.id for prompt in messages} & {prompt.id for prompt in plain} == {plain[1].id, "x"}


def test_ids_do_not_depend_on_the_neighbours() -> None:
    alone = from_texts(["b"])
    assert from_texts(["a", "b", "b"])[1:] == [*alone, Prompt(f"{alone[0].id}-2", "b", 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"', "not valid JSON .* at column"),
        (b'"text"', "expected an object"),
        (b"[1]", "expected an object"),
        (b'{"promt": "a"}', 'expected either "prompt" or "messages"; its keys: \'promt\''),
        (b'{"prompt": "a", "messages": []}', "expected either"),
        (b'{"prompt": 3}', '"prompt" should be a text, not 3'),
        (b'{"prompt": null}', '"prompt" should be a text, not null'),
        (b'{"prompt": "\\ud800"}', "half a surrogate pair"),
        (b'{"prompt": "\xff"}', "not valid UTF-8"),
        (b'{"prompt": "a", "id": 1.5}', '"id" should be a text or a whole number, not 1.5'),
        (b'{"prompt": "a", "id": true}', '"id" should be a text or a whole number'),
        (b'{"prompt": "a", "id": ""}', '"id" should be a text or a whole number'),
        (b'{"messages": []}', "at least one message"),
        (b'{"messages": "hi"}', "should be a list"),
        (b'{"messages": [{"role": "user"}]}', 'a message needs "role" and "content"'),
        (b'{"messages": [{"role": "user", "content": ["x"]}]}', 'a message needs "role" and "content"'),
        (b"[" * 100_000, "not usable as JSON|not valid JSON"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "not usable as JSON"),
        (b'{"prompt": "b", "id": "first"}', "the id 'first' was already used at in.jsonl:1"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^in.jsonl:3: .*({message})"):
        parse_jsonl([b'{"prompt": "a", "id": "first"}', b"", line], name="in.jsonl")


def test_a_message_about_a_line_is_short() -> None:
    with pytest.raises(InputError) as caught:
        parse_jsonl([json.dumps({"prompt": ["x" * 1000]}).encode()], name="in.jsonl")
    assert len(str(caught.value)) < 150


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(InputError, match="has no prompts"):
        read_jsonl(tmp_path / "empty")
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_jsonl(tmp_path / "missing")
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_jsonl(tmp_path)


def test_standard_input_is_one_prompt() -> None:
    assert [prompt.content for prompt in read_text(io.BytesIO(b"two\nlines\n"), name="stdin")] == ["two\nlines"]
    with pytest.raises(InputError, match="stdin is empty"):
        read_text(io.BytesIO(b"\n"), name="stdin")
    with pytest.raises(InputError, match="stdin is not valid UTF-8"):
        read_text(io.BytesIO(b"\xff"), name="stdin")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_every_text_survives_the_file(texts: list[str]) -> None:
    encoded = [json.dumps({"prompt": text}).encode() for text in texts]
    if encoded:
        parsed = parse_jsonl(encoded, name="in")
        assert [prompt.content for prompt in parsed] == texts
        assert parsed == from_texts(texts)
        assert len({prompt.id for prompt in parsed}) == len(texts)


# ---- jobs


def test_a_repeated_prompt_gets_other_samples() -> None:
    first, second = (JOB.request(prompt) for prompt in from_texts(["a", "a"]))
    assert first.seed == 0
    assert second.seed != first.seed
    assert 0 <= second.seed < 2**63


def test_the_key_knows_prompt_and_settings_and_not_the_device() -> None:
    keys = {
        JOB.key(PROMPTS[0]),
        JOB.key(PROMPTS[1]),
        JOB.key(Prompt("other", PROMPTS[0].content)),
        Job(RunOptions(method="vanilla", n=3), Sampling(), VanillaOptions()).key(PROMPTS[0]),
        Job(JOB.run, Sampling(top_k=3), VanillaOptions()).key(PROMPTS[0]),
        Job(JOB.run, JOB.sampling, ESampConfig()).key(PROMPTS[0]),
    }
    assert len(keys) == 6
    moved = Job(JOB.run.replace(device="cuda", batch_rows=2), JOB.sampling, JOB.options)
    assert moved.key(PROMPTS[0]) == JOB.key(PROMPTS[0])


def test_a_preset_is_the_same_run_as_its_values() -> None:
    paper = Job(JOB.run, JOB.sampling, ESampConfig(preset="paper")).settings()["options"]
    assert paper["distiller"] == "mlp"


# ---- the output file


def test_a_line_per_prompt(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    engine = Parrot(telemetry={"steps": 3.0, "kl": float("nan"), "explained_variance": float("-inf")})
    assert do(JOB, path, engine) == [prompt.id for prompt in PROMPTS]
    assert engine.closed
    first = lines(path)[0]
    assert first["prompt"] == "one two three"
    assert first["telemetry"] == {"steps": 3.0, "kl": None, "explained_variance": None}
    assert [sorted(sample["text"].split()) for sample in first["samples"]] == [["one", "three", "two"]] * 2
    assert first["samples"][0]["tokens"] == 3
    assert first["settings"] == JOB.settings()


def test_a_second_run_does_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    dying = Parrot(dies_at=1)
    with pytest.raises(KeyboardInterrupt):
        do(JOB, path, dying)
    assert dying.closed
    assert len(lines(path)) == 1
    assert do(JOB, path, Parrot()) == [PROMPTS[1].id, PROMPTS[2].id]
    assert do(JOB, path, Parrot()) == []
    whole = tmp_path / "whole.jsonl"
    do(JOB, whole, Parrot())
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_run_starts_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    with OutputFile(path, JOB.settings()) as output:
        todo = remaining(JOB, PROMPTS, output)
        assert list(run(JOB, todo, lambda: pytest.fail("started"), output=output)) == []


def test_prompts_may_be_added_and_reordered(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    more = from_texts(["new", "seven eight nine", "one two three"])
    assert do(JOB, path, Parrot(), more) == [more[0].id]


def test_a_line_torn_at_any_byte_is_dropped_and_redone(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    do(JOB, whole, Parrot())
    text = whole.read_bytes()
    last = text.rstrip(b"\n").rfind(b"\n") + 1
    path = tmp_path / "torn.jsonl"
    for cut in [*range(last, last + 20), *range(last + 20, len(text), 37), len(text) - 1]:
        path.write_bytes(text[:cut])
        with OutputFile(path, JOB.settings()) as output:
            assert output.torn == (cut > last)
            assert len(output.done) == 2
        assert path.read_bytes() == text[:last]
        assert do(JOB, path, Parrot()) == [PROMPTS[2].id]
        assert path.read_bytes() == text


def test_an_interrupted_append_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OutputFile(path, JOB.settings()) as output:
        output.append("a", {})
        second = path.read_bytes().replace(b'"key": "a"', b'"key": "b"')
        output._file.write(second + second[:30])
        assert output.done == {"a"}
        output.recover()
        assert (output.done, output.torn) == ({"a", "b"}, True)
        output.append("d", {})
    assert [line["key"] for line in lines(path)] == ["a", "b", "d"]


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    text = path.read_bytes()
    path.write_bytes(text + b'{"esamp": "ab' + b"\0" * 100)
    with OutputFile(path, JOB.settings()) as output:
        assert output.torn
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "content", [b"my diary", b"my diary\n", b'{"a": 1}\n', b'{"key": "a"}', b'"key"\n', b"\xff\xfe\n"]
)
def test_somebody_elses_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"diary.txt:1 was not written by such a run"):
        OutputFile(path, JOB.settings())
    assert path.read_bytes() == content


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"key": "broken\n' + third)
    with pytest.raises(InputError, match=r"out.jsonl:2 was not written"):
        OutputFile(path, JOB.settings())


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    before = path.read_bytes()
    other = Job(JOB.run.replace(n=5), Sampling(temperature=0.5, stop=("x",)), VanillaOptions())
    with pytest.raises(InputError) as caught:
        OutputFile(path, other.settings())
    text = str(caught.value)
    assert "out.jsonl:1 was written with other settings" in text
    assert "n = 2 there, 5 here" in text
    assert "sampling.temperature = 1.0 there, 0.5 here" in text
    assert 'sampling.stop = [] there, ["x"] here' in text
    assert path.read_bytes() == before


def test_another_method_is_told_shortly(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    do(JOB, path, Parrot())
    with pytest.raises(InputError, match=r'method = "vanilla" there, "esamp" here.*and \d+ more') as caught:
        OutputFile(path, Job(JOB.run.replace(method="esamp"), Sampling(), ESampConfig()).settings())
    assert len(str(caught.value)) < 500


def _open(path: Path, answer: "multiprocessing.Queue[str]") -> None:
    try:
        OutputFile(path, JOB.settings())
        answer.put("opened")
    except InputError as error:
        answer.put(str(error))


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[str] = context.Queue()
    with OutputFile(path, JOB.settings()):
        process = context.Process(target=_open, args=(path, answer))
        process.start()
        assert "is being written by another process" in answer.get(timeout=120)
        process.join()
    with OutputFile(path, JOB.settings()) as output:
        assert output.done == set()


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot open .*: No such file"):
        OutputFile(tmp_path / "missing" / "out.jsonl", JOB.settings())
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(InputError, match="not a regular file"):
            OutputFile(path, JOB.settings())


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.jsonl", JOB.settings())
    output._file.close()
    output._file = io.FileIO("/dev/full", "ab")
    with output, pytest.raises(EsampError, match=r"cannot write .*No space left"):
        output.append("key", {})
    assert output.done == set()


def test_text_that_is_no_unicode_is_still_json(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OutputFile(path, JOB.settings()) as output:
        output.append("key", {"text": "half \ud800 \u2028 \x85 \x00 ü"})
    assert "ü" in path.read_bytes().decode()
    assert json.loads(path.read_bytes())["text"] == "half \ud800 \u2028 \x85 \x00 ü"
    with OutputFile(path, JOB.settings()) as output:
        assert output.done == {"key"}


# ---- methods that do not act


@pytest.mark.parametrize("telemetry", [{}, {"rows_steered": 0.0, "steps": 3.0}])
def test_a_method_that_never_acted_is_an_error_and_not_a_line(tmp_path: Path, telemetry: dict[str, float]) -> None:
    job = Job(RunOptions(), Sampling(), ESampConfig())
    path = tmp_path / "out.jsonl"
    with pytest.raises(InactiveMethodError, match=r"method 'esamp' should have acted on request .* and never did"):
        do(job, path, Parrot(telemetry=telemetry))
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "telemetry", "texts"),
    [
        (ESampConfig(), {"rows_steered": 1.0}, ["one two three"]),
        (ESampConfig(beta=0.0), {"rows_steered": 0.0}, ["one two three"]),
        (ESampConfig(), {"rows_steered": 0.0}, ["one two"]),
    ],
)
def test_a_method_may_honestly_do_nothing(
    tmp_path: Path, options: ESampConfig, telemetry: dict[str, float], texts: list[str]
) -> None:
    job = Job(RunOptions(), Sampling(), options)
    assert len(do(job, tmp_path / "out.jsonl", Parrot(telemetry=telemetry), from_texts(texts))) == 1
