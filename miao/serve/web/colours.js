// Colours of code: comments, strings, numbers and keywords of the usual languages, by one pattern.
import { make } from "./nodes.js";

const FAMILIES = {
  "#": "py python python3 sh bash shell zsh console yaml yml toml ini rb ruby r perl makefile dockerfile elixir julia",
  "//": "js javascript jsx mjs ts typescript tsx java c h cpp c++ cc hpp cs csharp go golang rs rust swift kotlin kt php scala dart css scss less",
  "--": "sql lua haskell hs ada",
  "<": "html xml svg vue",
  "": "json jsonc text-json",
};
const KEYWORDS = new Set(`and as assert async await auto bool boolean break case catch char class const constexpr continue
 def default defer del delete do double elif else end enum esac except export extends extern false False fi final finally float
 fn for foreach from fun func function go global goto if impl implements import in include inline instanceof int interface is
 lambda let local long loop match mod module move mut namespace new nil None nonlocal not null nullptr of or override package
 pass print private protected pub public raise range ref repeat return self Self short signed sizeof static string struct super
 switch template then this throw throws trait true True try type typedef typeof undefined union unless unsafe unsigned until
 use using val var virtual void volatile when where while with yield`.split(/\s+/));
const SQL = new Set("select from where insert into values update set delete create table drop alter join left right inner outer on group by order having limit and or not null as distinct union all primary key index count sum avg case when then else end like in is".split(" "));
const COMMENTS = { "#": "#[^\\n]*", "//": "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)", "--": "--[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)", "<": "<!--[^]*?(?:-->|$)", "": "(?!)" };
const STRINGS = "\"\"\"[^]*?(?:\"\"\"|$)|'''[^]*?(?:'''|$)|\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'|`(?:[^`\\\\]|\\\\.)*`";
const LONGEST = 50_000;
const patterns = new Map();

const familyOf = (language) => Object.keys(FAMILIES).find((family) => FAMILIES[family].split(" ").includes(language));

function patternOf(family) {
  if (!patterns.has(family)) {
    const word = family === "<" ? "<\\/?[A-Za-z][\\w:-]*|\\/?>" : "[A-Za-z_$][\\w$]*";
    patterns.set(family, `(${COMMENTS[family]})|(${STRINGS})|(\\b\\d(?:[\\w.]|(?<=e)[+-])*)|(${word})`);
  }
  return new RegExp(patterns.get(family), "g");
}

/** A program's text as nodes; text of a language that is not known stays plain. */
export function coloured(source, language) {
  const named = language.toLowerCase().split(/[\s{,:]/)[0], family = familyOf(named);
  if (family === undefined || source.length > LONGEST) return [source];
  const nodes = [];
  let from = 0;
  for (const found of source.matchAll(patternOf(family))) {
    const [text, comment, string, number, word] = found;
    const isKey = word && (family === "<" || (named === "sql" ? SQL.has(word.toLowerCase()) : KEYWORDS.has(word)));
    const css = comment ? "comment" : string ? "string" : number ? "number" : isKey ? "keyword" : null;
    if (!css) continue;
    if (found.index > from) nodes.push(source.slice(from, found.index));
    nodes.push(make("span", css, text));
    from = found.index + text.length;
  }
  nodes.push(source.slice(from));
  return nodes;
}
