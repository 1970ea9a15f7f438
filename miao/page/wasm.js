// The decoder's step by compiled code: Miao's own engine (miao/engine/native.c) as WebAssembly. It
// reads the same weights as its plain twin, `Decoder`, and is several times as fast.
import { angles, arrange } from "./decoder.js";
import { Decoder } from "./variants.js";
import { fromBase64, readTensors } from "./weights.js";

const PAGE = 65536; // bytes that WebAssembly's memory grows by
const WARM = 300; // milliseconds
const PIECE = 24; // tokens read at once: the weights pass by once for all of them

/** Writes a C structure field by field, each where the compiler puts it. */
class Structure {
  constructor(buffer, at, kind) {
    this.view = new DataView(buffer);
    Object.assign(this, { at, kind });
  }

  pointers(...places) {
    for (const place of places) this.view.setUint32((this.at += 4) - 4, place, true);
  }

  counts(...numbers) {
    this.at = (this.at + 7) & ~7;
    for (const number of numbers) this.view.setBigInt64((this.at += 8) - 8, BigInt(number), true);
  }

  matrix(weight, bias = null) {
    if (!weight.scale !== (this.kind === FP32)) throw new Error("weights of two types");
    this.pointers(...[weight.numbers, weight.scale, bias].map(placeOf));
    this.counts(weight.outputs, weight.inputs);
  }
}

const SIZES = { model: 152, layer: 240, cache: 24 }; // of the C structures; native.c asserts them
const FP32 = 0, INT8 = 2;
const placeOf = (numbers) => numbers?.byteOffset ?? 0;

export class CompiledDecoder {
  /** @param module WebAssembly.Module; bytes: the page's weights; listed: its list of tensors. */
  constructor(config, bytes, listed, module) {
    this.config = config;
    this.code = new WebAssembly.Instance(module).exports;
    this.memory = this.code.memory;
    this.free = this.code.__heap_base.value;
    this.weights = this.take(bytes.length);
    new Uint8Array(this.memory.buffer).set(bytes, this.weights);
    this.piece = PIECE;
    this.listed = listed;
    this.size = bytes.length;
    this.moved = this.widened();
    const layers = config.num_hidden_layers;
    this.model = this.take(SIZES.model);
    this.layers = this.take(SIZES.layer * layers);
    this.cache = this.take(SIZES.cache);
    this.numbers = this.take(4 * PIECE * 8); // ids, positions, rows, wanted
    this.logits = this.take(4 * config.vocab_size);
    this.fixed = this.free; // what follows grows with the conversation
    this.length = 0;
    this.makeRoom(1);
  }

  /** Makes the browser compile the code well before it is needed: it does so with what runs often. */
  warmUp() {
    const end = performance.now() + WARM;
    for (let i = 0; i < 6 && performance.now() < end; i++) this.readAll([0, 0, 0, 0], 0);
  }

  /** The weights, in this memory: typed arrays that hold until the memory grows. */
  tensors() {
    const tensors = readTensors(new Uint8Array(this.memory.buffer, this.weights, this.size), this.listed, false);
    for (const [name, place] of Object.entries(this.moved)) {
      const tensor = tensors[name];
      tensor.numbers = new Float32Array(this.memory.buffer, place, tensor.outputs * tensor.inputs);
    }
    return tensors;
  }

  /** Half precision as single precision: where each such tensor stands then. */
  widened() {
    const places = {};
    for (const entry of this.listed.filter(({ type }) => type === "float16")) {
      const bytes = new Uint8Array(this.memory.buffer, this.weights, this.size);
      const { numbers } = readTensors(bytes, [entry])[entry.name];
      places[entry.name] = this.take(numbers.byteLength);
      new Float32Array(this.memory.buffer, places[entry.name], numbers.length).set(numbers);
    }
    return places;
  }

  /** Memory behind all that is in use. */
  take(bytes) {
    const place = (this.free + 15) & ~15;
    this.free = place + bytes;
    const missing = this.free - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    return place;
  }

  /** Reads one token at a position; see `Decoder.read`. */
  read(id, position, wanted = true) {
    return this.readAll([id], position, wanted);
  }

  /** Reads tokens from a position on, the earlier ones having been read; the last one's logits, if
   * wanted, stand until the next call. */
  readAll(ids, position, wanted = true) {
    this.makeRoom(position + ids.length);
    for (let begin = 0; begin < ids.length; begin += PIECE) {
      const piece = ids.slice(begin, begin + PIECE), size = piece.length;
      const isLast = wanted && begin + size === ids.length;
      const numbers = new BigInt64Array(this.memory.buffer, this.numbers, 4 * PIECE);
      piece.forEach((id, i) => {
        numbers[i] = BigInt(id);
        numbers[PIECE + i] = BigInt(position + begin + i);
      });
      numbers[3 * PIECE] = BigInt(size - 1);
      const [first, second, rows, asked] = [0, 1, 2, 3].map((i) => this.numbers + 8 * PIECE * i);
      const logits = isLast ? this.logits : 0, count = isLast ? 1n : 0n;
      const failed = this.code.miao_read(this.model, this.cache, BigInt(size), first, second, rows, count, asked, 0, logits, this.work, 1n);
      if (failed) throw new Error("a token or a position is out of range");
    }
    return wanted ? new Float32Array(this.memory.buffer, this.logits, this.config.vocab_size) : null;
  }

  /** Keys, values and angles grow as the conversation does, to twice what is needed. */
  makeRoom(positions) {
    if (positions <= this.length) return;
    const c = this.config, stored = c.num_key_value_heads * c.head_dim, old = this.length;
    const length = Math.min(Math.max(64, 2 * positions), Math.max(c.context, positions));
    const kept = old ? [this.keys, this.values].map((place) => this.floats(place, c.num_hidden_layers * old * stored).slice()) : [];
    this.free = this.fixed;
    [this.cos, this.sin] = [0, 0].map(() => this.take(4 * length * (c.head_dim / 2)));
    [this.keys, this.values] = [0, 0].map(() => this.take(4 * length * c.num_hidden_layers * stored));
    this.length = length;
    this.describe();
    this.work = this.take(4 * Number(this.code.miao_work_size(this.model, BigInt(PIECE), BigInt(length), 1n)));
    for (let position = 0; position < length; position++) {
      const [cos, sin] = angles(c, position), at = 4 * position * cos.length;
      this.floats(this.cos + at, cos.length).set(cos);
      this.floats(this.sin + at, sin.length).set(sin);
    }
    kept.forEach((numbers, which) => {
      for (let layer = 0; layer < c.num_hidden_layers; layer++) {
        const to = [this.keys, this.values][which] + 4 * layer * length * stored;
        this.floats(to, old * stored).set(numbers.subarray(layer * old * stored, (layer + 1) * old * stored));
      }
    });
  }

  floats(place, size) {
    return new Float32Array(this.memory.buffer, place, size);
  }

  /** Tells the compiled code where everything is. */
  describe() {
    const c = this.config, parts = arrange(c, this.tensors()), { buffer } = this.memory;
    const kind = parts.embedding.scale ? INT8 : FP32;
    const layers = new Structure(buffer, this.layers, kind), model = new Structure(buffer, this.model, kind);
    for (const layer of parts.layers) {
      layers.pointers(...[layer.inputNorm, layer.postNorm, layer.queryNorm, layer.keyNorm].map(placeOf));
      for (const name of ["query", "key", "value", "output", "gate", "up", "down"]) layers.matrix(layer[name].weight, layer[name].bias);
    }
    model.counts(kind, c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.intermediate_size, c.vocab_size);
    model.view.setFloat32(model.at, c.rms_norm_eps, true);
    model.at += 4;
    model.pointers(placeOf(parts.norm), this.cos, this.sin);
    model.matrix(parts.embedding);
    model.matrix(parts.head);
    model.pointers(this.layers);
    const cache = new Structure(buffer, this.cache);
    cache.pointers(this.keys, this.values);
    cache.counts(this.length, this.length);
  }
}

/** The compiled decoder; the plain one for latent attention and experts, and where a browser has no
 * WebAssembly of this kind, its policy forbids it, or there is no memory.
 * MODULE: `engine.wasm` as base64, put before this script. */
export function fastestDecoder(config, bytes, listed) {
  const isDense = !config.kv_lora_rank && !config.num_experts; // the C code knows no other blocks
  try {
    if (isDense) return new CompiledDecoder(config, bytes, listed, new WebAssembly.Module(fromBase64(MODULE)));
  } catch {} // the plain one then
  return new Decoder(config, readTensors(bytes, listed));
}
