"""Verdicts of lm-evaluation-harness 0.4.13 on fixed answers: writes data/ifeval_verdicts.jsonl.

    python tests/evaluate/make_goldens_ifeval.py

Needs lm-eval[ifeval]. Sentences and capital words are cut by NLTK's models there, which are no part
of it; where these are missing, words are cut within the text as a whole, and sentences not at all.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.tasks.ifeval import instructions_util, utils

HERE = Path(__file__).parent / "data"
TEXTS = [
    "", "   ", "Yes.", "My answer is no.", "Well: My answer is maybe.  I think so.",
    "Paris is the capital of France, and it lies on the Seine.",
    "the river runs under the bridge and nobody looks at the water today",
    "THE RIVER RUNS UNDER THE BRIDGE AND NOBODY LOOKS AT THE WATER TODAY",
    "River, river, RIVER! The bridge over the river is old.",
    "- one\n- two\n- three", "* one\n* two\n** not one\n  - three", "-\n-two\n*three*",
    "*one* and **two** and ** ** and *three", "**Bold** text\n*it*",
    "SECTION 1\nfirst\nSECTION 2\nsecond\nSECTION  3 third", "Section 1 a Section2 b",
    "one *** two", "***one***two***", "one***   ***two", "one\n***\ntwo\n***\nthree\n",
    '{"name": "Ann", "age": 3}', '```json\n{"name": "Ann"}\n```', "```\n[1, 2]", "{'name': 1}", "12",
    "<<The sea>>\nwaves and waves", "<< >>", "<The sea>", "a <<b>> c",
    "first answer ****** second answer", "same******same", "******one******two", "one****** ******two",
    'Say it: "never".', '"Never," he said. "Not at all."', '"', "“quoted”",
    "Dear friend, come soon. P.S. Bring bread.", "Come soon.\np.s. bread\np.p.s. and tea", "PS: no",
    "Fill in [name] and [address] here.", "[] [x]", "[one\ntwo]",
    "Repeat me: what is water? It is wet.", "what is water?",
    "Thank you. Have a nice day.", "have a nice day.\"", "Have a nice day. Bye",
    "Hello there, friend.\n\nSecond paragraph.\n\n'Third is here", "Only one\n\n\n\nSecond word",
    "Dr. Smith went home. It was late! Was it? Yes.", "A B C D. NASA and the U.S. are here.",
    "Bonjour, je m'appelle Anne et j'habite dans une petite maison.",
    "今天天气很好，我们去公园散步吧。大家都很高兴。", "从前有一个小男孩，他住在河边的村子里。",
    "Sure, here it is:\nthe river is long\nHope that helps!", "I use the cat, the category and a CAT.",
]  # fmt: skip
MORE, LESS = {"relation": "at least"}, {"relation": "less than"}
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("keywords:existence", {"keywords": ["river", "bridge"]}),
    ("keywords:existence", {"keywords": ["cat"]}),
    ("keywords:frequency", MORE | {"keyword": "river", "frequency": 3}),
    ("keywords:frequency", LESS | {"keyword": "the", "frequency": 2}),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "river"]}),
    ("keywords:letter_frequency", {"let_relation": "at least", "letter": "e", "let_frequency": 5}),
    ("keywords:letter_frequency", {"let_relation": "less than", "letter": "a", "let_frequency": 3}),
    ("language:response_language", {"language": "en"}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("length_constraints:number_words", MORE | {"num_words": 8}),
    ("length_constraints:number_words", LESS | {"num_words": 6}),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 3, "nth_paragraph": 3, "first_word": "third"}),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "second"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "what is water?"}),
    ("startend:end_checker", {"end_phrase": "Have a nice day."}),
    ("startend:quotation", {}),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 3, "capital_relation": "at least"}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
]  # fmt: skip


def main() -> None:
    nltk = instructions_util.nltk
    nltk.word_tokenize = partial(nltk.word_tokenize, preserve_line=True)
    lines = []
    for name, settings in ASKED:
        for text in TEXTS:
            asked = utils.InputExample(0, [name], "what is water?", [dict(settings)])
            strict = utils.test_instruction_following_strict(asked, text)
            loose = utils.test_instruction_following_loose(asked, text)
            found = [one.follow_all_instructions for one in (strict, loose)]
            lines.append([name, settings, text, *found])
    with open(HERE / "ifeval_verdicts.jsonl", "w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(len(lines))


if __name__ == "__main__":
    main()
