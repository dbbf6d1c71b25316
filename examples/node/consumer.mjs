// A consumer of the events, in Node with ioredis. Any number of these may run in one group.
//
// Each event is handled at least once: read, handled, remembered, acknowledged, in this order. What a worker left unacknowledged when
// it died is taken over by another one after a minute. Stop it with SIGTERM or Ctrl-C.
//
//   npm ci
//   EVENTS='amazon-pay:{live:YOUR_MERCHANT_ID}:events' node consumer.mjs

import { Redis } from "ioredis";

const COUNT = 10; // entries at a time
const BLOCK_MS = 1_000; // how long to wait for new ones
const REMEMBER_S = 90 * 24 * 3600; // how long a handled id is remembered: longer than the service keeps events

const {
  REDIS_URL = "redis://127.0.0.1:6379",
  EVENTS: stream,
  GROUP: group = "billing",
  CONSUMER: name = "worker-1",
  // An entry that nobody acknowledged for so long was left by a worker that died. Longer than handling COUNT of them may take.
  CLAIM_AFTER_MS: claimAfterMs = "60000",
} = process.env;
if (!stream) throw new Error("set EVENTS to the name of the stream");

const redis = new Redis(REDIS_URL);
let stopping = false;
for (const signal of ["SIGTERM", "SIGINT"]) {
  // Between events only: what was begun is finished.
  process.on(signal, () => { stopping = true; });
}

/** What your system does. It may be called again with the same event if the process dies right after it. */
async function handle(type, data) {
  switch (type) {
    case "amazonpay.charge.captured.v1":
      // Money is a decimal string: keep it one, or use a decimal library. Never a number.
      console.error("paid:", data.id, data.chargeAmount.amount, data.chargeAmount.currencyCode);
      break;
    case "amazonpay.charge.action_required.v1":
      console.error("ask the buyer to go to", data.updateUrl);
      break;
    case "amazonpay.account.attention.v1":
      console.error("for the operators:", data.message);
      break;
    default: // types that you do not know are no mistake: new ones may come at any time
  }
}

async function createGroup() {
  try {
    await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM");
  } catch (error) {
    if (!error.message.startsWith("BUSYGROUP")) throw error;
  }
}

/** Takes over what other workers left behind. */
async function reclaim() {
  let start = "0-0";
  do {
    const [next, entries] = await redis.xautoclaim(stream, group, name, claimAfterMs, start, "COUNT", COUNT);
    await take(entries);
    start = next;
  } while (start !== "0-0" && !stopping);
}

/** Reads what nobody in the group has got yet. */
async function read() {
  const reply = await redis.xreadgroup("GROUP", group, name, "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", stream, ">");
  for (const [, entries] of reply ?? []) await take(entries);
}

async function take(entries) {
  for (const [entry, fields] of entries) {
    const event = {};
    for (let i = 0; i < fields.length; i += 2) event[fields[i]] = fields[i + 1];
    // Better: write the id in the same transaction of your own database as the effect of the event.
    const handled = `${group}:handled:${event.id}`;
    if (!(await redis.exists(handled))) {
      try {
        await handle(event.type, JSON.parse(event.data));
      } catch (error) {
        // One event that cannot be handled must not stop those after it.
        console.error("not handled, tried again later:", event.id, error.message);
        continue;
      }
      await redis.set(handled, 1, "EX", REMEMBER_S);
      console.log(`${event.id} ${event.type}`);
    }
    await redis.xack(stream, group, entry);
  }
}

await createGroup();
while (!stopping) {
  await reclaim();
  await read();
}
await redis.quit();
