// A client in Node with the stock NATS packages; the protocol is in nats/PROTOCOL.md.
//
//     mesh up --engine simulator --name demo                            in one terminal
//     npm ci && node mesh.js nats://127.0.0.1:4222 demo                 in another, in this folder
import { randomUUID } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { connect, createInbox } from "@nats-io/transport-node";

const [server = "nats://127.0.0.1:4222", model = "demo"] = process.argv.slice(2);
const nats = await connect({ servers: server });
const js = jetstream(nats);
const results = await new Kvm(js).open("mesh_results");

// Stores a job. It runs once, even if it is submitted again with the same id.
async function submit(job, request) {
  const subject = `mesh.req.${model}.standard.default.any`;
  const ack = await js.publish(subject, JSON.stringify({ id: job, ...request }), { msgID: `default.${job}` });
  console.log(`job ${job} is stored as ${ack.stream} ${ack.seq}`);
}

// Calls `show` with each token once, in order, until the job ends. Call it before the job is submitted.
function follow(job, show) {
  let attempt = 0, next = 0; // the newest attempt, and the index of its next token
  const missed = createInbox();
  const ask = () => nats.publish(`mesh.ctl.default.replay.${job}`, JSON.stringify({ index: next }), { reply: missed });
  return new Promise((resolve) => {
    const silence = setInterval(ask, 5_000); // silence may be a gap
    const take = (_, message) => {
      const event = message.data.length ? message.json() : {}; // an empty message ends a replay
      silence.refresh();
      if (event.index > next) ask(); // a gap: ask the journal for a replay
      else if (event.attempt > attempt) [attempt, next] = [event.attempt, event.index]; // a takeover; index 0: it begins again
      if (event.type === "delta" && event.attempt === attempt && event.index === next) { // otherwise a repeat
        show(event.text);
        next += event.token_ids.length || 1; // only the last delta may have none
      }
      if (event.type !== "result") return;
      clearInterval(silence);
      subscriptions.forEach((each) => each.unsubscribe());
      resolve();
    };
    const subjects = [`mesh.live.default.${job}`, missed];
    const subscriptions = subjects.map((subject) => nats.subscribe(subject, { callback: take }));
  });
}

const job = randomUUID();
let shown = "";
const ended = follow(job, (text) => { shown += text; process.stdout.write(text); });
await submit(job, { prompt: "Once upon a time", max_tokens: 40 });
await ended;
const result = (await results.get(`default.${job}`)).json(); // has the complete text
console.log(`\n${result.status}, ${result.usage.completion_tokens} tokens, all shown: ${shown === result.text}`);

const long = randomUUID();
await submit(long, { prompt: "Once upon a time", max_tokens: 4000 });
console.log((await nats.request(`mesh.ctl.default.cancel.${long}`, "", { timeout: 10_000 })).string());

// The same in one request, through the front door.
const hello = JSON.stringify({ prompt: "Hello", max_tokens: 8 });
const reply = await nats.request(`mesh.rpc.default.${model}`, hello, { timeout: 60_000 });
console.log(`front door: ${reply.json().text}`);
await nats.close();
