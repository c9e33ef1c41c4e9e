"""FastStream on RabbitMQ: `faststream_rabbit.py URL COLLECTOR PREFIX`, see `faststream_peer.py`."""

import asyncio
import sys

from faststream.opentelemetry import CurrentBaggage
from faststream.rabbit import RabbitBroker, RabbitMessage, RabbitQueue
from faststream.rabbit.opentelemetry import RabbitTelemetryMiddleware

from faststream_peer import note_message, run, telemetry, with_baggage

url, collector, prefix = sys.argv[1:]
provider = telemetry(collector)
broker = RabbitBroker(url, middlewares=[RabbitTelemetryMiddleware(tracer_provider=provider)], logger=None)


def queue(name):
    return RabbitQueue(f"{prefix}.{name}", durable=True, arguments={"x-expires": 300_000})


@broker.subscriber(queue("python.end"))
async def end(body: str, message: RabbitMessage, baggage: CurrentBaggage):
    note_message("end", body, message, baggage)


@broker.subscriber(queue("python.relay"))
@broker.publisher(f"{prefix}.rust.end")
async def relay(body: str, message: RabbitMessage, baggage: CurrentBaggage):
    note_message("relay", body, message, baggage)
    baggage.set("python", "was here")
    return f"{body} by python"


@broker.subscriber(queue("python.answer"))
async def answer(body: str, message: RabbitMessage, baggage: CurrentBaggage):
    note_message("answer", body, message, baggage)
    return f"{body} is answered by python"


async def publish(to, bodies, baggage):
    for body in bodies:
        await broker.publish(body, f"{prefix}.{to}", headers=with_baggage(baggage))


async def request(to, body, baggage):
    reply = await broker.request(body, f"{prefix}.{to}", headers=with_baggage(baggage), timeout=20)
    return {"body": await reply.decode(), "headers": reply.headers}


asyncio.run(run(broker, provider, {"publish": publish, "request": request}))
