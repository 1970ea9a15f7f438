// The other kinds of blocks, on top of the dense decoder: DeepSeek's latent attention, and experts.
import { arrange, DenseDecoder, feedForwardParts, multiply, normalise, turn } from "./decoder.js";

const LATENT_EPS = 1e-6; // of the norms on the latents, which do not follow `rms_norm_eps`

/** Pairs that stand side by side, as halves: even places first. */
function deinterleave(x, at, size) {
  const pairs = x.slice(at, at + size);
  for (let i = 0; i < size / 2; i++) [x[at + i], x[at + size / 2 + i]] = [pairs[2 * i], pairs[2 * i + 1]];
}

function latentParts(c, { vector, linear }, name) {
  const d = c.hidden_size, heads = c.num_attention_heads, rank = c.kv_lora_rank;
  const size = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim), short = c.q_lora_rank;
  const queries = short
    ? { queryDown: linear(`${name}.q_a_proj`, short, d), queryNorm: vector(`${name}.q_a_layernorm.weight`, short), query: linear(`${name}.q_b_proj`, size, short) }
    : { query: linear(`${name}.q_proj`, size, d) };
  return {
    ...queries,
    latent: linear(`${name}.kv_a_proj_with_mqa`, rank + c.qk_rope_head_dim, d),
    latentNorm: vector(`${name}.kv_a_layernorm.weight`, rank),
    made: linear(`${name}.kv_b_proj`, heads * (c.qk_nope_head_dim + c.v_head_dim), rank),
    output: linear(`${name}.o_proj`, d, heads * c.v_head_dim),
  };
}

/** One of several matrices that stand on each other. */
function slice({ outputs, inputs, numbers, scale }, which, count) {
  const rows = outputs / count, from = which * rows;
  return { outputs: rows, inputs, numbers: numbers.subarray(from * inputs, (from + rows) * inputs), scale: scale && scale.subarray(from, from + rows) };
}

function expertParts(c, find, name) {
  const router = find.matrix(`${name}.gate.weight`, c.num_experts, c.hidden_size, true);
  if (!router) return feedForwardParts(c, find, name);
  const d = c.hidden_size, count = c.num_experts, inner = c.moe_intermediate_size;
  const shapes = { gate: [inner, d], up: [inner, d], down: [d, inner] };
  const stacked = Object.entries(shapes).map(([part, [outputs, inputs]]) =>
    [part, find.matrix(`${name}.experts.${part}_proj`, count * outputs, inputs)]);
  return {
    router, bias: find.vector(`${name}.gate.e_score_correction_bias`, count, true),
    experts: Array.from({ length: count }, (_, e) => Object.fromEntries(stacked.map(([part, all]) => [part, { weight: slice(all, e, count) }]))),
    shared: c.n_shared_experts ? feedForwardParts(c, find, `${name}.shared_experts`, c.n_shared_experts * inner) : null,
  };
}

const best = (scores, count) => [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count);
const total = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** Which experts read a token, and how much each of them counts: [number, weight]. */
function route(c, logits, bias) {
  let scores, choice;
  if (c.scoring_func === "softmax") {
    const most = Math.max(...logits), sizes = Array.from(logits, (logit) => Math.exp(logit - most));
    choice = scores = sizes.map((size) => size / total(sizes));
  } else {
    scores = Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
    choice = scores.map((score, e) => score + (bias ? bias[e] : 0));
    const size = choice.length / c.n_group;
    const worth = Array.from({ length: c.n_group }, (_, g) => total(choice.slice(g * size, (g + 1) * size).sort((a, b) => b - a).slice(0, 2)));
    const open = new Set(best(worth, c.topk_group));
    if (c.n_group > 1) choice = choice.map((score, e) => (open.has(Math.floor(e / size)) ? score : -Infinity));
  }
  const chosen = best(choice, c.num_experts_per_tok), sum = total(chosen.map((e) => scores[e])) + 1e-20;
  const factor = (c.norm_topk_prob ? 1 / sum : 1) * (c.scoring_func === "softmax" ? 1 : c.routed_scaling_factor);
  return chosen.map((e) => [e, scores[e] * factor]);
}

export class Decoder extends DenseDecoder {
  constructor(config, tensors) {
    const c = config, isLatent = Boolean(c.kv_lora_rank), numbers = (size) => new Float32Array(size);
    super(c, tensors, arrange(c, tensors, isLatent ? latentParts : undefined, c.num_experts ? expertParts : undefined));
    if (c.num_experts) {
      this.gates = numbers(Math.max(c.intermediate_size, c.moe_intermediate_size * Math.max(1, c.n_shared_experts)));
      this.ups = numbers(this.gates.length);
      this.routed = numbers(c.num_experts);
      this.said = numbers(c.hidden_size);
    }
    if (!isLatent) return;
    const heads = c.num_attention_heads, wide = c.qk_nope_head_dim + c.qk_rope_head_dim;
    this.size = Math.max(wide, c.v_head_dim); // of a head; what a key or a value has less is zero
    this.stored = heads * this.size;
    this.scale = c.score_scale;
    this.queries = numbers(this.stored);
    this.asked = numbers(heads * wide);
    this.short = numbers(c.q_lora_rank || 0);
    this.latent = numbers(c.kv_lora_rank + c.qk_rope_head_dim);
    this.pairs = numbers(heads * (c.qk_nope_head_dim + c.v_head_dim));
    this.seen = numbers(heads * c.v_head_dim);
  }

  /** Keys and values of all heads are made from one small latent, beside one turned key that they
   * share; from there on it is attention as ever. (DeepSeek-V2, arXiv:2405.04434, section 2.1) */
  attend(layer, position, cos, sin) {
    const c = this.config, rank = c.kv_lora_rank;
    if (!rank) return super.attend(layer, position, cos, sin);
    const nope = c.qk_nope_head_dim, rope = c.qk_rope_head_dim, value = c.v_head_dim, { size, queries, latent } = this;
    let source = this.normed;
    if (layer.queryDown) {
      multiply(layer.queryDown.weight, source, this.short);
      normalise(this.short, layer.queryNorm, LATENT_EPS);
      source = this.short;
    }
    multiply(layer.query.weight, source, this.asked);
    multiply(layer.latent.weight, this.normed, latent);
    normalise(latent, layer.latentNorm, LATENT_EPS);
    multiply(layer.made.weight, latent, this.pairs);
    const twist = (x, at) => { deinterleave(x, at, rope); turn(x, at, cos, sin); };
    twist(latent, rank);
    for (let head = 0; head < c.num_attention_heads; head++) {
      const at = head * size, here = position * this.stored + at, from = head * (nope + value);
      layer.keys.set(this.pairs.subarray(from, from + nope), here);
      layer.keys.set(latent.subarray(rank), here + nope);
      layer.values.set(this.pairs.subarray(from + nope, from + nope + value), here);
      queries.fill(0, at, at + size);
      queries.set(this.asked.subarray(head * (nope + rope), (head + 1) * (nope + rope)), at);
      twist(queries, at + nope);
      this.lookBack(at, at, position, layer);
      this.seen.set(queries.subarray(at, at + value), head * value);
    }
    multiply(layer.output.weight, this.seen, this.stream, null, true);
  }

  /** The experts that read what stands in `normed`: [number, weight]. */
  choose(layer) {
    multiply(layer.router, this.normed, this.routed);
    return route(this.config, this.routed, layer.bias);
  }

  /** A few experts of many read the token, and those that all share. */
  feedForward(layer) {
    if (!layer.router) return super.feedForward(layer);
    for (const [number, weight] of this.choose(layer)) {
      super.feedForward(layer.experts[number], this.said, false);
      for (let i = 0; i < this.said.length; i++) this.stream[i] += weight * this.said[i];
    }
    if (layer.shared) super.feedForward(layer.shared);
  }
}
