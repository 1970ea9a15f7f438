// A conversation with the model: what was said, an answer that grows, and what is kept of it.
import * as store from "../serve/web/store.js";
import { at, make } from "./nodes.js";
import { button, copyText, notice, say } from "./words.js";

/** What the parts of the page share. */
export const page = { model: null, worker: null, options: {}, system: "", chats: [], chat: null, isReady: false };
let answering = null; // {number, chat, message, text} of the answer that grows
let number = 0;

/** <think>...</think> at the beginning, and what follows it. */
function split(text) {
  if (!text.startsWith("<think>")) return { reasoning: "", content: text };
  const end = text.indexOf("</think>"), thought = text.slice(7, end < 0 ? undefined : end).trim();
  return { reasoning: thought, content: end < 0 ? "" : text.slice(end + 8).replace(/^\n+/, "") };
}

/** Messages as the template knows them: the system prompt first, thoughts apart from what is said. */
export function forTemplate(messages) {
  const said = messages.map(({ role, content, reasoning_content }) => (reasoning_content ? { role, content, reasoning_content } : { role, content }));
  return page.system && page.model.template ? [{ role: "system", content: page.system }, ...said] : said;
}

// ---- what is shown

export function show() {
  const { messages } = page.chat;
  at("messages").replaceChildren(...(messages.length ? messages.map(shown) : [welcome()]));
  at("scroll").scrollTop = at("scroll").scrollHeight;
}

function welcome() {
  const node = make("div", "welcome", make("h1", "", page.model.greeting || say("welcome")), make("p", "", say(page.model.template ? "welcomeMore" : "continues")));
  if (page.model.template) node.append(make("div", "ideas", ...say("ideas").map((text) => {
    const idea = make("button", "", text);
    idea.addEventListener("click", () => ask(text));
    return idea;
  })));
  return node;
}

function shown(message, index) {
  const grows = answering?.message === message;
  const node = make("article", `message ${message.role}${grows ? " grows" : ""}`);
  if (message.reasoning_content) node.append(make("details", "", make("summary", "", say("thought")), make("div", "thought", message.reasoning_content)));
  const text = make("div", "text", message.content);
  text.dir = "auto";
  node.append(text);
  if (!grows) node.append(make("footer", "foot", make("div", "actions", ...actions(node, message, index)), make("span", "stats", figures(message.stats))));
  return node;
}

function actions(node, message, index) {
  const isLast = index === page.chat.messages.length - 1, found = [];
  if (message.role === "user") {
    found.push(button("edit", () => edit(node, message, index)));
    if (isLast && !answering) found.push(button("retry", answer)); // no answer came
  } else {
    found.push(button("copy", (self) => copyText(message.content, self)));
    if (isLast) found.push(button("again", () => { if (!answering) { page.chat.messages.pop(); answer(); } }));
  }
  return found;
}

function figures(stats) {
  if (!stats) return "";
  const parts = [stats.speed ? say("stats", stats.tokens, Math.round(stats.speed)) : say("count", stats.tokens)];
  if (stats.left) parts.push(say("left", stats.left));
  if (stats.stopped) parts.push(say("stopped"));
  if (stats.cut) parts.push(say("length"));
  return parts.join(" · ");
}

function edit(node, message, index) {
  const field = make("textarea", "editor");
  field.value = message.content;
  field.dir = "auto";
  field.setAttribute("aria-label", say("edit"));
  const save = () => {
    if (answering || !field.value.trim() || !page.isReady) return;
    if (page.chat.messages.length > index + 2 && !confirm(say("sureEdit"))) return;
    page.chat.messages.splice(index, Infinity, { role: "user", content: field.value.trim() });
    answer();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) show();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
  });
  node.replaceChildren(field, make("div", "actions", button("saveEdit", save), button("cancel", show)));
  field.focus();
}

// ---- an answer

export function ask(text) {
  if (!text.trim() || answering || !page.isReady) return;
  page.chat.messages.push({ role: "user", content: text });
  at("input").value = "";
  fit();
  answer();
}

function answer() {
  notice("");
  const message = { role: "assistant", content: "" };
  const messages = forTemplate(page.chat.messages);
  keep();
  page.chat.messages.push(message);
  answering = { number: ++number, chat: page.chat, message, text: "" };
  show();
  busy(true);
  page.worker.postMessage({ type: "ask", number, messages, options: page.options });
}

function busy(is) {
  const [next, before] = is ? ["stop", "send"] : ["send", "stop"];
  const hadFocus = document.activeElement === at(before);
  [at(next).hidden, at(before).hidden] = [false, true];
  at("open-glass").disabled = is; // the model does one thing at a time
  if (hadFocus) at(next).focus();
}

/** Text as it comes, faster than it need be drawn. */
export function addText(text) {
  answering.text += text;
  if (answering.isDrawing) return;
  answering.isDrawing = true;
  setTimeout(draw, 40, answering); // a timer, since a tab in the background paints no frames
}

function draw(asked) {
  asked.isDrawing = false;
  if (asked !== answering) return;
  gather();
  const { content, reasoning_content } = asked.message, scroll = at("scroll");
  at("messages").lastChild.querySelector(".text").textContent = content || reasoning_content;
  if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120) scroll.scrollTop = scroll.scrollHeight;
}

/** What has come so far becomes the message. */
function gather() {
  const { message, text } = answering, { reasoning, content } = split(text);
  message.content = content;
  if (reasoning) message.reasoning_content = reasoning;
}

export function finish({ reason, count, left, ids, first, seconds }) {
  const { message } = answering;
  gather();
  const speed = count > 1 ? (count - 1) / (seconds - first / 1000) : 0; // once it has begun
  message.stats = { tokens: count, speed, left, stopped: reason === "stopped", cut: reason === "length" };
  message.ids = ids; // of this visit only: what is kept is the text
  answering = null;
  if (reason === "too long") {
    page.chat.messages.pop();
    at("input").value = page.chat.messages.pop().content;
    fit();
    notice(say("tooLong", page.model.config.context));
  }
  busy(false);
  keep();
  show();
  at("spoken").textContent = message.content;
}

export function fail(text) {
  notice(say("failed", text));
  if (!answering) return;
  page.chat.messages.pop();
  answering = null;
  busy(false);
  show();
}

/** Whether an answer with this number is waited for. */
export const isAnswering = (asked) => answering?.number === asked;
export const stop = () => page.worker.postMessage({ type: "stop", number: -1 });

/** Ends an answer that grows, and keeps what there is of it. */
export function halt() {
  if (!answering) return;
  stop();
  gather();
  answering = null;
  busy(false);
  keep();
}

export function open(chat) {
  halt();
  page.chat = chat;
  notice("");
  show();
  at("input").focus();
}

/** The input grows with its text. */
export function fit() {
  const input = at("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

// ---- what is kept

function keep() {
  const { chat } = page;
  chat.changed = Date.now();
  chat.title ||= (chat.messages[0]?.content ?? "").replace(/\s+/g, " ").slice(0, 40);
  page.chats = [chat, ...page.chats.filter((one) => one !== chat)].filter((one) => one.messages.length);
  const messages = chat.messages.map((message) => ({ ...message, ids: undefined }));
  try { store.save({ ...chat, messages }); } catch { notice(say("full")); }
}
