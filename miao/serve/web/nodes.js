// Elements: finding and making them, and drawing a part anew under a reader who is at work in it.

export const at = (id) => document.getElementById(id);

/** A new element with a class and children; texts become text nodes, never markup. */
export function make(tag, css = "", ...children) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  element.append(...children);
  return element;
}

/** Draws a part anew; whoever works by keys stays where he was (at that node, its `data-key`, its
 * place), and what has a `data-key` stays scrolled, and a text that is written in it stays. */
export function redraw(root, ...children) {
  const controls = () => [...root.querySelectorAll("a[href], summary, [tabindex='0'], :is(button, input, select, textarea):enabled")];
  const keyed = () => [...root.querySelectorAll("[data-key]")];
  const before = document.activeElement, place = controls().indexOf(before);
  const kept = new Map(keyed().map((one) => [one.dataset.key, { scrollTop: one.scrollTop, ...(one.matches("textarea") && { value: one.value }) }]));
  root.replaceChildren(...children);
  for (const one of keyed()) Object.assign(one, kept.get(one.dataset.key));
  if (place < 0) return;
  const now = controls();
  (now.find((one) => one === before) || now.find((one) => one.dataset.key && one.dataset.key === before.dataset.key) || now[place] || now.at(-1))?.focus({ preventScroll: true });
}

/** Fills a list to choose from anew where it differs: an open one stays open, and what was chosen
 * stays chosen as long as it is there. options: [value, text]. */
export function refill(select, options) {
  const said = ({ value, text }) => `${value}\n${text}`, now = options.map(([value, text]) => new Option(text, value));
  if (now.map(said).join("\n\n") === [...select.options].map(said).join("\n\n")) return;
  const before = select.value;
  select.replaceChildren(...now);
  if (now.some(({ value }) => value === before)) select.value = before;
}

/** A button that cannot be pressed until the function that this returns is called; then whoever
 * pressed it by keys is there again. */
export function rest(button) {
  const held = document.activeElement === button;
  button.disabled = true;
  return () => {
    button.disabled = false;
    if (held && [document.body, button].includes(document.activeElement)) button.focus({ preventScroll: true });
  };
}
