"""Runs: validation of prompts, and an output file that stays valid if the process is killed."""

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


class Shuffler(Engine):
    """Shuffles the words of each prompt; raises KeyboardInterrupt before request number `interrupt_at`."""

    def __init__(self, *, interrupt_at: int | None = None, telemetry: Mapping[str, float] | None = None) -> None:
        self.interrupt_at, self.telemetry = interrupt_at, telemetry or {}
        self.requested: list[str] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def outcomes(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Outcome]:
        for number, request in enumerate(requests):
            if number == self.interrupt_at:
                raise KeyboardInterrupt
            self.requested.append(request.id)
            words = str(request.prompt).split()
            shuffle = random.Random(request.seed)
            texts = [" ".join(shuffle.sample(words, len(words))) for _ in range(request.n)]
            samples = [Sample(index, text, tuple(range(len(words))), "stop") for index, text in enumerate(texts)]
            if progress:
                progress(request.n, request.n * len(words))
            yield Completion(request, tuple(samples), len(words), 0.1, self.telemetry)


PROMPTS = from_texts(["one two three", "four five six", "seven eight nine"])
JOB = Job(RunOptions(method="vanilla", n=2), Sampling(), VanillaOptions())


def generate(job: Job, path: Path, engine: Engine, prompts: list[Prompt] = PROMPTS) -> list[str]:
    """Run a job like the command `esamp generate`; returns the ids of the prompts generated now."""
    with OutputFile(path, job.settings()) as output:
        missing = remaining(job, prompts, output)
        return [completion.request.id for completion in run(job, missing, lambda: engine, output=output)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- prompts


def test_each_line_gives_a_prompt() -> None:
    text = b"""{"prompt": "a"}

{"prompt": "b", "id": "x", "answer": 3}
{"messages": [{"role": "user", "content": "c"}], "id": 7}"""
    first, second, third = parse_jsonl(io.BytesIO(text), name="in.jsonl")
    assert (first.content, second.content) == ("a", "b")
    assert third.content == ({"role": "user", "content": "c"},)
    assert (second.id, third.id) == ("x", "7")
    assert len(first.id) == 12


def test_texts_become_user_messages_with_the_ids_of_messages() -> None:
    lines = [b'{"prompt": "a"}', b'{"messages": [{"role": "user", "content": "b"}]}', b'{"prompt": "b"}']
    lines += [b'{"prompt": "a"}', b'{"prompt": "a", "id": "x"}']
    plain = parse_jsonl(lines, name="in")
    given = [json.dumps({"messages": [{"role": "user", "content": text}]}).encode() for text in ("a", "b", "b", "a")]
    messages = parse_jsonl([*given, given[0][:-1] + b', "id": "x"}'], name="in")
    assert as_messages(plain) == messages
    assert as_messages(messages) == messages
    assert {prompt.id for prompt in messages} & {prompt.id for prompt in plain} == {plain[1].id, "x"}


def test_ids_do_not_depend_on_other_lines() -> None:
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
        (b'{"prompt": ""}', "the prompt is empty: give the text to continue"),
        (b'{"prompt": " \\n"}', "the prompt is empty"),
        (b'{"messages": [{"role": "user", "content": ""}]}', "the last message is empty: give the question"),
        (b'{"messages": []}', "at least one message"),
        (b'{"messages": "hi"}', "should be a list"),
        (b'{"messages": [{"role": "user"}]}', 'a message needs "role" and "content"'),
        (b'{"messages": [{"role": "user", "content": ["x"]}]}', 'a message needs "role" and "content"'),
        (b"[" * 100_000, "not usable as JSON|not valid JSON"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "not usable as JSON"),
        (b'{"prompt": "b", "id": "first"}', "the id 'first' was already used at in.jsonl:1"),
    ],
)
def test_an_invalid_line_error_names_the_line(line: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^in.jsonl:3: .*({message})"):
        parse_jsonl([b'{"prompt": "a", "id": "first"}', b"", line], name="in.jsonl")


def test_an_error_about_a_line_is_short() -> None:
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


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)))
def test_every_text_round_trips_through_the_file(texts: list[str]) -> None:
    encoded = [json.dumps({"prompt": text}).encode() for text in texts]
    if encoded:
        parsed = parse_jsonl(encoded, name="in")
        assert [prompt.content for prompt in parsed] == texts
        assert parsed == from_texts(texts)
        assert len({prompt.id for prompt in parsed}) == len(texts)


def test_an_empty_prompt_is_refused_with_its_number() -> None:
    with pytest.raises(InputError, match="prompt 2 is empty: give the text to continue"):
        from_texts(["one", " "])


# ---- jobs


def test_a_repeated_prompt_gets_other_samples() -> None:
    first, second = (JOB.request(prompt) for prompt in from_texts(["a", "a"]))
    assert first.seed == 0
    assert second.seed != first.seed
    assert 0 <= second.seed < 2**63


def test_the_key_depends_on_prompt_and_settings_but_not_on_the_device() -> None:
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


def test_settings_contain_the_values_of_a_preset() -> None:
    paper = Job(JOB.run, JOB.sampling, ESampConfig(preset="paper")).settings()["options"]
    assert paper["distiller"] == "mlp"


# ---- the output file


def test_a_line_per_prompt(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    engine = Shuffler(telemetry={"steps": 3.0, "kl": float("nan"), "explained_variance": float("-inf")})
    assert generate(JOB, path, engine) == [prompt.id for prompt in PROMPTS]
    assert engine.closed
    first = lines(path)[0]
    assert first["prompt"] == "one two three"
    assert first["telemetry"] == {"steps": 3.0, "kl": None, "explained_variance": None}
    assert [sorted(sample["text"].split()) for sample in first["samples"]] == [["one", "three", "two"]] * 2
    assert first["samples"][0]["tokens"] == 3
    assert first["settings"] == JOB.settings()


def test_a_second_run_generates_the_missing_prompts(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    interrupted = Shuffler(interrupt_at=1)
    with pytest.raises(KeyboardInterrupt):
        generate(JOB, path, interrupted)
    assert interrupted.closed
    assert len(lines(path)) == 1
    assert generate(JOB, path, Shuffler()) == [PROMPTS[1].id, PROMPTS[2].id]
    assert generate(JOB, path, Shuffler()) == []
    whole = tmp_path / "whole.jsonl"
    generate(JOB, whole, Shuffler())
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_run_starts_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
    with OutputFile(path, JOB.settings()) as output:
        missing = remaining(JOB, PROMPTS, output)
        assert list(run(JOB, missing, lambda: pytest.fail("started"), output=output)) == []


def test_prompts_may_be_added_and_reordered(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
    more = from_texts(["new", "seven eight nine", "one two three"])
    assert generate(JOB, path, Shuffler(), more) == [more[0].id]


def test_a_last_line_cut_at_any_byte_is_dropped_and_generated_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    generate(JOB, whole, Shuffler())
    text = whole.read_bytes()
    last = text.rstrip(b"\n").rfind(b"\n") + 1
    path = tmp_path / "torn.jsonl"
    for cut in [*range(last, last + 20), *range(last + 20, len(text), 37), len(text) - 1]:
        path.write_bytes(text[:cut])
        with OutputFile(path, JOB.settings()) as output:
            assert output.torn == (cut > last)
            assert len(output.done) == 2
        assert path.read_bytes() == text[:last]
        assert generate(JOB, path, Shuffler()) == [PROMPTS[2].id]
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


def test_zeros_at_the_end_are_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
    text = path.read_bytes()
    path.write_bytes(text + b'{"esamp": "ab' + b"\0" * 100)
    with OutputFile(path, JOB.settings()) as output:
        assert output.torn
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "content", [b"my diary", b"my diary\n", b'{"a": 1}\n', b'{"key": "a"}', b'"key"\n', b"\xff\xfe\n"]
)
def test_a_file_with_other_content_is_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"diary.txt:1 was not written by a run like this one"):
        OutputFile(path, JOB.settings())
    assert path.read_bytes() == content


def test_an_invalid_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"key": "broken\n' + third)
    with pytest.raises(InputError, match=r"out.jsonl:2 was not written"):
        OutputFile(path, JOB.settings())


def test_different_settings_are_an_error_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
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


def test_an_error_about_many_different_settings_is_short(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate(JOB, path, Shuffler())
    with pytest.raises(InputError, match=r'method = "vanilla" there, "esamp" here.*and \d+ more') as caught:
        OutputFile(path, Job(JOB.run.replace(method="esamp"), Sampling(), ESampConfig()).settings())
    assert len(str(caught.value)) < 500


def _open(path: Path, result: "multiprocessing.Queue[str]") -> None:
    try:
        OutputFile(path, JOB.settings())
        result.put("opened")
    except InputError as error:
        result.put(str(error))


def test_a_second_process_cannot_open_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    context = multiprocessing.get_context("spawn")
    result: multiprocessing.Queue[str] = context.Queue()
    with OutputFile(path, JOB.settings()):
        process = context.Process(target=_open, args=(path, result))
        process.start()
        assert "is being written by another process" in result.get(timeout=120)
        process.join()
    with OutputFile(path, JOB.settings()) as output:
        assert output.done == set()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot open .*: No such file"):
        OutputFile(tmp_path / "missing" / "out.jsonl", JOB.settings())
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(InputError, match="not a regular file"):
            OutputFile(path, JOB.settings())


def test_a_full_disk_is_an_error_that_names_the_cause(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.jsonl", JOB.settings())
    output._file.close()
    output._file = io.FileIO("/dev/full", "ab")
    with output, pytest.raises(EsampError, match=r"cannot write .*No space left"):
        output.append("key", {})
    assert output.done == set()


def test_invalid_unicode_is_written_as_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OutputFile(path, JOB.settings()) as output:
        output.append("key", {"text": "half \ud800 \u2028 \x85 \x00 ü"})
    assert "ü" in path.read_bytes().decode()
    assert json.loads(path.read_bytes())["text"] == "half \ud800 \u2028 \x85 \x00 ü"
    with OutputFile(path, JOB.settings()) as output:
        assert output.done == {"key"}


# ---- methods that do not act


@pytest.mark.parametrize("telemetry", [{}, {"rows_steered": 0.0, "steps": 3.0}])
def test_an_inactive_method_is_an_error_and_writes_no_line(tmp_path: Path, telemetry: dict[str, float]) -> None:
    job = Job(RunOptions(), Sampling(), ESampConfig())
    path = tmp_path / "out.jsonl"
    with pytest.raises(InactiveMethodError, match=r'should have acted on prompt "one two three" and never did'):
        generate(job, path, Shuffler(telemetry=telemetry))
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "telemetry", "texts"),
    [
        (ESampConfig(), {"rows_steered": 1.0}, ["one two three"]),
        (ESampConfig(beta=0.0), {"rows_steered": 0.0}, ["one two three"]),
        (ESampConfig(), {"rows_steered": 0.0}, ["one two"]),
    ],
)
def test_an_inactive_method_is_accepted_where_it_has_nothing_to_do(
    tmp_path: Path, options: ESampConfig, telemetry: dict[str, float], texts: list[str]
) -> None:
    job = Job(RunOptions(), Sampling(), options)
    assert len(generate(job, tmp_path / "out.jsonl", Shuffler(telemetry=telemetry), from_texts(texts))) == 1
