"""What a client gives of an answer, and what the model thinks of a text that is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
import torch

from miao.tokenizer import Tokenizer
from tests.serve.conftest import CONTEXT, RunningServer

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
