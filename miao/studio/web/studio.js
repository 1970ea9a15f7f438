// What the studio's rooms share: asking, and saying what went wrong.
import { ask, Trouble } from "./server.js";
import { at, say } from "./words.js";

/** Sends JSON; returns the JSON that is answered. */
export async function post(path, body) {
  return (await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
}

export function explain(error) {
  at("notice").hidden = false;
  at("notice-text").textContent = error instanceof Trouble ? (error.key === "needKey" ? say("needLogin") : say(error.key, error.value)) : String(error.message);
  if (!(error instanceof Trouble)) console.error(error);
}

export const hideNotice = () => { at("notice").hidden = true; };

export function quantity(value) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "K"]]) if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  return Number(value.toPrecision(3)).toString();
}
