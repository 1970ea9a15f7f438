// The model's own thread, so that the page never waits for it.
import { Model } from "./answer.js";
import { checksum, fromBase64 } from "./weights.js";

let model = null, current = 0;
const channel = new MessageChannel();

/** Lets messages in; faster than a timer, which browsers hold back. */
const breathe = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(0);
});

function load({ text, settings, expected }) {
  let bytes;
  try { bytes = fromBase64(text); } catch { return { type: "damaged" }; }
  if (bytes.length !== expected.bytes || checksum(bytes) !== expected.crc) return { type: "damaged" };
  model = new Model(settings, bytes);
  return { type: "ready" };
}

async function ask({ number, messages, options }) {
  const began = performance.now();
  let first = null, next;
  const goOn = async () => { await breathe(); return current === number; };
  const answer = model.answer(messages, options, goOn);
  while (!(next = await answer.next()).done) {
    first ??= performance.now() - began;
    if (next.value) postMessage({ type: "text", number, text: next.value });
  }
  postMessage({ type: "done", number, ...next.value, first, seconds: (performance.now() - began) / 1000 });
}

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") postMessage(load(data));
    else {
      current = data.number; // of another question, or of none: what runs ends
      if (data.type === "ask") await ask(data);
    }
  } catch (error) {
    postMessage({ type: "failed", number: data.number, text: String(error) });
  }
};
