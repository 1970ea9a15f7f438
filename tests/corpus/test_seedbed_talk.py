"""The talking part of the seedbed: stories, dialogues, identity, general chat, preferences."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any

import pytest

from miao.corpus.records import Conversation, Preference
from miao.corpus.seedbed import (
    Seedbed,
    arithmetic,
    dialogues,
    general,
    identity,
    knowledge,
    phrasing,
    preferences,
    skills,
    stories,
)
from miao.corpus.seedbed.facts import facts
from miao.corpus.seedbed.items import QuestionItem
from miao.corpus.seedbed.persona import Language, Persona
from miao.corpus.seedbed.phrasing import (
    bare,
    expansions,
    language_of,
    pattern,
    read_talk,
    talks,
    typed,
)
from miao.corpus.seedbed.scenes import read_scene, scenes
from miao.corpus.seedbed.tables import Entry
from miao.corpus.seedbed.words import groups, jokes, opposites, poems, riddles, words
from miao.errors import MiaoError
from miao.recipe import SeedbedOptions

DEFAULT = Persona()
OTHER = Persona("阿木", "Moss", "木工坊", "the wood shop")
LANGUAGES: tuple[Language, ...] = ("zh", "en")
PREFIXES = (*phrasing._PREFIXES_ZH, *phrasing._CALLS_ZH, *phrasing._PREFIXES_EN)
HAN = re.compile("[\u4e00-\u9fff]")
LATIN = re.compile("[A-Za-z]")


@cache
def training() -> tuple[Conversation, ...]:
    """20,000 training conversations, half of them about the assistant itself."""
    streams = (
        identity.conversations(random.Random(1), DEFAULT),
        general.conversations(random.Random(2), DEFAULT),
    )
    return tuple(talk for stream in streams for talk in islice(stream, 10_000))


@cache
def training_pairs() -> tuple[Preference, ...]:
    return tuple(islice(preferences.preferences(random.Random(3), DEFAULT), 10_000))


@cache
def held_out_pairs() -> tuple[Preference, ...]:
    return tuple(preferences.heldout(random.Random(4), DEFAULT, 400))


def user_turns(talks: tuple[Conversation, ...]) -> list[str]:
    return [turn.content for talk in talks for turn in talk.messages if turn.role == "user"]


def all_items():
    rng = random.Random(5)
    return identity.question_items(rng, DEFAULT, 200) + general.question_items(rng, 2000)


@pytest.mark.parametrize(
    "stream",
    [
        stories.documents,
        dialogues.documents,
        lambda rng: identity.conversations(rng, DEFAULT),
        lambda rng: general.conversations(rng, DEFAULT),
        lambda rng: preferences.preferences(rng, DEFAULT),
        lambda rng: preferences.heldout(rng, DEFAULT, 100),
        lambda rng: identity.question_items(rng, DEFAULT, 100),
        lambda rng: general.question_items(rng, 100),
    ],
)
def test_a_seed_decides_everything(stream):
    first, again, other = (
        [record.to_json() for record in islice(stream(random.Random(seed)), 100)]
        for seed in (7, 7, 8)
    )
    assert len(first) == 100
    assert first == again
    assert first != other


def test_grammar():
    assert expansions(pattern("(a|b) c(|d)?")) == ["a c?", "a cd?", "b c?", "b cd?"]
    assert bare("“Hi”, you!") == bare("hi you") == "hiyou"
    entry = Entry("here", {"asks": "谁(呀|)？\n啥？", "replies": "我。", "unseen": "哪位？"})
    talk = read_talk(entry, ())
    assert [expansions(ask) for ask in talk.asks] == [["谁呀？", "谁？"], ["啥？"]]
    assert talk.replies == ("我。",) and talk.unseen == ("哪位？",) and talk.checks == ()
    tables = {"b": "{h} ran.", "a": "a cat/a dog"}
    scene = read_scene(Entry("here", {"text": "{h} sees {a}.\n{b}", "tables": tables}), ("h",))
    told = {scene.render(random.Random(seed), {"h": "Tom"}, " ") for seed in range(20)}
    assert told == {"Tom sees a cat. Tom ran.", "Tom sees a dog. Tom ran."}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "{h} sees {a}."}, "nothing fills the {a}"),
        ({"text": "{h} sees {a.", "tables": {"a": "x"}}, "a brace without its other"),
        ({"text": "Hi.\nHi."}, "stands here 2 times"),
        ({"text": ["Hi."]}, "not text"),
        ({"text": "{a}{b}", "tables": {"a b": "x | y\nz"}}, "not 2 cells: 'z'"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_place(values: dict, message: str) -> None:
    with pytest.raises(MiaoError, match=re.escape(message)) as error:
        read_scene(Entry("plots.yaml: lost", values), ("h",))
    assert "plots.yaml: lost" in str(error.value)


def test_the_corpus_that_a_seed_makes_stays_the_same() -> None:
    """A run is repeated years later: tables may be moved and code be cleaned, texts stay."""
    seedbed = Seedbed(SeedbedOptions(characters="100K", conversations=500, preferences=200), 7)
    texts = [
        json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True)
        for kind in ("document", "conversation", "preference")
        for record in seedbed.records(kind)
    ]
    items = (seedbed.choice_items(50), seedbed.question_items(100), seedbed.heldout_preferences(50))
    texts += [repr(item) for made in items for item in made]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "527f8bd7b4ea3c07"


def test_typing_habits_keep_the_words():
    rng = random.Random(0)
    asks = dict(zip(LANGUAGES, ("你叫什么名字？", "Can you tell me your name?"), strict=True))
    for language, text in asks.items():
        variants = {typed(rng, text, language) for _ in range(300)}
        assert len(variants) > 10
        core = bare(text)
        assert all(core in bare(variant) for variant in variants)
        goes_on = {typed(rng, text, language, opening=False) for _ in range(300)}
        assert all(bare(variant).startswith(core) for variant in goes_on)


def test_stories_are_whole_short_and_various():
    texts = [document.text for document in islice(stories.documents(random.Random(1)), 4000)]
    chinese = [text for text in texts if language_of(text) == "zh"]
    english = [text for text in texts if language_of(text) == "en"]
    assert 0.55 < len(chinese) / len(texts) < 0.65
    assert len(set(texts)) > 0.99 * len(texts)
    for text in texts:
        assert not re.search(r"[{}|/]|  |，，|。。|！”，", text), text
    for text in chinese:
        assert 40 <= len(HAN.findall(text)) <= 135 and not LATIN.search(text), text
        assert len(re.findall("[。！？]", text)) >= 3 and text[-1] in "。！”", text
        assert text.count("“") == text.count("”"), text
    for text in english:
        assert 40 <= len(text.split()) <= 95 and text[-1] in '.!"', text
        assert text.count('"') % 2 == 0, text
        assert all(part.lstrip('"')[0].isupper() for part in re.split(r"(?<=[.!]) ", text)), text
    typical = sorted(len(HAN.findall(text)) for text in chinese)
    assert typical[len(typical) * 9 // 10] <= 110


def test_every_plot_is_told_in_both_languages():
    assert list(scenes("plots", "zh")) == list(scenes("plots", "en"))
    assert len(scenes("plots", "zh")) >= 15


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_story_is_about_what_was_asked(language):
    rng, topics = random.Random(2), stories.topics(language)
    kinds_and_names = [s for s in stories.subjects(language) if s not in topics]
    assert len(kinds_and_names) > 60
    for subject in kinds_and_names:
        story = stories.story_about(rng, stories.spoken(rng, subject, language), language)
        assert subject in story
    for topic in topics:
        assert len(stories.story_about(rng, topic, language)) > 40
    unknown = "阿飞" if language == "zh" else "Zed"
    assert stories.story_about(rng, unknown, language).count(unknown) >= 3


def test_the_hero_keeps_the_pronoun():
    rng = random.Random(3)
    for name, wrong in (("Tom", {"she", "her"}), ("Lily", {"he", "him", "his"})):
        said = [set(stories.story_about(rng, name, "en").lower().split()) for _ in range(100)]
        assert not any(words_ & wrong for words_ in said)
    assert all("她" not in stories.story_about(rng, "小明", "zh") for _ in range(100))
    assert all("他" not in stories.story_about(rng, "小猫", "zh") for _ in range(100))


def test_dialogues_are_short_and_spoken_by_two():
    texts = [document.text for document in islice(dialogues.documents(random.Random(1)), 3000)]
    assert len(set(texts)) > 0.9 * len(texts)
    for text in texts:
        lines = text.split("\n")
        assert 2 <= len(lines) <= 6, text
        mark = "：" if "：" in text else ": "
        assert len({line.split(mark)[0] for line in lines}) == 2, text
        assert not re.search(r"[{}|/\d]|  ", text), text
        assert all(line[-1] in "。！？.!?" for line in lines), text


@pytest.mark.parametrize("intent", identity.MAIN_INTENTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_main_intents_are_asked_in_many_ways_and_answered_in_few(intent, language):
    talk = talks("identity")[intent][language]
    assert sum(len(expansions(ask)) for ask in talk.asks) >= 50
    assert len(talk.unseen) >= 8
    assert 2 <= len(talk.replies) <= 3
    for item in identity.question_items(random.Random(0), DEFAULT, 200):
        name = DEFAULT.name_zh if item.language == "zh" else DEFAULT.name_en
        maker = DEFAULT.maker_zh if item.language == "zh" else DEFAULT.maker_en
        assert all(name in answer or maker in answer for answer in item.answers)
        if item.question in talk.unseen:
            assert all(item.is_right(DEFAULT.fill(r, language)) for r in talk.replies)


def test_another_name_is_a_wrong_answer():
    for item in identity.question_items(random.Random(0), DEFAULT, 100):
        assert not item.is_right("我叫小明。" if item.language == "zh" else "My name is Tom.")


def test_held_out_questions_are_never_asked_in_training():
    asked = {bare(turn) for turn in user_turns(training())}
    assert len(asked) > 8000
    items = all_items()
    assert len({item.question for item in items}) > 1200
    for item in items:
        assert bare(item.question) not in asked, item.question


def test_no_training_phrasing_can_yield_a_held_out_one():
    for table in (talks("identity"), talks("smalltalk"), talks("asks")):
        for name, sides in table.items():
            for talk in sides.values():
                seen = {bare(text) for ask in talk.asks for text in expansions(ask)}
                unseen = {bare(text) for text in talk.unseen}
                without_greeting = {
                    text.removeprefix(bare(prefix)) for text in unseen for prefix in PREFIXES
                }
                assert not seen & (unseen | without_greeting), name


def test_held_out_questions_use_words_of_training():
    turns = user_turns(training())
    turns += [word for language in LANGUAGES for word in opposites(language)]
    turns += [f"{word.zh} {word.en}" for word in words()]
    characters = set("".join(turns))
    vocabulary = {word for turn in turns for word in re.findall(r"[a-z']+", turn.lower())}
    for item in all_items():
        if item.language == "zh":
            assert set(item.question) <= characters, item.question
        assert set(re.findall(r"[a-z']+", item.question.lower())) <= vocabulary, item.question


def test_facts_held_out_elsewhere_do_not_slip_in_here():
    held_out = {bare(question) for question in knowledge.heldout_phrasings()}
    assert not held_out & {bare(turn) for turn in user_turns(training())}
    assert not held_out & {bare(pair.prompt[0].content) for pair in training_pairs()}


def test_replies_are_in_the_language_of_the_question():
    checked: Counter[str] = Counter()
    for talk in training():
        for ask, reply in zip(talk.messages, talk.messages[1:], strict=False):
            if ask.role != "user":
                continue
            assert reply.role == "assistant"
            about_words = re.search("英|中文|翻译|单词|意思|呢|Chinese|English", ask.content, re.I)
            if about_words or (HAN.search(ask.content) and LATIN.search(ask.content)):
                continue
            language = language_of(ask.content)
            han = len(HAN.findall(reply.content))
            latin = len(LATIN.findall(reply.content.replace(DEFAULT.maker_zh, "")))
            if re.search(r"What about|And ", ask.content, re.I) or reply.content[0].isdigit():
                continue
            assert (han > 4 * latin) if language == "zh" else (latin > 4 * han), (ask, reply)
            checked[language] += 1
    assert checked["zh"] > 8000 and checked["en"] > 6000


def test_conversations_have_the_promised_shape():
    talks = islice(general.conversations(random.Random(6), DEFAULT), 5000)
    shapes = Counter(tuple(m.role for m in talk.messages) for talk in talks)
    system = sum(count for roles, count in shapes.items() if roles[0] == "system")
    many = sum(count for roles, count in shapes.items() if roles.count("user") > 1)
    assert 0.06 < system / 5000 < 0.10
    assert 0.15 < many / 5000 < 0.27
    for roles in shapes:
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ("user", "assistant") * (len(turns) // 2) and 2 <= len(turns) <= 6


def test_another_persona_leaves_no_trace_of_the_default():
    rng = random.Random(8)
    records: list[Conversation | Preference | QuestionItem] = [
        *islice(identity.conversations(rng, OTHER), 3000),
        *islice(general.conversations(rng, OTHER), 3000),
        *islice(preferences.preferences(rng, OTHER), 3000),
        *preferences.heldout(rng, OTHER, 300),
        *identity.question_items(rng, OTHER, 200),
    ]
    text = "\n".join(str(record.to_json()) for record in records)
    assert "小苗" not in text and "miao" not in text.lower()
    assert all(text.count(name) > 100 for name in ("阿木", "Moss", "木工坊", "the wood shop"))


def test_persona_spaces_latin_names_in_chinese_and_refuses_blanks():
    assert Persona(name_zh="Bob").fill("我叫{name}。", "zh") == "我叫 Bob。"
    assert DEFAULT.fill("我是由{maker}训练出来的。", "zh") == "我是由 Miao 开源项目训练出来的。"
    assert OTHER.fill("I am {name}, made by {maker}.", "en") == "I am Moss, made by the wood shop."
    assert OTHER.fill("My Chinese name is {name_zh}.", "en") == "My Chinese name is 阿木."
    with pytest.raises(MiaoError, match=r"persona\.maker_en"):
        Persona(maker_en=" ")


@pytest.mark.parametrize("language", LANGUAGES)
def test_small_talk_is_complete_and_its_checks_fit_its_replies(language):
    assert len(talks("smalltalk")) > 80
    for name, sides in talks("smalltalk").items():
        talk, other = sides["zh"], sides["en"]
        assert len(talk.replies) == len(other.replies) <= 3, name
        for side in (talk, other):
            assert sum(len(expansions(ask)) for ask in side.asks) >= 5, name
        if sides[language].unseen:
            checks = sides[language].checks
            replies = sides[language].replies
            assert all(any(check in reply for check in checks) for reply in replies), name


def test_word_tables_agree_with_themselves_and_with_the_facts():
    table = words()
    assert len(table) >= 80
    assert len({word.zh for word in table}) == len({word.en for word in table}) == len(table)
    for word in table:
        assert word.zh in word.sentence_zh
        assert re.search(rf"\b{word.en}\b", word.sentence_en, re.I), word
    for language in LANGUAGES:
        assert len(opposites(language)) > 60
        for fact in knowledge.facts():
            if fact.relation == "antonym" and fact.language == language:
                ours = opposites(language).get(fact.subject, fact.value)
                assert ours not in fact.distractors, (fact.subject, ours)
        assert len(poems(language)) == len(riddles(language)) == 10
        assert len(jokes(language)) >= 8
        assert all(poem.count("\n") == 3 for poem in poems(language).values())


def test_lists_have_as_many_things_as_were_asked_for():
    numbers = dict(zip("两三四五", (2, 3, 4, 5), strict=True))
    numbers |= dict(zip(("two", "three", "four", "five"), (2, 3, 4, 5), strict=True))
    numbers |= {str(number): number for number in (2, 3, 4, 5)}
    rng, checked = random.Random(9), 0
    for turn in range(600):
        ((ask, reply),) = skills.listing(rng, LANGUAGES[turn % 2])
        said = re.findall(r"[两三四五2-5](?=[种个位])|\b(?:two|three|four|five|[2-5])\b", ask, re.I)
        if said and group_of(ask):
            asked = numbers[said[0].lower()]
            limit = len(group_of(ask))
            assert len(re.split("、|和|, | and ", reply)) == min(asked, limit), (ask, reply)
            checked += 1
    assert checked > 300


def group_of(ask):
    for group in groups():
        if group.zh in ask or f" {group.en}" in ask.lower():
            return group.members_zh if group.zh in ask else group.members_en
    return ()


def test_general_items_are_answered_by_training_replies():
    replies: dict[str, list[str]] = {"zh": [], "en": []}
    for language in LANGUAGES:
        for word in words():
            replies[language] += [skills.translation(w, language) for w in (word.zh, word.en)]
        replies[language] += [skills.opposite_of(w, language) for w in opposites(language)]
        for sides in talks("smalltalk").values():
            replies[language] += sides[language].replies
    items = general.question_items(random.Random(1), 300)
    assert {item.category for item in items} == {"general"}
    for item in items:
        right = [reply for reply in replies[item.language] if item.is_right(reply)]
        assert 1 <= len(right) <= 4, (item, right)


def test_preferences_differ_in_what_their_reason_says():
    reasons = Counter(pair.source for pair in training_pairs())
    assert set(reasons) == set(preferences.REASONS)
    assert min(reasons.values()) > 0.03 * len(training_pairs())
    for pair in (*training_pairs(), *held_out_pairs()):
        (ask,), (chosen,), (rejected,) = pair.prompt, pair.chosen, pair.rejected
        assert (ask.role, chosen.role, rejected.role) == ("user", "assistant", "assistant")
        assert chosen.content != rejected.content
        if pair.source == "concise":
            assert chosen.content in rejected.content
            assert len(rejected.content) > len(chosen.content) + 5
        elif pair.source == "language":
            assert language_of(chosen.content) != language_of(rejected.content)
            assert language_of(chosen.content) == language_of(ask.content)
        else:
            assert language_of(chosen.content) == language_of(rejected.content) or (
                chosen.content[0].isdigit()
            )


def test_correct_pairs_are_right_and_wrong():
    sums = facts = talked = 0
    sentences = {fact.sentence for fact in knowledge.facts()}
    intents = [
        {DEFAULT.fill(reply, language) for reply in sides[language].replies}
        for sides in (*talks("smalltalk").values(), *talks("identity").values())
        for language in LANGUAGES
    ]
    for pair in (*training_pairs(), *held_out_pairs()):
        if pair.source != "correct":
            continue
        chosen, rejected = pair.chosen[0].content, pair.rejected[0].content
        if equation := re.fullmatch(r"(\d+)([+\-×])(\d+)=(\d+)[。.]", chosen):
            a, sign, b, result = equation.groups()
            values = {"+": int(a) + int(b), "-": int(a) - int(b), "×": int(a) * int(b)}
            assert int(result) == values[sign]
            wrong = int(re.findall(r"\d+", rejected)[-1])
            assert wrong != int(result) and abs(wrong - int(result)) <= 10
            assert {a, b} <= set(re.findall(r"\d+", pair.prompt[0].content))
            sums += 1
        elif chosen in sentences:
            assert rejected not in sentences
            facts += 1
        else:  # a reply to this question, against one to another
            own = [replies for replies in intents if chosen in replies]
            assert own and not any(rejected in replies for replies in own)
            assert any(rejected in replies for replies in intents)
            talked += 1
    assert min(sums, facts, talked) > 900


def test_held_out_preferences_are_never_trained_on():
    trained = {bare(pair.prompt[0].content) for pair in training_pairs()}
    assert Counter(pair.source for pair in held_out_pairs()) == dict.fromkeys(
        preferences.REASONS, 100
    )
    assert len({pair.prompt[0].content for pair in held_out_pairs()}) > 250
    for pair in held_out_pairs():
        assert bare(pair.prompt[0].content) not in trained
        answer = re.fullmatch(r"(\d+)([+-])(\d+)=\d+[。.]", pair.chosen[0].content)
        if answer:
            assert arithmetic.is_held_out(answer[2], int(answer[1]), int(answer[3]))
        elif pair.source == "correct":
            assert pair.prompt[0].content in knowledge.heldout_phrasings()


def test_nothing_is_said_of_facts_to_a_model_that_reads_other_text() -> None:
    options = SeedbedOptions(characters="10K", conversations=400, preferences=300)
    knows, other = Seedbed(options, 7), Seedbed(options, 7, facts=False)
    assert "knowledge" in {record.source for record in knows.records("conversation")}
    assert {r.source for r in other.records("conversation")} == {"general", "math", "identity"}

    def of_facts(pairs: Iterable[Any]) -> int:
        told = {fact.sentence for fact in facts()}
        return sum(pair.source == "correct" and pair.chosen[0].content in told for pair in pairs)

    assert of_facts(knows.records("preference")) > 20
    assert of_facts(knows.heldout_preferences(80)) > 5
    assert of_facts([*other.records("preference"), *other.heldout_preferences(80)]) == 0
    assert "knowledge" not in {item.category for item in other.question_items(60)}
