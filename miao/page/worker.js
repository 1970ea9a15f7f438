// The model's own thread, so that the page never waits for it.
import { Model } from "./answer.js";
import { readParts } from "./parts.js";
import { checksum, fromBase64 } from "./weights.js";

let model = null, current = 0;
const channel = new MessageChannel();

/** Lets messages in; faster than a timer, which browsers hold back. */
const breathe = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(0);
});

/** The weights' bytes. @throws {type} where they are damaged or not there. */
async function read({ text, expected, base }) {
  if (expected.parts) return readParts(expected, base, (share) => postMessage({ type: "loading", share }));
  let bytes = null;
  try { bytes = fromBase64(text); } catch { /* not even base64 */ }
  if (bytes?.length !== expected.bytes || checksum(bytes) !== expected.crc) throw { type: "damaged" };
  return bytes;
}

async function load(request) {
  const { settings } = request;
  let bytes;
  try { bytes = await read(request); } catch (error) {
    if (error?.type) return error;
    throw error; // no memory, for one
  }
  model = new Model(settings, bytes);
  model.decoder.warmUp?.();
  return { type: "ready", engine: model.decoder.piece > 1 ? "wasm" : "js" };
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

async function look(request) {
  const { number } = request;
  let told = 0;
  const goOn = async (share) => {
    await breathe();
    if (share - told > 0.02) postMessage({ type: "inspecting", number, share: told = share });
    return current === number;
  };
  postMessage({ type: "inspected", number, inspection: await model.inspect(request, goOn) });
}

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") postMessage(await load(data));
    else {
      current = data.number; // of another question, or of none: what runs ends
      if (data.type === "ask") await ask(data);
      if (data.type === "inspect") await look(data);
    }
  } catch (error) {
    postMessage({ type: "failed", number: data.number, text: String(error) });
  }
};
