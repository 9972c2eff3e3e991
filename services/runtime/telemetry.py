"""Logs, metrics and traces, in the events' words. Never a payload, a secret or a person's data."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import disable_created_metrics

_propagator = TraceContextTextMapPropagator()


def configure(service: str, *, level: str, otlp_url: str | None) -> None:
    """One JSON object a line on standard output; spans to `otlp_url` where there is one."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _with(service),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, format='{"level": "%(levelname)s", "logger": "%(name)s", "event": "%(message)s"}'
    )
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, which nobody asks for
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs each failed reconnect; kafka.py says it once
    if otlp_url is not None:
        _send_spans(service, otlp_url)


def _send_spans(service: str, otlp_url: str) -> None:
    # what sends spans takes a tenth of a service's start to load, and most send none
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # as said
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # as said
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # as said
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # as said

    provider = TracerProvider(resource=Resource.create({"service.name": f"nightshift-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_url)))
    trace.set_tracer_provider(provider)


def _with(service: str) -> structlog.types.Processor:
    def add(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event["service"] = service
        return event

    return add


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """What a figure is told with, so that its trace is found: a header's trace, else the one of the span we are in."""
    if traceparent is not None:
        return {"trace_id": traceparent[3:35]}
    current = trace.get_current_span().get_span_context()
    return {"trace_id": f"{current.trace_id:032x}"} if current.is_valid else None


@contextmanager
def span(name: str, traceparent: str | None = None) -> Iterator[str | None]:
    """A span below `traceparent`; gives the header that what follows travels with.

    Where spans go nowhere none is made, and the header is the one that came.
    """
    parent = _propagator.extract({"traceparent": traceparent}) if traceparent else None
    with trace.get_tracer("nightshift").start_as_current_span(name, context=parent):
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        yield carrier.get("traceparent")
