// Weights that lie beside the page, in parts: fetched once, then kept by the browser.
import { checksum } from "./weights.js";

const isWhole = (bytes, part) => bytes.length === part.bytes && checksum(bytes) === part.crc;

/** All parts as one. `tell` hears which share is there.
 * @throws {type: "missing" | "damaged", name} */
export async function readParts({ bytes, parts }, base, tell) {
  const whole = new Uint8Array(bytes), here = new URL("./", base);
  const shelf = await openShelf(`miao ${here}`);
  let begin = 0;
  for (const part of parts) {
    whole.set(await readPart(part, new URL(part.name, here).href, shelf), begin);
    begin += part.bytes;
    tell(begin / bytes);
  }
  const names = parts.map(({ name }) => new URL(name, here).href);
  for (const { url } of (await shelf?.keys()) ?? []) if (url.endsWith(".bin") && !names.includes(url)) await shelf.delete(url);
  return whole;
}

/** Where parts are kept; null without https, in frames that may keep nothing, and the like. */
async function openShelf(name) {
  try { return await globalThis.caches?.open(name); } catch { return null; }
}

async function readPart(part, url, shelf) {
  const kept = await shelf?.match(url);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (isWhole(bytes, part)) return bytes;
  }
  const found = await fetch(url).catch(() => null);
  if (!found?.ok) throw { type: "missing", name: part.name };
  const bytes = new Uint8Array(await found.arrayBuffer());
  if (!isWhole(bytes, part)) throw { type: "damaged", name: part.name };
  await shelf?.put(url, new Response(bytes)).catch(() => { /* no room: fetched again next time */ });
  return bytes;
}
