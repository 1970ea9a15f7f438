"""What a client gives of an answer, and what the model thinks of a text that is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import openai
import pytest
import torch

from miao.engine import SamplingOptions
from miao.engine.text import TextStream
from miao.openai_api import NoAnswer, ask
from miao.serve.conversation import ChatBody
from miao.serve.models import Served
from miao.serve.protocol import CompletionBody
from miao.tokenizer import Tokenizer
from miao.tokenizer.importing import import_sentencepiece
from tests.serve.conftest import CONTEXT, RunningServer
from tests.tokenizer.test_tokenizer_import import sentencepiece_model

HELLO = [{"role": "user", "content": "今天天气很好"}]
TEXT = "今天天气很好，我们去公园吧。Hello, world! 龘"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def logprobs_of(
    make_model: Callable[..., Any], tokenizer: Tokenizer
) -> Callable[[list[int]], torch.Tensor]:
    """The same model, read without the engine: log p [t, v]."""
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": CONTEXT}
    model = make_model(0, **shape)

    def forward(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([ids]))[0].float().log_softmax(-1)

    return forward


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("most", [0, 1, 5])
def test_an_echo_has_the_prompts_logprobs(
    client: openai.OpenAI, tokenizer: Tokenizer, logprobs_of: Any, most: int, stream: bool
) -> None:
    prompts = [tokenizer.encode(TEXT), tokenizer.encode(TEXT)[:9]]
    answer = client.completions.create(
        model="tiny", prompt=prompts, echo=True, logprobs=2, max_tokens=most, stream=stream
    )
    texts, found = ["", ""], [{}, {}]
    for part in answer if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] += choice.text
            for name, values in choice.logprobs or ():
                found[choice.index].setdefault(name, []).extend(values)
    for prompt, text, logprobs in zip(prompts, texts, found, strict=True):
        assert text.startswith(tokenizer.decode(prompt))
        count = len(logprobs["tokens"])
        assert count == len(prompt) + most
        assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
        truth = logprobs_of(prompt)
        for place in range(1, len(prompt)):
            expected = float(truth[place - 1, prompt[place]])
            assert logprobs["token_logprobs"][place] == pytest.approx(expected, abs=1e-4)
            best = max(logprobs["top_logprobs"][place].values())
            assert best == pytest.approx(float(truth[place - 1].max()), abs=1e-4)
        offsets = logprobs["text_offset"]
        assert offsets == sorted(offsets) and len(offsets) == count
        for token, offset in list(zip(logprobs["tokens"], offsets, strict=True))[: len(prompt)]:
            assert token.startswith("bytes:") or text[offset:].startswith(token)
    assert not any("\ufffd" in token for token in found[0]["tokens"])


def test_an_echo_without_new_tokens_counts_none(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=TEXT, echo=True, max_tokens=0)
    assert answer.choices[0].text == TEXT and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 0
    with pytest.raises(openai.BadRequestError, match="echo"):
        client.completions.create(model="tiny", prompt=TEXT, max_tokens=0)


@pytest.mark.parametrize("given", ["我是", "I am <|im_end|>", "  spaced  ", ""])
def test_an_answer_goes_on_where_it_was_given(
    client: openai.OpenAI, tokenizer: Tokenizer, given: str
) -> None:
    messages = [*HELLO, {"role": "assistant", "content": given}]
    answer = client.chat.completions.create(
        model="tiny",
        messages=messages,
        max_tokens=12,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, HELLO) + tokenizer.encode(given)
    whole = client.completions.create(model="tiny", prompt=prompt, max_tokens=12)
    assert answer.choices[0].message.content == whole.choices[0].text
    assert answer.usage.prompt_tokens == len(prompt)


def test_a_thought_goes_on_where_it_was_given(client: openai.OpenAI) -> None:
    turn = {"role": "assistant", "content": "", "reasoning_content": "I think"}
    answer = client.chat.completions.create(
        model="tiny",
        messages=[*HELLO, turn],
        max_tokens=12,
        extra_body={"continue_final_message": True},
    )
    message = answer.choices[0].message
    assert message.content == "" and message.model_extra["reasoning_content"]


def test_without_a_generation_prompt_nobody_speaks_yet(
    client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=1, extra_body={"add_generation_prompt": False}
    )
    closed = tokenizer.chat_template.encode_prompt(tokenizer, HELLO, add_generation_prompt=False)
    assert answer.usage.prompt_tokens == len(closed)


@pytest.mark.parametrize(
    ("messages", "extra"),
    [
        (HELLO, {}),
        ([*HELLO, {"role": "assistant", "content": "a"}], {"add_generation_prompt": True}),
    ],
)
def test_nothing_to_go_on_from_is_refused(
    client: openai.OpenAI, messages: list[Any], extra: dict[str, Any]
) -> None:
    body = {"continue_final_message": True} | extra
    with pytest.raises(openai.BadRequestError, match="continue_final_message"):
        client.chat.completions.create(model="tiny", messages=messages, extra_body=body)


def post(server: RunningServer, path: str, body: Any) -> Any:
    return ask(server.url.removesuffix("/v1") + path, body)


def test_a_prompt_has_the_ids_that_completions_read(
    server: RunningServer, client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    found = post(server, "/tokenize", {"prompt": TEXT, "return_token_strs": True})
    usage = client.completions.create(model="tiny", prompt=TEXT, max_tokens=1).usage
    assert found["count"] == len(found["tokens"]) == usage.prompt_tokens
    assert found["max_model_len"] == CONTEXT and found["token_strs"][0].startswith("<|")
    bare = post(server, "/tokenize", {"prompt": TEXT, "add_special_tokens": False})
    assert bare["tokens"] == tokenizer.encode(TEXT) and bare["token_strs"] is None
    back = post(server, "/detokenize", {"model": "tiny", "tokens": bare["tokens"]})
    assert back == {"prompt": TEXT}
    assert post(server, "/detokenize", {"tokens": []}) == {"prompt": ""}


def test_a_conversation_has_the_ids_that_chats_read(
    server: RunningServer, client: openai.OpenAI
) -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    given = [*HELLO, {"role": "assistant", "content": "我"}]
    for messages, extra in [
        (HELLO, {}),
        (HELLO, {"tools": tools}),
        (HELLO, {"chat_template_kwargs": {"enable_thinking": False}}),
        (given, {"continue_final_message": True}),
    ]:
        body = {"messages": messages, **extra}
        found = post(server, "/tokenize", body)
        answer = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=1, extra_body=extra
        )
        assert found["count"] == answer.usage.prompt_tokens


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {}, "one of them"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "one of them"),
        ("/tokenize", {"prompt": "a", "tools": []}, "messages"),
        ("/tokenize", {"messages": HELLO, "add_special_tokens": True}, "template"),
        ("/tokenize", {"messages": HELLO, "continue_final_message": True}, "no assistant"),
        ("/detokenize", {"tokens": [10**6]}, "below"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
    ],
)
def test_what_has_no_tokens_is_refused(
    server: RunningServer, path: str, body: dict[str, Any], said: str
) -> None:
    with pytest.raises(NoAnswer, match=said) as caught:
        post(server, path, body)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "gpt-4"}, "model_not_found"),
        ({"messages": [{"role": "user", "content": "a" * 5000}]}, "context_length_exceeded"),
        ({"wrong": 1}, "unknown_parameter"),
        ({"messages": None}, "invalid_value"),
        ({"temperature": 9}, "invalid_value"),
    ],
)
def test_a_refusal_has_openais_code(client: openai.OpenAI, body: Any, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "extra_body": body})
    assert caught.value.code == code


def test_the_other_refusals_have_their_codes(serve: Callable[..., Any]) -> None:
    with serve("tiny", api_key="secret") as running:
        with pytest.raises(openai.AuthenticationError) as caught:
            openai.OpenAI(base_url=running.url, api_key="other").models.list()
        assert caught.value.code == "invalid_api_key"
        client = openai.OpenAI(base_url=running.url, api_key="secret")
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve("other")
        assert missing.value.code == "model_not_found"


def test_a_text_that_goes_on_keeps_its_first_space(tmp_path: Path) -> None:
    """SentencePiece takes the space before a text's first word away; between prompt and answer it
    is one between two words. Of a chat's answer it is taken away, as of any other text."""
    _, path = sentencepiece_model(tmp_path, model_type="bpe")
    ours = import_sentencepiece(path)
    ids = ours.encode("the quick brown fox")
    joint = next(n for n in range(1, len(ids)) if ours.token_bytes(ids[n]).startswith(b" "))
    facts = SimpleNamespace(
        runner=SimpleNamespace(
            model=SimpleNamespace(config=SimpleNamespace(tokens=ours.vocab_size))
        )
    )
    served = Served("m", ours, cast(Any, facts), SamplingOptions())
    talk = {"messages": [{"role": "user", "content": "?"}]}
    for body, prompt, keeps in (
        (CompletionBody(prompt="the"), ids[:joint], True),
        (CompletionBody(prompt=""), ours.document_start, False),
        (ChatBody(**talk), ids[:joint], False),
    ):
        (request,) = served.requests(prompt, SamplingOptions(), body, None)
        stream = cast(TextStream, request.watcher)
        for token in ids[joint:]:
            stream.feed(token)
        text = stream.take() + stream.finish()
        assert text.startswith(" ") is keeps
        assert not keeps or ours.decode(ids[:joint]) + text == "the quick brown fox"
