// The room "Look inside": the glass box over any model and checkpoint of any run, and the rows that
// they train on. Texts, tokens and names become text nodes.
import "./inside-words.js";
import { changesView, samplingView } from "./changes.js";
import { glass, look, prepareGlass, showGlass, visible } from "./glass.js";
import { explain, notify, turns } from "./notice.js";
import { codeLinks, get, language, post } from "./studio.js";
import { at, make, refill } from "./nodes.js";
import { preferences, say } from "./words.js";

const EVERY = 15000; // milliseconds
const MOST_LOSS = 8; // nats at which the colour is full
const CODE = {
  glassTokens: ["inspect/inspection.py"], glassLikely: ["inspect/inspection.py"], glassLayers: ["inspect/forward.py", "model/decoder.py"],
  glassAttention: ["ops/watched_attention.py"], glassSampling: ["page/sampling.js", "engine/sampling.py"], glassChange: ["inspect/forward.py"],
  glassOther: ["inspect/inspection.py"], rows: ["inspect/rows.py", "shards/packing.py"],
};
let hasDocs = false, models = [], row = null;

/** Where a view's numbers come from. */
function about(key) {
  const node = make("span", "");
  if (hasDocs) node.append(...codeLinks([language()], () => say("page")), " · ");
  node.append(`${say("code")}: `, ...codeLinks(CODE[key] ?? []));
  return node;
}

const looking = turns(), packing = turns();

/** Asks; the glass box knows by its number which answer is still waited for. */
async function sends({ number, ...request }) {
  const isMain = number.startsWith("glass"), last = isMain ? looking() : () => true;
  if (isMain) { notify(null); at("glass-note").textContent = say("looking"); }
  try {
    // One comparison at a time: the other model comes back when nothing is switched off any more.
    showGlass(number, await post("/v1/inspect", request.without ? { ...request, against: undefined } : request));
  } catch (error) {
    showGlass(number, null);
    if (!last()) return;
    if (isMain) at("glass-note").textContent = "";
    explain(error);
  }
}

function lookAt(event) {
  event?.preventDefault();
  const text = at("text").value, answer = at("answer").value, model = at("model").value; // what is asked beside is of the same
  const against = at("against").value || undefined;
  if (at("is-chat").checked) look({ model, against, messages: [{ role: "user", content: text }], answer: answer || null });
  else look({ model, against, text });
}

// ---- rows of training

async function showRow(event) {
  event?.preventDefault();
  const last = packing();
  notify(null);
  const asked = new URLSearchParams({ model: at("model").value, stage: at("row-stage").value, split: at("row-split").value, row: at("row-number").value });
  try {
    const found = await get(`/studio/inside/row?${asked}`);
    if (last()) draw(row = found);
  } catch (error) { if (last()) explain(error); }
}

function draw({ slots, documents }) {
  const learnt = slots.filter(({ learned }) => learned), empty = slots.filter(({ document }) => !document).length;
  const losses = learnt.map(({ logprob }) => -logprob), mean = losses.reduce((a, b) => a + b, 0) / losses.length;
  const facts = say("rowFacts", slots.length, documents.length, learnt.length, empty, losses.length ? mean.toFixed(3) : "–");
  at("row-facts").textContent = facts;
  at("row-slots").replaceChildren(...slots.map((slot, i) => {
    // What stands here was predicted, or not, by the slot before.
    const before = slots[i - 1]?.document === slot.document ? slots[i - 1] : null;
    const kind = !slot.document ? "padding" : before?.learned ? "" : "masked", first = i && !before ? "first" : "";
    const node = make("button", `token slot of-${slot.document % 4} ${kind} ${first}`, slot.document ? visible(slot) : "·");
    node.type = "button";
    if (kind === "") node.style.setProperty("--heat", (0.6 * Math.min(1, -before.logprob / MOST_LOSS)).toFixed(3));
    node.addEventListener("click", () => { at("row-facts").textContent = slot.document ? describe(slot, documents) : say("isPadding"); });
    return node;
  }));
}

function describe(slot, documents) {
  const { source, sequence } = documents[slot.document - 1];
  const next = slot.next ? visible(slot.next) : "…";
  const found = [`“${visible(slot)}” ${slot.id}`, say("slotFacts", slot.document, `${source} ${sequence}`, slot.position + 1, next)];
  found.push(slot.learned ? say("slotLoss", (-slot.logprob).toFixed(3)) : say("isMasked"));
  return found.join(" · ");
}

// ---- the room

const named = ({ run, stage, step, name }) => [name, `${run} · ${step === null ? say("finished", stage) : say("atStep", stage, step)}`];

function list() {
  const asked = new URLSearchParams(location.search), ofRun = models.findLast(({ run }) => run === asked.get("run"))?.name;
  const isFirst = !at("model").value, wanted = asked.get("model") || ofRun, before = at("model").value;
  refill(at("model"), [...models].sort((a, b) => (a.step !== null) - (b.step !== null)).map(named));
  refill(at("against"), [["", say("nobody")], ...models.map(named)]);
  if (isFirst && models.some(({ name }) => name === wanted)) at("model").value = wanted;
  if (at("model").value !== before) stages();
}

/** Of the chosen model's run. */
function stages() {
  const model = models.find(({ name }) => name === at("model").value);
  const found = [...new Set(models.filter(({ run }) => run === model?.run).map(({ stage }) => stage))].filter((stage) => stage !== "grpo");
  refill(at("row-stage"), found.map((stage) => [stage, stage]));
  at("rows").hidden = !model;
  packing(); // what is still being packed is of another model
  row = null;
  at("row-slots").replaceChildren();
  at("row-facts").textContent = "";
}

async function begin() {
  preferences(() => { list(); if (row) draw(row); at("lesson").href = `/studio/about/${language()}`; });
  try { await load(); } catch (error) { explain(error); }
  at("lesson").hidden = !hasDocs;
  at("lesson").href = `/studio/about/${language()}`;
  prepareGlass({ look: sends, title: () => glass.asked.model.replaceAll("/", "-"), about }, changesView, samplingView);
  at("rows-about").replaceChildren(about("rows"));
  show();
  at("ask").addEventListener("submit", lookAt);
  at("ask-row").addEventListener("submit", showRow);
  at("model").addEventListener("change", stages);
  at("is-chat").addEventListener("change", () => { at("answer-field").hidden = !at("is-chat").checked; });
  setInterval(async () => { // a training makes new checkpoints
    if (document.hidden) return;
    try { await load(); show(); } catch { /* whoever looks at something will be told */ }
  }, EVERY);
}

const load = async () => { ({ models, has_docs: hasDocs } = await get("/studio/inside")); };

function show() {
  list();
  at("no-models").hidden = models.length > 0;
  at("ask").hidden = models.length === 0;
}

begin();
