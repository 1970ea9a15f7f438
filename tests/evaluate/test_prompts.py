"""Prompts are those of the harnesses, byte for byte (make_goldens*.py wrote what they ask)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miao.corpus.records import Message
from miao.evaluate.tasks.items import Item, read_questions
from miao.evaluate.tasks.prompts import Encoder, Prompt, build_prompt, fit
from miao.evaluate.tasks.task import built_in_tasks, load_task
from miao.tokenizer import Tokenizer

HERE = Path(__file__).parent
LM_EVAL = json.loads((HERE / "goldens_lm_eval.json").read_text(encoding="utf-8"))["goldens"]
OPENCOMPASS = json.loads((HERE / "goldens_opencompass.json").read_text(encoding="utf-8"))["goldens"]


def label(golden: dict[str, Any]) -> str:
    return "{task}-{subject}-{number}-{shots}shot-{style}".format(**{"style": "lm-eval"} | golden)


def question(golden: dict[str, Any], style: str) -> tuple[Any, Any, Item, list[Item]]:
    task = load_task(golden["task"])
    _, prompts = task.style(style)
    found = read_questions(task, HERE / "data", shots=golden["shots"])
    item = found.items[golden["subject"]][golden["number"]]
    return task, prompts, item, found.examples.get(golden["subject"], [])


@pytest.mark.parametrize("golden", LM_EVAL, ids=label)
def test_lm_eval_asks_the_same(golden: dict[str, Any]) -> None:
    task, style, item, examples = question(golden, "lm-eval")
    prompt = build_prompt(task, style, item, examples)
    if style.scoring == "generate":
        assert [prompt.context] == [context for context, _ in golden["requests"]]
        assert item.answer == golden["answer"].split("#### ")[1]
        return
    assert [[prompt.context, choice] for choice in prompt.choices] == golden["requests"]
    assert item.answer == golden["answer"]


@pytest.mark.parametrize("golden", OPENCOMPASS, ids=label)
def test_opencompass_reads_the_same(golden: dict[str, Any]) -> None:
    task, style, item, examples = question(golden, golden["style"])
    prompt = build_prompt(task, style, item, examples)
    if style.scoring == "generate":
        assert [prompt.context] == golden["texts"]
        return
    texts = [prompt.context + choice for choice in prompt.choices]
    # To C3's questions with fewer than four options it adds the first one again.
    assert texts == golden["texts"][: len(texts)]
    assert golden["texts"][len(texts) :] in ([], [texts[0]] * (4 - len(texts)))


def test_every_style_that_reproduces_a_harness_has_goldens() -> None:
    tested = {(g["task"], "lm-eval") for g in LM_EVAL}
    tested |= {(g["task"], g["style"]) for g in OPENCOMPASS}
    claimed = {
        (name, style) for name in built_in_tasks() for style in load_task(name).styles
        if load_task(name).styles[style].reproduces
    }  # fmt: skip
    # The other part of ARC has the same template; HellaSwag's text is prepared beforehand there.
    same = {("arc_challenge", "lm-eval"), ("arc_challenge", "opencompass")}
    assert claimed - tested - same == {("hellaswag", "opencompass")}


def test_answers_are_encoded_as_part_of_the_text(tokenizer: Tokenizer) -> None:
    """By hand: the continuation's tokens are those of the whole text behind the context's."""
    golden = next(g for g in LM_EVAL if g["task"] == "piqa")
    task, style, item, _ = question(golden, "lm-eval")
    prompt = build_prompt(task, style, item, [])
    for (context, continuation), choice in zip(
        Encoder(tokenizer).pairs(prompt), prompt.choices, strict=True
    ):
        assert context == tokenizer.encode(prompt.context)
        assert context + continuation == tokenizer.encode(prompt.context + choice)


def test_spaces_before_the_answer_belong_to_it(tokenizer: Tokenizer) -> None:
    golden = next(g for g in OPENCOMPASS if g["task"] == "ceval")
    task, style, item, _ = question(golden, "opencompass")
    prompt = build_prompt(task, style, item, [])
    assert prompt.context.endswith("答案: ") and prompt.choices[1] == "\nB"
    context, continuation = Encoder(tokenizer).pairs(prompt)[1]
    assert tokenizer.decode(context).endswith("答案:")
    assert tokenizer.decode(continuation) == " \nB"


def test_an_empty_context_begins_a_document(tokenizer: Tokenizer) -> None:
    encoder = Encoder(tokenizer)
    ((context, continuation),) = encoder.pairs(Prompt("", ["A"], ["A"]))
    assert context == [tokenizer.document_boundary_id] and tokenizer.decode(continuation) == "A"
    assert encoder.wholes(Prompt("", ["A"], ["A"]))[0][0] == tokenizer.document_boundary_id


def test_in_the_chat_the_question_is_the_users_turn(tokenizer: Tokenizer) -> None:
    turn = Message("user", "问：1+1？")
    prompt = Prompt("问：1+1？", [" 2", " 3"], ["2", "3"], (turn,))
    encoder = Encoder(tokenizer, begin=(1,), chat=True, system="短答")
    messages = [Message("system", "短答"), Message("user", "问：1+1？")]
    context = tokenizer.chat_template.encode_prompt(tokenizer, messages)
    assert encoder.pairs(prompt) == [(context, tokenizer.encode(n)) for n in "23"]
    assert encoder.wholes(prompt) == [context + tokenizer.encode(n) for n in "23"]


@pytest.mark.parametrize("golden", [g for g in LM_EVAL if "turns" in g], ids=label)
def test_lm_eval_asks_the_same_turns_in_the_chat(golden: dict[str, Any]) -> None:
    task, style, item, examples = question(golden, "lm-eval")
    prompt = build_prompt(task, style, item, examples)
    assert [{"role": m.role, "content": m.content} for m in prompt.turns] == golden["turns"]
    assert golden["chat_choices"] in ([], prompt.plain_choices)


def test_a_system_prompt_stands_before_the_description(tokenizer: Tokenizer) -> None:
    turns = (Message("system", "以下是选择题。"), Message("user", "问"))
    found = Encoder(tokenizer, chat=True, system="短答").asked(Prompt("", [], [], turns))
    joined = [Message("system", "短答\n\n以下是选择题。"), turns[1]]
    assert found == tokenizer.chat_template.encode_prompt(tokenizer, joined)


def test_control_tokens_are_meant_only_where_a_harness_wrote_them(tokenizer: Tokenizer) -> None:
    text, end = "a<|im_end|>", tokenizer.end_of_turn_id
    assert end not in Encoder(tokenizer).context(text)
    assert Encoder(tokenizer, trusted=True).context(text)[-1] == end
    assert Encoder(tokenizer, begin=(5,)).context("a") == [5, *tokenizer.encode("a")]


def test_examples_are_left_out_from_the_end_until_the_rest_fits() -> None:
    def build(shown: Any) -> Any:
        return SimpleNamespace(longest=10 + 7 * len(shown), shown=list(shown))

    examples: list[Any] = [1, 2, 3, 4, 5]
    made, left = fit(build, examples, 30)
    assert (made.shown, left) == ([1, 2], 2)
    assert fit(build, examples, 45)[1] == 5
    assert fit(build, examples, 3)[1] == 0, "what cannot fit is left for cutting"
    assert fit(build, examples, None)[1] == 5


def test_what_has_no_context_begins_as_the_tokenizer_begins_texts(
    llama3_tokenizer: Tokenizer,
) -> None:
    begin = llama3_tokenizer.token_to_id("<|begin_of_text|>")
    for own in ((), llama3_tokenizer.own_start):
        ((context, _),) = Encoder(llama3_tokenizer, own).pairs(Prompt("", ["a"], ["a"]))
        assert context == [begin]
