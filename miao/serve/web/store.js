// Chats and settings in the browser's storage: one entry per chat. Nothing leaves the machine.

let prefix = "miao-";
/** Keeps everything under a name of its own: pages that are opened from files share one storage. */
export const keepUnder = (name) => { prefix = name; };
const key = (id) => `${prefix}chat:${id}`;
const ROLES = ["user", "assistant", "tool"];

/** All chats, the latest first; entries that are damaged are passed over. */
export function all() {
  const chats = [];
  for (let n = 0; n < localStorage.length; n++) {
    const name = localStorage.key(n);
    if (!name.startsWith(key(""))) continue;
    try {
      const chat = checked(JSON.parse(localStorage.getItem(name)));
      if (chat) chats.push({ ...chat, id: name.slice(key("").length) });
    } catch { /* not ours after all */ }
  }
  return chats.sort((a, b) => b.changed - a.changed);
}

/** Throws where the storage is full. */
export const save = (chat) => localStorage.setItem(key(chat.id), JSON.stringify({ ...chat, id: undefined }));
export const remove = (id) => localStorage.removeItem(key(id));
export const isChatKey = (name) => name === null || name.startsWith(key(""));
export const create = () => ({ id: newId(), title: "", changed: Date.now(), messages: [] });

// crypto.randomUUID is missing where a page comes without https.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

/** The chat with only what belongs into one, each of its type; null where it is none. */
function checked(chat) {
  if (!chat || !Array.isArray(chat.messages)) return null;
  const messages = [];
  for (const message of chat.messages) {
    if (!message || !ROLES.includes(message.role)) return null;
    const one = { role: message.role, content: typeof message.content === "string" ? message.content : "" };
    for (const key of ["reasoning_content", "tool_call_id", "model", "told"]) if (typeof message[key] === "string") one[key] = message[key];
    if (Array.isArray(message.tool_calls)) {
      one.tool_calls = message.tool_calls.filter((call) => call && call.function).map((call) => ({
        id: String(call.id ?? ""), type: "function",
        function: { name: String(call.function.name), arguments: typeof call.function.arguments === "string" ? call.function.arguments : JSON.stringify(call.function.arguments ?? {}) },
      }));
    }
    if (message.stats && typeof message.stats === "object") {
      one.stats = {};
      for (const key of ["tokens", "speed", "first"]) if (Number.isFinite(message.stats[key])) one.stats[key] = message.stats[key];
      for (const key of ["about", "stopped", "cut"]) if (message.stats[key] === true) one.stats[key] = true;
    }
    if (Array.isArray(message.beside)) one.beside = message.beside.filter((other) => typeof other?.content === "string").map((other) => ({ model: String(other.model), content: other.content, chosen: other.chosen === true, failed: other.failed === true }));
    for (const key of ["blind", "chosen"]) if (message[key] === true) one[key] = true;
    messages.push(one);
  }
  return { title: String(chat.title ?? ""), changed: Number.isFinite(chat.changed) ? chat.changed : Date.now(), messages };
}

/** JSON lines that `--corpus.conversations` takes as they are, too. */
export function exported(chats) {
  const clean = ({ role, content, reasoning_content, tool_calls, tool_call_id }) => ({ role, content, reasoning_content, tool_calls, tool_call_id });
  return chats.map((chat) => JSON.stringify({ title: chat.title, changed: chat.changed, messages: chat.messages.map(clean) })).join("\n") + "\n";
}

/** Chats of a file. Throws the number of the first line that is none. A system message is left
 * out: here it is a setting. */
export function imported(text) {
  const chats = [];
  text.split("\n").forEach((line, n) => {
    if (!line.trim()) return;
    let chat = null;
    try {
      const raw = JSON.parse(line);
      if (Array.isArray(raw.messages)) raw.messages = raw.messages.filter((message) => message?.role !== "system");
      chat = checked(raw);
    } catch { /* said below */ }
    if (!chat) throw n + 1;
    chats.push({ ...chat, id: newId() });
  });
  return chats;
}

export function settings() {
  try { return JSON.parse(localStorage.getItem(`${prefix}settings`)) || {}; } catch { return {}; }
}
export const saveSettings = (values) => localStorage.setItem(`${prefix}settings`, JSON.stringify(values));
