// A whole language model: a token goes in, a score for every possible next token comes out.
//
// The same arithmetic as Miao's engine: sums aside, everything is rounded to float32, and beside
// int8 weights the activations are rounded to whole steps, so that products are sums of whole
// numbers and exact. Shapes: d hidden size, h query heads, k key/value heads, e head size.

const { fround, imul } = Math;
const ROUNDER = 12582912; // 1.5 * 2^23: a float32 plus this is rounded to a whole number
const FINEST = 8191; // steps between 0 and the largest activation of a row

/** out[o] = weight[o] . x (+ bias[o]), or added to what `out` holds. */
export function multiply(matrix, x, out, bias = null, adds = false) {
  const product = matrix.scale ? multiplyWhole : multiplyFloat;
  product(matrix, x, out, bias, adds);
}

function multiplyFloat({ outputs, inputs, numbers }, x, out, bias, adds) {
  for (let o = 0, at = 0; o < outputs; o++) {
    let a = 0, b = 0, i = 0;
    for (; i + 2 <= inputs; i += 2, at += 2) {
      a += numbers[at] * x[i];
      b += numbers[at + 1] * x[i + 1];
    }
    if (i < inputs) a += numbers[at++] * x[i];
    const sum = fround(a + b) + (bias ? bias[o] : 0);
    out[o] = adds ? out[o] + sum : sum;
  }
}

let steps = new Int16Array(0);

/** Rounds x to steps; returns the size of one. No eighth of a row's sum can leave 32 bits. */
function roundToSteps(x, size) {
  if (steps.length < size) steps = new Int16Array(size);
  let largest = fround(1e-12);
  for (let i = 0; i < size; i++) largest = Math.max(largest, Math.abs(x[i]));
  const per = fround(Math.min(fround(2147483647 / 127 / (size / 8 + 1)), FINEST) / largest);
  for (let i = 0; i < size; i++) steps[i] = fround(fround(x[i] * per) + ROUNDER) - ROUNDER;
  return fround(1 / per);
}

function multiplyWhole({ outputs, inputs, numbers, scale }, x, out, bias, adds) {
  const step = roundToSteps(x, inputs), s = steps;
  for (let o = 0, at = 0; o < outputs; o++) {
    let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0;
    for (; i + 8 <= inputs; i += 8, at += 8) {
      a = (a + imul(numbers[at], s[i])) | 0;
      b = (b + imul(numbers[at + 1], s[i + 1])) | 0;
      c = (c + imul(numbers[at + 2], s[i + 2])) | 0;
      d = (d + imul(numbers[at + 3], s[i + 3])) | 0;
      e = (e + imul(numbers[at + 4], s[i + 4])) | 0;
      f = (f + imul(numbers[at + 5], s[i + 5])) | 0;
      g = (g + imul(numbers[at + 6], s[i + 6])) | 0;
      h = (h + imul(numbers[at + 7], s[i + 7])) | 0;
    }
    let whole = a + b + c + d + e + f + g + h;
    for (; i < inputs; i++, at++) whole += numbers[at] * s[i];
    const sum = fround(whole * fround(step * scale[o])) + (bias ? bias[o] : 0);
    out[o] = adds ? out[o] + sum : sum;
  }
}

/** RMSNorm of `size` numbers of x, from `at` on; in place unless `out` is given. */
export function normalise(x, weight, eps, out = x, at = 0, size = weight.length) {
  let squares = 0;
  for (let i = 0; i < size; i++) squares += x[at + i] * x[at + i];
  const factor = fround(1 / Math.sqrt(squares / size + eps));
  for (let i = 0; i < size; i++) out[at + i] = fround(x[at + i] * factor) * weight[i];
}

/** Rotary position: each pair of numbers of a head is turned by its own angle. */
export function turn(x, at, cos, sin) {
  const half = cos.length;
  for (let i = 0; i < half; i++) {
    const left = x[at + i], right = x[at + i + half];
    x[at + i] = left * cos[i] - right * sin[i];
    x[at + i + half] = right * cos[i] + left * sin[i];
  }
}

/** The angles by which the pairs of a head are turned at a position: cos and sin [e/2]. */
export function angles(config, position) {
  const of = (turned) => Float32Array.from(config.frequencies, (frequency) =>
    fround(turned(fround(position * fround(frequency)))) * config.attention_factor);
  return [of(Math.cos), of(Math.sin)];
}

/** Finds tensors by name. Error: one is not there, or of another shape. */
function finder(tensors) {
  const matrix = (name, outputs, inputs, mayMiss = false) => {
    const found = tensors[name];
    if (!found && mayMiss) return null;
    if (found?.outputs !== outputs || found.inputs !== inputs) throw new Error(`${name} is not [${outputs}, ${inputs}]`);
    return found;
  };
  const vector = (name, size, mayMiss) => matrix(name, size, 1, mayMiss)?.numbers ?? null;
  const linear = (name, outputs, inputs) => ({ weight: matrix(`${name}.weight`, outputs, inputs), bias: vector(`${name}.bias`, outputs, true) });
  return { matrix, vector, linear };
}

function attentionParts(c, { vector, linear }, name) {
  const d = c.hidden_size, attended = c.num_attention_heads * c.head_dim, stored = c.num_key_value_heads * c.head_dim;
  return {
    queryNorm: vector(`${name}.q_norm.weight`, c.head_dim, true), keyNorm: vector(`${name}.k_norm.weight`, c.head_dim, true),
    query: linear(`${name}.q_proj`, attended, d), key: linear(`${name}.k_proj`, stored, d),
    value: linear(`${name}.v_proj`, stored, d), output: linear(`${name}.o_proj`, d, attended),
  };
}

export function feedForwardParts(c, { linear }, name, size = c.intermediate_size) {
  const d = c.hidden_size;
  return { gate: linear(`${name}.gate_proj`, size, d), up: linear(`${name}.up_proj`, size, d), down: linear(`${name}.down_proj`, d, size) };
}

/** The tensors by their part in the decoder. */
export function arrange(c, tensors, attention = attentionParts, feedForward = feedForwardParts) {
  const find = finder(tensors), d = c.hidden_size;
  const embedding = find.matrix("model.embed_tokens.weight", c.vocab_size, d);
  const layers = Array.from({ length: c.num_hidden_layers }, (_, number) => {
    const name = `model.layers.${number}`;
    return {
      inputNorm: find.vector(`${name}.input_layernorm.weight`, d),
      postNorm: find.vector(`${name}.post_attention_layernorm.weight`, d),
      ...attention(c, find, `${name}.self_attn`),
      ...feedForward(c, find, `${name}.mlp`),
    };
  });
  return { embedding, layers, norm: find.vector("model.norm.weight", d), head: find.matrix("lm_head.weight", c.vocab_size, d, true) ?? embedding };
}

/** Grouped-query attention and SwiGLU: Llama, Qwen2, Qwen3. `variants.js` has the other kinds. */
export class DenseDecoder {
  /**
   * @param config sizes by the names of `config.json`, and the rotary frequencies.
   * @param tensors of `readTensors`.
   */
  constructor(config, tensors, parts = arrange(config, tensors)) {
    this.config = config;
    this.tensors = () => tensors;
    this.piece = 1; // tokens that are read at once
    Object.assign(this, parts);
    for (const layer of this.layers) layer.keys = layer.values = new Float32Array(0); // [positions, k * e]
    const c = config, numbers = (size) => new Float32Array(size);
    this.stream = numbers(c.hidden_size); // x of the literature: what the blocks add to
    this.normed = numbers(c.hidden_size);
    this.size = c.head_dim;
    this.stored = c.num_key_value_heads * this.size; // numbers of a position's keys
    this.scale = fround(1 / fround(Math.sqrt(this.size)));
    this.queries = numbers(c.num_attention_heads * this.size);
    this.gates = numbers(c.intermediate_size);
    this.ups = numbers(c.intermediate_size);
    this.scores = numbers(0);
    this.logits = numbers(c.vocab_size);
  }

  /** Reads one token at a position, the earlier ones having been read; its logits [vocab], if
   * wanted, stand until the next call. */
  read(id, position, wanted = true) {
    const c = this.config, x = this.stream;
    this.makeRoom(position + 1);
    this.lookUp(id);
    const [cos, sin] = angles(c, position);
    for (const layer of this.layers) {
      normalise(x, layer.inputNorm, c.rms_norm_eps, this.normed);
      this.attend(layer, position, cos, sin);
      normalise(x, layer.postNorm, c.rms_norm_eps, this.normed);
      this.feedForward(layer);
    }
    return wanted ? this.predict() : null;
  }

  /** A score for every token, from what has been read so far. */
  predict() {
    normalise(this.stream, this.norm, this.config.rms_norm_eps, this.normed);
    multiply(this.head, this.normed, this.logits);
    return this.logits;
  }

  /** Reads tokens from a position on; the last one's logits, if wanted. */
  readAll(ids, position, wanted = true) {
    ids.forEach((id, i) => this.read(id, position + i, wanted && i === ids.length - 1));
    return wanted ? this.logits : null;
  }

  /** The token's row of the embedding. */
  lookUp(id) {
    const { inputs, numbers, scale } = this.embedding, at = id * inputs;
    const factor = scale ? scale[id] : 1;
    for (let i = 0; i < inputs; i++) this.stream[i] = numbers[at + i] * factor;
  }

  /** Every head compares its query with the keys of all positions so far, and takes the mean of
   * their values, weighted by how well they fit. */
  attend(layer, position, cos, sin) {
    const c = this.config, { size, stored } = this;
    const group = c.num_attention_heads / c.num_key_value_heads, q = this.queries;
    const here = position * stored, { keys, values } = layer;
    multiply(layer.query.weight, this.normed, q, layer.query.bias);
    multiply(layer.key.weight, this.normed, keys.subarray(here, here + stored), layer.key.bias);
    multiply(layer.value.weight, this.normed, values.subarray(here, here + stored), layer.value.bias);
    for (let head = 0; head < c.num_key_value_heads; head++) {
      const at = here + head * size;
      if (layer.keyNorm) normalise(keys, layer.keyNorm, c.rms_norm_eps, keys, at);
      turn(keys, at, cos, sin);
    }
    for (let head = 0; head < c.num_attention_heads; head++) {
      const at = head * size, from = Math.floor(head / group) * size;
      if (layer.queryNorm) normalise(q, layer.queryNorm, c.rms_norm_eps, q, at);
      turn(q, at, cos, sin);
      this.lookBack(at, from, position, layer);
    }
    multiply(layer.output.weight, q, this.stream, layer.output.bias, true);
  }

  /** One head's attention; the result takes the place of its query. */
  lookBack(at, from, position, { keys, values }) {
    const { size, stored, scale, scores } = this, q = this.queries;
    let largest = -Infinity, total = 0;
    for (let p = 0, key = from; p <= position; p++, key += stored) {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += q[at + i] * keys[key + i];
      scores[p] = fround(sum) * scale;
      if (scores[p] > largest) largest = scores[p];
    }
    for (let p = 0; p <= position; p++) total += scores[p] = Math.exp(scores[p] - largest);
    q.fill(0, at, at + size);
    for (let p = 0, value = from; p <= position; p++, value += stored) {
      const weight = scores[p] / total;
      for (let i = 0; i < size; i++) q[at + i] += weight * values[value + i];
    }
  }

  /** SwiGLU: one product decides how much of the other passes. */
  feedForward({ gate, up, down }, out = this.stream, adds = true) {
    const gates = this.gates, ups = this.ups, size = gate.weight.outputs;
    multiply(gate.weight, this.normed, gates, gate.bias);
    multiply(up.weight, this.normed, ups, up.bias);
    for (let i = 0; i < size; i++) gates[i] = (gates[i] / (1 + Math.exp(-gates[i]))) * ups[i];
    multiply(down.weight, gates, out, down.bias, adds);
  }

  /** Caches and scores grow as the conversation does, to twice what is needed. */
  makeRoom(positions) {
    if (positions <= this.scores.length) return;
    const room = Math.min(Math.max(64, 2 * positions), Math.max(this.config.context, positions));
    this.scores = new Float32Array(room);
    for (const layer of this.layers)
      for (const name of ["keys", "values"]) {
        const larger = new Float32Array(room * this.stored);
        larger.set(layer[name]);
        layer[name] = larger;
      }
  }
}
