// Runs a page's own engine outside a browser: node node.js PAGE.html < requests > answers, as JSON.
"use strict";
const fs = require("node:fs");
const html = fs.readFileSync(process.argv[2], "utf-8");
const block = (id) => html.match(new RegExp(`<script id="${id}"[^>]*>([^]*?)</script>`))[1];
globalThis.onmessage = globalThis.postMessage = null;
const engine = new Function(`${JSON.parse(block("worker"))}\nreturn { ...$answer, ...$sampling, ...$weights };`)();
const model = new engine.Model(JSON.parse(block("settings-data")), engine.fromBase64(block("weights")));

async function continued(ids, count) {
  const answer = [];
  model.ending = null;
  for await (const id of model.tokens(ids, { temperature: 0, max_new_tokens: count })) answer.push(id);
  return model.ending === null ? answer : [...answer, model.ending];
}

(async () => {
  const { texts = [], conversations = [], prompts = [], inspections = [], samples = [], streams = [], count = 0, plain = false, logits = false } = JSON.parse(fs.readFileSync(0, "utf-8"));
  if (plain) model.decoder = model.plain();
  const answers = {
    engine: model.decoder.piece > 1 ? "wasm" : "js",
    texts: texts.map((text) => model.tokenizer.encode(text)),
    conversations: conversations.map((messages) => model.prompt.encode(messages)),
    prompts: [],
    samples: samples.map(({ logits, options, seen, said, dice }) => engine.nextToken(Float32Array.from(logits), options, seen, logits.length, said, () => dice)),
    streams: streams.map((ids) => {
      const stream = model.tokenizer.stream();
      return [...ids.map(stream.feed), stream.finish()];
    }),
    logits: logits ? prompts.map((ids) => Array.from(model.decoder.readAll(ids, 0))) : [],
    inspections: [],
  };
  for (const ids of prompts) answers.prompts.push(await continued(ids, count));
  for (const request of inspections) answers.inspections.push(await model.inspect(request));
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
})();
