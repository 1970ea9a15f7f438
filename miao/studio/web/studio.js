// What the studio's rooms share: asking, and where the code of what is shown stands.
import { askJson } from "./server.js";
import { make } from "./nodes.js";
import { learn } from "./words.js";

learn({ zh: { needKey: "请用 miao studio 打印的地址（带 token）重新打开。" }, en: { needKey: "Open the address that `miao studio` printed, with its token, again." } });

/** Sends JSON; returns the JSON that is answered. */
export const post = (path, body) => get(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const get = askJson;

export const language = () => document.documentElement.lang.slice(0, 2);

/** Links to code, or to a page about it, with commas between them. */
export const codeLinks = (paths, text = (path) => path) => paths.flatMap((path, i) => [i ? ", " : "", Object.assign(make("a", "", text(path)), { href: `/studio/about/${path}`, target: "_blank", rel: "noopener" })]);
