// The glass box: a text as the model sees it, and how it guessed the token that is chosen.
import { forTemplate, page } from "./talk.js";
import { at, download, make, say, table } from "./words.js";

const SURE = 12; // bits of surprise at which the colour is full
let seen = null; // the inspection that is shown
let chosen = 0; // the token whose guess is shown; one past the last: what comes next
let head = null; // [layer, head] by whose attention tokens are coloured; null: by surprise
let asked = 0; // number of the inspection that is waited for

const percent = (logprob) => { const p = 100 * Math.exp(logprob); return `${p >= 10 ? p.toFixed(0) : p.toPrecision(2)} %`; };
const bits = (logprob) => -logprob / Math.LN2;
const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A token's text with what cannot be seen made visible; half characters as their bytes. */
const visible = (text, bytes = null) => (bytes && text.includes("\ufffd") ? `⟨${hex(bytes)}⟩` : text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅");

export function openGlass() {
  at("glass").showModal();
  const { messages } = page.chat;
  if (messages.length > 1) look({ messages });
  else at("glass-text").focus();
}

export function prepareGlass() {
  at("glass-ask").addEventListener("click", () => { if (at("glass-text").value) look({ text: at("glass-text").value }); });
  at("glass-chat").addEventListener("click", () => look({ messages: page.chat.messages }));
  at("glass-save").addEventListener("click", () => download(`${page.model.title}.inspection.json`, `${JSON.stringify(seen)}\n`));
  at("by-surprise").addEventListener("click", () => { head = null; colour(); });
  at("glass-tokens").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !seen) return;
    event.preventDefault();
    choose(Math.min(seen.tokens.length, Math.max(0, chosen + step)));
    at("glass-tokens").children[chosen].focus();
  });
  at("glass").addEventListener("close", () => page.worker?.postMessage({ type: "stop", number: -1 }));
}

function look({ text = null, messages = null }) {
  if (!page.isReady) return;
  // The last answer by its own tokens, where they are known: its text may be cut otherwise.
  const last = messages?.at(-1).role === "assistant" ? messages.at(-1) : null;
  const before = messages && forTemplate(last ? messages.slice(0, -1) : messages);
  at("glass-note").textContent = say("glassWorks", 0);
  at("glass-views").hidden = true;
  page.worker.postMessage({ type: "inspect", number: `glass ${++asked}`, text, messages: before, answer: last && (last.ids ?? last.content) });
}

export function showProgress({ number, share }) {
  if (number === `glass ${asked}`) at("glass-note").textContent = say("glassWorks", Math.floor(100 * share));
}

export function showGlass({ number, inspection }) {
  if (number !== `glass ${asked}` || !inspection) return;
  seen = inspection;
  head = null;
  at("glass-note").textContent = seen.cut ? say("glassCut", seen.tokens.length) : "";
  const nodes = seen.tokens.map(({ text, bytes }) => make("button", "token", visible(text, bytes)));
  nodes.push(make("button", "token end", say("glassEnd")));
  nodes.forEach((node, place) => { node.type = "button"; node.addEventListener("click", () => choose(place)); });
  at("glass-tokens").replaceChildren(...nodes);
  at("glass-heads").replaceChildren(...seen.attention.map((heads, layer) => make("div", "", ...heads.map((rows, i) => thumbnail(rows, layer, i)))));
  at("glass-views").hidden = false;
  choose(Math.max(1, seen.tokens.length - 1));
}

/** A head over the whole text: across what is looked at, down what looks. */
function thumbnail(rows, layer, number) {
  const canvas = Object.assign(make("canvas"), { width: rows.length, height: rows.length });
  const pen = canvas.getContext("2d"), image = pen.createImageData(rows.length, rows.length);
  const rgb = getComputedStyle(document.documentElement).getPropertyValue("--seen").split(" ").map(Number);
  rows.forEach((weights, y) => weights.forEach((weight, x) => image.data.set([...rgb, 255 * weight ** 0.4], 4 * (y * rows.length + x))));
  pen.putImageData(image, 0, 0);
  const node = make("button", "head", canvas);
  node.type = "button";
  node.title = `${say("layer")} ${layer + 1}, ${say("head")} ${number + 1}`;
  node.setAttribute("aria-label", node.title);
  node.addEventListener("click", () => { head = [layer, number]; colour(); });
  return node;
}

function choose(place) {
  chosen = place;
  [...at("glass-tokens").children].forEach((node, i) => {
    node.tabIndex = i === place ? 0 : -1;
    node.setAttribute("aria-pressed", i === place);
  });
  colour();
  const guess = place > 0 ? seen.places[place - 1] : null, token = seen.tokens[place];
  at("glass-first").hidden = guess !== null;
  at("glass-guess").hidden = guess === null;
  at("glass-facts").textContent = facts(token, guess);
  if (!guess) return;
  at("glass-likely").replaceChildren(...guess.likeliest.map(({ id, text, logprob }) => {
    const bar = make("span", "bar-line"), node = make("li", id === token?.id ? "here" : "", make("b", "", visible(text)), make("span", "share", percent(logprob)), bar);
    bar.style.inlineSize = `${100 * Math.exp(logprob)}%`;
    return node;
  }));
  const rows = guess.layers.map(({ size, next, likeliest }, i) => [`${i + 1}`, ...likeliest.map(({ text, logprob }) => `${visible(text)} ${percent(logprob)}`), next === null ? "" : percent(next), size.toPrecision(3)]);
  const guesses = guess.layers[0].likeliest.map((_, i) => `${say("guess")} ${i + 1}`);
  at("glass-layers").replaceChildren(table(rows, [say("layer"), ...guesses, token ? `“${visible(token.text, token.bytes)}”` : "", say("size")]));
}

function facts(token, guess) {
  const parts = token ? [`“${visible(token.text, token.bytes)}”`, `${say("id")} ${token.id}`, `${say("bytes")} ${hex(token.bytes)}`] : [say("glassEnd")];
  if (guess?.next) parts.push(`${say("probability")} ${percent(guess.next.logprob)} (${say("bits", bits(guess.next.logprob).toFixed(1))})`, `${say("rank")} ${guess.next.rank}`);
  if (guess) parts.push(`${say("entropy")} ${say("bits", (guess.entropy / Math.LN2).toFixed(1))}`);
  return parts.join(" · ");
}

/** Colours the tokens by surprise, or by what the chosen head looks at from the chosen place. */
function colour() {
  const weights = head && chosen > 0 ? seen.attention[head[0]][head[1]][chosen - 1] : null;
  [...at("glass-tokens").children].forEach((node, i) => {
    const surprise = i > 0 && seen.places[i - 1].next ? Math.min(1, bits(seen.places[i - 1].next.logprob) / SURE) : 0;
    node.classList.toggle("looked-at", head !== null);
    node.style.setProperty("--heat", (0.6 * (head ? Math.sqrt(weights?.[i] ?? 0) : surprise)).toFixed(3));
  });
  at("by-surprise").hidden = head === null;
  [...at("glass-heads").querySelectorAll(".head")].forEach((node, i) => node.setAttribute("aria-pressed", head !== null && i === head[0] * seen.attention[0].length + head[1]));
  const most = weights ? weights.map((weight, i) => [weight, i]).sort((a, b) => b[0] - a[0]).slice(0, 5) : [];
  at("glass-most").textContent = weights ? `${say("looksAt", head[0] + 1, head[1] + 1)} ${most.map(([weight, i]) => `${visible(seen.tokens[i].text, seen.tokens[i].bytes)} ${percent(Math.log(weight))}`).join(", ")}` : "";
}
