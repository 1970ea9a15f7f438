// The server, as the page sees it: models, and an answer that streams.

/** What went wrong, as a key of WORDS and the value it mentions. */
export class Trouble extends Error {
  constructor(key, value = "", code = null) {
    super(`${key} ${value}`);
    this.key = key;
    this.value = value;
    this.code = code;
  }
}

export const apiKey = {
  get: () => { try { return sessionStorage.getItem("miao-key") || ""; } catch { return ""; } },
  set: (key) => { try { sessionStorage.setItem("miao-key", key); } catch { /* private windows may forbid it */ } },
};

/** A response that is fine; everything else becomes a Trouble. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers, "Accept-Language": document.documentElement.lang }; // of messages
  // Headers hold Latin-1; a key in another script goes as its UTF-8 bytes.
  const key = String.fromCharCode(...new TextEncoder().encode(apiKey.get()));
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try { response = await fetch(path, { ...options, headers, cache: "no-cache" }); }
  catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("gone");
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`, code = null;
  try { ({ message, code } = (await response.json()).error); } catch { /* no JSON: a proxy's page */ }
  if (response.status === 401) throw new Trouble("needKey");
  if (response.status === 429) throw new Trouble("busy", response.headers.get("Retry-After") || "5");
  if ([502, 503, 504].includes(response.status)) throw new Trouble("gone");
  throw new Trouble(response.status < 500 ? "refused" : "failed", String(message), code);
}

/** What is answered as JSON; one that breaks off is a Trouble too. */
export async function askJson(path, options) {
  const response = await ask(path, options);
  try { return await response.json(); } catch { throw new Trouble("broke"); }
}

export async function models() {
  const body = await askJson("/v1/models");
  return body.data.map((model) => ({ id: String(model.id), context: model.max_model_len }));
}

/** Streams one answer: `grew(delta)` for each piece; returns { finish, usage }. */
export async function answer(body, signal, grew) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const result = { finish: null, usage: null };
  let pending = "", ended = false;
  const take = (line) => {
    if (!line.startsWith("data:")) return;
    const data = line.slice(5).trim();
    if (data === "[DONE]") { ended = true; return; }
    const event = JSON.parse(data);
    if (event.error) throw new Trouble("failed", String(event.error.message));
    if (event.usage) result.usage = event.usage;
    const choice = (event.choices || [])[0];
    if (!choice) return;
    if (choice.finish_reason) result.finish = choice.finish_reason;
    if (choice.delta) grew(choice.delta);
  };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      pending += decoder.decode(value, { stream: !done });
      const lines = pending.split("\n");
      pending = done ? "" : lines.pop();
      lines.forEach(take);
      if (done) break;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Trouble) throw error;
    throw new Trouble("broke");
  } finally { reader.cancel().catch(() => {}); }
  if (!ended) throw new Trouble("broke");
  return result;
}
