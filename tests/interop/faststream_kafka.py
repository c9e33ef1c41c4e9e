"""FastStream on Kafka: `faststream_kafka.py BOOTSTRAP COLLECTOR PREFIX aiokafka|confluent`, see `faststream_peer.py`."""

import asyncio
import sys

from faststream.opentelemetry import CurrentBaggage

from faststream_peer import note_message, run, telemetry, with_baggage

bootstrap, collector, prefix, client = sys.argv[1:]
if client == "confluent":
    from faststream.confluent import KafkaBroker, KafkaMessage
    from faststream.confluent.opentelemetry import KafkaTelemetryMiddleware
else:
    from faststream.kafka import KafkaBroker, KafkaMessage
    from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware

provider = telemetry(collector)
broker = KafkaBroker(bootstrap, middlewares=[KafkaTelemetryMiddleware(tracer_provider=provider)], logger=None)


def subscriber(name, **options):
    topic = f"{prefix}.python.{name}"
    return broker.subscriber(topic, group_id=topic, auto_offset_reset="earliest", **options)


@subscriber("end")
async def end(body: str, message: KafkaMessage, baggage: CurrentBaggage):
    note_message("end", body, message, baggage)


@subscriber("relay")
@broker.publisher(f"{prefix}.rust.end")
async def relay(body: str, message: KafkaMessage, baggage: CurrentBaggage):
    note_message("relay", body, message, baggage)
    baggage.set("python", "was here")
    return f"{body} by python"


@subscriber("batch", batch=True, max_records=3)
@broker.publisher(f"{prefix}.rust.end")
async def batch(bodies: list[str], message: KafkaMessage, baggage: CurrentBaggage):
    note_message("batch", bodies, message, baggage)
    return f"{len(bodies)} by python"


async def publish(to, bodies, baggage):
    for body in bodies:
        await broker.publish(body, f"{prefix}.{to}", headers=with_baggage(baggage))


async def publish_batch(to, bodies, baggage):
    await broker.publish_batch(*bodies, topic=f"{prefix}.{to}", headers=with_baggage(baggage))


asyncio.run(run(broker, provider, {"publish": publish, "publish_batch": publish_batch}))
