"""Traces in studies and the novelty analysis: hand-computed, by brute force, and with constructed correlations."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esamp.analysis import novelty, passages
from esamp.analysis.load import Block, load
from esamp.analysis.novelty import ArmNovelty, Relation, analyse
from esamp.cli import main
from esamp.engines.base import Completion, Request, Sample
from esamp.engines.token_trace import TokenTrace
from esamp.errors import UnsupportedError
from esamp.metrics.lexical import ngram_embedding
from esamp.report import novelty_report
from esamp.study import config
from esamp.study.grid import cells
from esamp.study.records import Record, SampleRecord, graded_record
from esamp.study.run import load_tasks, run
from esamp.study.store import Store
from esamp.tasks.base import Item
from esamp.tasks.countdown import Countdown
from support.stored_studies import opened

SERIES = {"novelty", "residual", "kl", "surprisal", "entropy", "cosine", "explained"}
TOML = """
name = "traced"
groups = [2]
traces = true
sampling = { max_tokens = 24 }
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
limit = 2
[[methods]]
method = "vanilla"
[[methods]]
method = "esamp"
label = "ours | <b>"
"""


# ---- traces in studies


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its store."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "study.toml").write_text(TOML)
    assert main(["study", "run", str(folder / "study.toml"), "--store", str(folder / "store")]) == 0
    return folder


def loaded(folder: Path) -> tuple[config.Study, Block]:
    study, store, problems = opened(folder)
    return study, load(study, store, problems)[0]


def test_a_study_keeps_measurements_of_every_token(traced: Path) -> None:
    _, block = loaded(traced)
    for label, arm in block.arms.items():
        for sample in (sample for group in arm[0].values() for sample in group.samples):
            assert sample.trace is not None
            assert sample.pieces is not None
            assert set(sample.trace) == SERIES
            assert {len(values) for values in sample.trace.values()} == {len(sample.pieces)} == {sample.tokens}
            assert "".join(sample.pieces) == sample.text
            measured = {name for name, values in sample.trace.items() if values[-1] is not None}
            assert measured == (SERIES if label != "vanilla" else {"surprisal", "entropy"})
    written = (traced / "store").glob("cells/*/records.jsonl")
    numbers = [
        value
        for file in written
        for line in file.read_text().splitlines()
        for sample in json.loads(line)["samples"]
        for values in sample["trace"].values()
        for value in values
        if value is not None
    ]
    assert len(numbers) > 300
    assert all(value == float(f"{value:.5g}") for value in numbers)


def test_traces_change_the_key_of_a_cell_and_no_other_key(traced: Path) -> None:
    with_traces = config.read(traced / "study.toml")
    (traced / "plain.toml").write_text(TOML.replace("traces = true", ""))
    without = config.read(traced / "plain.toml")
    for one, other in zip(cells(with_traces), cells(without), strict=True):
        assert one.key != other.key
        assert one.settings() == {**other.settings(), "traces": True}
        assert "traces" not in other.settings()
    assert main(["study", "status", str(traced / "plain.toml"), "--store", str(traced / "store"), "--json"]) == 0


def test_records_without_traces_are_still_read() -> None:
    line = Record("a", (sample_of(["x"]),), {"tokens": 1, "seconds": 0.5}, {}).as_json()
    for sample in line["samples"]:
        del sample["trace"], sample["pieces"]
    assert Record.of_json(line).samples[0].trace is None
    assert Record.of_json(line).samples[0].pieces is None


def test_traces_of_private_tasks_have_no_texts() -> None:
    class Secret(Countdown):
        private = True

    series = dict.fromkeys(("novelty", "kl", "surprisal", "cosine"), torch.tensor([math.nan, 1 / 3, math.inf]))
    trace = TokenTrace(**series, pieces=("the ", "secret ", "text"))
    item = Item("p", "prompt", {"numbers": (1, 2), "target": 3})
    done = Completion(Request("p", "prompt"), (Sample(0, "the secret text", (5, 6, 7), "stop", trace),), 1, 1.0)
    open_one, private = (graded_record(kind.build(kind.options()), item, done) for kind in (Countdown, Secret))
    assert open_one.samples[0].pieces == ("the ", "secret ", "text")
    assert "secret" not in json.dumps(private.as_json())
    for each in (open_one, private):
        assert each.samples[0].trace == {name: [None, 0.33333, None] for name in series}
        assert Record.of_json(json.loads(json.dumps(each.as_json()))) == each


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_an_engine_without_traces_is_refused_before_anything_is_sampled(engine: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        TOML.replace("[[tasks]]", f'[[models]]\nmodel = "x"\nengine = "{engine}"\n[[tasks]]')
    )
    study, store = config.read(tmp_path / "study.toml"), Store(tmp_path / "store")
    with pytest.raises(UnsupportedError, match="keeps no traces: use engine = 'hf'"):
        run(study, store, load_tasks(study), on_cell=lambda cell, left: lambda samples, tokens: None)
    assert not list((tmp_path / "store").glob("cells/*"))


# ---- semantic distance


def sample_of(
    words: Sequence[str], index: int = 0, trace: Mapping[str, Sequence[float | None]] | None = None
) -> SampleRecord:
    ids = tuple(sum(map(ord, word)) for word in words)
    full = {name: trace.get(name, [None] * len(words)) for name in SERIES} if trace is not None else None
    return SampleRecord(
        index,
        "".join(words),
        ids,
        len(words),
        "stop",
        False,
        None,
        None,
        "",
        full,
        None if full is None else tuple(words),
    )


def counts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of letter counts."""
    table = np.array([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], dtype=np.float32)
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True), dtype=np.float32)


def tabulated(samples: Sequence[SampleRecord], starts: Sequence[int], stride: int = 1) -> passages.PassageTable:
    group = passages.TracedGroup("p", 0, tuple(samples))
    rarity = {token: float(token) for sample in samples for token in sample.token_ids or ()}
    return passages.tabulate(group, np.array(starts), stride, counts, rarity)


def test_distances_match_hand_computed_values() -> None:
    first, second = (sample_of(list(text), index, {}) for index, text in enumerate(("aab", "bba")))
    together = tabulated([first, second], [2]).columns
    # passages a, aa of the first and b, bb of the second: no common letters
    assert together["distance"].tolist() == pytest.approx([1, 1, 1, 1])
    assert together["position"].tolist() == [1, 2, 1, 2]
    assert together["rarity"].tolist() == [97, 98, 98, 97]
    assert together["rarity read"].tolist() == [97, 97, 98, 98]
    longer = [sample_of(list("abcc"), 0, {}), sample_of(list("bacc"), 1, {})]
    # step 1: a against b; step 2: ab against b and ba; step 3: abc against b, ba and bac
    assert tabulated(longer, [2]).columns["distance"].tolist() == pytest.approx([1, 0, 0, 1, 0, 0], abs=1e-6)
    # one after the other: the first has nothing before it, the second all of the first from its first token on:
    # b against a, ab, abc: 1 / sqrt(2); ba and bac against the same
    alone = tabulated(longer, [1, 2]).columns["distance"]
    assert np.isnan(alone[:3]).all()
    assert alone[3:].tolist() == pytest.approx([1 - 1 / math.sqrt(2), 0, 0], abs=1e-6)


def test_distances_match_brute_force() -> None:
    draw = np.random.default_rng(0)
    samples = [
        sample_of([*draw.choice(list("abcde "), size=size)], i, {}) for i, size in enumerate((90, 0, 61, 75, 90))
    ]
    starts, stride = [2, 5], 7
    found = tabulated(samples, starts, stride)
    place = 0
    for sample in samples:
        for step in range(stride, sample.tokens, stride):
            mine = "".join((sample.pieces or ())[max(0, step - passages.PASSAGE) : step])
            wave = sample.index >= 2
            nearest = math.nan
            for other in samples:
                for past in range(stride, other.tokens, stride):
                    before = (other.index >= 2) < wave or ((other.index >= 2) == wave and past <= step)
                    if other.index != sample.index and before:
                        theirs = "".join((other.pieces or ())[max(0, past - passages.PASSAGE) : past])
                        nearest = np.fmax(nearest, float(counts([mine.strip()])[0] @ counts([theirs.strip()])[0]))
            assert found.columns["distance"][place] == pytest.approx(1 - nearest, abs=1e-6, nan_ok=True)
            assert found.columns["position"][place] == step
            assert found.cells[place] == (0, "p", int(wave), step)
            place += 1
    assert place == len(found.cells) == 12 + 8 + 10 + 12


def test_each_passage_is_embedded_once() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return counts(texts)

    twins = tuple(sample_of(list("abcabc"), index, {}) for index in range(3))
    table = passages.tabulate(
        passages.TracedGroup("p", 0, twins), np.array([3]), 1, encode, dict.fromkeys(range(200), 1.0)
    )
    assert len(asked) == len(set(asked)) == 5
    assert table.columns["distance"].tolist() == pytest.approx([0.0] * 15, abs=1e-6)
    blank = (sample_of([" ", "\n", " "], 0, {}), sample_of([], 1, {}))
    assert (
        len(passages.tabulate(passages.TracedGroup("p", 0, blank), np.array([2]), 1, encode, {32: 1.0, 10: 1.0}).cells)
        == 0
    )


# ---- correlations


def simulated(problems: int = 10, n: int = 6, tokens: int = 40, stride: int = 2) -> Block:
    """Traces with known correlations.

    novelty: the distance and noise. cosine: entropy and noise, where entropy follows the distance. explained: noise.
    residual: position and noise. So all but novelty and noise go with the distance only through the covariates.
    """
    draw = np.random.default_rng(1)
    arms: dict[str, dict[int, dict[str, Record]]] = {"esamp": {0: {}}, "vanilla": {0: {}}}
    for problem in range(problems):
        texts = [[*draw.choice(list("abcdefgh"), size=tokens)] for _ in range(n)]
        found = tabulated([sample_of(text, index, {}) for index, text in enumerate(texts)], [n], 1).columns["distance"]
        distance = np.column_stack([np.zeros(n), found.reshape(n, tokens - 1)])
        distance[:, 1:] = (distance[:, 1:] - distance[:, 1:].mean()) / distance[:, 1:].std()
        noise = iter(draw.normal(size=(6, n, tokens)))
        entropy = distance + 0.5 * next(noise)
        series = {
            "novelty": distance + next(noise),
            "cosine": entropy + next(noise),
            "explained": next(noise),
            "residual": np.arange(tokens) / tokens + 0.3 * next(noise),
            "entropy": entropy,
            "surprisal": next(noise) + entropy,
        }
        item = f"p{problem}"
        for arm, kept in (("esamp", set(series)), ("vanilla", {"entropy", "surprisal"})):
            samples = tuple(
                sample_of(text, i, {name: [*map(float, values[i])] for name, values in series.items() if name in kept})
                for i, text in enumerate(texts)
            )
            arms[arm][0][item] = Record(item, samples, {}, {})
    return Block("m", "t", n, tuple(f"p{problem}" for problem in range(problems)), 0, arms)


@pytest.fixture(scope="module")
def known() -> ArmNovelty:
    ticks: list[tuple[int, int]] = []
    found = analyse(simulated(), counts, lambda done, total: ticks.append((done, total)), resamples=300)
    assert ticks == [(done, 10) for done in range(1, 11)]  # groups of the arm with a signal
    assert [each.arm for each in found] == ["esamp"]
    return found[0]


def relation(found: ArmNovelty, name: str) -> Relation:
    return next(each for each in found.relations if each.quantity == name)


def test_the_number_of_analysed_tokens_is_limited(known: ArmNovelty) -> None:
    assert known.stride == math.ceil(6 * 40 / passages.TOKENS) == 2
    assert known.tokens == 10 * 6 * 19  # of 40 tokens, those after 2, 4, ..., 38
    assert known.problems == 10


def test_constructed_correlations_are_recovered(known: ArmNovelty) -> None:
    true = relation(known, "novelty")
    assert true.raw.low > 0.4
    assert true.partial.low > 0.1
    assert true.within.low > 0.1
    borrowed = relation(known, "cosine")
    assert borrowed.raw.low > 0.3
    assert borrowed.partial.low < 0 < borrowed.partial.high
    assert borrowed.within.low < 0 < borrowed.within.high
    assert borrowed.covariates["entropy"].low > 0.5
    assert abs(relation(known, "explained").raw.estimate) < 0.1
    placed = relation(known, "residual")
    assert placed.covariates["position"].low > 0.5
    assert placed.raw.high < -0.1  # passages grow more similar with their length
    assert abs(placed.partial.estimate) < 0.1
    assert abs(placed.within.estimate) < 0.1
    assert true.raw.low < true.raw.estimate < true.raw.high


def test_covariates_are_controlled_for_each_other(known: ArmNovelty) -> None:
    entropy = relation(known, "entropy")
    assert entropy.partial.low > 0.2
    assert entropy.covariates["entropy"].estimate == pytest.approx(1)
    surprisal = relation(known, "surprisal")
    assert surprisal.raw.low > 0.3
    assert abs(surprisal.partial.estimate) < 0.1


def test_arms_without_signal_or_traces_are_left_out() -> None:
    block = simulated(problems=2)
    esamp = block.arms["esamp"][0]
    hidden = {
        item: Record(item, tuple(SampleRecord(*list(vars(s).values())[:10]) for s in group.samples), {}, {})
        for item, group in esamp.items()
    }
    assert hidden["p0"].samples[0].pieces is None
    assert analyse(Block("m", "t", 6, block.items, 0, {"esamp": {0: hidden}}), counts) == []
    one = {item: Record(item, group.samples[:1], {}, {}) for item, group in esamp.items()}
    assert analyse(Block("m", "t", 1, block.items, 0, {"esamp": {0: one}}), counts) == []
    lonely = analyse(block, counts, waves={"esamp": (1, 1, 1, 1, 1, 1)}, resamples=10)[0]
    assert lonely.tokens == 2 * 5 * 19  # the first sample of each group has no other to compare with
    assert all(math.isnan(each.within.estimate) for each in lonely.relations)  # no other sample at the same step


# ---- the report


def test_the_report_has_the_correlations(known: ArmNovelty) -> None:
    text = novelty_report.markdown([known])
    assert text.startswith("## Does the novelty signal mean novelty?\n")
    assert "### m, t, groups of 6" in text
    assert "10 problems; one token in 2 of every sample is looked at, at most 128 a group. Tokens: esamp 1,140." in text
    for control in ("`esamp_noise`", "`surprisal`", "`rarity`", "`esamp_frozen`"):
        assert control in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| esamp")]
    assert [row[1] for row in rows] == ["‖e‖", "‖hL − y‖", "cos(e, w)", "explained"]
    own = relation(known, "novelty").raw
    assert rows[0][2] == f"{own.estimate:+.2f} [{own.low:+.2f}, {own.high:+.2f}]"
    assert novelty_report.markdown([]) == ""


def test_the_csv_has_every_number(known: ArmNovelty) -> None:
    rows = list(csv.DictReader(io.StringIO(novelty_report.csv([known]))))
    assert len(rows) == 9 * (3 + 5)
    row = next(r for r in rows if (r["quantity"], r["with"], r["control"]) == ("novelty", "distance", "within"))
    assert float(row["low"]) == relation(known, "novelty").within.low
    assert (row["model"], row["arm"], row["n"], row["tokens"], row["stride"]) == ("m", "esamp", "6", "1140", "2")


def test_a_traced_study_has_a_novelty_section(traced: Path) -> None:
    study, block = loaded(traced)
    assert novelty.waves(study, block) == {"vanilla": (2,), "ours | <b>": (2,)}
    words: dict[str, int] = {}

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = [[words.setdefault(word, len(words)) for word in text.split()] for text in texts]
        return np.asarray(ngram_embedding([*ids, [10**6]]), dtype=np.float32)[:-1]

    found = analyse(block, encode, waves=novelty.waves(study, block), resamples=50)
    assert [(each.arm, each.problems, each.stride) for each in found] == [("ours | <b>", 2, 1)]
    text = novelty_report.markdown(found)
    assert r"| ours \| &lt;b> | ‖e‖ |" in text
    assert "every token is looked at" in text


def test_waves_are_limited_to_the_batch_size() -> None:
    values: dict[str, Any] = {
        "name": "waves",
        "groups": [10],
        "models": [{"model": "countdown", "batch_rows": 4}],
        "tasks": [{"task": "countdown"}],
        "methods": [{"method": "vanilla"}, {"method": "esamp", "options": {"waves": 2}, "label": "two"}],
    }
    block = Block("countdown", "countdown", 10, (), 0, {})
    assert novelty.waves(config.parse(values), block) == {"vanilla": (4, 4, 2), "two": (4, 1, 4, 1)}
