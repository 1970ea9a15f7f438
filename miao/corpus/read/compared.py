"""Shapes of data that compare answers, rewritten as `prompt`/`chosen`/`rejected` (see `shapes`)."""

from __future__ import annotations

from typing import Any

from miao.corpus.read.columns import (
    ANSWER_KEYS,
    CHOSEN_KEYS,
    QUESTION_KEYS,
    REJECTED_KEYS,
    TURNS_KEYS,
    Row,
)
from miao.corpus.read.marks import written_turns
from miao.corpus.read.turns import blank, first_key, plain_json
from miao.corpus.records import Kind
from miao.errors import MiaoError

Fields = dict[str, Any]

SIDES = (
    (("response_0", "response_1"), ("better_response_id", "safer_response_id"), 0),
    (("response_1", "response_2"), ("preference", "winner", "better"), 1),
    (("response_a", "response_b"), ("preference", "winner", "better"), 0),
    (("output_1", "output_2"), ("preference",), 1),
    (("answer_0", "answer_1"), ("preference", "winner", "better"), 0),
    (("conversation_a", "conversation_b"), ("winner",), 0),
    (("human_ref_a", "human_ref_b"), ("labels",), None),
)
"""Two answers, the columns that say which is better, and the number of the first one: PKU-SafeRLHF,
HelpSteer, arenas, AlpacaFarm. None: 1 says the first one, 0 the second (SHP)."""


def human_and_machine(row: Row, kind: Kind) -> Fields | None:
    """HC3: the first answers of people and of ChatGPT, the latter preferred."""
    both = ("chatgpt_answers", "human_answers")
    if "question" not in row or not all(isinstance(row.peek(side), list) for side in both):
        return None
    first: list[str] = []
    for side in both:
        answers = [a for a in row[side] if isinstance(a, str) and not blank(a)]
        keep = 1 if kind == "preference" or not any(first) else 0
        first.append(answers[0] if answers[:keep] else "")
        if further := answers[keep:]:
            row.aside[f"{side} (further)"] = further
    question = row["question"]
    if kind == "preference":
        return {"prompt": question, "chosen": first[0], "rejected": first[1]}
    return {"question": question, "answer": first[0] or first[1]}


def transcripts(row: Row, kind: Kind) -> Fields | None:
    """Both sides as whole transcripts: "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    if kind != "preference" or first_key(row, QUESTION_KEYS):
        return None
    turns = [written_turns(row.peek(side)) for side in ("chosen", "rejected")]
    if None in turns:
        return None
    row.read.update(("chosen", "rejected"))
    return {"chosen": turns[0], "rejected": turns[1]}


def sides(row: Row, kind: Kind) -> Fields | None:
    """A better and a worse answer in columns of any names; two answers and which is better."""
    if kind != "preference":
        return None
    rejected = first_key(row, REJECTED_KEYS)
    if rejected and not {"chosen", "rejected"} <= row.keys():
        chosen = first_key(row, (*CHOSEN_KEYS, *ANSWER_KEYS, *TURNS_KEYS))
        return None if chosen is None else {**asked(row, chosen), **_pair(row, chosen, rejected)}
    for names, verdicts, base in SIDES:
        verdict = first_key(row, verdicts)
        if verdict and all(name in row for name in names):
            better = _better(row[verdict], verdict, base)
            pair = (names[better], names[1 - better])
            question = asked(row)
            if names[0].startswith("human_ref"):  # SHP calls its post "history"
                question |= {"prompt": row["history"], "history": []}
            return {**question, **_pair(row, *pair)}
    return None


def _pair(row: Row, chosen: str, rejected: str) -> Fields:
    good, bad = row[chosen], row[rejected]
    if chosen in TURNS_KEYS and isinstance(bad, str):  # the last turn is the better answer
        turns = plain_json(good, f"'{chosen}'") if isinstance(good, str) else good
        if isinstance(turns, list) and turns:
            return {"messages": turns[:-1], "chosen": turns[-1:], "rejected": bad}
    return {"chosen": good, "rejected": bad}


def asked(row: Row, besides: str | None = None) -> Fields:
    """What is asked, as it stands."""
    keys = (*QUESTION_KEYS, "context", *([] if besides in TURNS_KEYS else TURNS_KEYS))
    return {key: row[key] for key in keys if key in row and key != besides}


def _better(value: Any, column: str, base: int | None) -> int:
    """0: the first of two answers, 1: the second."""
    text = str(value).strip().lower().removeprefix("model_").removeprefix("response_")
    if base is None:
        text, base = {"1": "a", "0": "b"}.get(text, text), 0
    number = {"a": 0, "b": 1, "true": 1, "false": 0}.get(text)
    if number is None and text.removesuffix(".0").isdecimal():
        number = int(text.removesuffix(".0")) - base
    if number not in (0, 1):
        raise MiaoError(
            f"'{column}' is {text[:40]!r}: neither answer is better", fix="drop the record"
        )
    return number


def scored_answers(row: Row, kind: Kind) -> Fields | None:
    """UltraFeedback: `completions` of several models with an `overall_score` each; the best one,
    and to it the worst one."""
    answers = row.peek("completions")
    if not isinstance(answers, list) or not answers or "instruction" not in row:
        return None
    if not all(isinstance(a, dict) and {"response", "overall_score"} <= a.keys() for a in answers):
        return None
    try:
        ranked = sorted(row["completions"], key=lambda answer: float(answer["overall_score"]))
    except (TypeError, ValueError) as error:
        raise MiaoError("an 'overall_score' is no number", fix="drop the record") from error
    best, worst = ranked[-1], ranked[0]
    used = [best, worst] if kind == "preference" else [best]
    row.aside["completions (others)"] = [a["response"] for a in answers if a not in used]
    row.aside["completions (judgements)"] = [
        {key: value for key, value in answer.items() if key != "response"} for answer in answers
    ]
    if kind != "preference":
        return {"instruction": row["instruction"], "output": best["response"]}
    if float(best["overall_score"]) == float(worst["overall_score"]):
        raise MiaoError("no completion is better than another", fix="drop the record")
    pair = {"chosen": best["response"], "rejected": worst["response"]}
    return {"instruction": row["instruction"]} | pair
