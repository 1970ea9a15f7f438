// Texts for a model: dropped, pasted or chosen below the roots, and what is recognised in them.
import { explain, notify, turns } from "./notice.js";
import { askJson } from "./server.js";
import { get, post } from "./studio.js";
import { at, make, redraw } from "./nodes.js";
import { quantity, say } from "./words.js";

/** path -> "texts", "chats" or "pairs": what the wish takes it as. */
export const chosen = new Map();
const TAKEN = { document: "texts", conversation: "chats", preference: "pairs" };
const SAID = { document: "kindDocument", conversation: "kindConversation", preference: "kindPreference" };
const folder = `dropped-${new Date().toISOString().slice(0, 16).replace(/[-:]/g, "").replace("T", "-")}`;
let found = null, pending = Promise.resolve();

/** Uploads files one after the other, then looks at all that is chosen. */
function take(files) {
  pending = pending.then(async () => {
    notify(null);
    for (const file of files) {
      const line = make("p", "faint", say("uploading", file.name));
      at("uploads").append(line);
      try {
        const where = `/studio/upload?folder=${folder}&name=${encodeURIComponent(file.name)}`;
        const kept = await askJson(where, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
        line.textContent = say("uploaded", `${kept.name} (${quantity(kept.bytes)})`);
        chosen.set(kept.path, "texts");
      } catch (error) { line.remove(); explain(error); }
    }
    await check();
  });
}

const checking = turns(), browsing = turns();

async function check() {
  const last = checking();
  showChosen();
  found = null;
  if (!chosen.size) { showChecked(); return; }
  at("checked").replaceChildren(make("p", "faint busy", say("checking")));
  try {
    const body = await post("/studio/check", { paths: [...chosen.keys()] });
    if (!last()) return; // of other files than are chosen now
    found = body;
    sort();
  } catch (error) { if (!last()) return; explain(error, check); }
  showChosen();
  showChecked();
}

/** Each path becomes what most of its records are; a folder of several kinds becomes its files. */
function sort() {
  for (const path of [...chosen.keys()]) {
    const inside = found.files.filter((file) => file.records && (file.path === path || file.path.startsWith(`${path}/`)));
    const kinds = new Set(inside.map((file) => file.kind));
    if (kinds.size === 1) chosen.set(path, TAKEN[inside[0].kind] || "texts");
    else if (kinds.size > 1) { chosen.delete(path); for (const file of inside) chosen.set(file.path, TAKEN[file.kind] || "texts"); }
  }
}

export function showChosen() {
  redraw(at("chosen"), ...[...chosen].map(([path, kind]) => {
    const out = make("button", "plain", "✕");
    out.title = say("unchoose");
    out.setAttribute("aria-label", `${say("unchoose")}: ${path}`);
    out.addEventListener("click", () => { chosen.delete(path); check(); });
    const said = { texts: "kindDocument", chats: "kindConversation", pairs: "kindPreference" }[kind];
    return make("li", "", make("span", "tag", say(said)), make("span", "path", path), out);
  }));
}

export function showChecked() {
  if (!found) { at("checked").replaceChildren(); return; }
  const kinds = Object.entries(found.kinds).map(([kind, one]) => {
    const languages = Object.entries(one.languages).sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${Math.round((100 * n) / one.records)}%`);
    return make("section", "kind",
      make("h3", "", `${say(SAID[kind] || "kindDocument")}: ${say("records", one.records.toLocaleString())}, ${say("characters", quantity(one.characters))}`),
      make("p", "faint", [`${say("lengths", one.length.shortest)}, ${say("median", one.length.median)}, ${say("longest", one.length.longest)}`, `${say("languages")}: ${languages.join(", ")}`].join(" · ")),
      make("details", "fold", make("summary", "", say("threeRecords")), ...one.samples.map((record) => make("pre", "record", shortened(record)))));
  });
  const bad = found.problems.map((one) => make("li", "", make("code", "", `${one.path.split("/").at(-1)}:${one.line}`), ` ${one.reason}`, ...(one.fix ? [make("div", "faint", `→ ${one.fix}`)] : [])));
  const skipped = found.skipped_files.map((line) => make("li", "", line));
  const trouble = found.rejected || skipped.length
    ? [make("h3", "bad", say("problems", found.rejected + skipped.length)), make("ul", "problems", ...bad, ...skipped)]
    : [make("p", "faint", say(kinds.length ? "noProblems" : "nothing"))];
  at("checked").replaceChildren(...kinds, ...trouble, make("p", "command", make("span", "faint", say("same")), make("code", "", found.command)));
}

function shortened(record) {
  const text = typeof record.text === "string" ? record.text : JSON.stringify(record, null, 1);
  return text.length > 600 ? `${text.slice(0, 600)}…` : text;
}

// ---- folders below the roots

async function browse(path) {
  const last = browsing();
  notify(null);
  try {
    const { entries } = await get(`/studio/texts?path=${encodeURIComponent(path)}`);
    if (!last()) return;
    const up = path ? [row(say("up"), () => browse(""))] : [];
    const held = at("browser").contains(document.activeElement);
    at("browser").replaceChildren(...up, ...entries.map((entry) => {
      const use = make("button", "quiet", say("choose"));
      use.addEventListener("click", () => { chosen.set(entry.path, "texts"); check(); });
      return entry.folder ? row(`${entry.name}/`, () => browse(entry.path), use) : make("div", "entry", make("span", "path", `${entry.name} · ${quantity(entry.bytes || 0)}`), use);
    }), ...(entries.length >= 500 ? [make("p", "faint", say("tooMany"))] : []));
    if (held) at("browser").querySelector("button")?.focus(); // who came in by keys goes on from its top
  } catch (error) { if (last()) explain(error); }
}

function row(text, action, ...more) {
  const open = make("button", "plain path", text);
  open.addEventListener("click", action);
  return make("div", "entry", open, ...more);
}

export function prepareTexts() {
  const drop = at("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
  at("pick-files").addEventListener("click", () => at("files").click());
  at("files").addEventListener("change", () => { take([...at("files").files]); at("files").value = ""; });
  const toggle = (button, body, opens = () => {}) => at(button).addEventListener("click", () => {
    at(body).hidden = !at(body).hidden;
    at(button).setAttribute("aria-expanded", String(!at(body).hidden));
    if (!at(body).hidden) opens();
  });
  toggle("paste", "pasting", () => at("pasted").focus());
  toggle("browse", "browser", () => browse(""));
  at("keep-pasted").addEventListener("click", () => {
    if (!at("pasted").value.trim()) return;
    take([new File([at("pasted").value], "pasted.txt")]);
    at("pasted").value = "";
  });
}
