// What would be different: another way of drawing, something switched off, another model.
import { bar, glass, guessed, look, lookBeside, percent, press, view, visible } from "./glass.js";
import { distribution } from "./sampling.js";
import { make, redraw, rest } from "./nodes.js";
import { say } from "./words.js";

const SLIDERS = { temperature: [0, 2, 0.05, 1], top_p: [0.05, 1, 0.05, 1], repetition_penalty: [1, 2, 0.05, 1], presence_penalty: [0, 3, 0.1, 0], frequency_penalty: [0, 3, 0.1, 0] };

/** What the sliders would do to the distribution at the chosen place, as they move. */
export function samplingView() {
  const list = make("ol", "likely"), note = make("p", "hint"), sliders = make("div", "sliders");
  const options = {};
  let whole = null, seen = null; // a place's distribution, once it was asked for, and of what
  const open = press("chip", say("sliders"), fetchWhole);
  open.id = "open-sliders";
  for (const [name, [min, max, step, value]] of Object.entries(SLIDERS)) {
    options[name] = value;
    const field = Object.assign(make("input"), { type: "range", name: `try-${name}`, min, max, step, value });
    const shown = make("output", "", `${value}`), label = make("span", "", say(name));
    label.dataset.say = name;
    field.addEventListener("input", () => { options[name] = Number(field.value); shown.textContent = field.value; draw(); });
    sliders.append(make("label", "", label, shown, field));
  }
  note.setAttribute("role", "status");
  list.id = "glass-drawn";

  async function fetchWhole() {
    const { asked } = glass, place = glass.chosen - 1;
    const again = rest(open);
    const found = await lookBeside({ ...asked, without: undefined, against: undefined, attention: false, whole: place });
    again();
    if (!found?.whole || glass.seen !== seen || found.whole.place !== glass.chosen - 1) return;
    const held = document.activeElement === open;
    whole = found.whole;
    show(guessed());
    if (held) sliders.querySelector("input").focus(); // which stand where it stood
  }

  function draw() {
    const { tokens, prompt } = glass.seen, read = tokens.slice(0, glass.chosen).map(({ id }) => id);
    const logits = Float32Array.from(whole.logprobs), count = logits.length;
    const { order, weights } = distribution(logits, options, read, count, read.slice(prompt));
    const sum = order.reduce((total, id) => total + weights[id], 0), left = new Set(order);
    list.replaceChildren(...guessed().likeliest.map((each) => {
      const share = left.has(each.id) ? weights[each.id] / sum : 0;
      return bar(each, `${percent(each.logprob)} → ${share ? percent(Math.log(share)) : "0 %"}`, share);
    }));
    note.textContent = say("drawable", order.length, count);
  }

  function show(guess) {
    if (seen !== glass.seen || whole?.place !== glass.chosen - 1) whole = null;
    seen = glass.seen;
    node.hidden = guess === null;
    open.hidden = whole !== null;
    for (const part of [sliders, note, list]) part.hidden = whole === null;
    if (whole) draw();
  }

  const node = view("glassSampling", open, sliders, note, list);
  return { node, show };
}

/** Switches parts off, and shows how two readings differ. */
export function changesView() {
  const chips = make("div", "chips"), lists = make("div", "views two"), other = view("glassOther", lists);
  let off = { tokens: [], layers: [], heads: [] };
  other.id = "glass-other";
  chips.id = "glass-off";

  const key = (kind, part) => `${kind} ${part}`;
  const has = (kind, part) => off[kind].some((one) => key(kind, one) === key(kind, part));
  function toggle(kind, part) {
    off[kind] = has(kind, part) ? off[kind].filter((one) => key(kind, one) !== key(kind, part)) : [...off[kind], part];
    again();
  }
  function again() {
    const { without, ...asked } = glass.asked, any = Object.values(off).some((parts) => parts.length);
    look(any ? { ...asked, without: off } : asked);
  }
  function chip(kind, part, text) {
    const node = press(`chip${has(kind, part) ? " off" : ""}`, text, () => toggle(kind, part));
    node.setAttribute("aria-pressed", has(kind, part));
    node.dataset.key = key(kind, part);
    return node;
  }

  function show(guess, token) {
    const { seen, head, chosen } = glass;
    if (!glass.asked.without) off = { tokens: [], layers: [], heads: [] };
    const found = token ? [chip("tokens", chosen, say("offToken", visible(token)))] : [];
    found.push(...seen.places[0].layers.map((_, i) => chip("layers", i, say("offLayer", i + 1))));
    if (head) found.push(chip("heads", head, say("offHead", head[0] + 1, head[1] + 1)));
    else found.push(make("span", "hint", say("pickHead")));
    const more = [
      ...off.tokens.filter((place) => place !== chosen && seen.tokens[place]).map((place) => chip("tokens", place, say("offToken", visible(seen.tokens[place])))),
      ...off.heads.filter((one) => !head || key("", one) !== key("", head)).map((one) => chip("heads", one, say("offHead", one[0] + 1, one[1] + 1))),
    ];
    if (Object.values(off).some((parts) => parts.length)) more.push(press("plain", say("onAgain"), () => { off = { tokens: [], layers: [], heads: [] }; again(); }));
    redraw(chips, ...found, ...more);
    other.hidden = seen.other === null || guess === null;
    if (other.hidden) return;
    const then = seen.other.places[chosen - 1];
    const list = (title, { likeliest }) => make("div", "", make("b", "", say(title)), make("ol", "likely", ...likeliest.map((each) => bar(each, percent(each.logprob), Math.exp(each.logprob), each.id === token?.id))));
    lists.replaceChildren(list("before", guess), list("after", then));
  }

  return { node: make("div", "", view("glassChange", chips), other), show };
}
