// Curves by uPlot: several runs over each other, a band of what is expected, events to click on,
// and a part of the axis to look at closely.
import { make } from "./nodes.js";
import { quantity, say } from "./words.js";

const HEIGHT = 190, DASHED = [5, 3];
let uPlot = null;

/** Loads what draws; before the first chart, and beside what is asked of the server. */
export const prepare = async () => { uPlot ??= (await import("./uplot.js")).default; };

/** A chart with its heading and a line that reads the values out.
 *
 * lines: [{ name, css, points: [[x, y]], band: [low, high, x] or null, events: [{ x, text }] }].
 * options: { title, low, top, shown, zoomed, told }: the least and largest value that is shown (null: all),
 * what part of the axis, who is told of another one, and of an event that was clicked. */
export function chart(lines, { title, low, top, shown, zoomed, told }) {
  const reading = make("div", "reading"), canvas = make("div", "canvas");
  const root = make("section", "chart-box", make("h3", "", title), make("div", "plot", canvas, reading));
  const colour = (name, css = "") => { const probe = make("i", css); probe.style.color = `var(${name})`; document.body.append(probe); const found = getComputedStyle(probe).color; probe.remove(); return found; };
  const [ink, hair, paper] = ["--faint", "--hair", "--paper"].map((name) => colour(name));
  const hues = lines.map((line) => colour("--hue", line.css));
  const data = uPlot.join(lines.map(({ points }) => [points.map(([x]) => x), points.map(([, y]) => y)]));
  const axis = { stroke: ink, grid: { stroke: hair, width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 44, gap: 3, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : quantity(tick))) };
  const last = (points) => points.at(-1)?.[1];
  const read = (where, value) => reading.replaceChildren(where, ...lines.map((line, n) => {
    const found = value(line, n);
    return make("span", `value ${line.css}`, make("span", "swatch"), `${lines.length > 1 ? `${line.name} ` : ""}${found === undefined || found === null ? "–" : exact(found)}`);
  }));
  const rest = () => read("", (line) => last(line.points));
  const end = ({ band, events = [] }) => Math.max(band?.[2] ?? 0, ...events.map(({ x }) => x)); // what comes after the last value is shown too
  const marks = lines.flatMap((line, n) => (line.events || []).map((event) => ({ ...event, hue: hues[n] })));
  const plot = new uPlot({
    width: 380, height: HEIGHT, ms: 1, cursor: { y: false, drag: { x: true, y: false } }, legend: { show: false },
    scales: { x: { time: false, range: shown ? () => shown : (_, a, b) => [Math.min(a, 0), Math.max(b, ...lines.map(end)) || 1] }, y: { range: (_, a, b) => spanOf(low ?? a, top ?? b, lines) } },
    axes: [{ ...axis, size: 24 }, axis],
    series: [{}, ...lines.map((line, n) => ({ stroke: hues[n], width: 1.6, spanGaps: true, dash: line.css.includes("again") ? DASHED : undefined, points: { show: line.points.length < 20, size: 5, fill: hues[n] } }))],
    hooks: {
      draw: [(self) => { lines.forEach((line, n) => line.band && drawBand(self, line.band, last(line.points), line.points.at(-1)?.[0], hues[n])); marks.forEach((mark) => drawMark(self, mark, paper)); }],
      setCursor: [(self) => { if (self.cursor.idx === null || self.cursor.left < 0) { rest(); return; } const x = self.posToVal(self.cursor.left, "x"); read(say("at", quantity(x)), (line) => nearest(line.points, x)); }],
      setSelect: [(self) => { if (self.select.width > 4) zoomed([self.posToVal(self.select.left, "x"), self.posToVal(self.select.left + self.select.width, "x")]); }],
    },
  }, data, canvas);
  plot.over.addEventListener("dblclick", () => zoomed(null));
  plot.over.addEventListener("click", (event) => {
    const near = marks.map((mark) => [Math.abs(plot.valToPos(mark.x, "x") - event.offsetX), mark]).sort((a, b) => a[0] - b[0])[0];
    if (near && near[0] < 8) told(near[1].text);
  });
  const figure = root.querySelector(".plot");
  figure.setAttribute("role", "img");
  figure.setAttribute("aria-label", `${title}: ${lines.map((line) => `${line.name} ${exact(last(line.points))}`).join(", ")}`);
  rest();
  new ResizeObserver(() => { if (canvas.clientWidth) plot.setSize({ width: canvas.clientWidth, height: HEIGHT }); }).observe(canvas);
  return root;
}

function spanOf(low, top, lines) {
  for (const { band } of lines) if (band) { low = Math.min(low, band[0]); top = Math.max(top, band[1]); }
  const room = (top - low || Math.abs(top) || 1) * 0.06;
  return [low === 0 ? 0 : low - room, top + room];
}

/** From the last value to what is expected at the end, as wide as that is unsure. */
function drawBand(plot, [low, high, end], value, begin, hue) {
  const { ctx } = plot, x = (v) => plot.valToPos(v, "x", true), y = (v) => plot.valToPos(v, "y", true);
  ctx.save();
  ctx.globalAlpha = 0.25;
  ctx.fillStyle = hue;
  ctx.beginPath();
  ctx.moveTo(x(begin), y(value));
  ctx.lineTo(x(end), y(high));
  ctx.lineTo(x(end), y(low));
  ctx.closePath();
  ctx.fill();
  ctx.globalAlpha = 0.7;
  ctx.strokeStyle = hue;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.stroke();
  ctx.restore();
}

function drawMark(plot, { x, kind, hue }, paper) {
  const { ctx, bbox } = plot, at = plot.valToPos(x, "x", true), size = 4 * devicePixelRatio;
  if (at < bbox.left || at > bbox.left + bbox.width) return;
  ctx.save();
  ctx.fillStyle = kind === "checkpoint" ? paper : hue;
  ctx.strokeStyle = hue;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  const foot = bbox.top + bbox.height - size;
  if (kind === "checkpoint") ctx.arc(at, foot, size * 0.7, 0, 7);
  else { ctx.moveTo(at - size, foot - size); ctx.lineTo(at + size, foot - size); ctx.lineTo(at, foot + size); ctx.closePath(); }
  ctx.fill();
  ctx.stroke();
  ctx.restore();
}

/** The value of the point nearest to x; points are in the order of x. */
function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (points[middle][0] < x) low = middle + 1; else high = middle; }
  if (low && Math.abs(points[low - 1][0] - x) < Math.abs(points[low]?.[0] - x)) low--;
  return points[low]?.[1];
}

export const exact = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? quantity(value) : Number(value.toPrecision(4)).toString());
