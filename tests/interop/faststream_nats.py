"""FastStream on NATS: `faststream_nats.py URL COLLECTOR PREFIX core|jetstream`, see `faststream_peer.py`."""

import asyncio
import sys

from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.nats.opentelemetry import NatsTelemetryMiddleware
from faststream.opentelemetry import CurrentBaggage

from faststream_peer import note_message, run, telemetry, with_baggage

url, collector, prefix, kind = sys.argv[1:]
provider = telemetry(collector)
broker = NatsBroker(url, middlewares=[NatsTelemetryMiddleware(tracer_provider=provider)], logger=None)
# The test has made the stream.
stream = JStream(prefix, declare=False) if kind == "jetstream" else None


def subscriber(name, **options):
    if stream:
        options = {"stream": stream, "durable": name, "pull_sub": PullSub()} | options
    return broker.subscriber(f"{prefix}.python.{name}", **options)


@subscriber("end")
async def end(body: str, message: NatsMessage, baggage: CurrentBaggage):
    note_message("end", body, message, baggage)


@subscriber("relay")
@broker.publisher(f"{prefix}.rust.end", stream=stream)
async def relay(body: str, message: NatsMessage, baggage: CurrentBaggage):
    note_message("relay", body, message, baggage)
    baggage.set("python", "was here")
    return f"{body} by python"


if stream:

    @subscriber("batch", pull_sub=PullSub(batch_size=3, timeout=5, batch=True))
    @broker.publisher(f"{prefix}.rust.end", stream=stream)
    async def batch(bodies: list[str], message: NatsMessage, baggage: CurrentBaggage):
        note_message("batch", bodies, message, baggage)
        return f"{len(bodies)} by python"

else:

    @subscriber("answer")
    async def answer(body: str, message: NatsMessage, baggage: CurrentBaggage):
        note_message("answer", body, message, baggage)
        return f"{body} is answered by python"


async def publish(to, bodies, baggage):
    for body in bodies:
        await broker.publish(body, f"{prefix}.{to}", headers=with_baggage(baggage), stream=stream and stream.name)


async def request(to, body, baggage):
    reply = await broker.request(body, f"{prefix}.{to}", headers=with_baggage(baggage), timeout=20)
    return {"body": await reply.decode(), "headers": reply.headers}


asyncio.run(run(broker, provider, {"publish": publish, "request": request}))
