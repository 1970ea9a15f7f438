"""The seedbed's facts and arithmetic: true, even, repeatable, and apart from what is held out."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, islice

import pytest

from miao.corpus.records import Conversation, Document
from miao.corpus.seedbed import arithmetic, knowledge
from miao.corpus.seedbed.facts import Fact, relations
from miao.corpus.seedbed.items import ChoiceItem, QuestionItem
from miao.errors import MiaoError

RECORDS = 10_000  # of each generator: 20,000 for knowledge and as many for arithmetic


def texts(records: Iterator[Document | Conversation], count: int) -> list[str]:
    taken: list[str] = []
    for record in islice(records, count):
        if isinstance(record, Document):
            taken.append(record.text)
        else:
            taken.append("\n".join(message.content for message in record.messages))
    return taken


@pytest.fixture(scope="module")
def knowledge_texts() -> list[str]:
    return [
        *texts(knowledge.documents(random.Random(1)), RECORDS),
        *texts(knowledge.conversations(random.Random(2)), RECORDS),
    ]


@pytest.fixture(scope="module")
def arithmetic_texts() -> list[str]:
    return [
        *texts(arithmetic.documents(random.Random(1)), RECORDS),
        *texts(arithmetic.conversations(random.Random(2)), RECORDS),
    ]


@pytest.mark.parametrize("room", [knowledge, arithmetic])
@pytest.mark.parametrize("generator", ["documents", "conversations"])
def test_a_seed_gives_the_same_records(room, generator):
    first, again, other = (
        [record.to_json() for record in islice(getattr(room, generator)(random.Random(seed)), 300)]
        for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "make",
    [
        knowledge.choice_items,
        knowledge.question_items,
        arithmetic.question_items,
        arithmetic.comparison_items,
    ],
)
def test_a_seed_gives_the_same_items(make):
    first, again, other = (make(random.Random(seed), 80) for seed in (5, 5, 6))
    assert len(first) == 80
    assert first == again
    assert first != other


@pytest.mark.parametrize("generator", [knowledge.documents, knowledge.conversations])
def test_the_share_of_chinese_is_kept(generator):
    for share in (0.0, 0.6, 1.0):
        sample = texts(generator(random.Random(3), zh_share=share), 2000)
        chinese = sum(bool(re.search("[\u4e00-\u9fff]", text)) for text in sample) / len(sample)
        assert chinese == pytest.approx(share, abs=0.04)


def test_conversations_alternate_and_answer_with_a_fact():
    sentences = {fact.sentence for fact in knowledge.facts()}
    lengths: Counter[int] = Counter()
    for chat in islice(knowledge.conversations(random.Random(4)), 2000):
        assert [m.role for m in chat.messages] == ["user", "assistant"] * (len(chat.messages) // 2)
        assert all(message.content in sentences for message in chat.messages[1::2])
        lengths[len(chat.messages)] += 1
    assert set(lengths) == {2, 4, 6}


# The tables.


def table(language: str, relation: str) -> dict[str, str]:
    return {
        fact.subject: fact.value
        for fact in knowledge.facts()
        if (fact.language, fact.relation) == (language, relation)
    }


def test_tables_are_whole():
    languages = Counter(fact.language for fact in knowledge.facts())
    assert languages["zh"] >= 300 and languages["en"] >= 250
    seen = Counter((f.language, f.relation, f.subject) for f in knowledge.facts())
    assert max(seen.values()) == 1
    for fact in knowledge.facts():
        assert len(fact.distractors) == len(set(fact.distractors)) >= 3
        assert fact.value not in fact.distractors
        assert fact.accepted[0] == fact.value
        for sentence in (*fact.statements, *fact.questions, *fact.heldout):
            assert fact.subject.lower() in sentence.lower(), sentence
            assert not re.search(r"[{}=;~|]|  ", sentence), sentence
            assert sentence[-1] in ("。？" if fact.language == "zh" else ".?")
            assert sentence[0] == sentence[0].upper()
        assert all(fact.value.lower() in text.lower() for text in fact.statements)
        assert fact.sentence.count(fact.value) == 1


def test_every_relation_has_enough_phrasings():
    for relation in relations("zh") + relations("en"):
        assert len(set(relation.statements)) == len(relation.statements) >= 6
        assert len(set(relation.questions)) == len(relation.questions) >= 12
        assert len(set(relation.heldout)) == len(relation.heldout) >= 2


def test_provinces_and_regions():
    assert len(table("zh", "province_capital")) == 22
    assert len(table("zh", "region_capital")) == 5
    english = table("en", "province_capital")
    assert len(english) == len(set(english.values())) == 27
    assert len(set(table("zh", "province_capital").values())) == 22
    assert table("zh", "province_capital")["四川省"] == "成都"
    assert english["Sichuan"] == "Chengdu"
    assert "The capital of Sichuan is Chengdu." in {f.sentence for f in knowledge.facts()}


def test_capitals_belong_to_one_country():
    for language in ("zh", "en"):
        capitals = table(language, "country_capital")
        assert len(capitals) == len(set(capitals.values())) >= 30
    assert table("zh", "country_capital")["澳大利亚"] == "堪培拉"
    assert table("en", "country_capital")["Canada"] == "Ottawa"


def test_element_symbols():
    order = [
        "H",
        "He",
        "Li",
        "Be",
        "B",
        "C",
        "N",
        "O",
        "F",
        "Ne",
        "Na",
        "Mg",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Ar",
        "K",
        "Ca",
    ]
    chinese = dict(zip("氢氦锂铍硼碳氮氧氟氖钠镁铝硅磷硫氯氩钾钙", order, strict=True))
    chinese |= {"铁": "Fe", "铜": "Cu", "锌": "Zn", "银": "Ag", "金": "Au", "汞": "Hg", "铅": "Pb"}
    names = {"hydrogen": "H", "carbon": "C", "sodium": "Na", "potassium": "K", "iron": "Fe"}
    names |= {"silver": "Ag", "gold": "Au", "mercury": "Hg", "lead": "Pb", "copper": "Cu"}
    zh, en = table("zh", "element"), table("en", "element")
    assert len(zh) >= 20 and zh == {name: chinese[name] for name in zh}
    assert sorted(en.values()) == sorted(zh.values())
    assert {name: en[name] for name in names} == names


def test_what_follows_what_is_a_circle():
    for language in ("zh", "en"):
        for relation, length in (("weekday", 7), ("month", 12), ("season", 4)):
            following = table(language, relation)
            step, walked = next(iter(following)), []
            while step not in walked:
                walked.append(step)
                step = following[step]
            assert len(walked) == length == len(following)


# Knowledge: what training shows and what it never shows.


def test_heldout_questions_never_occur_in_training(knowledge_texts):
    heldout = {question.rstrip("？?.。").lower() for question in knowledge.heldout_phrasings()}
    assert len(heldout) == 2 * len(knowledge.facts())
    every_sentence = "\n".join(
        text
        for fact in knowledge.facts()
        for text in (*fact.statements, *fact.questions, fact.follow_up)
    )
    training = ("\n".join(knowledge_texts) + every_sentence).lower()
    assert [question for question in heldout if question in training] == []


def test_heldout_questions_use_words_of_the_training_text(knowledge_texts):
    training = "\n".join(knowledge_texts)
    characters = Counter(training)
    words = Counter(word.lower() for word in re.findall(r"[A-Za-z']+", training))
    for relation in relations("zh"):
        for template in relation.heldout:
            for character in re.sub(r"{.}", "", template):
                assert characters[character] >= 10, (template, character)
    for relation in relations("en"):
        for template in relation.heldout:
            for word in re.findall(r"[a-z']+", re.sub(r"{.}", "", template).lower()):
                assert words[word] >= 10, (template, word)


def test_training_shows_every_fact_about_equally_often():
    asked = {
        (fact.language, question): (fact.language, fact.relation, fact.subject)
        for fact in knowledge.facts()
        for question in fact.questions
    }
    counts: Counter[tuple[str, str, str]] = Counter()
    answers = {fact.value for fact in knowledge.facts()}
    short = 0
    for document in islice(knowledge.documents(random.Random(7), zh_share=0.5), 20_000):
        for question, answer in re.findall(r"(?:问：|Q: )(.*)\n(?:答：|A: )(.*)", document.text):
            key = asked.get(("zh", question)) or asked[("en", question)]
            counts[key] += 1
            short += answer in answers
    assert len(counts) == len(knowledge.facts())
    assert 0.55 < short / counts.total() < 0.75
    for language in ("zh", "en"):
        of_language = [count for key, count in counts.items() if key[0] == language]
        mean = sum(of_language) / len(of_language)
        # A small relation has at least as many turns as one of 14 facts.
        assert min(of_language) > 0.3 * mean and max(of_language) < 5 * mean


def test_every_fact_is_stated_in_documents(knowledge_texts):
    stated = "\n".join(knowledge_texts[:RECORDS])
    bare = stated.replace("，", "。")
    for fact in knowledge.facts():
        assert any(text in stated or text in bare for text in fact.statements), fact.sentence


def yes_or_no() -> dict[str, tuple[Fact, str]]:
    """Every such question, with the fact and the value that it asks about."""
    return {
        knowledge.whether(fact, value): (fact, value)
        for fact in knowledge.facts()
        for value in (fact.value, *fact.distractors)
    }


def test_yes_or_no_is_asked_in_chats_alone_and_answered_by_the_fact():
    pairs = yes_or_no()
    documents = texts(knowledge.documents(random.Random(4)), 5000)
    assert not set(re.split("\n|问：|Q: ", "\n".join(documents))) & set(pairs)
    asked = [
        (*pairs[question.content], answer.content)
        for chat in islice(knowledge.conversations(random.Random(4)), 10_000)
        for question, answer in zip(chat.messages[::2], chat.messages[1::2], strict=True)
        if question.content in pairs
    ]
    assert len(asked) > 1000
    assert all(answer == fact.sentence for fact, _, answer in asked)
    assert 0.45 < sum(value == fact.value for fact, value, _ in asked) / len(asked) < 0.55


def test_yes_or_no_is_evaluated_on_pairs_that_training_leaves_out():
    chats = islice(knowledge.conversations(random.Random(4)), 10_000)
    items, pairs = knowledge.whether_items(random.Random(3), 400), yes_or_no()
    assert not {m.content for chat in chats for m in chat.messages} & {i.question for i in items}
    true = 0
    for item in items:
        fact, value = pairs[item.question]
        assert item.is_right(fact.sentence)
        assert item.is_right(fact.sentence.replace(fact.value, value)) == (value == fact.value)
        true += value == fact.value
    assert true == 200


@pytest.mark.parametrize(
    ("language", "subject", "value", "question"),
    [
        ("zh", "苹果", "水果", "苹果是水果吗？"),
        ("zh", "中国", "东京", "中国的首都是东京吗？"),
        ("en", "apple", "a vehicle", "Is an apple a vehicle?"),
        ("en", "China", "Beijing", "Is the capital of China Beijing?"),
        ("en", "spider", "6 legs", "Is it true that a spider has 6 legs?"),
    ],
)
def test_a_fact_is_asked_for_yes_or_no(language, subject, value, question):
    [fact] = [fact for fact in knowledge.facts()
              if (fact.language, fact.subject) == (language, subject)
              and value in (fact.value, *fact.distractors)]  # fmt: skip
    assert knowledge.whether(fact, value) == question


# Evaluation items.


def test_choice_items():
    items = knowledge.choice_items(random.Random(8), 1000)
    heldout = set(knowledge.heldout_phrasings())
    facts = {question: fact for fact in knowledge.facts() for question in fact.heldout}
    positions = Counter(item.answer for item in items)
    assert all(200 < positions[place] < 300 for place in range(4))
    assert {item.language for item in items} == {"zh", "en"}
    assert {item.category for item in items[:60]} == {fact.topic for fact in knowledge.facts()}
    assert len({item.prompt for item in items}) == 1000
    for item in items:
        question = item.prompt.splitlines()[0].removeprefix("问：").removeprefix("Q: ")
        fact = facts[question]
        assert question in heldout
        assert item.prompt[-2:] in ("答：", "A:")
        assert len(set(item.options)) == 4
        space = " " if item.language == "en" else ""
        assert item.options[item.answer] == space + fact.value
        assert item.options.count(space + fact.value) == 1
        for left, right in combinations(item.options, 2):
            assert not left.startswith(right) and not right.startswith(left), item.options
        assert ChoiceItem.from_json(item.to_json()) == item


def test_more_items_than_questions_repeat_only_after_all_were_asked():
    total = len(knowledge.heldout_phrasings())
    items = knowledge.question_items(random.Random(1), total + 10)
    assert len({item.question for item in items[:total]}) == total
    assert len(items) == total + 10


def test_question_items_are_answered_by_their_fact_and_by_no_other():
    items = knowledge.question_items(random.Random(9), len(knowledge.heldout_phrasings()))
    facts = {question: fact for fact in knowledge.facts() for question in fact.heldout}
    for item in items:
        fact = facts[item.question]
        assert item.category == "knowledge"
        assert all(item.is_right(statement) for statement in fact.statements), fact.statements
        assert item.is_right(fact.value)
        assert not item.is_right(item.question), "to repeat the question is no answer"
        for false in fact.distractors:
            assert not item.is_right(fact.sentence.replace(fact.value, false)), (fact, false)
        assert QuestionItem.from_json(item.to_json()) == item


@pytest.mark.parametrize(
    ("answer", "language", "reply", "right"),
    [
        ("Paris", "en", "The capital is paris.", True),
        ("Paris", "en", "He is Parisian.", False),
        ("Paris", "en", "I love Paris's streets", True),
        ("one", "en", "someone", False),
        ("one", "en", "twenty-one", False),
        ("one", "en", "One, I think.", True),
        ("S", "en", "Iron's symbol is Fe.", False),
        ("O", "en", "It is O.", True),
        ("O", "en", "It is H2O.", False),
        ("July 1", "en", "It is on July 1.", True),
        ("July 1", "en", "It is on July 14.", False),
        ("North America", "en", "in North America", True),
        ("Fe", "zh", "铁的元素符号是Fe。", True),
        ("Fe", "zh", "铁的元素符号是Fer。", False),
        ("F", "zh", "铁的元素符号是Fe。", False),
        ("1月1日", "zh", "元旦是1月1日。", True),
        ("1月1日", "zh", "是11月1日。", False),
        ("12个月", "zh", "一年有12个月。", True),
        ("12个月", "zh", "一年有112个月。", False),
        ("5", "zh", "是5。", True),
        ("5", "zh", "是0.5。", False),
        ("5", "zh", "是-5。", False),
        ("5", "zh", "是5，000。", True),
        ("5", "zh", "是5,000。", False),
        ("十五", "zh", "八月十五。", True),
        ("十五", "zh", "二十五。", False),
        ("成都", "zh", "四川省的省会是成都。", True),
    ],
)
def test_contains_heeds_borders(answer, language, reply, right):
    assert QuestionItem("?", [answer], language=language).is_right(reply) is right


def test_wrong_answers_beside_the_right_one_do_not_pass():
    item = QuestionItem("?", ["Paris"], wrong=["Rome"], language="en")
    assert item.is_right("Paris")
    assert not item.is_right("Paris or Rome")
    assert item.is_right("Paris, not the city of Romeo")


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("37+45=82。", True),
        ("37 + 45 = 82.", True),
        ("The answer is 82", True),
        ("82-45=37", False),
        ("37+45=182", False),
        ("37+45=-82", False),
        ("37+45=8.2", False),
        ("37+45=82.5", False),
        ("37+45=820", False),
        ("3-82", True),
        ("I do not know.", False),
        ("", False),
    ],
)
def test_number_is_the_last_one(reply, right):
    assert QuestionItem("37+45=?", ["82"], match="number").is_right(reply) is right


def test_items_that_cannot_be_are_refused():
    with pytest.raises(MiaoError, match="lacks answers"):
        QuestionItem.from_json({"question": "?", "wrong": [], "match": "contains"})
    whole = QuestionItem("?", ["1"]).to_json()
    with pytest.raises(MiaoError, match="unknown match 'exact'"):
        QuestionItem.from_json(whole | {"match": "exact"})
    with pytest.raises(MiaoError, match="none of the 2 options"):
        ChoiceItem.from_json(ChoiceItem("?", ["a", "b"], 2, "x", "en").to_json())


# Arithmetic.

_NUMBER_SIGN = re.compile(r"(?<![\d.])(\d+) ?([-+×]) ?(\d+)(?: ?= ?(\d+))?")
_WORDED = re.compile(r"(\d+)(加|减|乘| plus | minus | times )(\d+)(?:(?:等于| is )(\d+)(?!\d))?")
_SIGN_OF = {"加": "+", "减": "-", "乘": "×", " plus ": "+", " minus ": "-", " times ": "×"}
_OPERATION_OF: dict[str, arithmetic.Operation] = {"+": "+", "-": "-", "×": "*"}
_COMPARED = [
    re.compile(r"(\d+)(?:大于|小于)(\d+)"),
    re.compile(r"(\d+)比(\d+)大\d+"),
    re.compile(r"(\d+)和(\d+)哪个"),
    re.compile(r"(\d+) is (?:greater|less|\d+ more) than (\d+)"),
    re.compile(r"(?:greater|smaller), (\d+) or (\d+)"),
]
_STORY = re.compile(r"(?:有|has|are) ?(\d+)\D+?(\d+)\D*(?:多少|How many)[^\n]*\n(\d+)([-+])(\d+)=")


def test_held_out_pairs_are_a_tenth_and_never_change():
    for operation, share in (("+", 0.1), ("-", 0.1), ("<", 0.1), ("*", 0.0)):
        held, shown = (len(arithmetic.pairs(operation, side)) for side in (True, False))
        assert held / (held + shown) == pytest.approx(share, abs=0.015)
    for a, b in combinations(range(101), 2):
        assert arithmetic.is_held_out("+", a, b) == arithmetic.is_held_out("+", b, a)
        assert arithmetic.is_held_out("<", a, b) == arithmetic.is_held_out("<", b, a)
    # A change here would put trained pairs into evaluations of older models.
    assert arithmetic.pairs("+", True)[:5] == ((0, 2), (0, 7), (0, 27), (0, 28), (0, 49))
    assert arithmetic.pairs("-", True)[:5] == ((4, 1), (4, 3), (6, 2), (11, 3), (12, 6))


def test_training_pairs_stay_within_a_hundred_and_favour_carries_a_little():
    rng = random.Random(1)
    for operation in ("+", "-", "*", "<"):
        drawn = [arithmetic.training_pair(rng, operation) for _ in range(20_000)]
        assert not any(arithmetic.is_held_out(operation, a, b) for a, b in drawn)
        assert set(drawn) <= set(arithmetic.pairs(operation, False))
        if operation in "+-":
            assert all(0 <= arithmetic.result_of(operation, a, b) <= 100 for a, b in drawn)
            assert len(set(drawn)) > 0.95 * len(arithmetic.pairs(operation, False))
            assert 0.5 < sum(arithmetic.is_hard(operation, a, b) for a, b in drawn) / 20_000 < 0.7


def test_no_computation_in_training_is_held_out_or_false(arithmetic_texts, knowledge_texts):
    training = "\n".join(arithmetic_texts + knowledge_texts)
    found = [(int(a), sign, int(b), c) for a, sign, b, c in _NUMBER_SIGN.findall(training)]
    assert len(found) > 40_000
    worded = [(int(a), _SIGN_OF[word], int(b), c) for a, word, b, c in _WORDED.findall(training)]
    worded += [(int(a), "+", int(b), "") for a, b in re.findall(r"add (\d+) and (\d+)", training)]
    assert Counter(sign for _, sign, _, _ in worded).keys() == {"+", "-", "×"}
    assert len(worded) > 5_000
    for a, sign, b, c in found + worded:
        operation = _OPERATION_OF[sign]
        assert not arithmetic.is_held_out(operation, a, b), (a, sign, b)
        assert not c or arithmetic.result_of(operation, a, b) == int(c), (a, sign, b, c)


def test_no_comparison_in_training_is_held_out_or_false(arithmetic_texts):
    training = "\n".join(arithmetic_texts)
    chains = re.findall(r"\d+(?:[<>]\d+)+", training)
    for chain in chains:
        numbers = [int(number) for number in re.findall(r"\d+", chain)]
        assert numbers == sorted(numbers, reverse=">" in chain), chain
        for a, b in combinations(numbers, 2):
            assert not arithmetic.is_held_out("<", a, b), chain
    assert len(chains) > 3000 and any(chain.count("<") == 2 for chain in chains)
    for pattern in _COMPARED:
        compared = pattern.findall(training)
        assert len(compared) > 150, pattern
        assert not any(arithmetic.is_held_out("<", int(a), int(b)) for a, b in compared)
    differences = re.findall(r"(\d+)比(\d+)大(\d+)", training)
    said = re.findall(r"(\d+) is (\d+) more than (\d+)", training)
    assert len(differences) > 150 and len(said) > 150
    differences += [(high, low, more) for high, more, low in said]
    for high, low, more in (map(int, numbers) for numbers in differences):
        assert high - low == more > 0
        assert not arithmetic.is_held_out("-", high, low), (high, low)


def test_word_problems_are_answered_with_their_own_numbers(arithmetic_texts):
    stories = _STORY.findall("\n".join(arithmetic_texts[RECORDS:]))
    assert len(stories) > 1000
    assert {sign for *_, sign, _ in stories} == {"+", "-"}
    for a, b, left, _, right in stories:
        assert (a, b) == (left, right)


def test_odd_and_even_are_told_rightly(arithmetic_texts):
    told = re.findall(r"(\d+)(?:是| is an )(奇数|偶数|odd|even)[。 ]", "\n".join(arithmetic_texts))
    assert len(told) > 1000
    assert all(int(number) % 2 == (word in ("奇数", "odd")) for number, word in told)


def test_answers_copy_the_operands_and_end_in_the_result():
    for chat in islice(arithmetic.conversations(random.Random(3)), 3000):
        for asked, answered in zip(chat.messages[::2], chat.messages[1::2], strict=True):
            numbers = re.findall(r"\d+", asked.content)
            if "=" in answered.content:
                assert re.findall(r"\d+", answered.content)[:2][-len(numbers) :] == numbers


def test_arithmetic_items_ask_held_out_pairs_in_trained_words(arithmetic_texts):
    shape = re.compile(r"\d+")
    trained = {shape.sub("0", line) for text in arithmetic_texts for line in text.splitlines()}
    items = arithmetic.question_items(random.Random(4), 400)
    assert {item.language for item in items} == {"zh", "en"}
    signs: Counter[arithmetic.Operation] = Counter()
    for item in items:
        a, b = (int(number) for number in shape.findall(item.question))
        minus = re.search("减|-|minus", item.question)
        sign: arithmetic.Operation = "-" if minus else "+"
        signs[sign] += 1
        assert arithmetic.is_held_out(sign, a, b)
        assert item.is_right(f"{a}{sign}{b}={arithmetic.result_of(sign, a, b)}。")
        assert not item.is_right(f"{a}{sign}{b}={arithmetic.result_of(sign, a, b) + 1}。")
        assert shape.sub("0", item.question) in trained
        assert item.category == "arithmetic"
    assert min(signs.values()) > 150
    for item in arithmetic.comparison_items(random.Random(4), 200):
        a, b = (int(number) for number in shape.findall(item.question))
        largest = re.search("大|greater", item.question) is not None
        assert arithmetic.is_held_out("<", a, b)
        assert item.is_right(f"{a}, {b}: {max(a, b) if largest else min(a, b)}.")
        assert not item.is_right(f"{a}, {b}: {min(a, b) if largest else max(a, b)}.")
        assert shape.sub("0", item.question) in trained
