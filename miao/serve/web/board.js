// The board: curves of the chosen runs over each other, their scores and samples; asked for anew
// every few seconds. Names, scores and samples come from files and become text nodes.
import { apiKey, ask, Trouble } from "./server.js";
import { at, make, preferences, say } from "./words.js";

const EVERY = 4000, HUES = 8, MANY = 8, FEW = 3;
const TITLES = ["loss", "heldout", "tasks", "speed", "gradNorm", "lr"];
const WIDTH = 380, HEIGHT = 190, LEFT = 46, RIGHT = 18, TOP = 8, BOTTOM = 22;
let runs = [];
const chosen = new Map(); // name -> hue
const details = new Map(); // name -> { changed, data }
const cards = new Map(); // name -> its place in the list
let drawn = "";
const opened = new Set(); // what the reader has unfolded
const small = matchMedia("(max-width: 760px)");
const hueClass = (number) => `hue-${number % HUES}${number < HUES ? "" : " again"}`;

async function refresh() {
  try {
    const body = await (await ask("/runs/data")).json();
    runs = body.runs;
    for (const name of chosen.keys()) if (!runs.some((run) => run.name === name)) chosen.delete(name);
    if (!chosen.size && !details.size && runs.length) choose(runs[0].name);
    for (const name of chosen.keys()) {
      const { changed } = runs.find((run) => run.name === name);
      if (details.get(name)?.changed !== changed) details.set(name, { changed, data: await detailsOf(name) });
    }
    at("notice").hidden = true;
    show();
  } catch (error) {
    at("notice").hidden = false;
    at("key").hidden = error.key !== "needKey";
    at("notice-text").textContent = error instanceof Trouble ? say(error.key, error.value) : String(error.message);
  }
}

/** A run's curves, scores and samples; what cannot be had of one run hides no others. */
async function detailsOf(name) {
  try { return await (await ask(`/runs/data/${encodeURIComponent(name)}`)).json(); }
  catch (error) {
    if (error instanceof Trouble && error.key !== "refused" && error.key !== "failed") throw error;
    return { name, problem: String(error.value || error.message), stages: [], curves: {}, scores: [], samples: [], words: {} };
  }
}

/** What a stage, task or category is called in the page's language. */
const named = (kind, key) => shownDetails().map((data) => data.words[kind]?.[key]).find(Boolean)?.[document.documentElement.lang.slice(0, 2)] ?? key.split("\n").at(-1);
const shownDetails = () => [...chosen.keys()].map((name) => details.get(name)?.data).filter(Boolean);

/** A fold that stays as the reader left it when all is drawn anew. */
function fold(key, title, ...children) {
  const root = make("details", "", make("summary", "faint", title), ...children);
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
  if (now === drawn && !force) return;
  showRuns();
  showStages();
  at("results").hidden = !runs.length;
  const stage = at("stage").value;
  const shown = [...chosen].filter(([name]) => details.has(name)).map(([name, hue]) => ({ name, hue, data: details.get(name).data }));
  const charts = TITLES.map((title) => chart(title, shown.map((run) => ({ ...run, points: run.data.curves[stage]?.[title] || [] })))).filter(Boolean);
  at("charts").replaceChildren(...(charts.length ? few("charts", charts, 2, "charts") : [make("p", "faint", say("noCurves"))]));
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
  const focused = document.activeElement;
  at("runs").replaceChildren(...shown);
  if (at("runs").contains(focused)) focused.focus();
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
  const facts = [stage, run.tokens && quantity(run.tokens), Number.isFinite(run.loss) && run.loss.toFixed(3)].filter(Boolean).join(" · ");
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
  at("stage").replaceChildren(...stages.map((stage) => new Option(named("stages", stage), stage)));
  const [first] = chosen.keys();
  at("stage").value = stages.includes(before) ? before : runs.find((run) => run.name === first)?.stage ?? stages[0] ?? "";
  at("stage-row").hidden = !stages.length;
}

// ---- curves

const svg = (tag, attributes, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};

function chart(title, lines) {
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return null;
  const xEnd = Math.max(...all.map(([x]) => x)) || 1;
  const values = all.map(([, y]) => y).sort((a, b) => a - b);
  // The first steps of a loss would flatten all the rest.
  const top = title === "loss" || title === "gradNorm" ? values[Math.floor((values.length - 1) * 0.98)] : values.at(-1);
  const low = title === "loss" || title === "heldout" ? values[0] : Math.min(0, values[0]);
  const room = (top - low || Math.abs(top) || 1) * 0.06;
  const [from, to] = [low === 0 ? 0 : low - room, top + room];
  const px = (x) => LEFT + (x / xEnd) * (WIDTH - LEFT - RIGHT);
  const py = (y) => TOP + (1 - (Math.min(y, to) - from) / (to - from)) * (HEIGHT - TOP - BOTTOM);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img" });
  for (const value of ticks(from, to, 4)) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value) }));
    root.append(svg("text", { x: LEFT - 5, y: py(value) + 4, "text-anchor": "end" }, quantity(value)));
  }
  for (const value of ticks(0, xEnd, 5)) root.append(svg("text", { x: px(value), y: HEIGHT - 6, "text-anchor": value ? "middle" : "start" }, quantity(value)));
  const drawn = lines.filter((line) => line.points.length);
  for (const { hue, points } of drawn) {
    const group = svg("g", { class: hueClass(hue) });
    group.append(svg("polyline", { class: "line", points: points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") }));
    if (points.length < 20) for (const [x, y] of points) group.append(svg("circle", { class: "dot", cx: px(x), cy: py(y), r: 2.4 }));
    root.append(group);
  }
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  root.append(cursor);
  const reading = make("div", "reading");
  root.setAttribute("aria-label", `${say(title)}: ${drawn.map((line) => `${line.name} ${exact(line.points.at(-1)[1])}`).join(", ")}`);
  const read = (where, value) => reading.replaceChildren(where, ...drawn.map((line) =>
    make("span", `value ${hueClass(line.hue)}`, make("span", "swatch"), `${drawn.length > 1 ? `${line.name} ` : ""}${exact(value(line.points))}`)));
  const last = () => {
    cursor.setAttribute("visibility", "hidden");
    read("", (points) => points.at(-1)[1]);
  };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const x = Math.max(0, Math.min(xEnd, (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * xEnd));
    cursor.setAttribute("x1", px(x)); cursor.setAttribute("x2", px(x)); cursor.setAttribute("visibility", "visible");
    const near = (points) => points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    read(say("at", quantity(x)), (points) => near(points)[1]);
  });
  root.addEventListener("pointerleave", last);
  last();
  return make("section", "chart-box", make("h3", "", say(title)), root, reading);
}

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9 && found.length < 12; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

const exact = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? quantity(value) : Number(value.toPrecision(4)).toString());

function quantity(value) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "K"]]) if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  return value && Math.abs(value) < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
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
  at("scores").replaceChildren(...(!all.length ? [make("p", "faint", "–")] : folds ? [table(totals), fold("scores", say("more", all.length - totals.length), table(all))] : [table(all)]));
}

/** One block per prompt: the newest answer of every run beside each other, older ones folded. */
function showSamples(shown, stage) {
  const prompts = new Map();
  for (const run of shown) {
    for (const one of run.data.samples.filter((sample) => sample.stage === stage)) {
      if (!prompts.has(one.prompt)) prompts.set(one.prompt, new Map());
      const byRun = prompts.get(one.prompt);
      byRun.set(run, [one, ...(byRun.get(run) || [])]);
    }
  }
  const written = (run) => (one) => make("div", `answer ${hueClass(run.hue)}`,
    make("div", "faint", make("span", "swatch"), ` ${run.name}${one.tokens === null ? "" : ` · ${say("at", quantity(one.tokens))}`}`), one.answer);
  const nodes = [...prompts].map(([prompt, byRun]) => {
    const older = [...byRun].flatMap(([run, samples]) => samples.slice(1).map(written(run)));
    return make("section", "sample", make("b", "", prompt), make("div", "answers", ...[...byRun].map(([run, samples]) => written(run)(samples[0]))), ...(older.length ? [fold(`older ${prompt}`, `${say("earlier")} (${older.length})`, make("div", "answers", ...older))] : []));
  });
  at("samples").replaceChildren(...(nodes.length ? few("samples", nodes, FEW, "") : [make("p", "faint", "–")]));
}

preferences(() => show(true));
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
