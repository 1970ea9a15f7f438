// The weights of the page: text to bytes, bytes to numbers, and whether all of them are there.

/** The bytes of base64. */
export function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  const step = 1 << 20; // a multiple of four, so that no group of letters is cut
  for (let begin = 0, at = 0; begin < text.length; begin += step) {
    const letters = atob(text.slice(begin, begin + step));
    for (let i = 0; i < letters.length; i++) bytes[at++] = letters.charCodeAt(i);
  }
  return bytes;
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

/** CRC-32 as zlib has it. */
export function checksum(bytes) {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** IEEE half precision to single. */
function widen(halves) {
  const numbers = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const sign = halves[i] & 0x8000 ? -1 : 1, power = (halves[i] >> 10) & 31, rest = halves[i] & 1023;
    numbers[i] = sign * (power ? (1 + rest / 1024) * 2 ** (power - 15) : rest * 2 ** -24);
  }
  return numbers;
}

/** Name -> {outputs, inputs, numbers, scale}: numbers int8 with a scale per row, or float32.
 * Error: one reaches beyond the bytes. */
export function readTensors(bytes, listed, widens = true) {
  const tensors = {};
  for (const { name, type, shape, at, scale_at } of listed) {
    const [outputs, inputs] = [shape[0], shape[1] ?? 1], count = outputs * inputs;
    const view = (Kind, place, size) => {
      const isInside = Number.isInteger(place) && place >= 0 && place + size * Kind.BYTES_PER_ELEMENT <= bytes.length;
      if (!isInside) throw new Error(`${name} is not within the weights`);
      return new Kind(bytes.buffer, bytes.byteOffset + place, size);
    };
    let numbers, scale = null;
    if (type === "int8") {
      numbers = view(Int8Array, at, count);
      scale = view(Float32Array, scale_at, outputs);
    } else if (type === "float16") {
      numbers = view(Uint16Array, at, count);
      if (widens) numbers = widen(numbers);
    } else numbers = view(Float32Array, at, count);
    tensors[name] = { outputs, inputs, numbers, scale };
  }
  return tensors;
}
