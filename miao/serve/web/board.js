// The board: curves of the chosen runs over each other, their scores and samples; asked for anew
// every few seconds. Names, scores and samples come from files and become text nodes.
import { explain, settle, turns } from "./notice.js";
import { apiKey, askJson, Trouble } from "./server.js";
import { chart, prepare } from "./plot.js";
import { at, make, redraw, refill } from "./nodes.js";
import { preferences, quantity, say } from "./words.js";

const EVERY = 4000, HUES = 8, MANY = 8, FEW = 3;
const TITLES = ["loss", "heldout", "tasks", "speed", "gradNorm", "lr"];
let runs = [], zoom = null;
let asked = new URLSearchParams(location.search).get("run");
const chosen = new Map(); // name -> hue
const details = new Map(); // name -> { changed, data }
const cards = new Map(); // name -> its place in the list
let drawn = "";
const opened = new Set(); // what the reader has unfolded
let draws = false; // whether he is about to enlarge a part of a curve
const small = matchMedia("(max-width: 760px)");
const hueClass = (number) => `hue-${number % HUES}${number < HUES ? "" : " again"}`;

const asking = turns();

async function refresh() {
  const last = asking();
  try {
    const isFirst = !chosen.size && !details.size; // then curves come with the list
    const [body] = await Promise.all([askJson(`/runs/data${isFirst ? `?first=${encodeURIComponent(asked ?? "")}` : ""}`), prepare()]);
    if (!last()) return;
    runs = body.runs;
    for (const name of chosen.keys()) if (!runs.some((run) => run.name === name)) chosen.delete(name);
    if (isFirst && runs.length) choose((runs.find((run) => run.name === asked) || runs[0]).name);
    if (body.first) details.set(body.first.name, { changed: runs.find((run) => run.name === body.first.name).changed, data: body.first });
    for (const name of chosen.keys()) {
      const { changed } = runs.find((run) => run.name === name);
      if (details.get(name)?.changed === changed) continue;
      const data = await detailsOf(name);
      if (!last()) return; // another part of the axis, or other runs, are asked for by now
      details.set(name, { changed, data });
    }
    settle(refresh);
    at("key").hidden = true;
    show();
  } catch (error) {
    if (!last()) return;
    at("key").hidden = error.key !== "needKey";
    explain(error, refresh);
  }
}

/** A run's curves, scores and samples; what cannot be had of one run hides no others. */
async function detailsOf(name) {
  const part = zoom ? `?begin=${zoom[0]}&end=${zoom[1]}` : "";
  try { return await askJson(`/runs/data/${encodeURIComponent(name)}${part}`); }
  catch (error) {
    if (error instanceof Trouble && error.key !== "refused" && error.key !== "failed") throw error;
    return { name, problem: String(error.value || error.message), stages: [], curves: {}, events: {}, scores: [], samples: [], words: {} };
  }
}

/** What a stage, task or category is called in the page's language. */
const named = (kind, key) => shownDetails().map((data) => data.words[kind]?.[key]).find(Boolean)?.[document.documentElement.lang.slice(0, 2)] ?? key.split("\n").at(-1);
const shownDetails = () => [...chosen.keys()].map((name) => details.get(name)?.data).filter(Boolean);

/** A fold that stays as the reader left it when all is drawn anew. */
function fold(key, title, ...children) {
  const root = make("details", "", make("summary", "faint", title), ...children);
  root.firstChild.dataset.key = key;
  root.open = opened.has(key);
  root.addEventListener("toggle", () => (root.open ? opened.add(key) : opened.delete(key)));
  return root;
}

/** On a small screen the first `few`; the others behind a fold. */
function few(key, nodes, count, css) {
  if (!small.matches || nodes.length <= count) return nodes;
  return [...nodes.slice(0, count), fold(key, say("more", nodes.length - count), make("div", css, ...nodes.slice(count)))];
}

function choose(name) {
  const taken = [...chosen.values()];
  chosen.set(name, [...Array(taken.length + 1).keys()].find((hue) => !taken.includes(hue)));
}

/** Draws what has changed; a page that nothing happened to keeps its nodes. */
function show(force = false) {
  const now = JSON.stringify([runs, [...chosen], [...chosen.keys()].map((name) => details.get(name)?.changed), at("stage").value]);
  if ((now === drawn || draws) && !force) return;
  showRuns();
  showStages();
  at("results").hidden = !runs.length;
  const stage = at("stage").value;
  const shown = [...chosen].filter(([name]) => details.has(name)).map(([name, hue]) => ({ name, hue, data: details.get(name).data }));
  const charts = TITLES.map((title) => curve(title, shown.map((run) => ({ ...run, points: run.data.curves[stage]?.[title] || [] })))).filter(Boolean);
  redraw(at("charts"), ...(charts.length ? few("charts", charts, 2, "charts") : [make("p", "faint", say("noCurves"))]));
  showScores(shown, stage);
  showSamples(shown, stage);
  drawn = JSON.stringify([runs, [...chosen], [...chosen.keys()].map((name) => details.get(name)?.changed), stage]);
}

function showRuns() {
  document.querySelector(".pick").hidden = !runs.length;
  if (!runs.length) { at("runs").replaceChildren(make("p", "", say("noRuns"))); return; }
  at("filter").hidden = runs.length <= MANY;
  const wanted = at("filter").value.trim().toLowerCase();
  const shown = runs.filter((run) => chosen.has(run.name) || run.name.toLowerCase().includes(wanted)).map(card);
  const before = [...at("runs").children];
  if (shown.length === before.length && shown.every((one, n) => one === before[n])) return;
  redraw(at("runs"), ...shown);
}

/** The card of a run: one node for as long as the page lives, so that keys and clicks find it. */
function card(run) {
  if (!cards.has(run.name)) {
    const box = make("input");
    box.type = "checkbox";
    box.addEventListener("change", () => { if (box.checked) choose(run.name); else chosen.delete(run.name); refresh(); });
    cards.set(run.name, make("label", "run", box, make("span"), make("div")));
  }
  const root = cards.get(run.name);
  const [box, swatch, words] = root.children;
  const stage = run.stageName?.[document.documentElement.lang.slice(0, 2)];
  const share = run.live && run.budget && Math.min(1, run.tokens / run.budget);
  const facts = [stage, run.tokens && quantity(run.tokens), share && `${Math.round(100 * share)}%`, share && run.left !== null && say("left", clock(run.left)), Number.isFinite(run.loss) && run.loss.toFixed(3), run.memory && `${Math.round(run.memory / 2 ** 20)} MiB`].filter(Boolean).join(" · ");
  box.checked = chosen.has(run.name);
  root.classList.toggle("live", run.live);
  swatch.className = `swatch ${chosen.has(run.name) ? hueClass(chosen.get(run.name)) : "hue-none"}`;
  words.replaceChildren(make("b", "", run.name), make("span", "faint", facts), make("span", "faint state", run.live ? `● ${say("live")}` : ""),
    ...(run.problem ? [make("span", "bad", say("unreadable", run.problem))] : []));
  return root;
}

function showStages() {
  const stages = [...new Set([...chosen.keys()].flatMap((name) => details.get(name)?.data.stages || []))];
  const before = at("stage").value;
  refill(at("stage"), stages.map((stage) => [stage, named("stages", stage)]));
  const [first] = chosen.keys();
  if (!stages.includes(before)) at("stage").value = runs.find((run) => run.name === first)?.stage ?? stages[0] ?? "";
  at("stage-row").hidden = !stages.length;
}

// ---- curves

const TOP = ["loss", "gradNorm"], FLOORS = ["loss", "heldout"]; // the first steps would flatten all the rest

function curve(title, runs) {
  const lines = runs.filter((run) => run.points.length).map((run) => ({
    name: run.name, css: hueClass(run.hue), points: run.points,
    band: title === "heldout" ? run.data.forecast?.[at("stage").value] ?? null : null,
    events: title === "loss" ? (run.data.events[at("stage").value] || []).map((event) => ({ ...event, text: told(run, event) })) : [],
  }));
  if (!lines.length) return null;
  const values = lines.flatMap((line) => line.points.map(([, y]) => y)).sort((a, b) => a - b);
  const top = TOP.includes(title) ? values[Math.floor((values.length - 1) * 0.98)] : null;
  const low = FLOORS.includes(title) ? null : Math.min(0, values[0]);
  return chart(lines, { title: say(title), low, top, shown: zoom, zoomed, told: (text) => { at("event").textContent = text; } });
}

const KINDS = ["checkpoint", "skipped", "rollback", "overflow", "resumed"]; // a log may hold others
const told = (run, event) => `${run.name} · ${say("at", quantity(event.x))}: ${KINDS.includes(event.kind) ? say(event.kind) : event.kind}${event.more ? ` (${event.more})` : ""}`;

/** Looks at a part of the axis closely, or (null) at all of it: the server thins what it sends. */
async function zoomed(span) {
  zoom = span;
  at("whole").hidden = !span;
  details.clear();
  await refresh();
}

// ---- scores and samples

function showScores(chosenRuns, stage) {
  const rows = new Map();
  const belongs = (score) => score.stage === stage || !chosenRuns.some((one) => one.data.stages.includes(score.stage));
  const shown = chosenRuns.filter((run) => run.data.scores.some(belongs));
  for (const run of shown) {
    for (const score of run.data.scores) {
      if (!belongs(score)) continue;
      const whole = score.category === "all";
      const key = named("tasks", score.task) + (whole ? "" : ` · ${named("categories", `${score.task}\n${score.category}`)}`);
      if (!rows.has(key)) rows.set(key, { chance: score.chance, whole, values: new Map() });
      rows.get(key).values.set(run.name, score);
    }
  }
  const written = (score) => {
    if (!score) return "–";
    const scale = score.unit === "accuracy" ? 100 : 1, unit = scale === 100 ? " %" : "";
    const error = score.stderr === null ? "" : ` ± ${(scale * score.stderr).toFixed(scale === 100 ? 1 : 3)}`;
    return (scale * score.value).toFixed(scale === 100 ? 1 : 3) + error + unit;
  };
  const table = (wanted) => {
    const head = make("tr", "", make("th", "", say("task")), ...shown.map((run) => make("th", "num", run.name)), make("th", "num", say("chance")));
    const body = wanted.map(([name, row]) => make("tr", row.whole ? "whole" : "", make("td", "", name), ...shown.map((run) => make("td", "num", written(row.values.get(run.name)))),
      make("td", "num", row.chance === null ? "" : `${Number((100 * row.chance).toPrecision(3))} %`)));
    return make("table", "", make("thead", "", head), make("tbody", "", ...body));
  };
  const all = [...rows], totals = all.filter(([, row]) => row.whole);
  const folds = small.matches && totals.length && totals.length < all.length;
  redraw(at("scores"), ...(!all.length ? [make("p", "faint", "–")] : folds ? [table(totals), fold("scores", say("more", all.length - totals.length), table(all))] : [table(all)]));
}

/** One block per prompt: what every run said to it, from the first time to the last. */
function showSamples(shown, stage) {
  const prompts = new Map();
  for (const run of shown) {
    for (const one of run.data.samples.filter((sample) => sample.stage === stage)) {
      if (!prompts.has(one.prompt)) prompts.set(one.prompt, new Map());
      const byRun = prompts.get(one.prompt);
      byRun.set(run, [...(byRun.get(run) || []), one]);
    }
  }
  const written = (run) => (one) => make("div", `answer ${hueClass(run.hue)}`,
    make("div", "faint", make("span", "swatch"), ` ${run.name}${one.tokens === null ? "" : ` · ${say("at", quantity(one.tokens))}`}`), one.answer);
  const nodes = [...prompts].map(([prompt, byRun]) => make("section", "sample", make("b", "", prompt), ...[...byRun].map(([run, samples]) => {
    const strip = make("div", "answers", ...samples.map(written(run)));
    strip.tabIndex = 0;
    strip.dataset.key = `${run.name}\n${prompt}`;
    strip.setAttribute("role", "group");
    strip.setAttribute("aria-label", `${run.name}: ${prompt}`);
    return strip;
  })));
  const strips = () => [...at("samples").querySelectorAll(".answers")];
  const earlier = new Map(strips().filter((one) => one.scrollLeft + one.clientWidth < one.scrollWidth - 2).map((one) => [one.dataset.key, one.scrollLeft]));
  redraw(at("samples"), ...(nodes.length ? few("samples", nodes, FEW, "") : [make("p", "faint", "–")]));
  for (const one of strips()) one.scrollLeft = earlier.get(one.dataset.key) ?? one.scrollWidth; // the newest, unless another is looked at
}

const clock = (seconds) => { const m = Math.floor(seconds / 60), h = Math.floor(m / 60), two = (n) => String(n).padStart(2, "0"); return h ? `${h}:${two(m % 60)}:${two(Math.floor(seconds % 60))}` : `${m}:${two(Math.floor(seconds % 60))}`; };

preferences(() => show(true));
new MutationObserver(() => show(true)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
at("whole").addEventListener("click", () => { at("stage").focus(); zoomed(null); });
at("charts").addEventListener("pointerdown", () => { draws = true; });
for (const kind of ["pointerup", "pointercancel"]) addEventListener(kind, () => { draws = false; });
small.addEventListener("change", () => show(true));
at("stage").addEventListener("change", () => show(true));
at("filter").addEventListener("input", showRuns);
at("key").addEventListener("change", () => { apiKey.set(at("key").value); refresh(); });
(async () => {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
})();
