"""What `/metrics` shows, in Prometheus's format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from miao.serve.worker import Worker

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, worker: Worker):
        self.registry = CollectorRegistry()
        model = ["model"]

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(f"miao_{name}", text, labels, registry=self.registry)

        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts", model)
        self.reused_tokens = counter("prompt_tokens_reused", "Of these, read before", model)
        self.answer_tokens = counter("answer_tokens", "Tokens generated", model)
        self.finished = counter("answers", "Answers, by how they ended", ["model", "finish"])
        self.refused = counter("refused", "Requests refused because the queue was full", model)
        self.responses = counter("responses", "HTTP responses", ["path", "status"])
        self.failures = counter("engine_failures", "Steps of the engine that failed", [])
        self.first_token = Histogram(
            "miao_first_token_seconds",
            "From arrival to the first token",
            model,
            registry=self.registry,
            buckets=SECONDS,
        )
        self.seconds = Histogram(
            "miao_answer_seconds",
            "From arrival to the end of an answer",
            model,
            registry=self.registry,
            buckets=SECONDS,
        )
        self.registry.register(_Rows(worker))

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _Rows:
    """Gauges read from the worker when somebody asks."""

    def __init__(self, worker: Worker):
        self._worker = worker

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = GaugeMetricFamily("miao_running", "Requests that generate", labels=["model"])
        waiting = GaugeMetricFamily("miao_waiting", "Requests in the queue", labels=["model"])
        rows = GaugeMetricFamily("miao_rows", "Requests that can run at once", labels=["model"])
        for name, scheduler in self._worker.schedulers.items():
            counts = self._worker.counts(name)
            running.add_metric([name], counts[0])
            waiting.add_metric([name], counts[1])
            rows.add_metric([name], scheduler.runner.cache.rows)
        yield from (running, waiting, rows)
