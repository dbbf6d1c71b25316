"""A consumer of the events, in Python with redis-py. Any number of these may run in one group.

Each event is handled at least once: read, handled, remembered, acknowledged, in this order. What a worker left unacknowledged when it
died is taken over by another one after a minute. Stop it with SIGTERM or Ctrl-C.

    pip install --require-hashes -r requirements.txt
    EVENTS='amazon-pay:{live:YOUR_MERCHANT_ID}:events' python consumer.py
"""

import json
import os
import signal
import sys
from decimal import Decimal

import redis

COUNT = 10  # entries at a time
BLOCK_MS = 1_000  # how long to wait for new ones
REMEMBER_S = 90 * 24 * 3600  # how long a handled id is remembered: longer than the service keeps events


def handle(kind: str, data: dict) -> None:
    """What your system does. It may be called again with the same event if the process dies right after it."""
    match kind:
        case "amazonpay.charge.captured.v1":
            # Money is a decimal string: Decimal, never float.
            amount = Decimal(data["chargeAmount"]["amount"])
            print("paid:", data["id"], amount, data["chargeAmount"]["currencyCode"], file=sys.stderr)
        case "amazonpay.charge.action_required.v1":
            print("ask the buyer to go to", data["updateUrl"], file=sys.stderr)
        case "amazonpay.account.attention.v1":
            print("for the operators:", data["message"], file=sys.stderr)
        case _:
            pass  # types that you do not know are no mistake: new ones may come at any time


class Consumer:
    def __init__(self, client: redis.Redis, stream: str, group: str, name: str, claim_after_ms: int) -> None:
        self.client, self.stream, self.group, self.name = client, stream, group, name
        # An entry that nobody acknowledged for so long was left by a worker that died. Longer than handling COUNT of them may take.
        self.claim_after_ms = claim_after_ms
        self.stopping = False

    def run(self) -> None:
        self.create_group()
        while not self.stopping:
            self.reclaim()
            self.read()

    def stop(self, *_: object) -> None:
        """Between events only: what was begun is finished."""
        self.stopping = True

    def create_group(self) -> None:
        try:
            self.client.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def reclaim(self) -> None:
        """Takes over what other workers left behind."""
        start = "0-0"
        while not self.stopping:
            start, entries, *_ = self.client.xautoclaim(
                self.stream, self.group, self.name, self.claim_after_ms, start_id=start, count=COUNT
            )
            self.take(entries)
            if start == "0-0":
                return

    def read(self) -> None:
        """Reads what nobody in the group has got yet."""
        reply = self.client.xreadgroup(self.group, self.name, {self.stream: ">"}, count=COUNT, block=BLOCK_MS)
        for _, entries in reply or []:
            self.take(entries)

    def take(self, entries: list) -> None:
        for entry, event in entries:
            # Better: write the id in the same transaction of your own database as the effect of the event.
            handled = f"{self.group}:handled:{event['id']}"
            if not self.client.exists(handled):
                try:
                    handle(event["type"], json.loads(event["data"]))
                except Exception as error:  # one event that cannot be handled must not stop those after it
                    print("not handled, tried again later:", event["id"], error, file=sys.stderr)
                    continue
                self.client.set(handled, 1, ex=REMEMBER_S)
                print(event["id"], event["type"], flush=True)
            self.client.xack(self.stream, self.group, entry)


def main() -> None:
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
    consumer = Consumer(
        client,
        stream=os.environ["EVENTS"],
        group=os.environ.get("GROUP", "billing"),
        name=os.environ.get("CONSUMER", "worker-1"),
        claim_after_ms=int(os.environ.get("CLAIM_AFTER_MS", "60000")),
    )
    signal.signal(signal.SIGTERM, consumer.stop)
    signal.signal(signal.SIGINT, consumer.stop)
    consumer.run()


if __name__ == "__main__":
    main()
