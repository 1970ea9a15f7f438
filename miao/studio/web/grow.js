// The room "Grow": texts, a wish, its plan, and the queue. Whatever comes from files becomes text nodes.
import "./grow-words.js";
import { explain, notify, settle, turns } from "./notice.js";
import { get, post } from "./studio.js";
import { chosen, prepareTexts, showChecked, showChosen } from "./texts.js";
import { at, make, redraw, refill, rest } from "./nodes.js";
import { preferences, quantity, say } from "./words.js";

const EVERY = 2000, BY_TIME = ["", "until"];
let state = { jobs: [], recipes: [], before: {} }, runs = [], cloneOf = null, planned = null, drawn = "";
const opened = new Map(); // logs that the reader has unfolded -> what stands there

// ---- the wish and its plan

function wish() {
  const given = { texts: [], chats: [], pairs: [] };
  for (const [path, kind] of chosen) given[kind].push(path);
  const how = cloneOf ? { clone_of: cloneOf } : BY_TIME.includes(at("recipe").value) ? { ...byTime(), maker: at("maker").value.trim() || null, origin: origin() } : { recipe: at("recipe").value };
  const options = {};
  for (const field of at("planned").querySelectorAll("input[name]")) if (field.value !== field.defaultValue) options[field.name] = field.value.trim();
  return { name: at("name").value.trim(), ...how, ...given, options };
}

const byTime = () => (at("recipe").value ? { until: at("until").value } : { minutes: Number(at("minutes").value) });
const ELSEWHERE = " "; // no run is called so
const origin = () => (at("origin").value === ELSEWHERE ? at("given").value.trim() : at("origin").value) || null;
const planning = turns();

/** Forgets the plan, also one that is still being made. */
function unplan() {
  planning();
  planned = null;
  at("plan").disabled = false;
  showPlan();
}

async function plan() {
  if (!at("wish").reportValidity()) return;
  const body = wish();
  unplan();
  const last = planning();
  notify(null);
  const again = rest(at("plan"));
  at("planned").replaceChildren(make("p", "faint busy", say("planning")));
  try {
    const found = await post("/studio/plan", body);
    if (!last()) return;
    planned = { ...found, changed: body.options };
    showPlan();
    if (planned.plan.minutes) return;
    const more = await post("/studio/estimate", body);
    if (!last()) return;
    Object.assign(planned.plan, more);
    showTimes();
  } catch (error) {
    if (!last()) return;
    if (!planned) at("planned").replaceChildren();
    explain(error, plan);
  } finally { if (last()) again(); }
}

/** The plan as a table whose values can be written over. */
function showPlan() {
  if (!planned) { at("planned").replaceChildren(); return; }
  const { options = {}, why = {} } = planned.plan;
  const reasons = Object.keys(why).length > 0;
  const rows = Object.entries(options).map(([key, value]) => {
    const field = make("input");
    field.name = key;
    field.defaultValue = planned.changed[key] === undefined ? String(value) : "";
    field.value = String(value);
    field.setAttribute("aria-label", key);
    const fixed = key === "model.path"; // it is chosen above
    return make("tr", "", make("td", "", make("code", "", key)), make("td", fixed ? "path" : "", fixed ? String(value) : field), ...(reasons ? [make("td", "faint", why[key] || "")] : []));
  });
  const others = Object.entries(why).filter(([key]) => !(key in options)); // decided too, but not here
  rows.push(...others.map(([key, reason]) => make("tr", "", make("td", "", make("code", "", key)), make("td", ""), make("td", "faint", reason))));
  const head = make("tr", "", make("th", "", say("option")), make("th", "", say("value")), ...(reasons ? [make("th", "", say("why"))] : []));
  at("planned").replaceChildren(make("div", "times"),
    make("div", "table", make("table", "plan", make("thead", "", head), make("tbody", "", ...rows))), ...(planned.command ? [command(planned.command)] : []));
  showTimes();
}

/** What was written into the plan's table is its plan's from now on. */
function keepEdits() {
  if (!planned) return;
  const { options } = wish();
  Object.assign(planned, { changed: { ...planned.changed, ...options }, plan: { ...planned.plan, options: { ...planned.plan.options, ...options } } });
}

const PARTS = { pretrain: "partPretrain", sft: "partSft", dpo: "partDpo", "everything else": "partRest" };
const said = (stage) => (PARTS[stage] ? say(PARTS[stage]) : stage);

/** What the plan will take and come to, above its table. */
function showTimes() {
  const { minutes, notes = [], bits_per_byte: bits } = planned.plan;
  const parts = Object.entries(minutes || {}).map(([stage, spent]) => `${said(stage)} ${say("takes", quantity(spent))}`);
  if (bits) parts.push(say("predicted", bits.length ? `${bits[0].toFixed(2)} (${bits[1].toFixed(2)}–${bits[2].toFixed(2)})` : String(bits)));
  if (!minutes && planned.command) parts.push(say("planning"));
  at("planned").querySelector(".times").replaceChildren(make("p", "", parts.join(" · ")), ...notes.map((note) => make("p", "hint", note)));
}

const command = (text) => make("p", "command", make("span", "faint", say("same")), make("code", "", text));

async function start(event) {
  event.preventDefault();
  notify(null);
  const again = rest(at("start")); // once is enough
  try {
    await post("/studio/start", wish());
    at("name").value = "";
    choose(null);
    await refresh();
    at("jobs").scrollIntoView({ block: "nearest" });
  } catch (error) { explain(error); } finally { again(); }
}

/** Goes on with a clone of a run, or (null) without. */
function choose(run) {
  cloneOf = run;
  at("cloning").hidden = run === null;
  notThis.setAttribute("aria-label", say("unchoose"));
  at("cloning").replaceChildren(...(run === null ? [] : [`${say("cloning", run)} `, notThis]));
  showFields();
  unplan();
}

const notThis = make("button", "plain", "✕");
notThis.type = "button";
notThis.addEventListener("click", () => choose(null));

async function clone(name) {
  choose(name);
  const last = planning();
  const found = await get(`/studio/runs/${encodeURIComponent(name)}/wish`);
  if (!last()) return;
  planned = { plan: { options: found.options }, command: "", changed: {} };
  at("name").value = freeName(name);
  showPlan();
  at("name").focus();
}

const freeName = (name) => [2, 3, 4, 5, 6, 7, 8, 9].map((n) => `${name}-${n}`).find((one) => !runs.some((run) => run.name === one)) || "";

// ---- the queue and the runs

const looking = turns();

async function refresh() {
  const last = looking();
  try {
    const [grow, board] = await Promise.all([get("/studio/grow"), get("/runs/data")]);
    if (!last()) return;
    [state, runs] = [grow, board.runs];
    settle(refresh);
    showJobs();
  } catch (error) { if (last()) explain(error, refresh); }
}

function showJobs() {
  const now = JSON.stringify([state, runs.map((run) => [run.name, run.live, run.stage, run.changed]), document.documentElement.lang]);
  const copies = !getSelection().isCollapsed && at("jobs").contains(getSelection().anchorNode); // a command, perhaps
  if (now === drawn || copies) return;
  drawn = now;
  const chosenNow = () => [at("recipe").value, at("origin").value].join("\n"), before = chosenNow();
  refill(at("recipe"), [["", say("byTime")], ["until", say("byClock")], ...state.recipes.map((name) => [name, name])]);
  refill(at("origin"), [["", say("fromScratch")], ...runs.filter((run) => run.stage).map(({ name }) => [name, say("fromRun", name)]), [ELSEWHERE, say("fromElsewhere")]]);
  if (chosenNow() !== before) unplan(); // it was of a run that is gone
  showFields();
  const started = new Map(state.jobs.map((job) => [job.name, job]));
  const others = runs.filter((run) => !started.has(run.name)).map((run) => ({ name: run.name, state: null }));
  redraw(at("jobs"), ...[...state.jobs, ...others].map(shownJob), ...(started.size + others.length ? [] : [make("p", "faint", say("noJobs"))]));
}

/** Only what is asked for: a clone has it all from its run. */
function showFields() {
  const how = at("recipe").value;
  const shown = { recipe: cloneOf === null, minutes: cloneOf === null && how === "", until: cloneOf === null && how === "until", maker: cloneOf === null && BY_TIME.includes(how), origin: cloneOf === null && BY_TIME.includes(how) };
  shown.given = shown.origin && at("origin").value === ELSEWHERE;
  for (const [name, is] of Object.entries(shown)) { at(`${name}-field`).hidden = !is; at(name).disabled = !is; }
}

const STATES = { stopped: "stateStopped", failed: "stateFailed", done: "stateDone" };

function shownJob(job) {
  const run = runs.find((one) => one.name === job.name);
  const root = make("article", `job ${job.state || ""}`);
  const status = job.state ? say(STATES[job.state] || job.state) : run?.live ? say("live") : say("noJob");
  const act = (label, action, css = "plain") => {
    const button = make("button", css, say(label));
    button.dataset.key = `${job.name} ${label}`;
    button.addEventListener("click", async () => { notify(null); try { await action(); } catch (error) { explain(error); } await refresh(); });
    return button;
  };
  const does = (what) => () => post(`/studio/jobs/${encodeURIComponent(job.name)}/${what}`, {});
  const link = (label, path) => {
    const a = make("a", "plain", say(label));
    a.dataset.key = `${job.name} ${label}`;
    const before = state.before[job.name]?.split("/")[0]; // beside what has learned, what it was before
    a.href = `${path}?run=${encodeURIComponent(job.name)}${before ? `&beside=${encodeURIComponent(before)}` : ""}`;
    return a;
  };
  const rests = !["running", "stopping"].includes(job.state) && !run?.live;
  const buttons = [
    ...(job.state === "running" ? [act("pause", does("pause")), act("stop", does("stop"))] : []),
    ...(job.state === "queued" ? [act("stop", does("stop"))] : []),
    ...(["paused", "stopped", "broken", "failed"].includes(job.state) ? [act("resume", does("resume"), "plain strong")] : []),
    ...(run ? [link("watchIt", "/runs"), link("talkTo", "/chat"), link("inside", "/inside"), link("data", "/data"), act("clone", () => clone(job.name))] : []),
    ...(run && rests ? [act("rename", () => renameRun(job.name)), act("remove", () => deleteRun(job.name))] : []),
    ...(job.state && rests && !run ? [act("forget", does("forget"))] : []),
  ];
  root.append(make("div", "job-head", make("b", "", job.name), make("span", "state", status), make("span", "grow"), make("span", "actions", ...buttons)));
  if (job.progress) {
    const bar = make("progress");
    bar.max = 1;
    bar.value = job.progress.share;
    bar.setAttribute("aria-label", job.progress.stage);
    root.append(bar, make("div", "faint", [said(job.progress.stage), `${Math.round(100 * job.progress.share)}%`, job.progress.says, job.progress.left && say("left", job.progress.left)].filter(Boolean).join(" · ")));
  }
  else if (job.says) root.append(make("div", "faint busy", job.says));
  if (job.error) root.append(make("pre", "bad", job.error));
  if (job.state) root.append(fold(`log ${job.name}`, say("log"), async (body) => {
    body.textContent = (await get(`/studio/jobs/${encodeURIComponent(job.name)}/log`)).log;
  }), command(job.command));
  return root;
}

/** A fold that is filled when it is opened, and stays open, filled and scrolled when all is drawn anew. */
function fold(key, title, fill) {
  const body = make("pre", "log", opened.get(key) ?? ""), root = make("details", "fold", make("summary", "", title), body);
  const keep = () => opened.set(key, body.textContent);
  [root.firstChild.dataset.key, body.dataset.key] = [key, `${key} text`];
  root.open = opened.has(key);
  root.addEventListener("toggle", () => {
    if (root.open) { keep(); fill(body).then(() => opened.has(key) && keep()).catch(explain); }
    else opened.delete(key);
  });
  return root;
}

function checkName() {
  at("name").setCustomValidity(at("name").validity.patternMismatch ? say("badName") : "");
}

async function renameRun(name) {
  const given = prompt(say("newName"), name);
  if (given && given.trim() !== name) await post(`/studio/runs/${encodeURIComponent(name)}/rename`, { new: given.trim() });
}

/** Asked twice: whether, and for its name. */
async function deleteRun(name) {
  if (!confirm(say("sureDeleteRun", name))) return;
  const given = prompt(say("sayName", name), "");
  if (given === null) return;
  if (given.trim() !== name) { alert(say("notSame")); return; }
  await post(`/studio/runs/${encodeURIComponent(name)}/delete`, { sure: name });
}

preferences(() => { drawn = ""; showJobs(); keepEdits(); showPlan(); showChosen(); showChecked(); checkName(); });
prepareTexts();
at("plan").addEventListener("click", plan);
at("recipe").addEventListener("change", () => choose(null));
at("origin").addEventListener("change", () => choose(null));
at("name").addEventListener("input", checkName);
at("wish").addEventListener("submit", start);
(async () => {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
})();
