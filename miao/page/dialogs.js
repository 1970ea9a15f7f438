// Chats, settings and the card: what opens over the conversation.
import * as store from "../serve/web/store.js";
import { halt, open, page, show } from "./talk.js";
import { download, table } from "./glass.js";
import { at, make } from "./nodes.js";
import { button, copyText, notice, otherLanguage, say, speak } from "./words.js";

const FIELDS = { temperature: [0, 2, 0.05], top_p: [0.01, 1, 0.01], top_k: [0, 1e6, 1], repetition_penalty: [0.1, 10, 0.05], max_new_tokens: [1, 1e6, 1] };

// ---- chats

export function showChats() {
  const rows = page.chats.map((chat) => {
    const name = make("button", "chat-name", chat.title || say("untitled"));
    name.type = "button";
    name.dir = "auto";
    if (chat === page.chat) name.setAttribute("aria-current", "true");
    name.addEventListener("click", () => { at("chats").close(); open(chat); });
    return make("div", "row", name, button("remove", () => forget(chat)));
  });
  at("chat-list").replaceChildren(...(rows.length ? rows : [make("p", "hint", say("noChats"))]));
  if (!at("chats").open) at("chats").showModal();
}

function forget(chat) {
  if (!confirm(say("sureDelete"))) return;
  if (chat === page.chat) { halt(); page.chat = store.create(); show(); }
  store.remove(chat.id);
  page.chats = page.chats.filter((one) => one !== chat);
  showChats();
}

export const exportChats = () => download(`${page.model.title}.jsonl`, store.exported(page.chats));

export async function importChats({ target }) {
  const [file] = target.files;
  if (!file) return;
  at("chats").close();
  try {
    const found = store.imported(await file.text());
    try { found.forEach(store.save); } catch { return notice(say("full")); }
    page.chats = [...found, ...page.chats];
    if (found.length) open(found[0]);
    notice(say("imported", found.length));
  } catch (line) { notice(say("badImport", line)); } finally { target.value = ""; }
}

// ---- settings

export function openSettings() {
  at("fields").replaceChildren(...Object.entries(FIELDS).map(([name, [min, max, step]]) => {
    const field = Object.assign(make("input"), { type: "number", name, min, max, step: "any", value: page.options[name], required: true });
    field.step = step;
    return make("label", "", make("span", "", say(name)), field);
  }));
  at("system").value = page.system;
  if (!at("settings").open) at("settings").showModal();
}

export function saveSettings() {
  for (const field of at("fields").querySelectorAll("input")) page.options[field.name] = Number(field.value);
  page.system = at("system").value.trim();
  keepSettings({});
}

export function resetSettings() {
  page.options = { ...page.model.sampling };
  page.system = "";
  openSettings();
}

export function changeLanguage() {
  const language = otherLanguage();
  keepSettings({ language });
  speak(language);
  openSettings();
  show();
}

function keepSettings(change) {
  try { store.saveSettings({ ...store.settings(), options: page.options, system: page.system, ...change }); } catch { notice(say("full")); }
}

// ---- the card

export function showCard() {
  const { card } = page.model, titled = (key) => make("h3", "", say(key));
  const unknown = () => make("p", "hint", say("unknown"));
  const parts = [table(card.facts.map(([name, value]) => [say(name), value])), make("p", "", say("limits"))];
  const heads = (...keys) => keys.map((key) => say(key));
  parts.push(titled("data"), card.sources.length ? table(card.sources, heads("stage", "source", "origin", "records", "characters", "tokens")) : unknown());
  parts.push(titled("training"), card.trained.length ? table(card.trained, heads("stage", "tokens", "steps", "time", "loss")) : unknown());
  parts.push(titled("scores"));
  if (card.scores.length) parts.push(make("p", "hint", say("scoresMore")), table(card.scores, [...heads("scores", "category", "items"), ...card.score_columns, say("chance")]));
  else parts.push(unknown());
  if (card.recipe) parts.push(titled("recipe"), make("p", "hint", say("recipeMore")), button("copy", (self) => copyText(card.recipe, self)), make("pre", "", card.recipe));
  at("facts").replaceChildren(...parts, make("p", "hint", say("made")));
  at("card").showModal();
}
