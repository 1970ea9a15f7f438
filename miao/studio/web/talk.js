// What the chat page has more in the studio: any checkpoint, models beside each other, a blind
// comparison with its score, opinions of answers, and a run that learns from them.
import "./talk-words.js";
import { loadModels, more, showAll } from "./chat.js";
import { explain, turns } from "./notice.js";
import { table } from "./glass.js";
import { answer } from "./server.js";
import { render } from "./markdown.js";
import { get, post } from "./studio.js";
import { at, make, redraw, rest } from "./nodes.js";
import { say, speak } from "./words.js";

const MOST = 3; // models beside the first
const EVERY = 15000; // milliseconds
const wanted = new URLSearchParams(location.search);
let names = [], beside = [], blind = false, counts = null, score = [], learned = null;

// ---- the bar: what stands beside, and how it is compared

const bar = make("div", "compare");
const effect = make("div", "effect");
effect.setAttribute("role", "status");
document.querySelector("main .bar").after(bar, effect);

function showBar() {
  const chosen = beside.map((name, index) => {
    const select = make("select");
    select.setAttribute("aria-label", say("besideModel"));
    select.dataset.key = `beside${index}`;
    select.replaceChildren(new Option(say("nobody"), ""), ...names.map((one) => new Option(one, one)));
    select.value = name;
    select.addEventListener("change", () => { if (select.value) beside[index] = select.value; else beside.splice(index, 1); showBar(); });
    return select;
  });
  const add = button("besideAdd", () => { beside.push(names.find((name) => name !== at("model").value && !beside.includes(name)) || names[0]); showBar(); });
  add.disabled = beside.length >= MOST || !names.length;
  const box = make("input");
  Object.assign(box, { type: "checkbox", checked: blind }).dataset.key = "blind";
  box.addEventListener("change", () => { blind = box.checked; });
  const server = button("otherServer", addServer);
  server.id = "other-server";
  const tally = score.slice(-3).map(({ models, first, second, neither }) => `${models[0]} ${first} : ${second} ${models[1]}${neither ? ` (= ${neither})` : ""}`);
  redraw(bar, ...chosen, add, ...(beside.length ? [make("label", "tick", box, make("span", "", say("blind")))] : []), server, make("span", "grow"),
    ...(counts && counts.labels + counts.pairs + counts.turns ? [make("span", "faint", say("soMuch", `${counts.labels} 👍👎 · ${counts.pairs} ⇄ · ${counts.turns} ✎`)), button("learn", learnFromIt, "quiet")] : []),
    ...(counts?.learned ? [button("whatLearned", showEffect, "quiet")] : []),
    ...(tally.length ? [make("div", "tally faint", `${say("score")}: ${tally.join(" · ")}`)] : []));
}

function button(label, action, css = "plain") {
  const root = make("button", css, say(label));
  root.type = "button";
  root.dataset.key = label;
  root.addEventListener("click", () => Promise.resolve(action(root)).catch((error) => explain(error)));
  return root;
}

/** A form for another server: where it is, then which of its models stands beside. */
function addServer() {
  const field = (node, label, more) => { Object.assign(node, more); return make("label", "block", make("span", "", say(label)), node); };
  const url = make("input"), key = make("input"), models = make("select"), problem = make("p", "hint bad");
  const next = make("button", "wide", say("findModels"));
  const which = field(models, "itsModels", { hidden: true }), dialog = make("dialog");
  const title = make("h2", "", say("otherServer"));
  title.id = "server-title";
  dialog.id = "server";
  dialog.setAttribute("aria-labelledby", title.id);
  problem.setAttribute("role", "alert");
  which.hidden = true;
  const form = make("form", "", title, make("p", "hint", say("serverMore")),
    field(url, "serverUrl", { type: "url", name: "url", required: true, value: "http://127.0.0.1:8000" }),
    field(key, "serverKey", { type: "password", name: "key", autocomplete: "off" }), which, problem,
    make("div", "row", make("span", "grow"), button("cancel", () => dialog.close()), next));
  const forget = () => { which.hidden = models.hidden = true; next.textContent = say("findModels"); };
  for (const one of [url, key]) one.addEventListener("input", forget); // these are of what was typed before
  const asking = turns();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!which.hidden) { beside = [...beside.slice(0, MOST - 1), models.value]; showBar(); dialog.close(); return; }
    const last = asking();
    problem.textContent = "";
    const again = rest(next);
    try {
      const found = (await post("/studio/servers", { url: url.value.trim(), key: key.value || null })).models;
      if (!last() || !dialog.open) return;
      await loadModels();
      models.replaceChildren(...found.map((name) => new Option(name.slice(name.indexOf(": ") + 2), name)));
      which.hidden = models.hidden = false;
      next.textContent = say("putBeside");
      models.focus();
    } catch (error) { problem.textContent = error.value || error.message; } finally { again(); }
  });
  dialog.append(form);
  dialog.addEventListener("close", () => { dialog.remove(); at("other-server").focus(); });
  document.body.append(dialog);
  dialog.showModal();
  url.select();
}

more.models = (found, before) => {
  names = found;
  const run = wanted.get("run");
  const of = (one) => one && names.find((name) => name === one || name.startsWith(`${one}/`));
  const mine = of(run), other = of(wanted.get("beside"));
  if (other) { beside = [other]; wanted.delete("beside"); }
  wanted.delete("run");
  setTimeout(() => { showBar(); count(); });
  if (mine || names.includes(before)) return mine || before;
  return of(String(before).split("/").slice(0, 2).join("/")) || before; // one that made room for a newer one
};

const counting = turns();

async function count() {
  const model = at("model").value, last = counting();
  try {
    const found = [get("/studio/votes"), model && !model.includes(": ") ? get(`/studio/feedback?model=${encodeURIComponent(model)}`) : null];
    const [votes, said] = await Promise.all(found);
    if (!last()) return; // another model is chosen, or something was said since
    [score, counts] = [votes.score, said];
    showBar();
  } catch (error) { if (last()) explain(error, count); }
}

async function learnFromIt() {
  if (!confirm(say("sureLearn", counts.run))) return;
  await post("/studio/learn", { model: at("model").value });
  location.assign("/");
}

/** What became of each opinion that this run learned from, and of what nobody spoke of. */
async function showEffect() {
  const last = counting(), name = counts.run;
  effect.replaceChildren(make("p", "faint busy", say("measuring")));
  try {
    const found = await get(`/studio/effect?run=${encodeURIComponent(name)}`);
    if (!last()) return;
    learned = { name, ...found };
    drawEffect();
  } catch (error) { if (last()) { effect.replaceChildren(); explain(error); } }
}

const SIGNS = { up: "👍", down: "👎", better: "⇄", corrected: "✎" };
const LOST = 0.97; // below this part of what it was, something is forgotten

function drawEffect() {
  if (!learned) { effect.replaceChildren(); return; }
  const { name, of, opinions, heldout } = learned;
  const share = (value) => `${Number((100 * value).toPrecision(3))} %`, change = ({ before: was, after: is }) => `${share(was)} → ${share(is)}`;
  const cell = (one) => (one ? make("span", "", one.text, make("span", "faint", ` ${change(one)}`)) : "");
  const asked = opinions.filter(({ now }) => now !== null), wanted = asked.filter((one) => one.wanted), unwanted = asked.filter((one) => one.unwanted);
  const close = button("close", () => { learned = null; drawEffect(); bar.querySelector("[data-key=whatLearned]")?.focus(); });
  effect.replaceChildren(make("p", "hint", say("effectMore", name, of), " ", close),
    make("p", "", say("effectSums", wanted.filter((one) => one.is_wanted).length, wanted.length, unwanted.filter((one) => one.is_wanted !== false).length, unwanted.length)),
    ...(heldout ? [make("p", heldout.after < LOST * heldout.before ? "bad" : "", say("effectRest", heldout.count, change(heldout)), say(heldout.after < LOST * heldout.before ? "hasForgotten" : "hasKept"))] : []),
    table(opinions.map((one) => [SIGNS[one.kind], one.question, cell(one.wanted), cell(one.unwanted), one.now === null ? "–" : `${one.is_wanted === null ? "" : one.is_wanted ? "✓ " : "✗ "}${one.now}`]),
      ["", say("question"), say("wantedAnswer"), say("unwantedAnswer"), say("saysNow")]));
}

// ---- answers beside each other

more.asked = (body, message, signal, changed) => {
  if (!beside.length) return;
  message.blind = blind;
  message.beside = beside.map((model) => ({ model, content: "", grows: true }));
  for (const other of message.beside) {
    answer({ ...body, model: other.model }, signal, (delta) => { if (delta.content) { other.content += delta.content; changed(); } })
      .catch((error) => { if (error.name !== "AbortError") { other.content ||= `⚠ ${error.value || error.message}`; other.failed = true; } })
      .finally(() => { other.grows = false; changed(); });
  }
};

const heard = new Set(); // models that are loaded, since they have answered

more.drawn = (root, message, streams) => {
  if (message.content) heard.add(message.model);
  if (streams) root.querySelector(".stats").textContent = message.content || heard.has(message.model) ? "" : say("loading");
  if (!message.beside?.length) return;
  const body = root.querySelector(".body"), hides = message.blind && !decided(message);
  body.classList.add("columns");
  root.querySelector(".who").hidden = hides || message.beside.length > 0;
  while (body.children.length < message.beside.length + 1) body.append(make("div", "voice", make("div", "text")));
  const order = hides ? shuffled(message) : [...body.children].map((_, index) => index);
  [...body.children].forEach((voice, index) => {
    const other = message.beside[index - 1];
    let head = voice.querySelector(".voice-head");
    if (!head) voice.append(head = make("div", "voice-head")); // shown first: the order of the others is the chat page's
    const picks = make("button", "plain", (other ? other.chosen : message.chosen) ? "✓" : say("best"));
    picks.disabled = decided(message) || streams || message.beside.some(({ grows }) => grows) || !(other || message).content || Boolean(other?.failed);
    picks.addEventListener("click", () => pick(root, message, index).catch((error) => explain(error)));
    const letter = String.fromCharCode(65 + order[index]);
    head.replaceChildren(make("b", "", hides ? letter : other ? other.model : message.model), picks);
    voice.style.order = order[index];
    if (other) render(voice.querySelector(".text"), other.content);
  });
};

const decided = (message) => Boolean(message.chosen || message.beside.some((other) => other.chosen));
const orders = new WeakMap();

/** Where each answer stands while names are hidden. */
function shuffled(message) {
  if (!orders.has(message)) {
    const places = [0, ...message.beside.map((_, index) => index + 1)];
    for (let n = places.length - 1; n > 0; n--) { const k = Math.floor(Math.random() * (n + 1)); [places[n], places[k]] = [places[k], places[n]]; }
    orders.set(message, places);
  }
  return orders.get(message);
}

let before = () => []; // what was said before a message: known to its buttons

async function pick(root, message, index) {
  if (decided(message)) return;
  const all = [message, ...message.beside], best = all[index];
  best.chosen = true;
  const asked = before(message);
  for (const other of all) {
    if (other === best) continue;
    score = (await post("/studio/votes", { first: best.model, second: other.model, better: "first", blind: Boolean(message.blind) })).score;
    if (!other.failed && other.content) await tell({ kind: "better", messages: asked, answer: best.content, other: other.content });
  }
  if (index) { // the conversation goes on with the better answer
    [message.content, best.content] = [best.content, message.content];
    [message.model, best.model] = [best.model, message.model];
    message.told = undefined;
    message.chosen = true;
    best.chosen = false;
  }
  repaint(message);
}

// ---- opinions

const plain = (messages) => messages.map(({ role, content }) => ({ role, content }));

/** Keeps an opinion with the run of the chosen model; models of other servers have none. */
async function tell(opinion) {
  const model = at("model").value;
  if (!model || model.includes(": ")) return;
  const last = counting(), said = await post("/studio/feedback", { model, ...opinion });
  if (last()) { counts = said; showBar(); }
}

const painters = new WeakMap();
const repaint = (message) => painters.get(message)?.();

more.actions = (message, earlier, changed) => {
  painters.set(message, changed);
  const earlierOf = before;
  before = (one) => (one === message ? plain(earlier) : earlierOf(one));
  if (message.tool_calls?.length) return [];
  const thumb = (sign, label, kind) => {
    const root = button(label, async () => { await tell({ kind, messages: plain(earlier), answer: message.content }); message.told = kind; changed(); });
    root.textContent = sign;
    root.classList.toggle("told", message.told === kind);
    root.setAttribute("aria-pressed", message.told === kind);
    root.title = say(label);
    root.setAttribute("aria-label", say(label));
    return root;
  };
  const correct = button("correct", (root) => {
    const field = make("textarea", "editor"), article = root.closest("article");
    field.value = message.content;
    field.setAttribute("aria-label", say("correct"));
    field.dataset.label = "correct";
    const save = button("keepIt", async () => {
      const better = field.value.trim();
      if (better && better !== message.content) await tell({ kind: "corrected", messages: plain(earlier), answer: better, other: message.content });
      if (better && better !== message.content) [message.content, message.told] = [better, undefined];
      changed();
    });
    article.querySelector(".body").replaceChildren(field);
    const cancel = button("cancel", changed);
    [save.dataset.say, cancel.dataset.say] = ["keepIt", "cancel"];
    save.dataset.key = cancel.dataset.key = root.dataset.key; // the keys come back to where they were
    article.querySelector(".actions").replaceChildren(save, cancel);
    field.focus();
  });
  return message.content ? [thumb("👍", "good", "up"), thumb("👎", "bad", "down"), correct] : [correct]; // one that said nothing
};

at("model").addEventListener("change", () => { learned = null; drawEffect(); count(); });
setInterval(async () => { // a training makes new checkpoints, and gives up old ones
  if (document.hidden || document.activeElement === at("model")) return;
  try {
    const { data } = await get("/v1/models");
    if (data.map(({ id }) => id).join("\n") !== names.join("\n")) loadModels();
  } catch { /* whoever asks something will be told */ }
}, EVERY);
at("language").addEventListener("click", () => setTimeout(() => { showBar(); drawEffect(); }));
speak();
showBar();
showAll(); // a chat of before was drawn without what this page adds
