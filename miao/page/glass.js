// The glass box: a text as the model sees it, and how it guessed the token that is chosen. A page and
// the studio show the same; where inspections come from is theirs to say (`prepareGlass`).
import { at, make, redraw } from "./nodes.js";
import { say } from "./words.js";

const SURE = 12; // bits of surprise at which the colour is full
const FAR = 4; // nats of divergence, likewise
/** What is shown, and what the views share. */
export const glass = {
  seen: null, // the inspection
  asked: null, // what was asked for it
  chosen: 0, // the token whose guess is shown; one past the last: what comes next
  head: null, // [layer, head] by whose attention tokens are coloured
  byOther: false, // whether they are coloured by the difference of two readings
};
let source = null;
let latest = 0; // number of the inspection that is waited for
let besides = 0; // how many were asked for beside it
let stays = false; // whether it is of the text that is shown
const parts = []; // further views: they are built once, and shown anew for every choice

export const percent = (logprob) => { const p = 100 * Math.exp(logprob); return `${p >= 10 ? p.toFixed(0) : p.toPrecision(2)} %`; };
const bits = (logprob) => -logprob / Math.LN2;
const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A token with what cannot be seen made visible; half characters as their bytes. */
export const visible = ({ text, bytes }) => (text.includes("\ufffd") ? `⟨${hex(bytes)}⟩` : text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅");

/** A button of the glass box. */
export function press(css, label, action) {
  const node = make("button", css, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

/** A table that scrolls by itself where the window is narrow. heads: null where the first column is one. */
export function table(rows, heads = null) {
  const body = make("table");
  if (heads) body.append(make("tr", "", ...heads.map((text) => make("th", "", text))));
  for (const row of rows) body.append(make("tr", "", ...row.map((cell, i) => make(heads || i ? "td" : "th", "", cell))));
  return make("div", "table", body);
}

export function download(name, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const named = (tag, id, css = "") => Object.assign(make(tag, css), { id });
const spoken = (tag, key, css = "") => { const node = make(tag, css, say(key)); node.dataset.say = key; return node; };

/** A view with its title and two sentences about it, and where its numbers come from. */
export function view(key, ...children) {
  const about = source.about?.(key);
  return make("section", "", spoken("h3", key), spoken("p", `${key}More`, "hint"), ...(about ? [make("p", "sources", about)] : []), ...children);
}

/** Builds the views.
 * @param of look(request): begins an inspection, whose answer goes to `showGlass`;
 *   title(): a name for files; about(key): of a view, where its numbers come from, or null. */
export function prepareGlass(of, ...further) {
  source = of;
  const tokens = named("div", "glass-tokens", "tokens");
  tokens.dir = "auto";
  tokens.setAttribute("role", "toolbar");
  tokens.setAttribute("aria-labelledby", "glass-title");
  tokens.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !glass.seen) return;
    event.preventDefault();
    choose(Math.min(glass.seen.tokens.length, Math.max(0, glass.chosen + step)));
    tokens.children[glass.chosen].focus();
  });
  const bySurprise = press("plain", say("bySurprise"), () => { glass.head = null; glass.byOther = false; colour(); });
  bySurprise.id = "by-surprise";
  bySurprise.dataset.say = "bySurprise";
  const byOther = press("plain", say("byOther"), () => { glass.head = null; glass.byOther = true; colour(); });
  byOther.id = "by-other";
  byOther.dataset.say = "byOther";
  const facts = named("p", "glass-facts", "facts"), most = named("p", "glass-most");
  for (const node of [facts, most]) node.setAttribute("role", "status");
  const guess = make("div", "views",
    view("glassLikely", named("ol", "glass-likely", "likely")),
    view("glassLayers", named("div", "glass-layers")),
    view("glassAttention", named("div", "glass-heads", "heads"), most));
  guess.id = "glass-guess";
  const first = spoken("p", "glassFirst", "hint");
  first.id = "glass-first";
  at("glass-views").replaceChildren(view("glassTokens", tokens, make("p", "", bySurprise, byOther)), facts, first, guess);
  for (const make of further) {
    const part = make();
    parts.push(part);
    guess.after(part.node);
  }
  at("glass-save").addEventListener("click", () => download(`${source.title()}.inspection.json`, `${JSON.stringify(glass.seen)}\n`));
}

/** Asks for an inspection: text, or messages and answer; see inspect.js. */
export function look(request) {
  stays = glass.seen !== null && ["text", "messages", "answer"].every((key) => request[key] === glass.asked[key]);
  glass.asked = request;
  at("glass-note").textContent = say("glassWorks", 0);
  at("glass-views").hidden = !stays;
  source.look({ ...request, number: `glass ${++latest}` });
}

const waiting = new Map(); // number -> what wants the answer

/** Asks for something beside what is shown. */
export function lookBeside(request) {
  const mine = `beside ${++besides}`;
  return new Promise((resolve) => { waiting.set(mine, resolve); source.look({ ...request, number: mine }); });
}

export function showProgress(which, share) {
  if (which === `glass ${latest}`) at("glass-note").textContent = say("glassWorks", Math.floor(100 * share));
}

export function showGlass(which, inspection) {
  waiting.get(which)?.(inspection);
  if (waiting.delete(which) || which !== `glass ${latest}` || !inspection) return;
  glass.seen = inspection;
  glass.head = null;
  glass.byOther = inspection.other !== null;
  const { tokens, attention } = inspection;
  at("glass-note").textContent = inspection.cut ? say("glassCut", tokens.length) : "";
  const nodes = tokens.map((token) => make("button", "token", visible(token)));
  nodes.push(make("button", "token end", say("glassEnd")));
  nodes.forEach((node, place) => { node.type = "button"; node.addEventListener("click", () => choose(place)); });
  redraw(at("glass-tokens"), ...nodes);
  redraw(at("glass-heads"), ...(attention ?? []).map((heads, layer) => make("div", "", ...heads.map((rows, i) => thumbnail(rows, layer, i)))));
  at("glass-views").hidden = false;
  choose(stays ? Math.min(glass.chosen, tokens.length) : Math.max(1, tokens.length - 1));
}

/** A head over the whole text: across what is looked at, down what looks. */
function thumbnail(rows, layer, head) {
  const canvas = Object.assign(make("canvas"), { width: rows.length, height: rows.length });
  const pen = canvas.getContext("2d"), image = pen.createImageData(rows.length, rows.length);
  const rgb = getComputedStyle(document.documentElement).getPropertyValue("--seen").split(" ").map(Number);
  rows.forEach((weights, y) => weights.forEach((weight, x) => image.data.set([...rgb, 255 * weight ** 0.4], 4 * (y * rows.length + x))));
  pen.putImageData(image, 0, 0);
  const node = press("head", canvas, () => { glass.head = [layer, head]; choose(glass.chosen); });
  node.title = `${say("layer")} ${layer + 1}, ${say("head")} ${head + 1}`;
  node.setAttribute("aria-label", node.title);
  return node;
}

/** What was expected at the chosen token; null for the first. */
export const guessed = () => (glass.chosen > 0 ? glass.seen.places[glass.chosen - 1] : null);

export function choose(place) {
  glass.chosen = place;
  [...at("glass-tokens").children].forEach((node, i) => {
    node.tabIndex = i === place ? 0 : -1;
    node.setAttribute("aria-pressed", i === place);
  });
  colour();
  const guess = guessed(), token = glass.seen.tokens[place];
  at("glass-first").hidden = guess !== null;
  at("glass-guess").hidden = guess === null;
  at("glass-facts").textContent = facts(token, guess);
  parts.forEach((part) => part.show(guess, token));
  if (!guess) return;
  at("glass-likely").replaceChildren(...guess.likeliest.map((each) => bar(each, percent(each.logprob), Math.exp(each.logprob), each.id === token?.id)));
  const hasExperts = guess.layers.some(({ experts }) => experts);
  const rows = guess.layers.map(({ size, next, likeliest, experts }, i) => [`${i + 1}`, ...likeliest.map((each) => `${visible(each)} ${percent(each.logprob)}`), next === null ? "" : percent(next), size.toPrecision(3), ...(hasExperts ? [(experts ?? []).map(([e, weight]) => `${e + 1} (${weight.toFixed(2)})`).join(", ")] : [])]);
  const guesses = guess.layers[0].likeliest.map((_, i) => `${say("guess")} ${i + 1}`);
  at("glass-layers").replaceChildren(table(rows, [say("layer"), ...guesses, token ? `“${visible(token)}”` : "", say("size"), ...(hasExperts ? [say("experts")] : [])]));
}

/** A token of a list, with a bar behind it. */
export function bar(token, text, share, isHere = false) {
  const line = make("span", "bar-line");
  line.style.inlineSize = `${100 * share}%`;
  return make("li", isHere ? "here" : "", make("b", "", visible(token)), make("span", "share", text), line);
}

function facts(token, guess) {
  const found = token ? [`“${visible(token)}”`, `${say("id")} ${token.id}`, `${say("bytes")} ${hex(token.bytes)}`] : [say("glassEnd")];
  if (guess?.next) found.push(`${say("probability")} ${percent(guess.next.logprob)} (${say("bits", bits(guess.next.logprob).toFixed(1))})`, `${say("rank")} ${guess.next.rank}`);
  if (guess) found.push(`${say("entropy")} ${say("bits", (guess.entropy / Math.LN2).toFixed(1))}`);
  if (guess && glass.seen.other) found.push(`${say("divergence")} ${say("nats", glass.seen.other.kl[glass.chosen - 1].toPrecision(2))}`);
  return found.join(" · ");
}

/** Colours the tokens: by surprise, by the difference of two readings, or by what the chosen head
 * looks at from the chosen place. */
export function colour() {
  const { seen, head, chosen, byOther } = glass;
  const weights = head && chosen > 0 ? seen.attention[head[0]][head[1]][chosen - 1] : null;
  const heat = (i) => {
    if (head) return Math.sqrt(weights?.[i] ?? 0);
    if (i === 0) return 0;
    if (byOther) return Math.min(1, Math.sqrt(seen.other.kl[i - 1] / FAR));
    return seen.places[i - 1].next ? Math.min(1, bits(seen.places[i - 1].next.logprob) / SURE) : 0;
  };
  [...at("glass-tokens").children].forEach((node, i) => {
    node.classList.toggle("looked-at", head !== null);
    node.style.setProperty("--heat", (0.6 * heat(i)).toFixed(3));
  });
  at("by-surprise").hidden = head === null && !byOther;
  at("by-other").hidden = seen.other === null || (head === null && byOther);
  [...at("glass-heads").querySelectorAll(".head")].forEach((node, i) => node.setAttribute("aria-pressed", head !== null && i === head[0] * seen.attention[0].length + head[1]));
  const most = weights ? weights.map((weight, i) => [weight, i]).sort((a, b) => b[0] - a[0]).slice(0, 5) : [];
  at("glass-most").textContent = weights ? `${say("looksAt", head[0] + 1, head[1] + 1)} ${most.map(([weight, i]) => `${visible(seen.tokens[i])} ${percent(Math.log(weight))}`).join(", ")}` : "";
}
