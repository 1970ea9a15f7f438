// From logits to the next token, in the order of Miao's engine: the repetition penalty changes the
// logits; temperature divides them; top_k, top_p and min_p leave tokens out.

/** @param options temperature, top_k, top_p, min_p, repetition_penalty.
 * @param seen ids of prompt and answer. count: ids below this are tokens. random: in [0, 1). */
export function nextToken(logits, options, seen, count, random = Math.random) {
  const penalty = options.repetition_penalty ?? 1;
  if (penalty !== 1) for (const id of new Set(seen)) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  let best = 0;
  for (let id = 1; id < count; id++) if (logits[id] > logits[best]) best = id;
  const temperature = options.temperature ?? 0;
  if (!(temperature >= 1e-5)) return best;
  let total = 0;
  const weights = new Float32Array(count);
  for (let id = 0; id < count; id++) total += weights[id] = Math.exp((logits[id] - logits[best]) / temperature);
  let order = Array.from(weights.keys());
  if (options.top_k || options.top_p < 1 || options.min_p) order.sort((a, b) => weights[b] - weights[a] || a - b);
  if (options.top_k) {
    order = order.slice(0, options.top_k);
    total = order.reduce((sum, id) => sum + weights[id], 0);
  }
  if (options.top_p < 1) {
    let sum = 0;
    const end = order.findIndex((id) => (sum += weights[id]) >= options.top_p * total);
    if (end >= 0) order = order.slice(0, end + 1);
  }
  if (options.min_p) order = order.filter((id) => weights[id] >= options.min_p * weights[best]);
  let dice = random() * order.reduce((sum, id) => sum + weights[id], 0);
  for (const id of order) if ((dice -= weights[id]) < 0) return id;
  return order.at(-1);
}
