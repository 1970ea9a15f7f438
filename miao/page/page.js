// The page: a conversation with the model in this file. What it says becomes text, never markup.
const at = (id) => document.getElementById(id);
const policy = globalThis.trustedTypes?.createPolicy("miao", { createScriptURL: (url) => url });
const FIELDS = { temperature: [0, 2, 0.05], top_p: [0.01, 1, 0.01], top_k: [0, 1e6, 1], repetition_penalty: [0.1, 10, 0.05], max_new_tokens: [1, 1e6, 1] };
const state = { messages: [], options: {}, system: "", number: 0, answering: null, key: "" };
let model = null, worker = null;

function make(tag, text = "", className = "", parent = null) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  parent?.append(node);
  return node;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

// ---- what is kept ----

const kept = (name) => { try { return JSON.parse(localStorage.getItem(state.key + name)); } catch { return null; } };
function keep(name, value) {
  try { localStorage.setItem(state.key + name, JSON.stringify(value)); } catch { notice(say("full")); }
}

function download() {
  const url = URL.createObjectURL(new Blob([`${JSON.stringify({ messages: withSystem(state.messages).map(({ role, content, reasoning_content }) => ({ role, content, reasoning_content })) })}\n`], { type: "application/jsonl" }));
  const link = make("a");
  Object.assign(link, { href: url, download: `${model.title}.jsonl` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// ---- the conversation ----

/** <think>...</think> at the beginning, and what follows it. */
function split(text) {
  if (!text.startsWith("<think>")) return { reasoning: "", content: text };
  const end = text.indexOf("</think>"), thought = text.slice(7, end < 0 ? undefined : end).trim();
  return { reasoning: thought, content: end < 0 ? "" : text.slice(end + 8).replace(/^\n+/, "") };
}

const withSystem = (messages) => (state.system && model.template ? [{ role: "system", content: state.system }, ...messages] : messages);

/** A message as the template knows it: what is thought apart from what is said. */
function forTemplate({ role, content, reasoning_content }) {
  return reasoning_content ? { role, content, reasoning_content } : { role, content };
}

function showMessage(message) {
  const node = make("div", "", `message ${message.role}`, at("messages"));
  if (message.reasoning_content) {
    const fold = make("details", "", "", node);
    make("summary", say("thought"), "", fold);
    make("div", message.reasoning_content, "thought", fold);
  }
  make("div", message.content, "text", node);
  if (message.role === "assistant") foot(make("div", "", "foot", node), message);
  return node;
}

function foot(node, message) {
  node.replaceChildren();
  if (message !== state.messages.at(-1) || state.answering) return;
  const again = make("button", say("again"), "plain", node);
  again.addEventListener("click", regenerate);
  make("span", message.note ?? "", "stats", node);
}

function show() {
  at("messages").replaceChildren();
  if (!state.messages.length) welcome();
  state.messages.forEach(showMessage);
  at("scroll").scrollTop = at("scroll").scrollHeight;
}

function welcome() {
  const node = make("div", "", "welcome", at("messages"));
  make("h1", model.greeting || say("welcome"), "", node);
  make("p", model.template ? say("welcomeMore") : say("continues"), "", node);
  if (!model.template) return;
  const ideas = make("div", "", "ideas", node);
  for (const text of say("ideas")) make("button", text, "", ideas).addEventListener("click", () => { if (!at("send").disabled) ask(text); });
}

function ask(text) {
  if (!text.trim() || state.answering) return;
  notice("");
  state.messages.push({ role: "user", content: text });
  at("input").value = "";
  grow();
  answer();
}

function regenerate() {
  if (state.answering || state.messages.at(-1)?.role !== "assistant") return;
  state.messages.pop();
  answer();
}

function answer() {
  const message = { role: "assistant", content: "" };
  state.answering = { message, text: "", node: null };
  state.number++;
  const messages = withSystem(state.messages).map(forTemplate);
  state.messages.push(message);
  show();
  const node = at("messages").lastChild;
  node.classList.add("grows");
  state.answering.node = node;
  busy(true);
  worker.postMessage({ type: "ask", number: state.number, messages, options: state.options });
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
}

function addText(text) {
  const { message, node } = state.answering;
  state.answering.text += text;
  const { reasoning, content } = split(state.answering.text);
  message.content = content;
  if (reasoning) message.reasoning_content = reasoning;
  node.querySelector(".text").textContent = content || reasoning;
  const scroll = at("scroll");
  if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120) scroll.scrollTop = scroll.scrollHeight;
}

function finish({ reason, count, left, seconds }) {
  const { message } = state.answering;
  const notes = [say("stats", count, Math.round(count / seconds))];
  if (left) notes.push(say("left", left));
  if (reason === "stopped" || reason === "length") notes.push(say(reason));
  message.note = notes.join(" · ");
  state.answering = null;
  if (reason === "too long") {
    state.messages.pop();
    at("input").value = state.messages.pop().content;
    grow();
    notice(say("tooLong", model.config.context));
  }
  busy(false);
  keep("chat", state.messages);
  show();
}

function fail(text) {
  notice(say("failed", text));
  if (!state.answering) return;
  state.messages.pop();
  state.answering = null;
  busy(false);
  show();
}

function receive({ data }) {
  if (data.type === "ready") { at("send").disabled = false; notice(""); }
  else if (data.type === "damaged") notice(say("damaged"));
  else if (data.type === "failed") fail(data.text);
  else if (data.number !== state.number || !state.answering) return;
  else if (data.type === "text") addText(data.text);
  else if (data.type === "done") finish(data);
}

const stop = () => worker.postMessage({ type: "stop", number: -1 });

function newChat() {
  if (state.answering) { stop(); state.answering = null; state.number++; busy(false); }
  state.messages = [];
  keep("chat", []);
  notice("");
  show();
  at("input").focus();
}

// ---- settings and the card ----

function openSettings() {
  at("fields").replaceChildren();
  for (const [name, [min, max, step]] of Object.entries(FIELDS)) {
    const label = make("label", "", "", at("fields"));
    make("span", say(name), "", label);
    Object.assign(make("input", "", "", label), { type: "number", name, min, max, step, value: state.options[name], required: true });
  }
  at("system").value = state.system;
  if (!at("settings").open) at("settings").showModal();
}

function saveSettings() {
  for (const field of at("fields").querySelectorAll("input")) state.options[field.name] = Number(field.value);
  state.system = at("system").value.trim();
  keep("options", state.options);
  keep("system", state.system);
}

function table(rows, heads) {
  const node = make("table", "", "", make("div", "", "table", at("facts")));
  if (heads) { const head = make("tr", "", "", node); for (const text of heads) make("th", text, "", head); }
  for (const row of rows) {
    const line = make("tr", "", "", node);
    row.forEach((text, i) => make(heads || i ? "td" : "th", text, "", line));
  }
}

function showCard() {
  const card = model.card;
  at("facts").replaceChildren();
  table(card.facts.map(([name, value]) => [say(name), value]));
  if (card.trained.length) table(card.trained, [say("stage"), say("tokens"), say("steps"), say("time"), say("loss")]);
  if (card.scores.length) table(card.scores, [say("scores"), say("category"), say("items"), ...card.score_columns, say("chance")]);
  make("p", say("made"), "", at("facts"));
  at("card").showModal();
}

// ---- the beginning ----

function grow() {
  const input = at("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

/** The text of a block of data, if it is whole; it leaves the page with it. */
function take(id, crc) {
  const node = at(id), text = node?.textContent ?? "";
  node?.remove();
  return crc === undefined || checksum(new TextEncoder().encode(text)) === crc ? text : null;
}

function label() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  const words = { "new-chat": "newChat", export: "export", "open-settings": "settings", "open-card": "about", send: "send", stop: "stop", "settings-title": "settings", "system-label": "system", reset: "reset", save: "done", "card-title": "about", "close-card": "done" };
  for (const [id, key] of Object.entries(words)) at(id).textContent = say(key);
  at("input").placeholder = say("ask");
}

function listen() {
  at("composer").addEventListener("submit", (event) => { event.preventDefault(); if (!at("send").disabled) ask(at("input").value); });
  at("input").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!at("send").disabled) ask(at("input").value);
  });
  at("input").addEventListener("input", grow);
  at("stop").addEventListener("click", stop);
  at("new-chat").addEventListener("click", newChat);
  at("export").addEventListener("click", download);
  at("open-settings").addEventListener("click", openSettings);
  at("settings").querySelector("form").addEventListener("submit", saveSettings);
  at("reset").addEventListener("click", () => { state.options = { ...model.sampling }; state.system = ""; openSettings(); });
  at("open-card").addEventListener("click", showCard);
}

function begin() {
  label();
  notice(say("loading"));
  const settings = take("settings-data", EXPECTED.settings), script = take("worker", EXPECTED.worker);
  if (settings === null || script === null) return notice(say("damaged"));
  model = JSON.parse(settings);
  state.key = `miao-page-${EXPECTED.weights.crc}-`;
  state.options = { ...model.sampling, ...kept("options") };
  state.system = kept("system") ?? "";
  state.messages = kept("chat") ?? [];
  listen();
  show();
  const url = URL.createObjectURL(new Blob([JSON.parse(script)], { type: "text/javascript" }));
  worker = new Worker(policy ? policy.createScriptURL(url) : url);
  worker.addEventListener("message", receive);
  worker.addEventListener("error", (event) => fail(event.message));
  worker.postMessage({ type: "load", text: take("weights"), settings: { ...model, card: null }, expected: EXPECTED.weights });
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
