"""Other servers' tests against `miao serve`, run from a checkout that you name; nothing is copied.

    python scripts/outside_suites.py llama.cpp ~/llama.cpp runs/seedling
    python scripts/outside_suites.py vllm ~/vllm runs/seedling -k completion

What does not apply is skipped with its reason (`-rs` lists it); all else must pass. The suites need
their own packages beside Miao's: requests, wget, filelock, aiohttp (llama.cpp); pytest-asyncio,
regex, jsonschema, pybase64, requests (vLLM, whose own package is not needed). `--all` runs what
does not apply, too. Further arguments go to pytest.
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
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

HERE = Path(__file__).resolve()


def main(arguments: list[str]) -> int:
    """Starts the server, runs the suite against it."""
    if len(arguments) < 3 or arguments[0] not in SUITES:
        print(__doc__)
        return 2
    runs_all = "--all" in arguments
    name, checkout, model, *more = (one for one in arguments if one != "--all")
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
            "OUTSIDE_ALL": "1" if runs_all else "",
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


def pytest_load_initial_conftests(early_config: Any) -> None:
    """Stand-ins for what the suite would start or import."""
    if name := os.environ.get("OUTSIDE_SUITE"):
        _name_the_model()
        SUITES[name]["prepare"]()


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """What does not apply is skipped, with its reason."""
    import pytest

    if os.environ["OUTSIDE_ALL"]:
        return
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

    helpers: Any = _Anything("tests.utils")
    helpers.RemoteOpenAIServer = RemoteOpenAIServer
    sys.path.insert(0, str(Path.cwd().parents[2]))  # `tests` is a package of theirs
    sys.modules["tests.utils"] = helpers
    sys.meta_path.insert(0, _Pretended())


class _Anything(types.ModuleType):
    """A module that holds whatever is asked for: what the tests import and the chosen ones do not
    use."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


class _Pretended(MetaPathFinder, Loader):
    """vLLM's own package, which the tests import."""

    def find_spec(self, name: str, *more: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] == "vllm" else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


LLAMA_CPP: dict[str, dict[str, str]] = {
    "words, counts of tokens or a context of its own tiny model": {
        "test_chat_completion": "test_chat_completion[[] test_chat_completion_stream[[] "
        "test_chat_completion_cached_tokens test_chat_completion_with_openai_library "
        "test_context_size_exceeded test_completion_with_response_format[[]response_format1",
        "test_completion": "test_completion_with_openai_library "
        "test_completion_stream_with_openai_library",
        "test_compat_oai_responses": "test_responses_with_openai_library "
        "test_responses_stream_with_openai_library",
        "test_embedding": "test_embedding_usage test_embedding_error_prompt_too_long",
    },
    "another route or field, of llama.cpp alone": {
        "test_chat_completion": "test_apply_chat_template test_chat_template$ "
        "test_chat_template_assistant_prefill test_chat_template_continue_final_message_vllm "
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
        "test_embedding": "test_embedding_pooling_none test_embedding_content_text_same_as_string "
        "test_embedding_mixed_input[[]input[35789] test_embedding_mixed_input[[]input10",
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


VLLM: dict[str, dict[str, str]] = {
    "words, counts of tokens or a vocabulary of its own model": {
        "test_completion": "test_single_completion test_echo_logprob_completion",
        "test_chat": "test_single_chat_session test_response_format_json "
        "test_complex_message_content test_structured_outputs_json_chat",
        "test_chat_logit_bias_validation": "test_chat_logit_bias_valid "
        "test_chat_logit_bias_invalid",
        "test_completion_with_function_calling": "test_function_tool_use[[]*-auto",
        "test_basic": "test_simple_input test_instructions test_chat",
        "test_simple": "test_reasoning_item test_streaming_reasoning_tokens "
        "test_non_streaming_reasoning_tokens",
        "test_structured_output": "test_structured_output",
        "test_function_call": "test_function_tool_use[[]auto "
        "test_function_calling_with_streaming_expected_arguments "
        "test_function_calling_with_streaming_forced_tool_choice[[]auto",
    },
    "its own model ends later, or sooner": {
        "test_completion": "test_completion_streaming",
        "test_chat": "test_chat_streaming",
        "test_simple": "test_max_tokens",
        "test_function_call": "test_named_tool_use",
    },
    "a field or a route of vLLM alone": {
        "test_completion": "test_completion_truncation_side test_prompt_logprobs "
        "test_completion_stream_options test_logprob_token_ids",
        "test_chat": "test_prompt_logprobs test_more_than_one_prompt_logprobs test_invocations "
        "test_chat_completion_stream_options",
        "test_chat_completion": "test_kv_transfer",
        "test_chat_echo": "test_chat_session_with_echo test_prompt_logprobs test_top_logprobs",
        "test_simple": "test_enable_response_messages",
        "test_completion_with_function_calling": "test_function_tool_use[[]True",  # reasoning
    },
    "beam search": {"test_completion": "test_batch_completions"},
    "vLLM's own functions, no server": {
        "test_completion": "test_completion_request",
        "test_chat": "test_chat_completion_request",
        "test_prompt_validation": "test_load_prompt_embeds test_disable_prompt_embeds",
    },
    "the wording of its errors": {
        "test_chat": "test_long_seed",
        "test_prompt_validation": "test_empty_prompt test_out_of_vocab_token_ids",
    },
    "beside calls content is null, as OpenAI's is": {
        "test_completion_with_function_calling": "test_named_tool_use",
    },
    "unknown fields and roles are refused": {
        "test_chat": "test_extra_fields_allowed test_custom_role",
    },
}


def _patterns(reasons: dict[str, dict[str, str]]) -> dict[str, str]:
    """Of tests, each with why it does not apply."""
    return {
        f"{file}.py::{test}*".replace("$*", ""): reason
        for reason, tests in reasons.items()
        for file, names in tests.items()
        for test in names.split()
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
        "does not apply": _patterns(LLAMA_CPP),
    },
    "vllm": {
        "folder": "tests/entrypoints/openai",
        "files": [
            "completion/test_completion.py",
            "completion/test_prompt_validation.py",
            "chat_completion/test_chat.py",
            "chat_completion/test_chat_completion.py",
            "chat_completion/test_chat_echo.py",
            "chat_completion/test_chat_logit_bias_validation.py",
            "chat_completion/test_completion_with_function_calling.py",
            "responses/test_basic.py",
            "responses/test_simple.py",
            "responses/test_structured_output.py",
            "responses/test_function_call.py",
        ],
        "options": ["--confcutdir=.."],  # above it they fetch models
        "prepare": _prepare_vllm,
        "does not apply": _patterns(VLLM),
    },
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
