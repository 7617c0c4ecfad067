"""Judges with scripted verdicts behind a real HTTP server, and finished studies for them to judge."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="the official client is not installed: pip install 'esamp[openai]'")

from esamp.study import config
from esamp.study.grid import cells, item_key
from esamp.study.records import Record, SampleRecord
from esamp.study.run import load_tasks
from esamp.study.store import Store
from support.scripted_server import Reply, ScriptedServer

Groups = dict[str, list[str]]
"""The texts that a judge is shown, by the letter of their group."""
Behaviour = Callable[[Groups], str]
"""From the texts to the judge's reply."""


def groups(question: str) -> Groups:
    """The texts of a judge's question, by the letter of their group."""
    mark = re.search(r"lines that begin with (#\w+)\.", question)
    assert mark is not None
    found: Groups = {}
    for letter, text in re.findall(
        rf"(?ms)^{mark[1]} text \d+ of group (\w)\n(.*?)\n{mark[1]} end of text \d+ of group \1[^\n]*$", question
    ):
        found.setdefault(letter, []).append(text)
    return found


def length(texts: Sequence[str]) -> int:
    return sum(map(len, texts))


def first(seen: Groups) -> str:
    return 'I like what comes first.\n{"winner": "A"}'


def longer(seen: Groups) -> str:
    a, b = length(seen["A"]), length(seen["B"])
    return json.dumps({"winner": "tie" if a == b else "A" if a > b else "B"})


def shorter(seen: Groups) -> str:
    return {"A": '{"winner": "B"}', "B": '{"winner": "A"}', "tie": '{"winner": "tie"}'}[
        json.loads(longer(seen))["winner"]
    ]


def longest(seen: Groups) -> str:
    """Ranks groups by the length of their texts; groups of equal length share a rank."""
    sizes = sorted({length(texts) for texts in seen.values()}, reverse=True)
    steps = [[letter for letter, texts in seen.items() if length(texts) == size] for size in sizes]
    return "Let me see.\n" + json.dumps({"ranking": [step if len(step) > 1 else step[0] for step in steps]})


def chat(content: str | None, reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": {"completion_tokens": 5}}


class ScriptedJudge(ScriptedServer):
    """Serves several judges by model name. Replies in `early` are sent before any verdict."""

    def __init__(self, **judges: Behaviour) -> None:
        super().__init__()
        self.judges = judges
        self.models = (200, {"data": [{"id": name} for name in judges]})
        self.early: list[Reply] = []
        self.refuses = ""
        """questions that contain this text are answered with status 400"""

    def next(self, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        super().next(body, headers)
        with self._lock:
            if self.early:
                return self.early.pop(0)
        question = body["messages"][0]["content"]
        if self.refuses and self.refuses in question:
            return 400, {"error": {"message": "a filter does not like it"}}
        return 200, chat(self.judges[body["model"]](groups(question)))

    @property
    def questions(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]


def finished(folder: Path, arms: Mapping[str, Callable[[int, int], str]], *, n: int = 3, problems: int = 6) -> Path:
    """The file of a finished study: arm by arm, `arms` maps a label to the text of (problem index, sample index)."""
    temperatures = iter(range(1, 20))
    methods = "".join(
        f'[[methods]]\nmethod = "vanilla"\nlabel = "{label}"\nsampling = {{ temperature = 0.{next(temperatures)} }}\n'
        for label in arms
    )
    file = folder / "study.toml"
    file.write_text(
        f'name = "judged"\ngroups = [{n}]\n[[models]]\nmodel = "countdown"\n'
        f'[[tasks]]\ntask = "countdown"\nlimit = {problems}\n{methods}'
    )
    study, store = config.read(file), Store(folder / "store")
    loaded = load_tasks(study)
    for cell, text in zip(cells(study), arms.values(), strict=True):
        with store.open(cell) as records:  # type: ignore[union-attr]
            for number, item in enumerate(loaded["countdown"].items):
                samples = tuple(
                    SampleRecord(index, text(number, index), (1,), 1, "stop", False, None, None, "")
                    for index in range(n)
                )
                cost = {"tokens": n, "prompt_tokens": 1, "calls": n, "seconds": 1.0}
                records.append(item_key(item), Record(item.id, samples, cost, {"kl": 0.5}).as_json())
    return file
