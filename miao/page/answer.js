// A model that answers: what it has read stays read, so that only what is new costs time.
import { Decoder } from "./variants.js";
import { inspect } from "./inspect.js";
import { nextToken } from "./sampling.js";
import { Prompt } from "./template.js";
import { Tokenizer } from "./tokenizer.js";
import { fastestDecoder } from "./wasm.js";

const BREATH = 15; // milliseconds between two looks for a message, a stop above all
const MOST_SEEN = 256; // tokens of an inspection: attention takes their square

export class Model {
  constructor(model, bytes) {
    this.settings = model;
    this.tokenizer = new Tokenizer(model.tokenizer);
    this.prompt = new Prompt(this.tokenizer, model.template, model.special);
    this.decoder = fastestDecoder(model.config, bytes, model.tensors);
    this.ends = new Set(model.stop_ids);
    this.read = []; // ids that stand in the cache
    this.ending = null; // the token that ended the last answer
  }

  /** The plain twin over the same weights, which can be watched; it reads for itself. */
  plain() {
    if (!this.twin?.embedding.numbers.length) this.twin = new Decoder(this.settings.config, this.decoder.tensors());
    return this.twin;
  }

  /** Ids of the conversation; its oldest turns are left out where it is too long. */
  fit(messages, room) {
    const kept = [...messages], first = kept[0]?.role === "system" ? 1 : 0;
    let left = 0;
    for (;;) {
      const ids = this.prompt.encode(kept);
      if (ids.length <= room || kept.length - first <= 1) return { ids, left };
      kept.splice(first, 2);
      left += 2;
    }
  }

  /** The tokens of an answer as they come. `breathe` is awaited now and then and says whether to
   * go on. Returns why it ended: "stop", "length", "stopped" or "too long". */
  async *tokens(ids, options, breathe = async () => true, random = Math.random) {
    const { context, tokens } = this.settings.config;
    if (ids.length >= context) return "too long";
    const seen = [...ids], end = Math.min(context, ids.length + options.max_new_tokens);
    // At least the last token is read again: its logits are needed.
    let begin = 0, last = performance.now();
    while (begin < ids.length - 1 && this.read[begin] === ids[begin]) begin++;
    this.read.length = begin;
    for (let position = begin; position < end; ) {
      if (performance.now() - last > BREATH) {
        if (!(await breathe())) return "stopped";
        last = performance.now();
      }
      const piece = seen.slice(position, position + this.decoder.piece);
      position += piece.length;
      const logits = this.decoder.readAll(piece, position - piece.length, position === seen.length);
      this.read.push(...piece);
      if (!logits) continue;
      if (seen.length === end) return "length";
      const id = nextToken(logits, options, seen, tokens, seen.slice(ids.length), random);
      if (this.ends.has(id)) {
        this.ending = id;
        return "stop";
      }
      seen.push(id);
      yield id;
    }
    return "length";
  }

  /** The answer's text as it comes. Returns {reason, count, left, ids}. */
  async *answer(messages, options, breathe) {
    const { context } = this.settings.config;
    const room = context - Math.min(options.max_new_tokens, context >> 1);
    const { ids, left } = this.fit(messages, room);
    const stream = this.tokenizer.stream(), tokens = this.tokens(ids, options, breathe);
    const thinks = this.tokenizer.controls.get("<think>");
    if (thinks !== undefined && ids.lastIndexOf(thinks) > ids.lastIndexOf(this.tokenizer.controls.get("</think>")) && ids.length - ids.lastIndexOf(thinks) < 3) yield "<think>\n";
    const said = [];
    let next;
    while (!(next = await tokens.next()).done) {
      said.push(next.value);
      yield stream.feed(next.value);
    }
    yield stream.finish();
    return { reason: next.value, count: said.length, left, ids: said };
  }

  /** What goes on inside: of a text, or of a conversation and the last answer to it (ids or text). */
  async inspect({ text, messages, answer, without, whole }, breathe) {
    const said = typeof answer === "string" ? this.tokenizer.encode(answer) : answer ?? [];
    const read = messages ? this.fit(messages, Math.max(1, MOST_SEEN - said.length)).ids : this.prompt.continued(text);
    const ids = [...read, ...said], most = Math.min(MOST_SEEN, this.settings.config.context);
    const prompt = messages ? read.length : read.length - this.tokenizer.encode(text).length;
    const found = await inspect(this.settings.config, this.decoder.tensors(), this.tokenizer, ids.slice(0, most), breathe, { prompt, without, whole });
    return found && { ...found, cut: ids.length > most };
  }
}
