// The dialog of settings: system prompt, sampling, thinking, tools, API key.
import { apiKey } from "./server.js";
import * as store from "./store.js";
import { at } from "./nodes.js";
import { say } from "./words.js";

export const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed"];
let settings = store.settings();
const listeners = { full: () => {}, newKey: () => {} };

export const current = () => settings;

/** Keeps other values; says so where the browser's storage is full. */
export function change(values) {
  settings = values;
  try { store.saveSettings(settings); } catch { listeners.full(); }
}

export function openSettings() {
  const form = at("settings-form");
  for (const field of form.elements) if (field.name) field.value = field.name === "key" ? apiKey.get() : settings[field.name] ?? "";
  at("settings-problem").textContent = "";
  if (!at("settings").open) at("settings").showModal();
}

function saveSettings(event) {
  event.preventDefault();
  const form = at("settings-form").elements;
  const values = { model: settings.model, system: form.system.value.trim(), thinking: form.thinking.value, overflow: form.overflow.value, tools: form.tools.value.trim() };
  const problem = (text) => { at("settings-problem").textContent = text; };
  for (const name of NUMBERS) {
    const field = form[name];
    if (!field.validity.valid) { problem(say("notNumber", field.parentNode.firstChild.textContent)); return; }
    if (field.value !== "") values[name] = Number(field.value);
  }
  if (values.tools) {
    try { if (!Array.isArray(JSON.parse(values.tools))) throw 0; } catch { problem(say("notJson")); return; }
  }
  change(values);
  if (form.key.value !== apiKey.get()) { apiKey.set(form.key.value); listeners.newKey(); }
  at("settings").close();
}

/** Wires the dialog. `full` is called where nothing more can be stored, `newKey` after the API key
 * has changed. */
export function prepare(callbacks) {
  Object.assign(listeners, callbacks);
  at("open-settings").addEventListener("click", openSettings);
  at("settings-form").addEventListener("submit", saveSettings);
  at("close-settings").addEventListener("click", () => at("settings").close());
  at("reset-settings").addEventListener("click", () => { for (const field of at("settings-form").elements) if (field.name && field.name !== "key") field.value = ""; });
}
