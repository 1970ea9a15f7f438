"""The offline page beside wllama (llama.cpp as WebAssembly) and `miao chat`: sizes and speeds.

    npm install @wllama/wllama
    python benchmarks/page.py --wllama node_modules/@wllama/wllama

Needs playwright and Chromium. Random weights of a shape, int8 and Q8_0, greedy, one thread each.
The page's own worker and wllama run in one headless browser and take turns with Miao's engine; the
clock of each runs from the question to the first and the last token, tokenising included.
"""

from __future__ import annotations

import functools
import http.server
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import parser_for, report
from serve import make_gguf, make_model

COLUMNS = ("shape", "weights MB", "page MB", "engine", "tokens/s", "first token s", "x wllama")
TIMEOUT = 600_000
"""Milliseconds."""
BENCH = """<!doctype html><meta charset="utf-8"><script type="module">
const text = await (await fetch("page.html")).text();
const block = (id) => text.match(new RegExp(`<script id="${id}"[^>]*>([^]*?)<\\/script>`))[1];
const part = (id) => JSON.parse(block(id));
const QUIET = { debug() {}, log() {}, warn() {}, error() {} };
window.openPage = () => new Promise((resolve, reject) => {
  const url = URL.createObjectURL(new Blob([part("worker")], { type: "text/javascript" }));
  const worker = new Worker(url), settings = part("settings-data"), weights = block("weights");
  const expected = JSON.parse(text.match(/const EXPECTED = (.*);\\n/)[1]).weights;
  const wait = () => new Promise((got) => { worker.onmessage = ({ data }) => {
    if (data.type === "failed" || data.type === "damaged") reject(new Error(JSON.stringify(data)));
    if (data.type === "ready" || data.type === "done") got(data);
  }; });
  let number = 0;
  window.askPage = async (content, count) => {
    const options = { temperature: 0, max_new_tokens: count };
    const messages = [{ role: "user", content }];
    worker.postMessage({ type: "ask", number: ++number, options, messages });
    const { count: made, first, seconds } = await wait();
    return { made, first: first / 1000, seconds };
  };
  wait().then(({ engine }) => resolve(engine));
  worker.postMessage({ type: "load", text: weights, settings, expected });
});
window.openWllama = async () => {
  const { Wllama } = await import("./wllama/esm/index.js");
  const files = { default: new URL("./wllama/esm/wasm/wllama.wasm", location.href).href };
  const wllama = new Wllama(files, { logger: QUIET });
  const gguf = await (await fetch("model.gguf")).blob();
  await wllama.loadModel([gguf], { n_threads: 1, n_gpu_layers: 0, n_parallel: 1, n_ctx: CONTEXT });
  window.askWllama = async (prompt, count) => {
    const began = performance.now();
    const request = { prompt, stream: true, max_tokens: count, temperature: 0 };
    let first = null, timings = null;
    for await (const chunk of await wllama.createCompletion(request)) {
      first ??= (performance.now() - began) / 1000;
      timings = chunk.timings ?? timings;
    }
    return { made: timings.predicted_n, first, seconds: (performance.now() - began) / 1000 };
  };
};
window.ready = true;
</script>"""


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--shapes", nargs="+", default=["seedling", "26m", "64m"])
    parser.add_argument("--tokens", type=int, default=64, help="of every answer")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of every prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wllama", type=Path, help="the npm package's directory")
    parser.add_argument("--models", type=Path, help="keep the random models here")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.tokens, options.rounds = ["seedling"], 8, 1
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="miao-bench-") as scratch:
        for shape in options.shapes:
            rows += compare(shape, options.models or Path(scratch), options)
    report("page", options, "cpu", COLUMNS, rows, tokens=options.tokens, prompt=options.prompt)


def compare(shape: str, models: Path, options: Any) -> list[dict[str, Any]]:
    """Rows of the table for one shape."""
    from playwright.sync_api import sync_playwright

    from miao.page.contents import read_contents
    from miao.page.html import page_html
    from miao.tokenizer import Tokenizer

    model = plain_model(shape, models / f"{shape}-page")
    contents = read_contents(model)
    site = models / f"{shape}-site"
    site.mkdir(exist_ok=True)
    card: dict[str, Any] = {"facts": [], "trained": [], "scores": [], "score_columns": []}
    (site / "page.html").write_text(page_html(contents, shape, card), "utf-8")
    context = max(1024, 2 * (options.prompt + options.tokens))
    (site / "index.html").write_text(BENCH.replace("CONTEXT", str(context)), "utf-8")
    shutil.copyfile(make_gguf(model, "q8_0"), site / "model.gguf")
    if options.wllama and not (site / "wllama").exists():
        (site / "wllama").symlink_to(options.wllama.resolve())
    page_size = (site / "page.html").stat().st_size
    results: dict[str, list[dict[str, float]]] = {}
    with serving(site) as url, sync_playwright() as tools:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = tools.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(TIMEOUT)
        tab.goto(url)
        tab.wait_for_function("window.ready")
        engine = tab.evaluate("openPage()")
        arms: dict[str, Callable[[str], dict[str, float]]] = {
            f"page ({engine})": lambda text: tab.evaluate(f"askPage({text!r}, {options.tokens})"),
            "miao serve --weights int8": native_arm(model, options),
        }
        if options.wllama:
            tab.evaluate("openWllama()")
            arms["wllama Q8_0"] = lambda text: tab.evaluate(
                f"askWllama({text!r}, {options.tokens})"
            )
        tokenizer, dice = Tokenizer.from_directory(model), random.Random(1)
        for number in range(options.rounds + 1):
            for name in list(arms) if number % 2 else list(arms)[::-1]:
                result = arms[name](prompt_of(tokenizer, options.prompt, dice))
                if number:  # the first round is for warming up
                    results.setdefault(name, []).append(result)
        browser.close()
    return list(rows_of(shape, len(contents.weights), page_size, results))


def plain_model(shape: str, directory: Path) -> Path:
    """Random weights that say ASCII only and never end: wllama gives up at broken UTF-8, of which
    random bytes are full."""
    from miao.model import load_model, save_model
    from miao.tokenizer import Tokenizer

    if (directory / "tokenizer.json").exists():
        return directory
    make_model(shape, directory)
    model, tokenizer = load_model(directory), Tokenizer.from_directory(directory)
    for id in range(model.config.vocab_size):
        text = tokenizer.decode([id]) if id < tokenizer.vocab_size else ""
        if not text or not text.isascii():
            model.lm_head.weight.data[id] = 0
    save_model(model, directory)
    tokenizer.save(directory)
    return directory


def rows_of(shape: str, weights: int, page: int, results: dict[str, list[dict[str, float]]]) -> Any:
    speeds = {name: [speed(one) for one in each] for name, each in results.items()}
    base = next((each for name, each in speeds.items() if name.startswith("wllama")), None)
    for name, each in results.items():
        row: dict[str, Any] = {"shape": shape, "engine": name}
        if name.startswith("page"):
            row |= {"weights MB": weights / 1e6, "page MB": page / 1e6}
        row["tokens/s"] = statistics.median(speeds[name])
        row["first token s"] = statistics.median(one["first"] for one in each)
        row |= {"best tokens/s": max(speeds[name]), "best first": min(e["first"] for e in each)}
        if base:
            ratios = [mine / theirs for mine, theirs in zip(speeds[name], base, strict=True)]
            row["x wllama"] = statistics.median(ratios)
        yield row


def speed(result: dict[str, float]) -> float:
    """Tokens per second behind the first."""
    return (result["made"] - 1) / max(1e-9, result["seconds"] - result["first"])


def native_arm(model: Path, options: Any) -> Callable[[str], dict[str, float]]:
    """What `miao chat` runs, in this process."""
    import torch

    from miao.engine import Engine, SamplingOptions
    from miao.engine.backend import pack
    from miao.model import load_model
    from miao.tokenizer import Tokenizer

    torch.set_num_threads(1)
    engine = Engine(pack(load_model(model), "int8", consume=True), frozenset(), rows=1)
    tokenizer = Tokenizer.from_directory(model)

    def ask(text: str) -> dict[str, float]:
        began, first, made = time.perf_counter(), 0.0, 0
        sampling = SamplingOptions(max_new_tokens=options.tokens)
        for _ in engine.stream(tokenizer.encode(text), sampling):
            first = first or time.perf_counter() - began
            made += 1
        return {"made": made, "first": first, "seconds": time.perf_counter() - began}

    return ask


def prompt_of(tokenizer: Any, size: int, dice: random.Random) -> str:
    """A text of so many tokens, another each time: nothing of it was read before."""
    text = ""
    while len(tokenizer.encode(text)) < size:
        text += " " + "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(1, 6)))
    return text


class serving:
    """A directory on a port of this machine."""

    def __init__(self, directory: Path):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

        handler = functools.partial(Handler, directory=str(directory))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


if __name__ == "__main__":
    main()
