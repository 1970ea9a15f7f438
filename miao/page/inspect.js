// What goes on inside the model while it reads a text: the glass box.
//
// An inspection, as JSON; `POST /v1/inspect` of a studio and `miao inspect --json` give the same
// (inspection.py). A token is {id, text, bytes}; the text of half a character is U+FFFD.
//   tokens: of the text. prompt: how many of them stand before what the model answered.
//   places: one for each token, what the model expects when it has read that far:
//     next: {logprob, rank} of the token that follows (rank 1: the likeliest); null at the end.
//     entropy: of the distribution, in nats. likeliest: tokens with a logprob, the likeliest first.
//     layers: after each layer {size, next, likeliest, experts}: the root mean square of the residual
//       stream, and what norm and head make of it there (the logit lens, nostalgebraist 2020);
//       next: the log-probability of the token that follows, or null; experts: the chosen ones,
//       [number, weight], where the layer has some, else null.
//   attention: [layer][head][place]: the weights over all tokens up to that place; they sum to 1.
//     null where it was not asked for.
//   other: the same text read with something switched off or by another model: {places, kl}, kl
//     being KL(this || other) of the distribution at each place, in nats; null without.
//   whole: {place, logprobs}: those of every token at one place; null where none was asked for.
//   cut: whether the text was longer.
// Everything counts from 0. Logarithms are natural. Tokens that no text has (padding of the
// vocabulary) are left out.
//
// What is asked: text, or messages and answer (ids or text); without: {tokens, layers, heads}, what
// is switched off: places that no later one sees, layers that add nothing, [layer, head] whose result
// is zero; whole: a place. A studio also knows model, against and attention (false: without).
import { Decoder } from "./variants.js";

/** The decoder, which notes down what its heads look at and what its layers would guess. */
class GlassDecoder extends Decoder {
  constructor(config, tensors, { tokens = [], layers = [], heads = [] } = {}) {
    super(config, tensors);
    this.heads = []; // weights of the heads, layer by layer, as they come
    this.guesses = []; // of the layers: {size, logits, experts}
    this.unseen = new Set(tokens);
    this.idle = new Set(layers.map((layer) => this.layers[layer]));
    this.silent = new Set(heads.map(([layer, head]) => layer * config.num_attention_heads + head));
  }

  /** Reads one token; heads and guesses are those of this place. */
  look(id, position) {
    this.heads = [];
    this.guesses = [];
    this.read(id, position, false);
    return { heads: this.heads, guesses: this.guesses };
  }

  attend(layer, position, ...rest) {
    if (!this.idle.has(layer)) return super.attend(layer, position, ...rest);
    for (let head = 0; head < this.config.num_attention_heads; head++) this.heads.push(new Array(position + 1).fill(0));
  }

  lookBack(at, from, position, layer) {
    super.lookBack(at, from, position, layer);
    const { size, stored, scores, queries: q } = this;
    for (const p of this.unseen) if (p < position) scores[p] = 0;
    const looked = scores.subarray(0, position + 1), total = looked.reduce((sum, score) => sum + score, 0);
    const weights = Array.from(looked, (score) => score / total), isSilent = this.silent.has(this.heads.length);
    this.heads.push(weights);
    if (!this.unseen.size && !isSilent) return;
    q.fill(0, at, at + size);
    if (!isSilent) weights.forEach((weight, p) => { for (let i = 0; i < size; i++) q[at + i] += weight * layer.values[p * stored + from + i]; });
  }

  choose(layer) {
    this.chosen = super.choose(layer);
    return this.chosen;
  }

  feedForward(layer) {
    this.chosen = null;
    if (!this.idle.has(layer)) super.feedForward(layer);
    const squares = this.stream.reduce((sum, x) => sum + x * x, 0);
    this.guesses.push({ size: Math.sqrt(squares / this.stream.length), logits: this.predict().slice(0, this.config.tokens), experts: this.chosen });
  }
}

/** Log-probabilities and entropy of logits. */
function logSoftmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const offset = largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
  const logprobs = Float64Array.from(logits, (logit) => logit - offset);
  return { logprobs, entropy: -logprobs.reduce((sum, logprob) => sum + (logprob === -Infinity ? 0 : Math.exp(logprob) * logprob), 0) };
}

/** Ids of the `count` largest, the largest first. */
function largest(numbers, count) {
  const found = [];
  for (let id = 0; id < numbers.length; id++) {
    if (found.length === count && !(numbers[id] > numbers[found.at(-1)])) continue;
    let place = found.length;
    while (place > 0 && numbers[id] > numbers[found[place - 1]]) place--;
    found.splice(place, 0, id);
    found.length = Math.min(found.length, count);
  }
  return found;
}

/** KL(first || second) of two distributions, in nats. */
const divergence = (first, second) => Math.max(0, first.reduce((sum, logprob, id) => sum + Math.exp(logprob) * (logprob - second[id]), 0));

/** The inspection of a text's ids. `breathe` is awaited after each token with the share that is
 * done, and says whether to go on; null where it says no.
 * @param options without, whole: see above; prompt: how many of the ids are one; likeliest, of the end
 *   and of each layer: how many. */
export async function inspect(config, tensors, tokenizer, ids, breathe = async () => true, options = {}) {
  const { likeliest = 10, perLayer = 3, prompt = 0, without = null, whole = null } = options;
  const decoder = new GlassDecoder(config, tensors), perHead = config.num_attention_heads;
  const changed = without && new GlassDecoder(config, tensors, without);
  const named = (id) => ({ id, text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.bytes[id]), bytes: [...tokenizer.bytes[id]] });
  const guessed = (logprobs, count) => largest(logprobs, count).map((id) => ({ ...named(id), logprob: logprobs[id] }));
  const attention = decoder.layers.map(() => Array.from({ length: perHead }, () => []));
  const places = [], other = changed && { places: [], kl: [] };
  let all = null;

  /** A place by its layers' guesses, and the log-probabilities at its end. */
  function placed(guesses, next) {
    const layers = guesses.map(({ size, logits, experts }) => ({ size, experts, ...logSoftmax(logits) })), end = layers.at(-1);
    const place = {
      next: next === undefined ? null : { logprob: end.logprobs[next], rank: 1 + end.logprobs.reduce((better, logprob) => better + (logprob > end.logprobs[next]), 0) },
      entropy: end.entropy,
      likeliest: guessed(end.logprobs, likeliest),
      layers: layers.map(({ size, logprobs, experts }) => ({ size, next: logprobs[next] ?? null, likeliest: guessed(logprobs, perLayer), experts })),
    };
    return { place, logprobs: end.logprobs };
  }

  for (let position = 0; position < ids.length; position++) {
    if (!(await breathe(position / ids.length))) return null;
    const { heads, guesses } = decoder.look(ids[position], position), next = ids[position + 1];
    heads.forEach((weights, i) => attention[Math.floor(i / perHead)][i % perHead].push(weights));
    const { place, logprobs } = placed(guesses, next);
    places.push(place);
    if (position === whole) all = { place: position, logprobs: [...logprobs] };
    if (!other) continue;
    const then = placed(changed.look(ids[position], position).guesses, next);
    other.places.push(then.place);
    other.kl.push(divergence(logprobs, then.logprobs));
  }
  return { tokens: ids.map(named), prompt: Math.min(prompt, ids.length), places, attention, other, whole: all, cut: false };
}
