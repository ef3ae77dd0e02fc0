"""Publishes one command and prints its outcome: publish.py [KEY TYPE JSON]"""

import json
import os
import secrets
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
TOPIC = os.environ.get("TOPIC", "accounts.commands")
OUTCOMES = TOPIC + ".outcomes"
TIMEOUT_SECONDS = 30
ATTEMPTS = 3


def uuid7():
    """Python 3.14 has this as uuid.uuid7."""
    now, random = time.time_ns() // 1_000_000, secrets.randbits
    return uuid.UUID(int=now << 80 | 7 << 76 | random(12) << 64 | 2 << 62 | random(62))


def publish(producer, command_id, key, command_type, data):
    """Returns when the record is stored on all replicas in sync; raises when that is not known."""
    reports = []
    headers = {"ce_id": command_id, "ce_type": command_type}
    producer.produce(TOPIC, key=key, value=data, headers=headers, on_delivery=lambda *report: reports.append(report))
    producer.flush()
    error, message = reports[0]
    if error:
        raise KafkaException(error)
    return message


def outcomes_from_now(consumer):
    partitions = consumer.list_topics(OUTCOMES, TIMEOUT_SECONDS).topics[OUTCOMES].partitions
    if not partitions:
        sys.exit(f"there is no topic {OUTCOMES}: the worker makes it when it starts")
    ends = []
    for partition in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(OUTCOMES, partition), TIMEOUT_SECONDS)
        ends.append(TopicPartition(OUTCOMES, partition, end))
    consumer.assign(ends)


def wait_for_outcome(consumer, command_id):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        record = consumer.poll(left)
        if record and not record.error():
            outcome = json.loads(record.value())
            if outcome["command_id"] == command_id:
                return outcome
    return None


def main(key="acct-42", command_type="account.open", data='{"initial": 100}'):
    # Made once, and kept with what caused the command: whoever has to send it again sends the same id.
    command_id = os.environ.get("COMMAND_ID") or str(uuid7())
    producer = Producer({
        "bootstrap.servers": SERVERS,
        "partitioner": "murmur2_random",  # Java's; librdkafka's own default is another, and would misroute
        "enable.idempotence": True,
        "acks": "all",
        "delivery.timeout.ms": TIMEOUT_SECONDS * 1000,
    })
    # A group id is asked for, but no group is joined and nothing is committed.
    consumer = Consumer({"bootstrap.servers": SERVERS, "group.id": "publish", "enable.auto.commit": False})
    outcomes_from_now(consumer)  # before publishing, so that no outcome is missed
    for _ in range(ATTEMPTS):  # the same id each time: what was settled is only answered again
        try:
            stored = publish(producer, command_id, key, command_type, data)
        except KafkaException as error:
            print(f"not known to be stored: {error}", file=sys.stderr)
            continue
        if outcome := wait_for_outcome(consumer, command_id):
            place = {"partition": stored.partition(), "offset": stored.offset()}
            print(json.dumps({"command_id": command_id, **place, "outcome": outcome}))
            return
    sys.exit(f"no outcome yet; try again with COMMAND_ID={command_id}")


main(*sys.argv[1:])
