"""What the FastStream programs of this folder have in common.

Each is started with the address of its broker, the address of a Collector and what the names of its places begin with. It prints `ready`, does what the
lines of its input say, and notes what arrives: all as JSON, a line for each. At the end of its input it sends its spans and ends.
"""

import asyncio
import json
import sys

from faststream.opentelemetry import Baggage
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def telemetry(collector):
    """The set-up of FastStream's guide."""
    provider = TracerProvider(resource=Resource.create({"service.name": "python"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{collector}/v1/traces")))
    return provider


def note(what, **fields):
    print(json.dumps({"note": what, **fields}), flush=True)


def note_message(place, body, message, baggage):
    """Notes what a handler got. `headers` are those of each message where it got several."""
    headers = message.batch_headers or message.headers
    note(place, body=body, headers=headers, baggage=baggage.get_all(), each=baggage.get_all_batch())


def with_baggage(baggage):
    """The headers with which a program that is no handler publishes, as FastStream's guide has it."""
    return Baggage(baggage).to_headers()


async def run(broker, provider, orders):
    """Does what the input says, such as {"do": "publish", "to": "orders", "body": "1", "baggage": {}}."""
    await broker.start()
    note("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        note("done", answer=await orders[order.pop("do")](**order))
    await broker.stop()
    provider.shutdown()
