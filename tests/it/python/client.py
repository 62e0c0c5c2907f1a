"""What the page shows, and the rest of it: a caller that knows nothing but the
address of a broker, and perhaps a token. Prints what it saw."""

import os
import sys
import time

import grpc
from asynq_wire import Broker, items, reason

PATIENCE = 30  # seconds
CANCELLED = 7  # TASK_STATE_CANCELLED
UNKNOWN = bytes.fromhex("019aab6c7d3e7c419f0e3b5d2a64e8f1")


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, *reason(error)
    raise AssertionError("this should have been refused")


def main(address, token=None):
    channel = grpc.insecure_channel(address)
    if token:
        print("without a token:", *refused(lambda: Broker(channel)))
        print("with another:", *refused(lambda: Broker(channel, "another")))
    broker = Broker(channel, token)
    print("services:", *broker.services)
    tasks = "asynq.v1.Tasks/"

    def enqueue(name, data=b"null", **options):
        return broker.call(tasks + "Enqueue", name=name, payload={"data": data}, options=options).id

    def state(task):
        return broker.call(tasks + "Wait", id=task, timeout=PATIENCE).state

    def iterate(n, **more):
        task = {"name": "count", "payload": {"data": b'{"n":%d}' % n}}
        return broker.call(tasks + "Iterate", task=task, consumer_id=os.urandom(16), auto_ack=True, **more)

    echoed = broker.call(tasks + "Wait", id=enqueue("echo", b'{"a": [1, "\xc3\xa4"]}'), timeout=PATIENCE)
    print("echo:", echoed.result.data.decode())

    # More than any window, so that credit has to go round.
    read = list(items(iterate(100_000)))
    assert read == [b'{"i":%d}' % i for i in range(100_000)], read[:3]
    print("items:", len(read))

    # A stream that is left stops its task, and one whose time is up as well.
    frames = iterate(1_000_000_000)
    left = next(frames).opened.id
    next(frames)
    frames.cancel()
    print("left:", state(left) == CANCELLED)
    frames = iterate(1_000_000_000, timeout=1)
    late = next(frames).opened.id
    print("late:", refused(lambda: list(items(frames)))[0], state(late) == CANCELLED)

    # Cancel: before it runs, and while it does.
    waiting = enqueue("sleep", b'{"ms":3600000}', delay_ms=3_600_000)
    cancelled = broker.call(tasks + "Cancel", id=waiting)
    print("cancelled:", cancelled.outcome, state(waiting) == CANCELLED)
    running = enqueue("sleep", b'{"ms":3600000}')
    by = time.monotonic() + PATIENCE
    while broker.call(tasks + "Show", id=running).started_at_ms == 0:
        assert time.monotonic() < by, "it does not start"
    cancelled = broker.call(tasks + "Cancel", id=running)
    print("stopped:", cancelled.outcome, state(running) == CANCELLED)

    print("unknown:", *refused(lambda: broker.call(tasks + "Show", id=UNKNOWN)))
    print("waited:", *refused(lambda: broker.call(tasks + "Wait", id=enqueue("nobody"), timeout=0.2))[:1])
    unread = channel.unary_unary("/" + tasks + "Enqueue", lambda sent: sent, lambda got: got)
    print("malformed:", *refused(lambda: unread(b"\xff", metadata=broker.metadata)))
    print("healthy:", broker.call("grpc.health.v1.Health/Check").status == 1)


main(*sys.argv[1:])
