# Invoices what is reserved, in Python:
#
#     pip install nats-py opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
#     python billing.py

import asyncio
import json
import os

import nats
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "billing"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # to http://localhost:4318
tracer = provider.get_tracer("billing")


async def invoice(message):
    context = propagate.extract(message.headers or {})
    kind = trace.SpanKind.CONSUMER
    with tracer.start_as_current_span("process stock.reserved", context, kind) as span:
        order = json.loads(message.data)["order"]
        span.set_attribute("order", order)
        if order == 43:
            raise ValueError("customer 7 has no address")
        with tracer.start_as_current_span("print the invoice"):
            await asyncio.sleep(0.02)


async def main():
    client = await nats.connect(os.environ.get("NATS_URL", "nats://localhost:4222"))
    await client.subscribe("stock.reserved", "billing", invoice)
    try:
        await asyncio.Event().wait()
    finally:
        provider.shutdown()  # sends what is left


asyncio.run(main())
