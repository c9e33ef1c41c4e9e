"""Writes and reads messages as a client that is not ours does: Python's pika.

    python3 -m venv venv && venv/bin/pip install pika
    printf 'write\\tQUEUE\\tREPLY_TO\\tBODY\\n' | venv/bin/python tests/rabbit/foreign.py amqp://127.0.0.1

It does what the lines of its input say, with tabs between the words, and answers each with a line:

    write QUEUE REPLY_TO BODY..
    read QUEUE typed
    read QUEUE plain

`write` publishes a message for each body, with a header of every type that the server takes. `read` takes one message and prints what it is; with
`typed` it fails unless all those headers and properties are there, each with its type and its value.
"""

import struct
import sys
import time
from datetime import datetime, timezone
from decimal import Decimal

import pika
from pika import data

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WITHIN = 20


class Field(bytes):
    """A value with its type as both are on the wire. pika reads types that it does not write."""


HEADERS = {
    "": "no name",
    "array": [False, "x", {"nested": Field(b"i" + b"\xff" * 4), "none": None}, [1, 2**40], []],
    "bool": True,
    "bytes": b"\xff\x00",
    "decimal": Decimal("3.14"),
    "decimal below zero": Decimal("-1.5"),
    "double": Field(struct.pack(">cd", b"d", 2.5)),
    "f32": Field(struct.pack(">cf", b"f", 0.1)),
    "größe": "9",
    "i16": Field(struct.pack(">ch", b"s", -300)),
    "i32": -70_000,
    "i64": -(2**63),
    "i64 that is small": Field(struct.pack(">cq", b"l", 5)),
    "i8": Field(struct.pack(">cb", b"b", -3)),
    "not utf8": Field(struct.pack(">cI", b"S", 2) + b"\xff\xfe"),
    "string": "größe",
    "table": {"inner": {"deep": Field(b"B\xc8"), "time": datetime(2026, 1, 1, tzinfo=timezone.utc)}, "none": None},
    "time": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "time beyond all": Field(b"T" + b"\xff" * 8),
    "u16": Field(struct.pack(">cH", b"u", 60_000)),
    "u32": Field(struct.pack(">cI", b"i", 2**32 - 1)),
    "u8": Field(struct.pack(">cB", b"B", 200)),
    "void": None,
}

PROPERTIES = {
    "app_id": "shop",
    "content_encoding": "gzip",
    "content_type": "text/plain",
    "correlation_id": "c1",
    "message_id": "m1",
    "priority": 3,
    "timestamp": 2**64 - 1,
    "type": "order.placed",
}

SIZES = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"f": 4, b"D": 5, b"l": 8, b"d": 8, b"T": 8, b"V": 0}

encode_value, decode_value = data.encode_value, data.decode_value


def encode_field(pieces, value):
    if not isinstance(value, Field):
        return encode_value(pieces, value)
    pieces.append(bytes(value))
    return len(value)


def decode_field(encoded, offset):
    kind = encoded[offset : offset + 1]
    if kind in (b"A", b"F"):
        return decode_value(encoded, offset)
    size = SIZES[kind] if kind in SIZES else 4 + struct.unpack_from(">I", encoded, offset + 1)[0]
    end = offset + 1 + size
    return Field(encoded[offset:end]), end


def typed(headers):
    """The headers as they are read when they arrive unchanged."""
    pieces = []
    data.encode_table(pieces, headers)
    return data.decode_table(b"".join(pieces), 0)[0]


def write(channel, queue, reply_to, *bodies):
    headers = HEADERS | {"traceparent": TRACEPARENT}
    properties = pika.BasicProperties(headers=headers, reply_to=reply_to, delivery_mode=2, **PROPERTIES)
    for body in bodies:
        channel.basic_publish("", queue, body.encode(), properties, mandatory=True)
    return ["written"]


def read(channel, queue, how):
    properties, deadline = None, time.monotonic() + WITHIN
    while properties is None:
        if time.monotonic() > deadline:
            sys.exit(f"no message in {queue}")
        _, properties, body = channel.basic_get(queue, auto_ack=True)
    headers = properties.headers or {}
    if how == "typed":
        for name, value in typed(HEADERS).items():
            if headers.pop(name, "nothing") != value:
                sys.exit(f"the header {name!r} is not {value!r}: {properties.headers}")
        for name, value in PROPERTIES.items():
            if getattr(properties, name) != value:
                sys.exit(f"the property {name} is not {value!r}: {properties}")
    traceparent = headers.pop("traceparent")
    kind, text = chr(traceparent[0]), traceparent[5:].decode()
    return [body.decode(), properties.correlation_id, kind, text, *sorted(headers)]


def main(url):
    data.encode_value, data.decode_value = encode_field, decode_field
    parameters = pika.URLParameters(url)
    # Nothing answers the server while a line is waited for.
    parameters.heartbeat = 0
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    for line in sys.stdin:
        what, *arguments = line.rstrip("\n").split("\t")
        print(*{"read": read, "write": write}[what](channel, *arguments), flush=True)
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
