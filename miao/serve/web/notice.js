// The notice above a page: what went wrong, and a button that tries it again. What has mended it takes
// it away, and nothing else does: an answer that comes late says nothing of what was shown since.
import { Trouble } from "./server.js";
import { at } from "./nodes.js";
import { say } from "./words.js";

const GOOD_NEWS = ["imported", "back"];
let retry = null; // what the notice's button does
let noticed = null; // the key of what the notice says

export function notify(key, value, action = null, label = "retry") {
  noticed = key;
  retry = action;
  at("notice").hidden = key === null;
  at("notice").classList.toggle("good", GOOD_NEWS.includes(key));
  at("notice-text").textContent = key === null ? "" : say(key, value);
  at("notice-retry").hidden = action === null;
  at("notice-retry").dataset.say = label;
  at("notice-retry").textContent = say(label);
}

export function explain(error, action) {
  if (error instanceof Trouble) notify(error.key, error.value, action);
  else { console.error(error); notify("failed", String(error.message), action); }
}

/** Takes away what `action` has mended by now: its own failure, a key that was missing, or a server
 * that was gone where nothing waits to be tried again. Nothing else. */
export function settle(action) {
  if (retry === action || noticed === "needKey" || (["gone", "broke"].includes(noticed) && !retry)) notify(null);
}

/** Says that the server is back where the notice still says that it is not. */
export function notifyBack() {
  if (["gone", "broke"].includes(noticed)) notify("back", "", retry);
}

/** Of what is asked again and again only the last answer counts: `const last = begin();` before it
 * is asked, and nothing is shown unless `last()`. */
export function turns() {
  let latest = 0;
  return () => { const mine = ++latest; return () => mine === latest; };
}

at("notice-close").addEventListener("click", () => notify(null));
at("notice-retry").addEventListener("click", () => { const action = retry; notify(null); action?.(); });
