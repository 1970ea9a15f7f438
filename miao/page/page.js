// The page itself: reads what lies in it, starts the model's thread, and wires the parts.
import * as store from "../serve/web/store.js";
import { changeLanguage, exportChats, importChats, openSettings, resetSettings, saveSettings, showCard, showChats } from "./dialogs.js";
import { changesView, samplingView } from "./changes.js";
import { look, prepareGlass, showGlass, showProgress } from "./glass.js";
import { addText, ask, fail, finish, fit, forTemplate, halt, isAnswering, open, page, show, stop } from "./talk.js";
import { checksum } from "./weights.js";
import { at } from "./nodes.js";
import { notice, say, speak } from "./words.js";

const policy = globalThis.trustedTypes?.createPolicy("miao", { createScriptURL: (url) => url });
const trusted = (url) => (policy ? policy.createScriptURL(url) : url);

/** The text of a block of data, or null where it is damaged; it leaves the page with it. */
function take(id, crc) {
  const node = at(id), text = node?.textContent ?? "";
  node?.remove();
  return checksum(new TextEncoder().encode(text)) === crc ? text : null;
}

function receive({ data }) {
  if (data.type === "ready") { page.isReady = true; document.body.dataset.engine = data.engine; at("send").disabled = false; notice(""); }
  else if (data.type === "loading") notice(say("loadingPart", Math.floor(100 * data.share)));
  else if (data.type === "damaged") notice(say("damaged"));
  else if (data.type === "missing") notice(say("missing", data.name));
  else if (data.type === "inspecting") showProgress(data.number, data.share);
  else if (data.type === "inspected") showGlass(data.number, data.inspection);
  else if (data.type === "failed") { showGlass(data.number, null); fail(data.text); }
  else if (!isAnswering(data.number)) return;
  else if (data.type === "text") addText(data.text);
  else if (data.type === "done") finish(data);
}

function listen() {
  const clicks = { stop, "open-chats": showChats, "new-chat": () => open(store.create()), "open-glass": openGlass, "open-settings": openSettings, "open-card": showCard, "export": exportChats, "import": () => at("import-file").click(), reset: resetSettings, language: changeLanguage };
  for (const [id, action] of Object.entries(clicks)) at(id).addEventListener("click", action);
  at("import-file").addEventListener("change", importChats);
  at("settings").querySelector("form").addEventListener("submit", saveSettings);
  at("composer").addEventListener("submit", (event) => { event.preventDefault(); ask(at("input").value); });
  at("input").addEventListener("input", fit);
  at("input").addEventListener("keydown", (event) => {
    // While an input method composes Chinese, Enter takes the candidate.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    ask(at("input").value);
  });
  addEventListener("pagehide", halt);
}

// ---- the glass box

function openGlass() {
  at("glass").showModal();
  if (page.chat.messages.length > 1) lookAtChat();
  else at("glass-text").focus();
}

/** The conversation; its last answer by its own tokens, where they are known: its text may be cut
 * otherwise. */
function lookAtChat() {
  const { messages } = page.chat, last = messages.at(-1)?.role === "assistant" ? messages.at(-1) : null;
  if (!page.isReady || !messages.length) return;
  look({ messages: forTemplate(last ? messages.slice(0, -1) : messages), answer: last && (last.ids ?? last.content) });
}

function prepareLooking() {
  prepareGlass({
    look: (request) => page.worker.postMessage({ type: "inspect", ...request }),
    title: () => page.model.title,
  }, changesView, samplingView);
  at("glass-ask").addEventListener("click", () => { if (page.isReady && at("glass-text").value) look({ text: at("glass-text").value }); });
  at("glass-chat").addEventListener("click", lookAtChat);
  at("glass").addEventListener("close", () => page.worker?.postMessage({ type: "stop", number: -1 }));
}

/** What was said and chosen before; nothing where the browser keeps nothing. */
function recall() {
  // Pages that are opened from files share one storage.
  store.keepUnder(`miao-page-${EXPECTED.weights.crc}-`);
  const { language, options, system } = store.settings();
  speak(language);
  page.options = { ...page.model.sampling, ...options };
  page.system = system ?? "";
  try { page.chats = store.all(); } catch { /* blocked */ }
  page.chat = page.chats[0] ?? store.create();
}

function begin() {
  speak();
  const settings = take("settings-data", EXPECTED.settings), script = take("worker", EXPECTED.worker);
  if (settings === null || script === null) return notice(say("damaged"));
  page.model = JSON.parse(settings);
  recall();
  listen();
  prepareLooking();
  show();
  const { parts } = EXPECTED.weights;
  if (parts && location.protocol === "file:") return notice(say("needsServer"));
  notice(say("loading"));
  at("send").disabled = true; // Firefox remembers how it was before a reload
  page.worker = new Worker(trusted(URL.createObjectURL(new Blob([JSON.parse(script)], { type: "text/javascript" }))));
  page.worker.addEventListener("message", receive);
  page.worker.addEventListener("error", (event) => fail(event.message));
  const text = parts ? null : at("weights")?.textContent ?? "";
  at("weights")?.remove();
  page.worker.postMessage({ type: "load", text, settings: { ...page.model, card: null }, expected: EXPECTED.weights, base: location.href });
  if (parts) stayOffline();
}

async function stayOffline() {
  try { await navigator.serviceWorker?.register(trusted("sw.js")); } catch { /* the page works, but not offline */ }
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
