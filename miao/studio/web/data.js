// The room "Data": what a corpus is made of, its records, and what the rules do. All texts are strangers'
// and become text nodes.
import "./data-words.js";
import { table } from "./glass.js";
import { explain, notify, turns } from "./notice.js";
import { codeLinks, get, language, post } from "./studio.js";
import { at, make, refill } from "./nodes.js";
import { preferences, say } from "./words.js";

const RULE_CODE = ["corpus/clean/edits.py", "corpus/clean/checks.py", "corpus/dedup/minhash.py"];
let found = null; // of the run that is chosen
let next = null; // where the list of records goes on
let why = {}; // of rules
let shown = []; // records and results, to be drawn again in another language
let tried = null;

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

/** Two texts side by side; what differs, between a common beginning and a common end, is marked. */
function pair(before, after, [left, right] = ["before", "after"]) {
  let begin = 0, end = 0;
  const most = Math.min(before.length, after.length);
  while (begin < most && before[begin] === after[begin]) begin++;
  while (end < most - begin && before.at(-1 - end) === after.at(-1 - end)) end++;
  const side = (title, text) => make("div", "", make("span", "role", say(title)), text.slice(0, begin), make("mark", "", text.slice(begin, text.length - end)), text.slice(text.length - end));
  return make("div", "pair", side(left, before), side(right, after));
}

const reason = (rule) => `${rule}${why[rule] ? ` · ${why[rule][language()]}` : ""}`;

// ---- the corpus of a run

const summing = turns(), browsing = turns(), trying = turns();

async function showRun() {
  const last = summing();
  found = null;
  at("of-run").replaceChildren();
  if (!at("run").value) return;
  notify(null);
  try {
    const body = await get(`/studio/data/${encodeURIComponent(at("run").value)}`);
    if (!last()) return; // of another run than is chosen now
    found = body;
    why = found.why;
  } catch (error) { if (!last()) return; explain(error, showRun); }
  drawRun();
}

function drawRun() {
  const parts = [];
  for (const [stage, { sources, rules, pairs, read, ...counts }] of Object.entries(found?.stages ?? {})) {
    parts.push(make("h2", "", say("sourcesTitle", stage)), ...(parts.length ? [] : [make("p", "hint", say("sourcesMore"))]));
    parts.push(table(sources.map((one) => [one.name, number(one.train), number(one.heldout), number(one.characters), number(one.tokens), one.tokens_per_character?.toFixed(3) ?? "–"]),
      ["source", "trainRecords", "heldoutRecords", "characters", "tokens", "perCharacter"].map((key) => say(key))));
    if (rules.length || pairs.length || read) {
      parts.push(make("h3", "", say("rulesTitle", stage)), make("p", "hint", say("rulesMore")));
      const sums = ["exact", "near", "contaminated"].filter((key) => counts[key]).map((key) => say(key, number(counts[key])));
      if (read) parts.push(make("p", "facts", [say("readRecords", number(read)), ...sums].join(" · ")));
      if (!rules.length) parts.push(make("p", "hint", say("noRules")));
    }
    for (const { rule, rejected, edited, examples } of rules) {
      const numbers = [...(rejected ? [say("rejects", number(rejected))] : []), ...(edited ? [say("edits", number(edited))] : [])];
      parts.push(make("details", "", make("summary", "", `${reason(rule)} — ${numbers.join(", ")}`), ...examples.map(example)));
    }
    if (pairs.length) parts.push(make("h3", "", say("pairsTitle")), make("p", "hint", say("pairsMore")), ...pairs.map(({ similarity, before, after }) =>
      make("div", "data-record", make("span", "role", `${(100 * similarity).toFixed(0)} %`), pair(before, after, ["dropped", "kept"]))));
  }
  at("of-run").replaceChildren(...parts);
  drawSources();
}

/** An example of a rule: an edit before and after, or a text with what was measured. */
function example({ before, after, text, why: measured, source }) {
  const inside = typeof after === "string" ? pair(String(before ?? ""), after) : make("div", "text", String(text ?? before ?? ""));
  return make("div", "data-record", inside, make("footer", "", [source, measured].filter(Boolean).join(" · ")));
}

function drawSources() {
  const names = (found?.stages[at("stage").value]?.sources ?? []).map(({ name }) => name);
  for (const [id, all] of [["source", names], ["rule", Object.keys(why)]]) refill(at(id), [["", say("anyone")], ...all.map((name) => [name, name])]);
}

// ---- records

function wanted(after) {
  const ofPath = at("from").value === "path", amount = (id) => (at(id).value ? Number(at(id).value) : null);
  const where = ofPath ? { path: at("path").value, rule: at("rule").value || null } : { run: at("run").value, stage: at("stage").value, split: at("split").value, source: at("source").value || null };
  return { ...where, least: amount("least") ?? 0, most: amount("most"), text: at("holds").value || null, after };
}

async function showRecords(after) {
  const last = browsing();
  notify(null);
  try {
    const body = await post("/studio/records", wanted(after));
    if (!last()) return;
    if (Object.keys(why).length === 0) { why = body.why; drawSources(); }
    shown = after ? [...shown, ...body.records] : body.records;
    next = body.next;
    drawRecords(after ? shown.length - body.records.length : 0);
  } catch (error) { if (last()) explain(error); }
}

/** from: the first that is new; what stands above it stays as the reader left it. */
function drawRecords(from = 0) {
  const nodes = shown.slice(from).map(drawn), held = document.activeElement === at("more");
  if (from) at("records").append(...nodes);
  else at("records").replaceChildren(...(nodes.length ? nodes : [make("p", "hint", say("noRecords"))]));
  at("more").hidden = next === null;
  if (held && next === null && nodes.length) { nodes[0].tabIndex = -1; nodes[0].focus(); }
  at("more").textContent = `${say("moreRecords")}${next === null ? "" : ` (${say("scanned", number(next))})`}`;
}

function drawn({ record, characters, origin, number: place, edits, rejected }) {
  const turns = record.text !== undefined ? [["", record.text]] : [...(record.messages ?? record.prompt).map(({ role, content }) => [role, content]), ...(record.chosen ?? []).map(({ content }) => ["chosen", content]), ...(record.rejected ?? []).map(({ content }) => ["rejected", content])];
  const node = make("article", "data-record");
  for (const [role, content] of turns) node.append(...(role ? [make("span", "role", role)] : []), make("div", "text", content));
  node.append(...changes(edits, rejected), make("footer", "", `#${place} · ${origin} · ${number(characters)} ${say("characters")}`));
  return node;
}

const changes = (edits, rejected) => [
  ...edits.map(({ rule, before, after }) => make("details", "", make("summary", "", reason(rule)), pair(before, after))),
  ...(rejected ? [make("p", "bad", say("isRejected", rejected.rule, rejected.detail))] : []),
];

// ---- a text of one's own

async function tryRules(event) {
  event.preventDefault();
  const last = trying();
  notify(null);
  try {
    const body = await post("/studio/rules", { text: at("tried").value, run: at("run").value || null });
    if (!last()) return;
    tried = body;
    why = tried.why;
    drawTried();
  } catch (error) { if (last()) explain(error); }
}

function drawTried() {
  if (!tried) return;
  const { edits, rejected, text } = tried;
  const end = text === null ? [] : [make("p", "hint", say("isKept")), make("div", "text", text)];
  const parts = changes(edits, rejected);
  parts.filter((part) => part.tagName === "DETAILS").forEach((part) => { part.open = true; });
  at("result").replaceChildren(make("div", "data-record", ...(parts.length ? parts : [make("p", "hint", say("nothingChanged"))]), ...end));
}

const about = () => at("try-about").replaceChildren(`${say("code")}: `, ...codeLinks(RULE_CODE));

function choose() {
  const ofPath = at("from").value === "path";
  at("path-field").hidden = !ofPath;
  for (const node of document.querySelectorAll(".of-run")) node.hidden = ofPath;
  for (const node of document.querySelectorAll(".of-path")) node.hidden = !ofPath;
}

async function begin() {
  preferences(() => { drawRun(); drawRecords(); drawTried(); about(); });
  about();
  at("run").addEventListener("change", showRun);
  at("stage").addEventListener("change", drawSources);
  at("from").addEventListener("change", choose);
  at("ask-data").addEventListener("submit", (event) => { event.preventDefault(); showRecords(0); });
  at("more").addEventListener("click", () => showRecords(next));
  at("try").addEventListener("submit", tryRules);
  try {
    const { runs } = await get("/runs/data");
    refill(at("run"), runs.map(({ name }) => [name, name]));
    const asked = new URLSearchParams(location.search).get("run");
    if (runs.some(({ name }) => name === asked)) at("run").value = asked;
    at("no-runs").hidden = runs.length > 0;
    await showRun();
  } catch (error) { explain(error); }
}

begin();
