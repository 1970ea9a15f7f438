"""The official client against the server: every field is honoured or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
import torch

from miao.engine import Engine, SamplingOptions
from miao.tokenizer import Tokenizer
from tests.serve.conftest import CONTEXT, RunningServer

HELLO = [{"role": "user", "content": "今天天气很好"}]
NO_END = {str(id): -100 for id in range(3)}
"""Keeps a random model from ending its answer."""
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "warm": {"type": "boolean"},
        "degrees": {"type": "integer", "minimum": 0, "maximum": 40},
    },
    "required": ["city", "warm", "degrees"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "weather of a city", "parameters": SCHEMA},
}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def engine(server: RunningServer, make_model: Callable[..., Any], tokenizer: Tokenizer) -> Engine:
    """The same model, asked directly."""
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": CONTEXT}
    return Engine(make_model(0, **shape), frozenset(tokenizer.stop_ids))


def expected_text(engine: Engine, tokenizer: Tokenizer, prompt: list[int], count: int) -> str:
    (ids,) = engine.generate([prompt], SamplingOptions(max_new_tokens=count))
    return tokenizer.decode(ids)


def test_chat_equals_the_engine(
    client: openai.OpenAI, engine: Engine, tokenizer: Tokenizer
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20)
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, messages)
    (choice,) = answer.choices
    assert choice.message.content == expected_text(engine, tokenizer, prompt, 20)
    assert choice.finish_reason == "length" and choice.message.role == "assistant"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), 20)
    assert usage.total_tokens == len(prompt) + 20


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_joins_to_the_whole(client: openai.OpenAI, include_usage: bool) -> None:
    arguments: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_completion_tokens": 30}
    whole = client.chat.completions.create(**arguments, n=2, temperature=1.0, seed=5)
    if include_usage:
        arguments["stream_options"] = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(**arguments, n=2, temperature=1.0, seed=5, stream=True)
    )
    texts, finishes = ["", ""], ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert len({chunk.id for chunk in chunks}) == 1
    if include_usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    else:
        assert all(chunk.usage is None for chunk in chunks)


def test_max_tokens_minus_one_goes_to_the_end_of_the_context(client: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "q" * (CONTEXT - 60)}]
    for arguments in ({"max_tokens": -1}, {}):
        answer = client.chat.completions.create(
            model="tiny", messages=long, logit_bias=NO_END, **arguments
        )
        assert answer.usage.total_tokens == CONTEXT
        assert 0 < answer.usage.completion_tokens < 60
        assert answer.choices[0].finish_reason == "length"


def test_stop_texts(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            max_tokens=40,
            temperature=1.0,
            seed=3,
            logit_bias=NO_END,
            **options,
        ).choices[0]

    free = ask().message.content
    stop = free[7:10]
    cut = ask(stop=["never said", stop])
    assert cut.message.content == free[: free.index(stop)]
    assert cut.finish_reason == "stop"


def test_logprobs(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=6, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    unseen = {tokenizer.token_bytes(id).decode() for id in tokenizer.special_ids}
    said = b"".join(bytes(entry.bytes) for entry in entries if entry.token not in unseen)
    assert said.decode("utf-8", "replace") == answer.choices[0].message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob), "greedy"
        assert entry.logprob <= 0


def test_penalties_and_bias_are_honoured(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str:
        return (
            client.completions.create(model="tiny", prompt=[5, 6, 7], max_tokens=30, **options)
            .choices[0]
            .text
        )

    plain = ask()
    assert ask() == plain
    changed = [
        ask(frequency_penalty=2.0),
        ask(presence_penalty=2.0),
        ask(logit_bias={"50": 100}),
        ask(extra_body={"repetition_penalty": 5.0}),
        ask(temperature=1.5, seed=1),
    ]
    assert plain not in changed
    assert ask(temperature=1.5, seed=1) == changed[-1] != ask(temperature=1.5, seed=2)
    assert ask(temperature=1.5, extra_body={"top_k": 1}) == plain
    assert ask(temperature=1.5, extra_body={"min_p": 1.0}) == plain


def test_completions(client: openai.OpenAI, engine: Engine, tokenizer: Tokenizer) -> None:
    ids = [10, 20, 30]
    texts = ["清晨的", "The seedling"]
    assert client.completions.create(model="tiny", prompt=ids, max_tokens=9).choices[
        0
    ].text == expected_text(engine, tokenizer, ids, 9)
    answer = client.completions.create(model="tiny", prompt=texts, max_tokens=9, n=2, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice, text in zip(answer.choices, [texts[0]] * 2 + [texts[1]] * 2, strict=True):
        prompt = [tokenizer.document_boundary_id, *tokenizer.encode(text)]
        assert choice.text == text + expected_text(engine, tokenizer, prompt, 9)
    assert client.completions.create(model="tiny", prompt="a").usage.completion_tokens <= 16
    chunks = client.completions.create(
        model="tiny", prompt=ids, max_tokens=9, stream=True, logprobs=2
    )
    found = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(c.text for c in found) == expected_text(engine, tokenizer, ids, 9)
    tokens = [token for c in found if c.logprobs for token in c.logprobs.tokens]
    (expected,) = engine.generate([ids], SamplingOptions(max_new_tokens=9))
    assert len(tokens) == len(expected) > 0 and found[-1].finish_reason in ("length", "stop")


@pytest.mark.parametrize("seed", range(4))
def test_json_of_a_schema(client: openai.OpenAI, seed: int) -> None:
    """A random model knows no JSON: the constraint alone makes it."""
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, response_format=form, temperature=1.0, seed=seed
    )
    assert answer.choices[0].finish_reason == "stop"
    found = json.loads(answer.choices[0].message.content)
    assert list(found) == ["city", "warm", "degrees"]
    assert isinstance(found["warm"], bool) and 0 <= found["degrees"] <= 40


def test_a_json_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        response_format={"type": "json_object"},
        temperature=1.0,
        seed=1,
        max_tokens=40,
    )
    text = answer.choices[0].message.content
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_forced_call(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    arguments: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": [WEATHER]}
    answer = client.chat.completions.create(
        **arguments, tool_choice=choice, temperature=1.0, seed=2, stream=stream
    )
    if stream:
        choices = [choice for chunk in answer for choice in chunk.choices]
        call, *more = [c for choice in choices for c in choice.delta.tool_calls or []]
        assert call.function.arguments == "" and len(more) > 5, "arguments come piecewise"
        assert not any(c.id or c.function.name or c.type for c in more)
        call.function.arguments = "".join(c.function.arguments for c in more)
        finish = choices[-1].finish_reason
    else:
        (call,) = answer.choices[0].message.tool_calls
        finish = answer.choices[0].finish_reason
    assert finish == "tool_calls" and call.id and call.function.name == "weather"
    given = json.loads(call.function.arguments)
    assert set(given) == {"city", "warm", "degrees"}
    said = {"id": call.id, "type": "function", "function": call.function.model_dump()}
    follow_up = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [said]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    again = client.chat.completions.create(
        model="tiny", messages=follow_up, tools=[WEATHER], tool_choice="none", max_tokens=3
    )
    assert again.choices[0].message.tool_calls is None


def test_the_thinking_switch_reaches_the_template(
    client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    lengths = []
    for extra in (
        {},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "high"},
    ):
        answer = client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=1, extra_body=extra
        )
        lengths.append(answer.usage.prompt_tokens)
    closed = len(tokenizer.chat_template.encode_prompt(tokenizer, HELLO, enable_thinking=False))
    assert lengths == [lengths[0], closed, closed, closed, lengths[0]] and closed > lengths[0]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "other"]
    assert client.models.retrieve("other").id == "other"
    answers = {
        client.completions.create(model=m, prompt=[1, 2], max_tokens=9).choices[0].text
        for m in ("tiny", "other")
    }
    assert len(answers) == 2
    with pytest.raises(openai.NotFoundError, match=r"no model 'gpt'.*tiny, other"):
        client.completions.create(model="gpt", prompt="a")


def test_embeddings(client: openai.OpenAI, engine: Engine, tokenizer: Tokenizer) -> None:
    text = "清晨的露水"
    found = client.embeddings.create(model="tiny", input=[text, "rain"])  # base64 by default
    assert len(found.data) == 2
    ids = torch.tensor([[tokenizer.document_boundary_id, *tokenizer.encode(text)]])
    with torch.inference_mode():
        mean = engine.model(ids, output="hidden")[0].mean(0)
    expected = torch.nn.functional.normalize(mean, dim=0).tolist()
    assert found.data[0].embedding == pytest.approx(expected, abs=1e-5)
    plain = client.embeddings.create(model="tiny", input=text, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(expected, abs=1e-5)


CHAT: dict[str, Any] = {"model": "tiny", "messages": HELLO}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (CHAT | {"messages": []}, "messages"),
    (CHAT | {"messages": [{"role": "wizard", "content": "a"}]}, "role"),
    (CHAT | {"messages": [{"role": "user"}]}, "content: is missing"),
    (
        CHAT
        | {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        },
        "type",
    ),
    (CHAT | {"temperature": 3}, "temperature"),
    (CHAT | {"max_tokens": 0}, "must be positive, or -1"),
    (CHAT | {"max_tokens": 3, "max_completion_tokens": 3}, "give one of them"),
    (CHAT | {"n": 17}, "n: "),
    (CHAT | {"logit_bias": {"9999": 1}}, "below 360"),
    (CHAT | {"logit_bias": {"the": 1}}, "no token id"),
    (CHAT | {"top_logprobs": 2}, "only together with logprobs"),
    (CHAT | {"stream_options": {"include_usage": True}}, "only together with stream"),
    (CHAT | {"stop": ""}, "empty"),
    (CHAT | {"functions": []}, "does not know the field"),
    (CHAT | {"audio": {}}, "does not know the field"),
    (CHAT | {"tool_choice": "required"}, "no tools"),
    (CHAT | {"store": True}, "store"),
    (
        CHAT
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "nonsense"}},
            }
        },
        "cannot be enforced",
    ),
    (CHAT | {"messages": [{"role": "user", "content": "好" * 2000}]}, "too many"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_honoured_is_refused(
    client: openai.OpenAI, body: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert message in caught.value.message
    assert caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_drawn_token_is_among_the_likeliest(client: openai.OpenAI, count: int) -> None:
    answer = client.completions.create(
        model="tiny", prompt="a", max_tokens=20, temperature=2.0, seed=1, logprobs=count
    )
    found = answer.choices[0].logprobs
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert top[token] == logprob and count <= len(top) <= count + 1
    assert any(len(top) == count + 1 for top in found.top_logprobs)


def test_a_prompt_over_the_context_says_by_how_much(client: openai.OpenAI) -> None:
    fits = [7] * (CONTEXT - 1)
    for most in (1, -1, openai.omit):
        answer = client.completions.create(model="tiny", prompt=fits, max_tokens=most)
        assert answer.usage.total_tokens <= CONTEXT
    with pytest.raises(
        openai.BadRequestError, match=f"5 tokens .* {CONTEXT - 1} .* 1 fit"
    ) as error:
        client.completions.create(model="tiny", prompt=fits, max_tokens=5)
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "max_tokens")
    with pytest.raises(openai.BadRequestError, match="max_tokens: 9999 tokens"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a"}], max_completion_tokens=9999
        )
    with pytest.raises(openai.BadRequestError, match=f"{CONTEXT + 2} tokens are 3 too many"):
        client.completions.create(model="tiny", prompt=[7] * (CONTEXT + 2))
    with pytest.raises(openai.BadRequestError, match="below 360"):
        client.completions.create(model="tiny", prompt=[7, 360])


def test_nothing_is_left_behind(server: RunningServer, client: openai.OpenAI) -> None:
    server.wait_until_idle()
