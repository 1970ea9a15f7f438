// What stands round a chat: the notice above it, the list beside it, and the way to its end.
import { Trouble } from "./server.js";
import { at, say } from "./words.js";

const GOOD_NEWS = ["imported", "back"];
const AFAR = 200; // pixels from the end at which a button leads there
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

/** Takes away what `action` has mended by now: its own failure, or a key that was missing. Nothing else. */
export function settle(action) {
  if (retry === action || noticed === "needKey") notify(null);
}

/** Says that the server is back where the notice still says that it is not. */
export function notifyBack() {
  if (["gone", "broke"].includes(noticed)) notify("back", "", retry);
}

/** Opens or closes the list of chats where the window is narrow; what lies below it waits. */
export function showSide(opens) {
  const was = at("shell").classList.contains("open");
  at("shell").classList.toggle("open", opens);
  at("main").inert = opens;
  at("open-side").setAttribute("aria-expanded", opens);
  if (opens !== was) at(opens ? "close-side" : "open-side").focus();
}

function showToEnd() {
  const { scrollHeight, scrollTop, clientHeight } = at("scroll");
  at("to-end").hidden = scrollHeight - scrollTop - clientHeight < AFAR;
}

/** Wires the frame; the elements are those of chat.html. */
export function prepareFrame() {
  at("open-side").addEventListener("click", () => showSide(true));
  at("close-side").addEventListener("click", () => showSide(false));
  at("shell").addEventListener("click", (event) => { if (event.target === at("shell")) showSide(false); }); // beside the list
  addEventListener("keydown", (event) => { if (event.key === "Escape") showSide(false); });
  matchMedia("(max-width: 760px)").addEventListener("change", () => showSide(false));
  at("scroll").addEventListener("scroll", showToEnd);
  const grown = new ResizeObserver(showToEnd);
  for (const id of ["scroll", "messages"]) grown.observe(at(id));
  at("to-end").addEventListener("click", () => { at("scroll").scrollTop = at("scroll").scrollHeight; });
  at("notice-close").addEventListener("click", () => notify(null));
  at("notice-retry").addEventListener("click", () => { const action = retry; notify(null); action?.(); });
}
