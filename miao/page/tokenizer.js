// Byte-level BPE: text to tokens and back, as the library `tokenizers` does it.

/** The letter that stands for each byte in the vocabulary, as GPT-2 chose them. */
function byteLetters() {
  const printable = (b) => (b > 0x20 && b < 0x7f) || (b > 0xa0 && b !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");
export const oneOf = (texts) =>
  [...texts].sort((a, b) => b.length - a.length).map((t) => escaped(t).replace(/\\-/g, "-")).join("|");

export class Tokenizer {
  /** @param spec vocab: letters by id; merges: ids of left and right, in order; patterns; added. */
  constructor(spec) {
    this.spec = spec;
    this.letters = byteLetters();
    this.ids = new Map(spec.vocab.map((token, id) => [token, id]).filter(([token]) => token !== null));
    this.ranks = new Map(); // left * size + right -> [rank, merged]
    this.size = spec.vocab.length;
    for (let i = 0; i < spec.merges.length; i += 2) {
      const [left, right] = [spec.merges[i], spec.merges[i + 1]];
      this.ranks.set(left * this.size + right, [i, this.ids.get(spec.vocab[left] + spec.vocab[right])]);
    }
    this.patterns = spec.patterns.map((pattern) => new RegExp(pattern, "gu"));
    this.controls = new Map(spec.controls.map(({ content, id }) => [content, id]));
    this.special = new Set(spec.controls.filter((token) => token.special).map(({ id }) => id));
    this.plain = new Map(spec.plain.map(({ content, id }) => [content, id]));
    this.cutPlain = this.plain.size ? new RegExp(`(${oneOf(this.plain.keys())})`, "u") : null;
    this.bytes = this.byteTable();
    this.known = new Map();
  }

  /** The ids of ordinary text: a control token that is spelt out in it is its characters. */
  encode(text) {
    const ids = [];
    for (const part of this.cutPlain ? text.split(this.cutPlain) : [text]) {
      if (this.plain.has(part)) ids.push(this.plain.get(part));
      else for (const piece of this.pieces(this.spec.normalize ? part.normalize(this.spec.normalize) : part)) ids.push(...this.merged(piece));
    }
    return ids;
  }

  /** The words, numbers, marks and spaces that are merged apart from each other. */
  pieces(text) {
    let pieces = text ? [text] : [];
    for (const pattern of this.patterns) pieces = pieces.flatMap((piece) => cutOut(piece, pattern));
    return pieces;
  }

  /** Bytes, of which the pair that was merged earliest in training is merged, again and again. */
  merged(piece) {
    let ids = this.known.get(piece);
    if (ids) return ids;
    const letters = Array.from(new TextEncoder().encode(piece), (byte) => this.letters[byte]);
    const whole = this.spec.ignore_merges ? this.ids.get(letters.join("")) : undefined;
    ids = whole === undefined ? letters.map((letter) => this.ids.get(letter)) : [whole];
    for (;;) {
      let best = null, place = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.ranks.get(ids[i] * this.size + ids[i + 1]);
        if (merge && (!best || merge[0] < best[0])) [best, place] = [merge, i];
      }
      if (!best) break;
      ids.splice(place, 2, best[1]);
    }
    if (this.known.size < 20000) this.known.set(piece, ids);
    return ids;
  }

  byteTable() {
    const byte = new Map(this.letters.map((letter, b) => [letter, b]));
    const table = this.spec.vocab.map((token) => {
      const bytes = token === null ? [] : Array.from(token, (letter) => byte.get(letter));
      return Uint8Array.from(bytes.includes(undefined) ? [] : bytes);
    });
    for (const { content, id } of [...this.spec.controls, ...this.spec.plain]) table[id] = new TextEncoder().encode(content);
    return table;
  }

  /** Text of ids as they come, never half a character; `finish` gives what is left. */
  stream() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const none = new Uint8Array(0);
    return {
      feed: (id) => decoder.decode(this.special.has(id) ? none : this.bytes[id] ?? none, { stream: true }),
      finish: () => decoder.decode(),
    };
  }
}

/** What a pattern matches, and what stands between, each by itself. */
function cutOut(text, pattern) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) pieces.push(text.slice(end, match.index));
    if (match[0]) pieces.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < text.length) pieces.push(text.slice(end));
  return pieces;
}
