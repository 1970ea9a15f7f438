"""What the assistant can do in a chat, as pairs of a question and its reply."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from miao.corpus.seedbed import smalltalk
from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.phrasing import Talks, read_talks, typed
from miao.corpus.seedbed.stories import children, spoken, story_about, subjects
from miao.corpus.seedbed.verses import jokes, poems, riddles
from miao.corpus.seedbed.words import NUMBERS_EN, NUMBERS_ZH, groups, opposites, words

_OFTEN = ("hello", "thanks", "bye", "how_are_you", "sad", "cannot_sleep", "weather", "time")

# One question as typed and its reply.
Turn = tuple[str, str]
Skill = Callable[[random.Random, Language], list[Turn]]

# Asks with a slot; the replies are written beside the code that fills them.
_ASKS = """
= into_english
? {w}用(英语|英文)怎么说？ / {w}的(英语|英文)(是什么|怎么说|怎么写|单词是什么)？
? (英语|英文)里{w}怎么说？ / {w}的(英语|英文)？
? 怎么用(英语|英文)说{w}？ / (把|请把|帮我把){w}(翻译成|译成)(英语|英文)。
? {w}翻译成(英语|英文)是什么？ / 翻译(一下|){w}。
? (What is|What's) {w} in English? / How do you say {w} in English?
? (Translate|Please translate) {w} (into|to) English.
? What is the English (word |)for {w}? / How (can|do) I say {w} in English? / {w} in English?
? {w}这个词(的英语|的英文)(是什么|怎么说)？ / 我想知道{w}用(英语|英文)怎么说。
? (英语|英文)的{w}怎么说？
~ 我想知道{w}的英文单词。 / {w}这个词用英语说是什么？ / 我要用英语说{w}，该怎么说？
~ 英文的{w}怎么写？
~ Which English word means {w}? / Give me the English word for {w}.
~ Tell me how to say {w} in English.
= into_chinese
? {w}是什么意思？ / {w}(用|的|)中文(怎么说|是什么)？
? 单词{w}(是什么意思|的意思是什么|的中文是什么)？ / {w}的中文意思是什么？
? (把|请把|帮我把){w}(翻译成|译成)中文。 / 翻译(一下|){w}。 / {w}翻译成中文是什么？
? 英语{w}是什么意思？ / {w}什么意思？
? (What is|What's) {w} in Chinese? / How do you say {w} in Chinese?
? (Translate|Please translate) {w} (into|to) Chinese.
? What is the Chinese (word |)for {w}? / How (can|do) I say {w} in Chinese? / {w} in Chinese?
? {w}这个词(是什么意思|的中文是什么)？ / 我想知道{w}的中文。 / 英文{w}(的中文是什么|是什么意思)？
~ 请告诉我{w}的中文意思。 / {w}这个单词的中文怎么说？ / 英文里的{w}是什么意思？
~ 我想知道{w}是什么意思。
~ Which Chinese word means {w}? / Give me the Chinese word for {w}.
~ Tell me how to say {w} in Chinese.
= opposite
? {w}的反义词(是什么|是哪个|)？ / (和|跟|与){w}相反的(词|词语|)是什么？ / {w}的反面是什么？
? (告诉我|说出){w}的反义词。
? 什么词(和|跟){w}(意思|)相反？ / 与{w}意思相反的词是什么？ / 找一个{w}的反义词。
? (What is|What's) the opposite of {w}? / (Give|Tell) me the opposite of {w}.
? The opposite of {w}? / What word is the opposite of {w}?
? What is opposite to {w}? / Find the opposite of {w}. / What word means the opposite of {w}?
? 哪个词(和|跟){w}(意思|)相反？ / 告诉我(和|跟){w}(意思|)相反的词。 / {w}的反义词你知道吗？
~ 请说一个和{w}意思相反的词。 / {w}和哪个词相反？ / 你知道{w}的反义词吗？
~ Which word is the opposite of {w}? / Do you know the opposite of {w}? / Say the opposite of {w}.
= and_this
? 那{w}呢？ / {w}呢？
? What about {w}? / And {w}?
= list
? (说出|列出|告诉我|说|请说出|举出|给我){n}{m}{w}。 / 随便说{n}{m}{w}。
? (你能|能|可以)(说出|说|列出){n}{m}{w}吗？ / {n}{m}{w}。
? (Name|List|Tell me|Give me|Say|Please name) {n} {w}. / Can you (name|list|tell me) {n} {w}?
? What are {n} {w}?
= list_some
? (有哪些|说一些|说几{m}|列出一些|告诉我几{m}|你知道哪些){w}？ / {w}有哪些？
? (Name|List|Tell me) some {w}. / What are some {w}? / What {w} do you know?
= count
? (从{a}|)数到{n}。 / (请|帮我)从{a}数到{n}。 / (你会|你能|能)从{a}数到{n}吗？
? 从{a}开始数，数到{n}。
? Count (from {a} |)to {n}. / Can you count (from {a} |)to {n}? / Please count (from {a} |)to {n}.
= sentence
? (请|)用{w}造(一个|个|)句(子|)。 / 用{w}写一句话。 / {w}怎么造句？ / 造一个有{w}的句子。
? 帮我用{w}造句。
? (Make|Write) a sentence with (the word |){w}. / Use {w} in a sentence.
? Give me a sentence with {w}.
= poem
? (写|来|给我写|帮我写|作)(一首|首)(关于|){w}的(诗|小诗)(吧|)。
? (你会|能)写(一首|)关于{w}的诗吗？ / 以{w}为题写一首诗。
? (Write|Give me|Tell me) a (short |little |)poem about {w}. / Can you write a poem about {w}?
? I want a poem about {w}.
= any_poem
? (写|来|给我写|作)(一首|首)(诗|小诗)(吧|)。 / (你会|能)(写诗|写一首诗|作诗)吗？
? 我想(读|听)一首诗。
? (Write|Give me|Tell me) a (short |little |)poem. / Can you write (a poem|poems|poetry)?
? I would like a poem.
= joke
? (讲|说|来|给我讲|给我说)(一个|个)(笑话|小笑话)(吧|)。 / (你会|能)(讲|说)(个|)笑话吗？
? 我想听笑话。 / 逗我(笑|开心)(一下|)。 / 有什么好笑的(笑话|)吗？ / 笑话。
? (Tell me|Give me|Say) (a|one) (funny |good |)joke.
? (Do you know|Can you tell me|Have you got) (a joke|any jokes)? / Make me laugh.
? I want to hear a joke. / Joke, please.
= another
? 再(讲|说|来)一个(吧|)。 / 还有吗？ / 再来一个！ / 换一个(吧|)。
? (Another one|One more|Tell me another one)(, please|)! / (Do you have|Any) more? / Again!
= riddle
? (出|来|给我出|说)(一个|个|一道)(谜语|谜)(吧|)。 / (我想|我们来)猜谜语(吧|)。 / 你会(猜|出)谜语吗？
? (Tell|Give|Ask) me a riddle. / (Do you know|Have you got) (a riddle|any riddles)?
? Let us play a riddle game. / I want a riddle.
= give_up
? (我|)(不知道|猜不出来|猜不到|想不出来)。 / (答案|谜底)是什么？ / 告诉我答案(吧|)。 / 是什么(呢|)？
? (I do not know|I give up|No idea|I cannot guess it). / What is (it|the answer)?
? Tell me the answer.
= guess
? 是{w}吗？ / (我猜|应该|我想)是{w}。 / {w}？ / 答案是{w}。
? Is it {w}? / (I think it is|It must be|I guess it is|It is) {w}. / {w}?
= story
? (给我|请|)(讲|说|写|编)(一个|个)(关于|){w}的(故事|小故事)(吧|)。
? (我想听|想听)(一个|)(关于|){w}的故事。 / 来(一个|个)(关于|){w}的故事。
? (你能|能|可以)(讲|说)(一个|个)(关于|){w}的故事吗？
? (Tell|Give) me a (short |little |)story about {w}. / (Can|Could) you tell me a story about {w}?
? I want (to hear |)a story about {w}. / (Write|Say) a (short |)story about {w}.
= any_story
? (给我|请|)(讲|说|写|编)(一个|个)(故事|小故事|睡前故事|童话|童话故事)(吧|)。
? (我想听|来)(一个|个|)故事。 / (你能|能|可以)讲(一个|个|)故事吗？ / 讲故事。
? (Tell|Give) me a (short |little |bedtime |)story. / (Can|Could) you tell me a story?
? I want (to hear |)a story. / A story, please.
= nice_story
? (真好听|这个故事真好|我喜欢这个故事|好故事|讲得真好)！
? (What a nice story|I like this story|Nice story|A lovely story|That was a good story)!
> 谢谢！很高兴你喜欢这个故事。
> Thank you! I am glad you like the story.
= my_name
? (我叫|我是|我的名字是|我的名字叫|你可以叫我|叫我){w}。 / 你好，(我叫|我是){w}。 / {w}是我的名字。
? (My name is|I am|I'm|Call me|You can call me) {w}. / (Hello|Hi), (my name is|I am|I'm) {w}.
= which_name
? 我(叫什么|叫什么名字|是谁)？ / 我的名字(是什么|叫什么)？
? 你(还|)(记得|知道)(我叫什么|我的名字|我是谁)吗？
? What is my name? / Who am I? / Do you (remember|know) (my name|who I am)? / What am I called?
= i_like
? 我(喜欢|很喜欢|最喜欢|爱){w}。 / 我的爱好是{w}。
? I (like|love|really like) {w}. / My hobby is {w}. / I am fond of {w}.
= do_you_like
? 你(喜欢|爱|喜不喜欢|也喜欢){w}(吗|)？ / 你觉得{w}(怎么样|好吗)？
? Do you (like|love|enjoy) {w}? / What do you think (of|about) {w}? / Are you fond of {w}?
"""

# Thing, what is nice about it; the same in English, as a subject with its verb.
_LIKED = """
小猫 | 又软又可爱 | cats | are soft and cute
小狗 | 很聪明，也很忠诚 | dogs | are smart and loyal
小鸟 | 唱歌很好听 | birds | sing so well
大海 | 又大又蓝 | the sea | is big and blue
春天 | 到处都是花 | spring | is full of flowers
下雪天 | 安静又漂亮 | snow | is quiet and beautiful
苹果 | 又脆又甜 | apples | are crisp and sweet
西瓜 | 又甜又凉快 | melon | is sweet and cool
面条 | 热乎乎的，很好吃 | noodles | are warm and tasty
饺子 | 可以全家一起包 | dumplings | are fun to make together
画画 | 能留住美好的东西 | drawing | keeps beautiful things
音乐 | 能让人心情变好 | music | makes people happy
跑步 | 对身体很好 | running | is good for you
游泳 | 夏天最舒服 | swimming | is lovely in summer
看书 | 能学到很多东西 | reading | teaches you many things
做饭 | 能让家人开心 | cooking | makes a family happy
足球 | 可以和朋友一起踢 | football | is fun with friends
旅行 | 能看到新的风景 | travel | shows you new places
唱歌 | 能让人开心 | singing | makes people smile
花 | 又香又好看 | flowers | smell sweet and look nice
"""


@cache
def asks() -> Talks:
    """The asks with slots ({w} a word, {n} a number ...), by name and language."""
    return read_talks(_ASKS)


@cache
def _liked() -> tuple[tuple[str, ...], ...]:
    rows = _LIKED.strip().splitlines()
    return tuple(tuple(cell.strip() for cell in row.split("|")) for row in rows)


def fill(text: str, language: Language, **slots: str) -> str:
    """An ask with its slots filled; an English one begins with a capital."""
    for slot, value in slots.items():
        text = text.replace(f"{{{slot}}}", value)
    return text[0].upper() + text[1:] if language == "en" else text.strip()


def _ask(rng: random.Random, name: str, language: Language, **slots: str) -> str:
    """A training phrasing of an ask, its slots filled, as people type it."""
    return typed(rng, fill(asks()[name][language].ask(rng), language, **slots), language)


def _then(rng: random.Random, name: str, language: Language, **slots: str) -> str:
    """The same for a question that goes on from a reply and therefore greets nobody."""
    text = fill(asks()[name][language].ask(rng), language, **slots)
    return typed(rng, text, language, opening=False)


def _in_quotes(rng: random.Random, word: str, language: Language) -> str:
    """A word that is spoken about: bare, or in one of the usual quotation marks."""
    marks = rng.choice(("{}", "{}", "{}", "“{}”", '"{}"'))
    if marks == "{}" and language == "zh" and word.isascii() and rng.random() < 0.5:
        return f" {word} "
    return marks.format(word)


def translation(word: str, language: Language) -> str:
    """The reply that gives a word in the other language, in a chat held in `language`."""
    by_zh, by_en = _translations()
    if word in by_zh:
        en = by_zh[word]
        return f"{word}的英语是 {en}。" if language == "zh" else f"The English for {word} is {en}."
    zh = by_en[word]
    return f"{word} 的中文是{zh}。" if language == "zh" else f"The Chinese for {word} is {zh}."


@cache
def _translations() -> tuple[dict[str, str], dict[str, str]]:
    return {word.zh: word.en for word in words()}, {word.en: word.zh for word in words()}


def translate(rng: random.Random, language: Language) -> list[Turn]:
    """A word into the other language, sometimes a second one in short."""
    into_english = rng.random() < 0.5
    name = "into_english" if into_english else "into_chinese"
    first, second = ((w.zh if into_english else w.en) for w in rng.sample(words(), 2))
    ask = _ask(rng, name, language, w=_in_quotes(rng, first, language))
    turns = [(ask, translation(first, language))]
    if rng.random() < 0.15:
        turns.append((_then(rng, "and_this", language, w=second), translation(second, language)))
    return turns


def opposite_of(word: str, language: Language) -> str:
    """The reply that gives the opposite of a word."""
    other = opposites(language)[word]
    if language == "zh":
        return f"{word}的反义词是{other}。"
    return f"The opposite of {word} is {other}."


def opposite(rng: random.Random, language: Language) -> list[Turn]:
    """The opposite of a word, sometimes of a second one."""
    first, second = rng.sample(tuple(opposites(language)), 2)
    ask = _ask(rng, "opposite", language, w=_in_quotes(rng, first, language))
    turns = [(ask, opposite_of(first, language))]
    if rng.random() < 0.15:
        turns.append((_then(rng, "and_this", language, w=second), opposite_of(second, language)))
    return turns


def lesson(rng: random.Random, language: Language, count: int) -> list[Turn]:
    """`count` questions of one kind about words: translations or opposites, the later in short."""
    kind = rng.choice(("into_english", "into_chinese", "opposite"))
    if kind == "opposite":
        asked, answer = rng.sample(tuple(opposites(language)), count), opposite_of
    else:
        english = kind == "into_english"
        asked = [word.zh if english else word.en for word in rng.sample(words(), count)]
        answer = translation
    asks_for = [kind] + ["and_this"] * (count - 1)
    return [
        (
            fill(asks()[name][language].ask(rng), language, w=_in_quotes(rng, word, language)),
            answer(word, language),
        )
        for name, word in zip(asks_for, asked, strict=True)
    ]


def joined(members: tuple[str, ...], language: Language) -> str:
    """`苹果、香蕉和葡萄。` or `Apples, bananas and grapes.`"""
    *most, last = members
    if language == "zh":
        return f"{'、'.join(most)}和{last}。"
    text = f"{', '.join(most)} and {last}."
    return text[0].upper() + text[1:]


def listing(rng: random.Random, language: Language) -> list[Turn]:
    """Two to five things of a kind."""
    group = rng.choice(groups())
    members = group.members_zh if language == "zh" else group.members_en
    kind = group.zh if language == "zh" else group.en
    count = rng.choices((2, 3, 4, 5), weights=(2, 5, 2, 2))[0]
    count = min(count, len(members))
    if rng.random() < 0.2:
        ask = _ask(rng, "list_some", language, w=kind, m=group.measure)
        return [(ask, joined(members[:3], language))]
    if language == "zh":
        number = "两" if count == 2 else NUMBERS_ZH[count - 1]
    else:
        number = NUMBERS_EN[count - 1]
    number = str(count) if rng.random() < 0.25 else number
    ask = _ask(rng, "list", language, n=number, m=group.measure, w=kind)
    return [(ask, joined(members[:count], language))]


def count(rng: random.Random, language: Language) -> list[Turn]:
    """Counting from one."""
    last = rng.randint(3, 10)
    in_digits = rng.random() < 0.5
    if in_digits:
        numbers = tuple(str(number) for number in range(1, last + 1))
    else:
        numbers = (NUMBERS_ZH if language == "zh" else NUMBERS_EN)[:last]
    ask = _ask(rng, "count", language, a=numbers[0], n=numbers[-1])
    if language == "zh":
        return [(ask, "、".join(numbers) + "。")]
    reply = ", ".join(numbers) + "."
    return [(ask, reply[0].upper() + reply[1:])]


def sentence(rng: random.Random, language: Language) -> list[Turn]:
    """A sentence with a word."""
    word = rng.choice(words())
    text, reply = (word.zh, word.sentence_zh) if language == "zh" else (word.en, word.sentence_en)
    return [(_ask(rng, "sentence", language, w=_in_quotes(rng, text, language)), reply)]


def poem(rng: random.Random, language: Language) -> list[Turn]:
    """A poem on a topic, or any poem."""
    topic, poem = rng.choice(tuple(poems(language).items()))
    if rng.random() < 0.3:
        return [(_ask(rng, "any_poem", language), poem)]
    return [(_ask(rng, "poem", language, w=topic), poem)]


def joke(rng: random.Random, language: Language) -> list[Turn]:
    """A joke, sometimes another."""
    first, second = rng.sample(jokes(language), 2)
    turns = [(_ask(rng, "joke", language), first)]
    if rng.random() < 0.2:
        turns.append((_then(rng, "another", language), second))
    return turns


def riddle(rng: random.Random, language: Language) -> list[Turn]:
    """A riddle; often the user gives up or guesses right."""
    question, answer = rng.choice(riddles(language))
    zh = language == "zh"
    text = f"{question}猜猜它是什么？" if zh else f"{question} What is it?"
    turns = [(_ask(rng, "riddle", language), text)]
    roll = rng.random()
    if roll < 0.3:
        reply = f"答案是{answer}。" if zh else f"The answer is {answer}."
        turns.append((_then(rng, "give_up", language), reply))
    elif roll < 0.5:
        reply = f"答对了，就是{answer}！" if zh else f"That is right, it is {answer}!"
        turns.append((_then(rng, "guess", language, w=answer), reply))
    return turns


def story(rng: random.Random, language: Language) -> list[Turn]:
    """A story, sometimes with praise for it."""
    subject = rng.choice(subjects(language))
    if rng.random() < 0.25:
        ask = _ask(rng, "any_story", language)
    else:
        ask = _ask(rng, "story", language, w=spoken(rng, subject, language))
    turns = [(ask, story_about(rng, subject, language))]
    if rng.random() < 0.08:
        praise = asks()["nice_story"][language]
        turns.append((typed(rng, praise.ask(rng), language, opening=False), praise.reply(rng)))
    return turns


def name(rng: random.Random, language: Language) -> list[Turn]:
    """The user says a name; later the assistant still knows it."""
    name = rng.choice(children(language))
    zh = language == "zh"
    hello = f"你好，{name}！很高兴认识你。" if zh else f"Hello, {name}! Nice to meet you."
    turns = [(_ask(rng, "my_name", language, w=name), hello)]
    roll = rng.random()
    if roll < 0.5:
        if roll < 0.15:
            turns += small_talk(rng, language, opening=False)
        known = f"你叫{name}。" if zh else f"Your name is {name}."
        turns.append((_then(rng, "which_name", language), known))
    return turns


def like(rng: random.Random, language: Language) -> list[Turn]:
    """What the user likes, or whether the assistant likes it too."""
    thing_zh, nice_zh, thing_en, nice_en = rng.choice(_liked())
    if language == "zh":
        if rng.random() < 0.5:
            return [(_ask(rng, "i_like", "zh", w=thing_zh), f"真好！{thing_zh}{nice_zh}。")]
        return [(_ask(rng, "do_you_like", "zh", w=thing_zh), f"我喜欢，{thing_zh}{nice_zh}。")]
    if rng.random() < 0.5:
        return [
            (_ask(rng, "i_like", "en", w=thing_en), f"How nice! {thing_en.capitalize()} {nice_en}.")
        ]
    return [(_ask(rng, "do_you_like", "en", w=thing_en), f"Yes, {thing_en} {nice_en}.")]


@cache
def _small_talk_names() -> tuple[str, ...]:
    """Intent names to draw from, the frequent ones three times."""
    return tuple(name for name in smalltalk.talks() for _ in range(3 if name in _OFTEN else 1))


def small_talk(rng: random.Random, language: Language, *, opening: bool = True) -> list[Turn]:
    """One exchange with a fixed reply."""
    return [talk_turn(rng, rng.choice(_small_talk_names()), language, opening=opening)]


def talk_turn(rng: random.Random, name: str, language: Language, *, opening: bool = True) -> Turn:
    """One exchange of the small-talk intent `name`; see `typed` for `opening`."""
    talk = smalltalk.talks()[name][language]
    return typed(rng, talk.ask(rng), language, opening=opening), talk.reply(rng)
