"""What Prometheus is told: one table of metrics over the workers' counters, and its text.

The text is made anew for each scrape and appended to vLLM's own. Nothing is registered: a registry is one per process,
and with several API server processes vLLM adds up what each of them registered, while every one of them can ask all
engines for numbers that are whole already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client import exposition as plain
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

LABELS = ("model_name", "engine")
"""As vLLM labels its own metrics."""
PHASES = ("predict", "mix", "learn")
EOF = b"# EOF\n"
"""Last line of the OpenMetrics format."""


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, and the counter of the worker that it shows."""

    name: str
    counter: str
    help: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily


METRICS = (
    Metric("rows", "rows", "Tokens decoded by samples whose group has a slot."),
    Metric("rows_steered", "rows_steered", "Tokens whose distribution was changed."),
    Metric("updates", "updates", "Learning steps."),
    Metric("resets", "resets", "Times that a number that is not finite wiped a slot."),
    Metric("groups_admitted", "groups_admitted", "Groups of samples that got a slot."),
    Metric("groups_refused", "groups_refused", "Groups of samples that ran as plain sampling for want of a slot."),
    Metric("slots", "slots", "Groups that can explore at a time.", GaugeMetricFamily),
    Metric("slots_in_use", "slots_in_use", "Slots of groups that are decoding.", GaugeMetricFamily),
    Metric("slots_idle", "slots_idle", "Slots that ended groups keep while nobody needs them.", GaugeMetricFamily),
    Metric("bank_bytes", "bank_bytes", "Memory of all slots, in bytes.", GaugeMetricFamily),
)
EXPLAINED = "Share of the variance of the deep states that is predicted before learning from them, since the start."
TIMES = "Milliseconds of the device that exploring took, by phase."


class Counters(Collector):
    """Answers of the workers as metric families, one label set per engine."""

    def __init__(self, model: str, engines: Sequence[Mapping[str, float]]) -> None:
        """`engines` holds the counters of rank 0 of each data-parallel engine: ranks of one engine count the same."""
        self._model, self._engines = model, engines

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Every metric of the table that the workers count."""
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
    """vLLM's exposition `text` with ours after it, in the same format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Counters(model, engines))
    if content_type.startswith("application/openmetrics-text"):
        return text.removesuffix(EOF) + openmetrics.generate_latest(registry)
    return text + plain.generate_latest(registry)
