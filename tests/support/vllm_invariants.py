"""Invariants of a schedule's run on a vLLM engine: during it, after it, and between two runs."""

from collections.abc import Mapping
from typing import Any

from support.vllm_schedule_runs import Log, Received
from support.vllm_schedules import CHOICES, INVALID, Arrival


def check_finishes(log: Log) -> None:
    """Every sample ended exactly once, with a finish reason and within its token limit."""
    for arrival in log.schedule.arrivals:
        for index in range(0 if arrival.refused else arrival.n):
            received = log.received[arrival.name, index]
            assert log.ends[arrival.name, index] == 1, (
                f"{arrival.name, index} ended {log.ends[arrival.name, index]} times"
            )
            assert received.reason in ("stop", "length", "aborted"), f"{arrival.name, index}: {received}, {arrival}"
            assert len(received.tokens) <= arrival.params["max_tokens"]
            _check_sample(arrival.params, received)


def _check_sample(params: Mapping[str, Any], received: Received) -> None:
    """A sample satisfies the constraints of its request, steered or not."""
    allowed = set(params.get("allowed_token_ids", received.tokens))
    assert allowed >= set(received.tokens)
    if params.get("logit_bias", {}).get(31):
        assert 31 not in received.tokens
    if params.get("bad_words") == ["7"]:
        assert 29 not in received.tokens
    if "min_tokens" in params and received.reason != "aborted":
        assert len(received.tokens) >= params["min_tokens"]
    if "structured_outputs" in params:
        text = received.text.replace(" ", "")
        if "choice" in params["structured_outputs"]:
            assert any(choice.startswith(text) for choice in CHOICES), text
        else:
            assert text == "" or (text.isdigit() and len(text) <= 13), text
    assert all(abs(value) < 1e4 for each in received.logprobs for _, value in each if value != float("-inf"))


def check_learned_rows(log: Log) -> None:
    """Groups with a slot were trained on every token but the first of each sample, and traces have as many entries."""
    expected = 0
    for arrival in log.schedule.arrivals:
        telemetry = log.telemetry.get(arrival.name)
        arrived_samples = [
            log.received[arrival.name, index] for index in range(arrival.n) if (arrival.name, index) in log.arrived
        ]
        if arrival.refused or not arrival.has_method or not arrived_samples:
            continue
        assert telemetry is not None, f"{arrival.name}: its group is no longer known"
        rows = sum(max(0, len(received.tokens) - 1) for received in arrived_samples)
        if "groups_refused" in telemetry:
            continue
        expected += rows
        if arrival.group is None:
            assert telemetry["rows"] == rows or telemetry["resets"], (
                f"{arrival.name}: {telemetry['rows']} rows, {rows} trainable tokens"
            )
        _check_trace(log, arrival)
    assert log.counters["rows"] == expected or log.counters["resets"], f"{log.counters['rows']} rows of {expected}"
    assert log.counters["rows_steered"] > 0
    assert log.counters["updates"] > 0


def _check_trace(log: Log, arrival: Arrival) -> None:
    trace = log.traces[arrival.name]
    assert arrival.extra is not None
    if "trace" not in arrival.extra:
        assert trace is None
        return
    assert trace is not None
    for index, measured in trace.items():
        tokens = len(log.received[arrival.name, index].tokens)
        assert measured.shape == (3, max(1, tokens)), f"{arrival.name, index}: {measured.shape}, {tokens} tokens"
        assert measured[0].isnan().sum() == 1 or log.counters["resets"], f"{arrival.name, index}: {measured[0]}"


def check_admissions(log: Log) -> None:
    """Every group was admitted or refused exactly once."""
    arrived = {name for name, _ in log.arrived}
    requests = [request for request in log.schedule.arrivals if request.has_method and request.name in arrived]
    own = sum(request.group is None for request in requests)
    named = [request for request in requests if request.group is not None]
    counted = log.counters["groups_admitted"] + log.counters["groups_refused"]
    assert own + bool(named) <= counted <= own + len(named), (
        f"{counted} groups, {own} requests and {len(named)} in others"
    )
    assert log.counters["groups_refused"] >= sum(request.extra in INVALID for request in requests)


def check_equal(log: Log, other: Log, names: set[str]) -> None:
    """Both runs have the same batches, and bitwise equal tokens and log-probabilities of the requests in `names`.

    Their telemetry and traces are equal too, where both engines have them.
    """
    for step, (one, two) in enumerate(zip(log.batches, other.batches, strict=True)):
        assert one == two, f"step {step}: {one} and {two}"
    for key, received in log.received.items():
        if key[0] in names:
            assert received == other.received[key], f"{key}: {received} and {other.received[key]}"
    for name in names:
        assert log.prompts.get(name) == other.prompts.get(name)
    for name in names & log.telemetry.keys() & other.telemetry.keys():
        assert repr(log.telemetry[name]) == repr(other.telemetry[name]), (
            name
        )  # as text, because NaN differs from itself
        one, two = log.traces[name] or {}, other.traces[name] or {}
        assert one.keys() == two.keys()
        assert all(one[index].numpy().tobytes() == two[index].numpy().tobytes() for index in one), name


def check_first_tokens(log: Log, other: Log) -> None:
    """The first token of every sample is the model's own, and so are its and the prompt's log-probabilities."""
    for key, received in log.received.items():
        assert received.tokens[:1] == other.received[key].tokens[:1], f"{key}: {received} and {other.received[key]}"
        assert received.logprobs[:1] == other.received[key].logprobs[:1], f"{key}: {received} and {other.received[key]}"
    assert log.prompts == other.prompts
