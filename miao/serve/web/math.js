// Formulas: what stands between their marks, and their MathML. The library that makes it is loaded
// with the first formula; it builds nodes, never HTML, and commands that lead elsewhere are off.
import { make } from "./nodes.js";

const CLOSING = { $$: "$$", $: "$", "\\(": "\\)", "\\[": "\\]" };
const LONGEST = 4000;
export const MATH_BLOCK = /^ {0,3}(\$\$|\\\[)/;
let library = null;

/** The formula that begins at `at` with `mark`: { source, end, isBlock }; null where it is none,
 * such as an amount of money. */
export function formulaAt(text, mark, at) {
  const from = at + mark.length, close = CLOSING[mark];
  for (let end = text.indexOf(close, from); end >= 0 && end - from < LONGEST; end = text.indexOf(close, end + 1)) {
    const source = text.slice(from, end);
    if (mark === "$") {
      if (/[\n`]/.test(source) || /^\s/.test(source)) return null;
      if (text[end - 1] === "\\") continue;
      if (!source || /\s$/.test(source) || /\d/.test(text[end + 1] ?? "")) return null;
      if (/[\u3400-\u9fff]/.test(source) && !source.includes("\\")) return null;
    }
    return source.trim() ? { source, end: end + close.length, isBlock: mark === "$$" || mark === "\\[" } : null;
  }
  return null;
}

/** The line after the last one of a block of formula that begins at `start`. */
export function endOfMath(lines, start) {
  const [, mark] = lines[start].match(MATH_BLOCK);
  const first = lines[start].trimStart().slice(mark.length);
  if (first.includes(CLOSING[mark])) return start + 1;
  for (let at = start + 1; at < lines.length && lines[at].trim(); at++) if (lines[at].includes(CLOSING[mark])) return at + 1;
  return start + 1;
}

/** A formula as a node: its text until the library is there, and where it cannot be read. */
export function formula(source, isBlock, asWritten) {
  const node = make("span", isBlock ? "formula block" : "formula", asWritten);
  paint(node, source, isBlock);
  return node;
}

async function paint(node, source, isBlock) {
  try {
    library ??= (await import("./temml.js")).default;
    const holder = make("span");
    library.render(source, holder, { displayMode: isBlock, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 20] });
    node.replaceChildren(...holder.childNodes);
    node.title = source.trim();
  } catch { /* shown as it is written */ }
}
