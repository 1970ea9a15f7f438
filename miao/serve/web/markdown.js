// Markdown to DOM nodes. Texts only ever become text nodes, tags come from the list in this file,
// and the single attribute taken from a text is the address of a link, which must be http(s) or
// mailto. Images stay links: showing one would tell another server who reads.
import { coloured } from "./colours.js";
import { endOfMath, formula, formulaAt, MATH_BLOCK } from "./math.js";
import { make } from "./nodes.js";
import { say } from "./words.js";

const DEEPEST = 12;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TASK = /^\[([ xX])\]\s+/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Renders `text` into `root`. Leading blocks that are as before keep their nodes, so that a
 * growing answer costs only its last block. */
export function render(root, text) {
  const blocks = split(text.replace(/\r\n?/g, "\n").split("\n"));
  const sources = blocks.map((lines) => lines.join("\n"));
  const before = root.miaoBlocks || [];
  let same = 0;
  while (same < before.length && same < sources.length && before[same] === sources[same]) same++;
  while (root.childNodes.length > same) root.lastChild.remove();
  for (const lines of blocks.slice(same)) root.append(block(lines, 0));
  root.miaoBlocks = sources;
}

/** Groups lines into blocks: fences, headings, rules, lists, quotes, tables, paragraphs. */
function split(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at++; continue; }
    const end = endOfBlock(lines, at);
    blocks.push(lines.slice(at, end));
    at = end;
  }
  return blocks;
}

function endOfBlock(lines, start) {
  const first = lines[start];
  const fence = first.match(FENCE);
  let at = start + 1;
  if (fence) {
    while (at < lines.length && !closes(lines[at], fence[1])) at++;
    return Math.min(at + 1, lines.length);
  }
  if (HEADING.test(first) || RULE.test(first)) return at;
  if (MATH_BLOCK.test(first)) return endOfMath(lines, start);
  if (first.trimStart().startsWith(">")) {
    while (at < lines.length && lines[at].trim() && !FENCE.test(lines[at])) at++;
    return at;
  }
  if (ITEM.test(first)) return endOfList(lines, start);
  if (isTable(lines, start)) {
    while (at < lines.length && lines[at].includes("|") && lines[at].trim()) at++;
    return at;
  }
  while (at < lines.length && lines[at].trim() && !begins(lines, at)) at++;
  return at;
}

const closes = (line, mark) => line.trim().length >= mark.length && new RegExp(`^ {0,3}[${mark[0]}]+\\s*$`).test(line);
const begins = (lines, at) => FENCE.test(lines[at]) || HEADING.test(lines[at]) || RULE.test(lines[at])
  || ITEM.test(lines[at]) || MATH_BLOCK.test(lines[at]) || lines[at].trimStart().startsWith(">") || isTable(lines, at);
const isTable = (lines, at) => at + 1 < lines.length && lines[at].includes("|")
  && lines[at + 1].includes("-") && lines[at + 1].length < 2000 && TABLE_LINE.test(lines[at + 1]);

function endOfList(lines, start) {
  const [, indent, mark] = lines[start].match(ITEM);
  // Numbers after bullets, or bullets after numbers, are another list.
  const isOther = (found) => found && found[1].length <= indent.length && /\d/.test(found[2]) !== /\d/.test(mark);
  let at = start + 1, fence = null;
  for (; at < lines.length; at++) {
    const line = lines[at];
    if (fence) { if (closes(line.trimStart(), fence)) fence = null; continue; }
    if (isOther(line.match(ITEM))) break;
    if (/^\s{2,}/.test(line) || ITEM.test(line)) { const open = line.trimStart().match(FENCE); if (open && !ITEM.test(line)) fence = open[1]; continue; }
    if (!line.trim() && at + 1 < lines.length && (/^\s{2,}\S/.test(lines[at + 1]) || ITEM.test(lines[at + 1]))) continue;
    if (line.trim() && lines[at - 1].trim() && !begins(lines, at)) continue;
    break;
  }
  return at;
}

/** One block; each is written in the direction of its own first letter, code from left to right. */
function block(lines, depth) {
  const node = built(lines, depth);
  if (!node.classList.contains("code")) node.dir = "auto";
  return node;
}

function built(lines, depth) {
  const first = lines[0];
  const fence = first.match(FENCE);
  if (fence) return codeBlock(lines, fence);
  const heading = first.match(HEADING);
  if (heading) return inline(make(`h${Math.min(heading[1].length + 2, 6)}`), heading[2]);
  if (RULE.test(first)) return make("hr");
  if (depth < DEEPEST) {
    if (first.trimStart().startsWith(">")) return inside(make("blockquote"), lines.map((l) => l.replace(/^\s*> ?/, "")), depth);
    if (ITEM.test(first)) return list(lines, depth);
    if (isTable(lines, 0)) return table(lines);
  }
  return inline(make("p"), lines.join("\n"));
}

function inside(parent, lines, depth) {
  for (const child of split(lines)) parent.append(block(child, depth + 1));
  return parent;
}

function codeBlock(lines, fence) {
  const closed = lines.length > 1 && closes(lines[lines.length - 1], fence[1]);
  const indent = lines[0].search(/\S/);
  const source = lines.slice(1, closed ? -1 : undefined).map((line) => without(line, indent)).join("\n");
  const copy = make("button", "plain copy-code", say("copy"));
  copy.type = "button";
  copy.addEventListener("click", () => copyText(source, copy));
  const head = make("div", "code-head", make("span", "", fence[2].trim().slice(0, 40)), copy);
  return make("div", "code", head, make("pre", "", make("code", "", ...coloured(source, fence[2]))));
}

/** A line without its first spaces, `width` of them at most. */
const without = (line, width) => line.slice(Math.min(width, line.search(/[^ ]|$/)));

function list(lines, depth) {
  const [, indent, mark] = lines[0].match(ITEM);
  const numbered = /\d/.test(mark);
  const root = make(numbered ? "ol" : "ul");
  if (numbered) root.start = parseInt(mark, 10);
  let item = null, width = 0;
  const finish = () => {
    if (!item) return;
    const box = numbered ? null : item[0].match(TASK);
    if (box) item[0] = item[0].replace(TASK, box[1] === " " ? "☐ " : "☑ ");
    const blocks = split(item);
    const li = make("li", box ? "task" : "");
    // A plain item is its text, not a paragraph.
    blocks.forEach((b, n) => { if (n === 0 && !begins(b, 0)) inline(li, b.join("\n")); else li.append(block(b, depth + 1)); });
    root.append(li);
  };
  for (const line of lines) {
    const found = line.match(ITEM);
    if (found && found[1].length <= indent.length + 1 && (found[1].length === indent.length || !item || found[1].length < indent.length + 2)) {
      finish();
      item = [found[3]];
      width = found[0].length - found[3].length;
    } else item.push(without(line, width));
  }
  finish();
  return root;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const sides = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (tag, line) => make("tr", "", ...cells(line).slice(0, sides.length).map((cell, n) => inline(make(tag, sides[n]), cell)));
  const root = make("table", "", make("thead", "", row("th", lines[0])), make("tbody", "", ...lines.slice(2).map((line) => row("td", line))));
  return make("div", "table", root);
}

// In order of precedence; each finds the nearest mark from where the text stands.
const MARKS = /(`+)|(\$\$?|\\[([])|\\([\\`*_{}[\]()#+\-.!~|<>$])|(!?\[)|(\*\*\*|___|\*\*|__|~~|\*|_)|(https?:\/\/[^\s<>"'`，。；！？、（）《》]+)|( {2,}\n|\n)/g;

/** Appends a line of text with its emphasis, code and links. */
function inline(parent, text, depth = 0) {
  const marks = new RegExp(MARKS);
  let from = 0, found;
  const plain = (to) => { if (to > from) parent.append(text.slice(from, to)); };
  while ((found = marks.exec(text))) {
    const at = found.index;
    const done = (node, end) => { plain(at); parent.append(node); from = marks.lastIndex = end; };
    if (found[1]) {
      const end = closing(text, found[1], at + found[1].length);
      if (end < 0) marks.lastIndex = at + found[1].length;
      else done(make("code", "", text.slice(at + found[1].length, end).replace(/\n/g, " ").replace(/^ (.*\S.*) $/, "$1")), end + found[1].length);
    } else if (found[2]) {
      const math = formulaAt(text, found[2], at);
      if (math) done(formula(math.source, math.isBlock, text.slice(at, math.end)), math.end);
      else if (found[2][0] === "\\") done(document.createTextNode(found[2][1]), at + 2);
    } else if (found[3]) done(document.createTextNode(found[3]), at + 2);
    else if (found[7]) done(make("br"), at + found[7].length);
    else if (depth > DEEPEST) continue;
    else if (found[4]) {
      const target = text.slice(at, at + 4000).match(/^!?\[([^[\]\n]*)\]\(\s*<?([^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)?)>?(?:\s+"[^"\n]*")?\s*\)/);
      if (target) done(link(target[2], target[1] || target[2], depth), at + target[0].length);
    } else if (found[6]) {
      const address = found[6].replace(/[.,;:!?)\]*_~]+$/, "");
      done(link(address, address, DEEPEST), at + address.length);
    } else {
      const mark = found[5];
      const open = at + mark.length;
      const end = emphasisEnd(text, mark, at, open);
      if (end < 0) { marks.lastIndex = mark.length === 3 ? at + 1 : open; continue; }
      const tag = mark === "~~" ? "del" : mark.length > 1 ? "strong" : "em";
      const node = inline(make(mark.length === 3 ? "em" : tag), text.slice(open, end), depth + 1);
      done(mark.length === 3 ? make("strong", "", node) : node, end + mark.length);
    }
  }
  plain(text.length);
  return parent;
}

function closing(text, run, from) {
  for (let at = text.indexOf(run, from); at >= 0; at = text.indexOf(run, at + 1)) {
    let end = at;
    while (text[end] === "`") end++;
    if (end - at === run.length) return at;
    at = end;
  }
  return -1;
}

const isWord = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);

function emphasisEnd(text, mark, at, open) {
  if (text[open] === undefined || /\s/.test(text[open])) return -1;
  if (mark[0] === "_" && isWord(text[at - 1])) return -1; // snake_case
  if (mark === "*" && /\d/.test(text[at - 1]) && /\d/.test(text[open])) return -1; // 2*3*4
  const limit = Math.min(text.length, open + 4000);
  for (let end = text.indexOf(mark, open + 1); end >= 0 && end < limit; end = text.indexOf(mark, end + 1)) {
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    if (mark[0] === "_" && isWord(text[end + mark.length])) continue;
    if (mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark)) { if (text[end + 1] === mark) end++; continue; }
    // The third mark of a row of three closes what stands within.
    return mark === "**" && text[end + 2] === "*" && text[end + 3] !== "*" ? end + 1 : end;
  }
  return -1;
}

function link(address, text, depth) {
  let url = null;
  try { url = new URL(address); } catch { /* relative addresses lead nowhere useful */ }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return document.createTextNode(text);
  const node = make("a");
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  node.title = url.href;
  return depth < DEEPEST ? inline(node, text, DEEPEST) : (node.append(text), node);
}

/** Copies, and says so on the button. Pages without https may not use the clipboard's interface. */
export async function copyText(text, button) {
  let isCopied = true;
  try { await navigator.clipboard.writeText(text); }
  catch {
    const area = make("textarea", "offscreen");
    area.value = text;
    document.body.append(area);
    area.select();
    isCopied = document.execCommand("copy");
    area.remove();
  }
  button.textContent = say(isCopied ? "copied" : "notCopied");
  setTimeout(() => { button.textContent = say("copy"); }, 1200);
}
