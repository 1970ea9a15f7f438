// From logits to the next token, in the order of Miao's engine: the penalties change the logits;
// temperature divides them; top_k, top_p and min_p leave tokens out.

/** Ids below `count` from the likeliest on, as many as `enough` wants of them. Few hold nearly all of
 * the probability, so that the rest is seldom sorted. */
function likeliest(weights, count, best, enough) {
  for (const part of [1e-3, 1e-6, 0]) {
    const order = [];
    for (let id = 0; id < count; id++) if (weights[id] >= part * weights[best]) order.push(id);
    order.sort((a, b) => weights[b] - weights[a] || a - b);
    const size = enough(order);
    if (size <= order.length) return order.slice(0, size);
    if (!part) return order;
  }
}

/** What the next token is drawn from: {order, weights}, the ids that are left, the likeliest first
 * where some are left out, and the share of each token, which need not sum to 1.
 * @param options temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
 *   frequency_penalty.
 * @param seen ids of prompt and answer. count: ids below this are tokens. said: ids of the answer. */
export function distribution(logits, options, seen, count, said = []) {
  const { repetition_penalty: penalty = 1, presence_penalty: presence = 0, frequency_penalty: frequency = 0 } = options;
  if (penalty !== 1) for (const id of new Set(seen)) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  if (frequency) for (const id of said) logits[id] -= frequency;
  if (presence) for (const id of new Set(said)) logits[id] -= presence;
  let best = 0;
  for (let id = 1; id < count; id++) if (logits[id] > logits[best]) best = id;
  const temperature = options.temperature ?? 0;
  const weights = new Float32Array(count);
  if (!(temperature >= 1e-5)) {
    weights[best] = 1;
    return { order: [best], weights };
  }
  for (let id = 0; id < count; id++) weights[id] = Math.exp((logits[id] - logits[best]) / temperature);
  const sum = (ids) => ids.reduce((total, id) => total + weights[id], 0);
  let order;
  if (options.top_k) order = likeliest(weights, count, best, () => options.top_k);
  if (options.top_p < 1) {
    const total = order ? sum(order) : weights.reduce((a, b) => a + b, 0);
    const until = (ids) => {
      let held = 0;
      const end = ids.findIndex((id) => (held += weights[id]) >= options.top_p * total);
      return end < 0 ? Infinity : end + 1;
    };
    order = order ? order.slice(0, until(order)) : likeliest(weights, count, best, until);
  }
  if (options.min_p) {
    const until = (ids) => {
      const end = ids.findIndex((id) => weights[id] < options.min_p * weights[best]);
      return end < 0 ? Infinity : end;
    };
    order = order ? order.slice(0, until(order)) : likeliest(weights, count, best, until);
  }
  return { order: order ?? Array.from(weights.keys()), weights };
}

/** @param random in [0, 1); the others as for `distribution`. */
export function nextToken(logits, options, seen, count, said = [], random = Math.random) {
  const { order, weights } = distribution(logits, options, seen, count, said);
  if (order.length === 1) return order[0];
  let dice = random() * order.reduce((total, id) => total + weights[id], 0);
  for (const id of order) if ((dice -= weights[id]) < 0) return id;
  return order.at(-1);
}
