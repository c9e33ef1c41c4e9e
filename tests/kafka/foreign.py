"""Writes records as a client that is not ours writes them: Python's confluent-kafka.

    python3 -m venv venv && venv/bin/pip install confluent-kafka
    venv/bin/python tests/kafka/foreign.py 127.0.0.1:9092 TOPIC
    venv/bin/python tests/kafka/foreign.py 127.0.0.1:9092 TOPIC zstd

With a compression it is one record, of a body that gets smaller. All go to partition 0 of a topic that exists, in this order. The program ends with 1 when one of them is not stored.
"""

import sys

from confluent_kafka import Producer

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"

# Key, value, headers. A header name is text for this client; a name in other bytes is beyond it.
RECORDS = [
    # A context and baggage, as an instrumented service writes them.
    (b"k1", b"1", [("traceparent", TRACEPARENT.encode()), ("baggage", b"tenant=acme")]),
    # Null values, where a context would be.
    (b"k2", b"2", [("traceparent", None), ("baggage", None), ("source", b"web")]),
    # A repeated name: the last one counts (PROP-K-03).
    (b"k3", b"3", [("traceparent", OTHER.encode()), ("traceparent", TRACEPARENT.encode()), ("a", b"1"), ("a", b"2")]),
    # Other spellings, values that are no text, empty names and values.
    (b"k4", b"4", [("TraceParent", TRACEPARENT.encode()), ("binary", b"\xff\x00\xfe"), ("", b"no name"), ("empty", b"")]),
    # Names beyond ASCII.
    (b"k5", b"5", [("größe", b"9"), ("\U0001f4e6", b"parcel"), ("traceparent", TRACEPARENT.encode())]),
    # A tombstone with a context, and one without a key or headers.
    (b"k6", None, [("traceparent", TRACEPARENT.encode())]),
    (None, None, None),
    # A key that is no text, and a value that is empty and not null.
    (b"k\xff", b"", [("traceparent", TRACEPARENT.encode())]),
]

COMPRESSIBLE = (None, b"x" * 10_000, None)


def main(bootstrap, topic, compression="none"):
    failed = []

    def report(error, _message):
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": compression})
    for key, value, headers in RECORDS if compression == "none" else [COMPRESSIBLE]:
        producer.produce(topic, key=key, value=value, headers=headers, partition=0, on_delivery=report)
    left = producer.flush(30)
    for error in failed:
        print(error, file=sys.stderr)
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
