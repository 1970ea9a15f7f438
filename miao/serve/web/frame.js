// What stands round a chat: the list beside it, and the way to its end.
import { at } from "./nodes.js";

const AFAR = 200; // pixels from the end at which a button leads there

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
}
