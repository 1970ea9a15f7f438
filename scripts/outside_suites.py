"""Other servers' tests against `miao serve`, run from a checkout that you name; nothing is copied.

    python scripts/outside_suites.py llama.cpp ~/llama.cpp runs/seedling
    python scripts/outside_suites.py vllm ~/vllm runs/seedling -k completion

What does not apply is skipped with its reason (`-rs` lists it); all else must pass. The suites need
their own packages beside Miao's: requests, wget, filelock, aiohttp (llama.cpp); pytest-asyncio,
regex, jsonschema (vLLM, whose own package is not needed). Further arguments go to pytest.
"""

from __future__ import annotations

import fnmatch
import os
import socket
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()


def main(arguments: list[str]) -> int:
    """Starts the server, runs the suite against it."""
    if len(arguments) < 3 or arguments[0] not in SUITES:
        print(__doc__)
        return 2
    name, checkout, model, *more = arguments
    suite = SUITES[name]
    folder = Path(checkout).expanduser().resolve() / suite["folder"]
    if not folder.is_dir():
        print(f"{folder} is not there: name the top folder of a checkout of {name}")
        return 2
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "miao", "serve", model, "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        while not _answers(port):
            if server.poll() is not None:
                return 2
            time.sleep(0.2)
        paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "OUTSIDE_SUITE": name,
            "PORT": str(port),
            "DEBUG_EXTERNAL": "1",  # llama.cpp: the server runs already
        }
        files = [str(file) for file in suite["files"] if (folder / file).exists()]
        pytest = [sys.executable, "-m", "pytest", "-p", HERE.stem, "-p", "no:cacheprovider"]
        pytest += ["-q", "-m", "not slow", *suite["options"]]  # slow ones fetch models
        return subprocess.call([*pytest, *files, *more], cwd=folder, env=environment)
    finally:
        server.terminate()
        server.wait(60)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:
        return False


# What follows runs inside pytest.


def pytest_configure(config: Any) -> None:
    """Stand-ins for what the suite would start or import."""
    if name := os.environ.get("OUTSIDE_SUITE"):
        _name_the_model()
        SUITES[name]["prepare"]()


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """What does not apply is skipped, with its reason."""
    import pytest

    reasons = SUITES[os.environ["OUTSIDE_SUITE"]]["does not apply"]
    for item in items:
        where = f"{item.path.name}::{item.name}"
        for pattern, reason in reasons.items():
            if fnmatch.fnmatchcase(where, pattern):
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def _name_the_model() -> None:
    """The suites ask for models of their own; here any name means the one that is served."""
    from openai import _base_client

    def nameless(options: Any) -> None:
        if isinstance(options.json_data, dict):
            options.json_data.pop("model", None)

    for client in (_base_client.SyncAPIClient, _base_client.AsyncAPIClient):
        original = client._build_request

        def build(self: Any, options: Any, original: Any = original, **given: Any) -> Any:
            nameless(options)
            return original(self, options, **given)

        client._build_request = build  # type: ignore[method-assign]


def _prepare_llama_cpp() -> None:
    """Its OpenAI routes also stand without /v1; and no other model is there to be fetched."""
    sys.path.insert(0, str(Path.cwd()))
    import utils

    original = utils.ServerProcess.make_url
    own = ("/chat/completions", "/completions", "/embeddings", "/responses", "/models")

    def url(self: Any, path: str, *more: Any) -> str:
        return str(original(self, f"/v1{path}" if path in own else path, *more))

    def nameless(call: Any) -> Any:
        def made(
            self: Any, method: str, path: str, data: Any = None, *more: Any, **given: Any
        ) -> Any:
            if isinstance(data, dict):
                data = {key: value for key, value in data.items() if key != "model"}
            return call(self, method, path, data, *more, **given)

        return made

    utils.ServerProcess.make_url = url
    for method in ("make_request", "make_stream_request", "make_any_request"):
        setattr(utils.ServerProcess, method, nameless(getattr(utils.ServerProcess, method)))


def _prepare_vllm() -> None:
    """Its tests start their server by a helper of the repository, and count with its tokenizers."""
    import openai

    url = f"http://127.0.0.1:{os.environ['PORT']}"

    class RemoteOpenAIServer:
        DUMMY_API_KEY = "none"

        def __init__(self, *arguments: Any, **options: Any):
            self.url_root = url

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *failure: Any) -> None:
            return None

        def url_for(self, *parts: str) -> str:
            return "/".join([url, *parts])

        def get_client(self, **options: Any) -> Any:
            return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, **options)

        def get_async_client(self, **options: Any) -> Any:
            return openai.AsyncOpenAI(
                base_url=f"{url}/v1", api_key="none", max_retries=0, **options
            )

    helpers: Any = types.ModuleType("tests.utils")
    helpers.RemoteOpenAIServer = RemoteOpenAIServer
    tokenizers: Any = types.ModuleType("vllm.tokenizers")
    tokenizers.get_tokenizer = None  # of models that are not here
    sys.modules |= {
        "tests": types.ModuleType("tests"),
        "tests.utils": helpers,
        "vllm": types.ModuleType("vllm"),
        "vllm.tokenizers": tokenizers,
    }


LLAMA_CPP: dict[str, dict[str, str]] = {
    "words, counts of tokens or a context of its own tiny model": {
        "test_chat_completion": "test_chat_completion[[] test_chat_completion_stream[[] "
        "test_chat_completion_cached_tokens test_chat_completion_with_openai_library "
        "test_context_size_exceeded test_completion_with_response_format[[]response_format1",
        "test_completion": "test_completion_with_openai_library "
        "test_completion_stream_with_openai_library",
        "test_compat_oai_responses": "test_responses_with_openai_library "
        "test_responses_stream_with_openai_library",
        "test_compat_anthropic": "test_anthropic_streaming_content_block_indices",
        "test_embedding": "test_embedding_usage test_embedding_error_prompt_too_long",
    },
    "another route or field, of llama.cpp alone": {
        "test_chat_completion": "test_apply_chat_template test_chat_template "
        "test_completion_with_json_schema test_completion_with_grammar "
        "test_completion_with_response_format[[]response_format0 test_logit_bias "
        "test_chat_completion_with_timings_per_token test_return_progress test_verbose_debug "
        "test_chat_completions_multiple_choices test_chat_completions_token_count",
        "test_completion": "test_completion[[] test_completion_stream[[] "
        "test_completion_stream_vs_non_stream test_consistent_result test_different_result "
        "test_nocache_long_input_prompt test_json_prompt_no_mtmd test_completion_with_tokens_input "
        "test_completion_parallel_slots test_completion_unified test_completion_response_fields "
        "test_n_probs test_logit_bias test_cancel_request test_completion_prompt_cache",
        "test_compat_oai_responses": "test_responses_stream_with_llama_telemetry",
        "test_compat_anthropic": "test_anthropic_thinking_history_in_template",
        "test_embedding": "test_embedding_pooling test_embedding_content_text_same_as_string "
        "test_embedding_mixed_input",
    },
    "images, which these models do not see": {
        "test_compat_anthropic": "test_anthropic_tool_result_with_image test_anthropic_vision",
    },
    "a request that means nothing is refused": {
        "test_compat_anthropic": "test_anthropic_empty_messages",
    },
    "the first chunk has an empty text, as OpenAI's has": {
        "test_chat_completion": "test_logprobs_stream",
        "test_tool_call": "test_completion_without_tool_call_fast*STREAMED",
    },
    "one that OpenAI's rules allow": {
        "test_chat_completion": "test_invalid_chat_completion_req[[]messages7",
    },
}


SUITES: dict[str, dict[str, Any]] = {
    "llama.cpp": {
        "folder": "tools/server/tests",
        "files": [
            "unit/test_chat_completion.py",
            "unit/test_completion.py",
            "unit/test_compat_oai_responses.py",
            "unit/test_compat_anthropic.py",
            "unit/test_embedding.py",
            "unit/test_tool_call.py",
        ],
        "options": [],
        "prepare": _prepare_llama_cpp,
        "does not apply": {
            f"{file}.py::{test}*": reason
            for reason, tests in LLAMA_CPP.items()
            for file, names in tests.items()
            for test in names.split()
        },
    },
    "vllm": {
        "folder": "tests/entrypoints/openai",
        "files": ["completion/test_completion.py"],
        "options": ["--noconftest"],  # it imports vLLM
        "prepare": _prepare_vllm,
        "does not apply": {
            "test_completion.py::test_single_completion*": "words and counts of its own model",
            "test_completion.py::test_completion_streaming*": "its own model does not end so soon",
            "test_completion.py::test_echo_logprob_completion*": "a tokenizer of its own model",
            "test_completion.py::test_completion_truncation_side*": "a field of vLLM alone",
            "test_completion.py::test_prompt_logprobs*": "a field of vLLM alone; here: echo",
            "test_completion.py::test_completion_stream_options*": "a field of vLLM alone",
            "test_completion.py::test_batch_completions*": "beam search",
        },
    },
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
