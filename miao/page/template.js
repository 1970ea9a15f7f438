// A conversation to the tokens that the model is asked to continue.
import { oneOf } from "./tokenizer.js";
import { Template } from "./vendor/jinja.js";

const ESCAPE = "\ufdd2"; // a noncharacter: Unicode promises that no text has it

/** Control tokens that a message spells out are broken before the template writes its own, and
 * whole again when the text has been cut at the template's. */
export class Prompt {
  constructor(tokenizer, source, special) {
    this.tokenizer = tokenizer;
    this.special = special;
    this.template = source ? new Template(source) : null;
    const controls = oneOf(tokenizer.controls.keys());
    this.harmful = new RegExp(controls ? `${controls}|${ESCAPE}` : ESCAPE, "gu");
    this.cuts = controls ? new RegExp(`(${controls})`, "u") : null;
  }

  defuse(text) {
    return text.replace(this.harmful, (found) => {
      if (found === ESCAPE) return `${ESCAPE}2`;
      const [first] = found;
      return `${first}${ESCAPE}-${found.slice(first.length)}`;
    });
  }

  restore(text) {
    return text.replace(/\ufdd2[2-]?/gu, (found) => (found === `${ESCAPE}2` ? ESCAPE : ""));
  }

  /** Ids up to where the answer begins. Without a template the last message is a text to go on
   * with. Messages: {role, content, reasoning_content}. */
  encode(messages) {
    if (!this.template) return this.continued(messages.at(-1).content);
    const defused = messages.map((message) =>
      Object.fromEntries(Object.entries(message).map(([name, text]) => [name, this.defuse(text)])));
    const text = this.template.render({ messages: defused, add_generation_prompt: true, ...this.special });
    const pieces = this.cuts ? text.split(this.cuts) : [text], ids = [];
    for (const piece of pieces) {
      const control = this.tokenizer.controls.get(piece);
      if (control !== undefined) ids.push(control);
      else if (piece) ids.push(...this.tokenizer.encode(this.restore(piece)));
    }
    return ids;
  }

  /** Ids of a text to go on with. */
  continued(text) {
    return [...this.tokenizer.spec.document_start, ...this.tokenizer.encode(text)];
  }
}
