// What goes on inside the model while it reads a text: the glass box.
//
// An inspection, as JSON (`POST /v1/inspect` of a studio gives the same):
//   tokens: of the text, {id, text, bytes}; the text of half a character is U+FFFD, its bytes tell.
//   places: one for each token, what the model expects when it has read that far:
//     next: {logprob, rank} of the token that follows (rank 1: the likeliest); null at the end.
//     entropy: of the distribution, in nats. likeliest: {id, text, logprob}, the likeliest first.
//     layers: after each layer {size, next, likeliest}: the root mean square of the residual
//       stream, and what norm and head make of it there (the logit lens, nostalgebraist 2020);
//       next: the log-probability of the token that follows, or null.
//   attention: [layer][head][place]: the weights over all tokens up to that place; they sum to 1.
//   cut: whether the text was longer.
// Logarithms are natural. Tokens that no text has (padding of the vocabulary) are left out.
import { Decoder } from "./variants.js";

/** The decoder, which notes down what its heads look at and what its layers would guess. */
class GlassDecoder extends Decoder {
  constructor(config, tensors) {
    super(config, tensors);
    this.heads = []; // weights of the heads, layer by layer, as they come
    this.guesses = []; // of the layers: {size, logits}
  }

  /** Reads one token; heads and guesses are those of this place. */
  look(id, position) {
    this.heads = [];
    this.guesses = [];
    this.read(id, position, false);
    return { heads: this.heads, guesses: this.guesses };
  }

  lookBack(at, from, position, ...rest) {
    super.lookBack(at, from, position, ...rest);
    const scores = this.scores.subarray(0, position + 1), total = scores.reduce((sum, score) => sum + score, 0);
    this.heads.push(Array.from(scores, (score) => score / total));
  }

  feedForward(layer) {
    super.feedForward(layer);
    const squares = this.stream.reduce((sum, x) => sum + x * x, 0);
    this.guesses.push({ size: Math.sqrt(squares / this.stream.length), logits: this.predict().slice(0, this.config.tokens) });
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

/** The inspection of a text's ids. `breathe` is awaited after each token with the share that is
 * done, and says whether to go on; null where it says no.
 * @param options likeliest, of the end and of each layer: how many. */
export async function inspect(config, tensors, tokenizer, ids, breathe = async () => true, { likeliest = 10, perLayer = 3 } = {}) {
  const decoder = new GlassDecoder(config, tensors), perHead = config.num_attention_heads;
  const named = (id) => ({ id, text: new TextDecoder().decode(tokenizer.bytes[id]) });
  const guessed = (logprobs, count) => largest(logprobs, count).map((id) => ({ ...named(id), logprob: logprobs[id] }));
  const attention = decoder.layers.map(() => Array.from({ length: perHead }, () => []));
  const places = [];
  for (let position = 0; position < ids.length; position++) {
    if (!(await breathe(position / ids.length))) return null;
    const { heads, guesses } = decoder.look(ids[position], position), next = ids[position + 1];
    heads.forEach((weights, i) => attention[Math.floor(i / perHead)][i % perHead].push(weights));
    const layers = guesses.map(({ size, logits }) => ({ size, ...logSoftmax(logits) })), end = layers.at(-1);
    places.push({
      next: next === undefined ? null : { logprob: end.logprobs[next], rank: 1 + end.logprobs.reduce((better, logprob) => better + (logprob > end.logprobs[next]), 0) },
      entropy: end.entropy,
      likeliest: guessed(end.logprobs, likeliest),
      layers: layers.map(({ size, logprobs }) => ({ size, next: logprobs[next] ?? null, likeliest: guessed(logprobs, perLayer) })),
    });
  }
  return { tokens: ids.map((id) => ({ ...named(id), bytes: [...tokenizer.bytes[id]] })), places, attention, cut: false };
}
