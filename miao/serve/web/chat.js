// The chat page: conversations, their messages, and an answer that grows.
import { contextOf, firstSent, learnContexts, learnSize, leaveOutOne } from "./context.js";
import { prepareFrame, showSide } from "./frame.js";
import { copyText, render } from "./markdown.js";
import { explain, notify, notifyBack, settle, turns } from "./notice.js";
import { answer, ask, models } from "./server.js";
import { change, current, NUMBERS, openSettings, prepare } from "./settings.js";
import * as store from "./store.js";
import { at, make, redraw, refill } from "./nodes.js";
import { preferences, say } from "./words.js";

let chats = store.all();
let chat = store.create();
let running = null; // the AbortController of the answer that streams
const AT_ONCE = 100; // milliseconds
/** What a page that holds more than this one adds: buttons under an answer, what is drawn beside it,
 * what else is asked, the models when they are known. */
export const more = { actions: () => [], drawn: () => {}, asked: () => {}, models: (names, wanted) => wanted };
const IDEAS = ["idea1", "idea2", "idea3", "idea4"];

// ---- what the page shows

/** Draws the list and the chat anew. */
export function showAll() {
  showChats();
  showMessages();
}

function showChats() {
  const held = at("chats").contains(document.activeElement);
  redraw(at("chats"), ...chats.map((one) => {
    const open = make("button", "chat-name", one.title || say("untitled"));
    open.dir = "auto";
    if (one.id === chat.id) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => { halt(); chat = one; notify(null); showSide(false); showAll(); });
    const rename = small("✎", "rename", () => {
      const title = prompt(say("newTitle"), one.title);
      if (title !== null) { one.title = title.trim().slice(0, 200); keep(one); showChats(); }
    });
    const remove = small("✕", "remove", () => {
      if (!confirm(say("sureDelete"))) return;
      if (one === chat) startNew();
      store.remove(one.id);
      chats = chats.filter((other) => other !== one);
      showChats();
    });
    return make("div", one.id === chat.id ? "chat-row here" : "chat-row", open, rename, remove);
  }));
  if (held && !chats.length) at("new-chat").focus();
}

function idea(key) {
  const button = make("button", "idea", say(key));
  button.addEventListener("click", () => { at("input").value = say(key); send(); });
  return button;
}

function small(text, label, action) {
  const button = make("button", "plain", text);
  button.type = "button";
  button.title = say(label);
  button.setAttribute("aria-label", say(label));
  button.dataset.label = label; // `speak` finds it
  button.addEventListener("click", () => action(button));
  return button;
}

function worded(label, action) {
  const button = small(say(label), label, action);
  button.dataset.say = label;
  return button;
}

/** stays: at the place that the reader looks at, not at the end; writes: who writes over a message
 * goes on. */
function showMessages(stays = false, writes = false) {
  const top = at("scroll").scrollTop, before = writes ? [...at("messages").querySelectorAll(".message")] : [];
  const nodes = chat.messages.map((message, index) => (before[index]?.querySelector(".editor") ? before[index] : shown(message, index)));
  if (nodes[chat.from] && chat.from) nodes.splice(chat.from, 0, make("p", "left-out", say("leftOut", chat.from)));
  redraw(at("messages"), ...(nodes.length ? nodes : [make("div", "welcome", make("div", "sprout"), make("h1", "", say("welcome")), make("p", "", say("welcomeMore")), make("div", "ideas", ...IDEAS.map(idea)))]));
  at("scroll").scrollTop = stays ? top : at("scroll").scrollHeight;
}

function shown(message, index) {
  const who = { user: "you", assistant: "assistant", tool: "tool" }[message.role];
  const root = make("article", `message ${message.role}`, make("div", "who", say(who) + (message.model ? ` · ${message.model}` : "")));
  const grows = Boolean(running) && index === chat.messages.length - 1;
  const body = make("div", "body");
  root.append(body, make("footer", "foot", make("div", "actions"), make("div", "stats")));
  if (message.role === "assistant") fill(root, message, grows);
  else { body.textContent = message.content; body.dir = "auto"; }
  if (!grows) finish(root, message, index);
  return root;
}

/** Brings the element of an assistant's message up to date. */
function fill(root, message, streams) {
  const body = root.querySelector(".body");
  if (body.querySelector(".editor")) return; // what is being written stays
  if (!body.firstChild) {
    const thought = make("details", "fold", make("summary"), make("div", "thought"));
    thought.lastChild.dir = "auto";
    body.append(make("div", "voice", thought, make("div", "text"), make("div", "calls")));
  }
  const [thought, text, calls] = body.firstChild.children;
  thought.hidden = !message.reasoning_content;
  const thinks = streams && !message.content && !message.tool_calls;
  thought.firstChild.textContent = say(thinks ? "thinkingNow" : "thought");
  thought.lastChild.textContent = message.reasoning_content || "";
  render(text, message.content);
  text.classList.toggle("grows", streams);
  if ((message.tool_calls || []).length !== calls.children.length) calls.replaceChildren(...message.tool_calls.map(shownCall));
  more.drawn(root, message, streams);
}

function shownCall(call) {
  let text = call.function.arguments;
  try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it is */ }
  return make("details", "fold", make("summary", "", `${say("call")}: ${call.function.name}`), make("pre", "", text));
}

/** The parts of a message that does not grow any more: numbers and buttons. */
function finish(root, message, index) {
  const actions = [];
  if (message.content) actions.push(worded("copy", (button) => copyText(message.content, button)));
  if (message.role === "user") actions.push(worded("edit", () => edit(root, message, index)));
  if (message.role === "assistant") {
    root.querySelector(".stats").textContent = figures(message.stats);
    actions.push(worded("regenerate", () => again(index)), ...more.actions(message, chat.messages.slice(0, index), () => { keep(chat); showMessages(true); }));
    if (message.tool_calls?.length && index === chat.messages.length - 1) root.querySelector(".body").append(resultForm(message));
  } else if (index === chat.messages.length - 1) actions.push(worded("retry", () => { if (!running) reply(); })); // no answer came
  actions.forEach((one, n) => { one.dataset.key = `${index} ${n}`; });
  root.querySelector(".actions").replaceChildren(...actions);
}

function figures(stats) {
  if (!stats) return "";
  const parts = [];
  if (stats.tokens) parts.push(`${stats.about ? "≈ " : ""}${stats.tokens} ${say(stats.tokens === 1 ? "token" : "tokens")}`);
  if (stats.speed) parts.push(`${stats.about ? "≈ " : ""}${stats.speed.toFixed(stats.speed < 100 ? 1 : 0)} ${say("perSecond")}`);
  if (stats.first !== undefined) parts.push(`${say("first")} ${Math.round(stats.first * 1000)} ms`);
  if (stats.used) parts.push(say("used", Math.round(100 * stats.used)));
  if (stats.stopped) parts.push(say("stopped"));
  if (stats.cut) parts.push(say("cutShort"));
  return parts.join(" · ");
}

function resultForm(message) {
  const fields = message.tool_calls.map((call, n) => {
    const field = make("textarea");
    field.dataset.key = `${chat.id} ${chat.messages.length} ${n}`;
    field.placeholder = `${say("result")}: ${call.function.name}`;
    field.setAttribute("aria-label", field.placeholder);
    return field;
  });
  return make("div", "results", ...fields, worded("sendResults", () => {
    if (running) return;
    message.tool_calls.forEach((call, n) => chat.messages.push({ role: "tool", content: fields[n].value, tool_call_id: call.id }));
    reply();
  }));
}

function edit(root, message, index) {
  const field = make("textarea", "editor");
  field.value = message.content;
  field.dir = "auto";
  field.setAttribute("aria-label", say("edit"));
  field.dataset.label = "edit";
  const save = () => {
    if (running || !field.value.trim()) return;
    if (chat.messages.length > index + 2 && !confirm(say("sureEdit"))) return;
    chat.messages.splice(index, Infinity, { role: "user", content: field.value.trim() });
    reply();
  };
  const cancel = () => {
    root.replaceWith(root = shown(message, index));
    root.querySelector(".actions button").focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) cancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
  });
  root.querySelector(".body").replaceChildren(field);
  root.querySelector(".actions").replaceChildren(
    worded("save", save),
    worded("cancel", cancel),
  );
  field.focus();
}

function again(index) {
  if (running || (chat.messages.length > index + 1 && !confirm(say("sureEdit")))) return;
  chat.messages.splice(index);
  reply();
}

// ---- what is kept

function keep(one) {
  try { store.save(one); } catch { notify("full"); }
}

function keepCurrent() {
  chat.changed = Date.now();
  if (!chat.title) chat.title = (chat.messages[0]?.content || "").replace(/\s+/g, " ").slice(0, 40);
  keep(chat);
  chats = [chat, ...chats.filter((other) => other.id !== chat.id)];
  showChats();
}

function startNew() {
  halt();
  chat = store.create();
  notify(null);
  showSide(false);
  showAll();
  at("input").focus();
}

function halt() {
  running?.abort();
  running = null;
  busy(false);
}

// ---- an answer

function requestBody() {
  const settings = current();
  const from = firstSent(chat, at("model").value, settings.overflow !== "stop");
  const messages = chat.messages.slice(from).map(({ role, content, reasoning_content, tool_calls, tool_call_id }) =>
    ({ role, content, ...(reasoning_content && { reasoning_content }), ...(tool_calls && { tool_calls }), ...(tool_call_id && { tool_call_id }) }));
  if (settings.system) messages.unshift({ role: "system", content: settings.system });
  const body = { messages };
  if (at("model").value) body.model = at("model").value;
  for (const name of NUMBERS) if (Number.isFinite(settings[name])) body[name] = settings[name];
  if (settings.thinking) body.enable_thinking = settings.thinking === "on";
  if (settings.tools) body.tools = JSON.parse(settings.tools);
  return body;
}

/** Asks for the assistant's next message and shows it as it grows. */
async function reply() {
  const mine = chat;
  const body = requestBody();
  const message = { role: "assistant", content: "", model: at("model").value };
  mine.messages.push(message);
  keepCurrent();
  const control = running = new AbortController();
  more.asked(body, message, control.signal, () => { if (mine === chat && root()) fill(root(), message, running === control); keep(mine); });
  notify(null);
  showMessages();
  busy(true);
  at("spoken").textContent = say("answering");
  // All may be drawn anew meanwhile, in another language; and what stands beside may end after the next question.
  const root = () => at("messages").querySelectorAll(".message")[mine.messages.indexOf(message)];
  const begun = performance.now();
  let first = null, last = begun, pieces = 0, arrivals = 0, painted = false;
  const paint = () => {
    painted = false;
    if (mine !== chat || !root()) return; // another chat is looked at by now
    const scroll = at("scroll");
    const follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
    fill(root(), message, running === control);
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  };
  const grew = (delta) => {
    if (control.signal.aborted) return;
    let gained = false;
    for (const key of ["reasoning_content", "content"]) {
      if (typeof delta[key] === "string" && delta[key]) { message[key] = (message[key] || "") + delta[key]; gained = true; }
    }
    for (const part of delta.tool_calls || []) { addCall(message, part); gained = true; }
    if (!gained) return;
    if (performance.now() - last > 1) arrivals++;
    last = performance.now();
    first ??= last;
    pieces++;
    // A timer, since a tab in the background paints no frames.
    if (!painted) { painted = true; setTimeout(paint, 40); }
  };
  let trouble = null, result = {};
  try { result = await answer(body, control.signal, grew); } catch (error) { trouble = error; }
  if (running === control) { running = null; busy(false); }
  const tokens = result.usage?.completion_tokens ?? pieces;
  message.stats = { tokens, about: !result.usage };
  learnSize(mine, body.messages, result.usage);
  if (result.usage?.total_tokens && contextOf(body.model)) message.stats.used = result.usage.total_tokens / contextOf(body.model);
  if (first !== null) message.stats.first = (first - begun) / 1000;
  // What came at once, from a proxy that waits for the whole, was not generated at that speed.
  if (tokens > 1 && last - first > AT_ONCE && arrivals > 2) message.stats.speed = (tokens - 1) / ((last - first) / 1000);
  if (trouble?.name === "AbortError") message.stats.stopped = true;
  if (result.finish === "length") message.stats.cut = true;
  const isEmpty = !message.content && !message.reasoning_content && !message.tool_calls && !message.beside?.some((other) => other.content);
  if (trouble && isEmpty) mine.messages.splice(mine.messages.indexOf(message), 1);
  if (!store.all().some((one) => one.id === mine.id)) return; // deleted meanwhile
  keep(mine);
  if (mine !== chat) return;
  at("spoken").textContent = message.content;
  const isTooLong = trouble?.code === "context_length_exceeded";
  if (isTooLong && current().overflow !== "stop" && leaveOutOne(mine)) { reply(); return; }
  if (trouble && isEmpty) showMessages();
  else { paint(); finish(root(), message, mine.messages.indexOf(message)); }
  if (isTooLong) notify("tooLong", contextOf(body.model) ?? "?", startNew, "newChat");
  else if (trouble && trouble.name !== "AbortError") {
    explain(trouble, () => {
      if (running) return;
      if (mine.messages.at(-1) === message) mine.messages.pop();
      reply();
    });
    if (trouble.key === "gone" || trouble.key === "broke") watch();
  }
}

function addCall(message, part) {
  const calls = message.tool_calls ??= [];
  const call = calls[part.index ?? calls.length] ??= { id: "", type: "function", function: { name: "", arguments: "" } };
  if (part.id) call.id = String(part.id);
  call.function.name += part.function?.name ?? "";
  call.function.arguments += part.function?.arguments ?? "";
}

function busy(is) {
  const [next, before] = is ? ["stop", "send"] : ["send", "stop"];
  const hadFocus = document.activeElement === at(before);
  [at(next).hidden, at(before).hidden] = [false, true];
  if (hadFocus) at(next).focus();
}

function send() {
  const text = at("input").value.trim();
  if (!text || running) return;
  at("input").value = "";
  fit();
  chat.messages.push({ role: "user", content: text });
  reply();
}

// ---- the server's state

let watching = false;

/** Asks until the server is back, then says so. */
async function watch() {
  if (watching) return;
  watching = true;
  for (;;) {
    await new Promise((done) => setTimeout(done, 2000));
    try { await ask("/health"); break; } catch { /* still gone */ }
  }
  watching = false;
  if (!at("model").options.length) await loadModels();
  notifyBack();
}

const asking = turns();

export async function loadModels() {
  const last = asking();
  try {
    const known = await models(), names = known.map((model) => model.id);
    if (!last()) return;
    learnContexts(known);
    const wanted = more.models(names, at("model").value || current().model);
    refill(at("model"), names.map((name) => [name, name]));
    if (names.includes(wanted)) at("model").value = wanted;
    settle(loadModels);
  } catch (error) {
    if (!last()) return;
    explain(error, loadModels);
    if (error.key === "gone") watch();
    if (error.key === "needKey") openSettings();
  }
}

// ---- import and export

function download(name, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function importFile() {
  const file = at("import-file").files[0];
  if (!file) return;
  let found;
  try { found = store.imported(await file.text()); } catch (line) { notify("badImport", line); return; } finally { at("import-file").value = ""; }
  try { found.forEach(store.save); notify("imported", found.length); } catch { notify("full"); }
  chats = store.all();
  showChats();
}

function fit() {
  const input = at("input");
  input.rows = 1;
  input.rows = Math.min(8, Math.max(1, Math.round((input.scrollHeight - 18) / 24)));
}

// ---- begin

at("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
at("input").addEventListener("input", fit);
at("input").addEventListener("keydown", (event) => {
  // While an input method composes Chinese, Enter takes the candidate.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) { event.preventDefault(); send(); }
});
at("stop").addEventListener("click", halt);
at("new-chat").addEventListener("click", startNew);
at("model").addEventListener("change", () => change({ ...current(), model: at("model").value }));
at("export").addEventListener("click", () => download("miao-chats.jsonl", store.exported(chats)));
at("import").addEventListener("click", () => at("import-file").click());
at("import-file").addEventListener("change", importFile);
at("delete-all").addEventListener("click", () => {
  if (!chats.length || !confirm(say("sureDeleteAll", chats.length))) return;
  chats.forEach((one) => store.remove(one.id));
  chats = [];
  startNew();
});
addEventListener("storage", (event) => { // another tab
  if (!store.isChatKey(event.key) || running) return;
  const isOther = event.key !== null && !event.key.endsWith(`:${chat.id}`);
  chats = store.all().map((one) => (isOther && one.id === chat.id ? chat : one));
  if (isOther) { showChats(); return; } // what is written in this one stays
  chat = chats.find((one) => one.id === chat.id) || (chat.messages.length ? store.create() : chat);
  showAll();
});
prepareFrame();
prepare({ full: () => notify("full"), newKey: loadModels });
preferences(() => { showChats(); showMessages(true, true); });
chat = chats[0] || chat;
showAll();
loadModels();
