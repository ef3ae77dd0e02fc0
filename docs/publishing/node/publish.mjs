// Publishes one command and prints its outcome: node publish.mjs [KEY TYPE JSON]
import { setTimeout as sleep } from "node:timers/promises";
import kafkajs from "kafkajs";
import lz4 from "lz4js";
import { v7 as uuid7 } from "uuid";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel, Partitioners } = kafkajs;
// Outcomes are compressed with lz4, which this client cannot read by itself.
CompressionCodecs[CompressionTypes.LZ4] = () => ({ decompress: async (bytes) => Buffer.from(lz4.decompress(bytes)) });

const TIMEOUT_MS = 30_000;
const ATTEMPTS = 3;
const topic = process.env.TOPIC || "accounts.commands";
const outcomes = `${topic}.outcomes`;
const [key = "acct-42", type = "account.open", data = '{"initial": 100}'] = process.argv.slice(2);
// Made once, and kept with what caused the command: whoever has to send it again sends the same id.
const id = process.env.COMMAND_ID || uuid7();

const brokers = (process.env.KAFKA_BOOTSTRAP_SERVERS || "localhost:9092").split(",");
const kafka = new Kafka({ clientId: "publish", brokers, logLevel: logLevel.WARN });
const producer = kafka.producer({
  createPartitioner: Partitioners.DefaultPartitioner, // Java's murmur2; the LegacyPartitioner is not, and would misroute
  idempotent: true,
  allowAutoTopicCreation: false,
});
const admin = kafka.admin();
// This client reads in groups only: one of our own, which goes when we go.
const groupId = `publish-${uuid7()}`;
const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 500, allowAutoTopicCreation: false });

/** Gathers what is published from now on. Called before publishing, so that no outcome is missed. */
async function readOutcomes(found) {
  if (!(await admin.listTopics()).includes(outcomes)) {
    throw new Error(`there is no topic ${outcomes}: the worker makes it when it starts`);
  }
  await admin.setOffsets({ groupId, topic: outcomes, partitions: await admin.fetchTopicOffsets(outcomes) });
  await consumer.connect();
  await consumer.subscribe({ topics: [outcomes] });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const outcome = JSON.parse(message.value);
      if (outcome.command_id === id) found(outcome);
    },
  });
}

async function main() {
  await Promise.all([producer.connect(), admin.connect()]);
  let found;
  const settled = new Promise((resolve) => (found = resolve));
  await readOutcomes(found);
  const headers = { ce_id: id, ce_type: type };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) { // the same id: what was settled is only answered again
    try {
      // This client's idempotent producer would try for ever.
      const [stored] = await inTime(producer.send({ topic, acks: -1, messages: [{ key, value: data, headers }] }));
      const outcome = await inTime(settled);
      const { partition, baseOffset: offset } = stored;
      console.log(JSON.stringify({ command_id: id, partition, offset: Number(offset), outcome }));
      return;
    } catch (error) {
      console.error(`not known to be settled: ${error.message}`);
    }
  }
  console.error(`no outcome yet; try again with COMMAND_ID=${id}`);
  process.exitCode = 1;
}

/** Fails when the promise takes too long. */
function inTime(promise) {
  const late = sleep(TIMEOUT_MS, null, { ref: false }).then(() => Promise.reject(new Error("timed out")));
  return Promise.race([promise, late]);
}

try {
  await main();
} finally {
  await Promise.all([producer.disconnect(), consumer.disconnect()]);
  await admin.deleteGroups([groupId]).catch(() => {}); // it was never made when we failed early
  await admin.disconnect();
}
