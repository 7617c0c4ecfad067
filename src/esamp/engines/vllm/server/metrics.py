"""Metrics for Prometheus: a table of metrics over the workers' counters, and its text.

The text is built for each scrape and appended to vLLM's own. Nothing is registered: with several API server processes
vLLM adds up what each process registered, but the workers' counters are totals already, in whichever process asks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client import exposition as plain
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from typing_extensions import override

LABELS = ("model_name", "engine")
"""The labels of vLLM's own metrics."""
PHASES = ("predict", "mix", "learn")
EOF = b"# EOF\n"
"""Last line of the OpenMetrics format."""


@dataclass(frozen=True)
class Metric:
    """One metric, and the worker's counter that it shows."""

    name: str
    counter: str
    help: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily


METRICS = (
    Metric("rows", "rows", "Tokens decoded by samples whose group has a slot."),
    Metric("rows_steered", "rows_steered", "Tokens whose distribution was changed."),
    Metric("updates", "updates", "Updates of distillers."),
    Metric("resets", "resets", "Slots that were reset because of a number that is not finite."),
    Metric("groups_admitted", "groups_admitted", "Groups of samples that got a slot."),
    Metric(
        "groups_refused",
        "groups_refused",
        "Groups of samples that ran as plain sampling, for example because no slot was free.",
    ),
    Metric("slots", "slots", "Groups that can explore at a time.", GaugeMetricFamily),
    Metric("slots_in_use", "slots_in_use", "Slots of groups that are decoding.", GaugeMetricFamily),
    Metric("slots_idle", "slots_idle", "Slots that idle groups keep until another group needs one.", GaugeMetricFamily),
    Metric("bank_bytes", "bank_bytes", "Memory of all slots, in bytes.", GaugeMetricFamily),
)
EXPLAINED = "Share of the variance of the final hidden states that distillers predicted, since the start."
TIMES = "Milliseconds that exploring took on the device, by phase."


class Counters(Collector):
    """The workers' counters as metric families, one label set per engine."""

    def __init__(self, model: str, engines: Sequence[Mapping[str, float]]) -> None:
        """Take the counters of rank 0 of each data-parallel engine; all ranks of an engine have the same."""
        self._model, self._engines = model, engines

    @override
    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for metric in METRICS:
            family = metric.kind(f"esamp:{metric.name}", metric.help, labels=LABELS)
            for labels, counters in self._labelled():
                if metric.counter in counters:
                    family.add_metric(labels, counters[metric.counter])
            yield family
        explained = GaugeMetricFamily("esamp:explained_variance", EXPLAINED, labels=LABELS)
        times = CounterMetricFamily("esamp:milliseconds", TIMES, labels=(*LABELS, "phase"))
        for labels, counters in self._labelled():
            if counters.get("variance", 0.0) > 0:
                explained.add_metric(labels, 1 - counters["residual"] / counters["variance"])
            for phase in PHASES:
                times.add_metric([*labels, phase], 1000 * counters.get(f"seconds_{phase}", 0.0))
        yield explained
        yield times

    def _labelled(self) -> Iterator[tuple[list[str], Mapping[str, float]]]:
        for index, counters in enumerate(self._engines):
            yield [self._model, str(index)], counters


def extended(text: bytes, content_type: str, model: str, engines: Sequence[Mapping[str, float]]) -> bytes:
    """vLLM's exposition `text` followed by ours, in the same format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Counters(model, engines))
    if content_type.startswith("application/openmetrics-text"):
        return text.removesuffix(EOF) + openmetrics.generate_latest(registry)
    return text + plain.generate_latest(registry)
