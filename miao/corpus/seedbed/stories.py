"""Little stories with a hero, a problem and an ending that follows from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from miao.corpus.records import Document
from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.phrasing import split_words
from miao.corpus.seedbed.plots import plots

_CHILDREN: dict[Language, dict[str, tuple[str, ...]]] = {
    "zh": {
        "他": split_words(
            "小明 小刚 小华 小强 小军 小杰 小龙 小东 小亮 乐乐 明明 天天 阿宝 大伟 小宇"
        ),
        "她": split_words(
            "小红 小丽 小芳 小雨 小兰 小梅 小云 小燕 小雪 小静 朵朵 甜甜 佳佳 婷婷 小玉"
        ),
    },
    "en": {
        "he": split_words(
            "Tom Ben Sam Jack Leo Max Tim Dan Peter Oscar Henry Nick Adam Paul Eric Luke"
        ),
        "she": split_words(
            "Lily Anna Mia Lucy Rose Emma Amy Kate Ella Nina Sara Ruby Jane Grace Alice"
        ),
    },
}
# Everything a story can be about as its hero: kind in Chinese with its measure word, in English.
_ANIMALS = """
小猫 只 cat, 小狗 只 dog, 小兔子 只 rabbit, 小熊 只 bear, 小猴子 只 monkey, 小鸭子 只 duck,
小狐狸 只 fox, 小松鼠 只 squirrel, 小老鼠 只 mouse, 小羊 只 sheep, 小马 匹 pony, 小猪 头 pig,
小鹿 头 deer, 小象 头 elephant, 小老虎 只 tiger, 小狮子 只 lion, 小青蛙 只 frog,
小乌龟 只 turtle, 小刺猬 只 hedgehog, 小鸡 只 chick, 小鸟 只 bird, 小熊猫 只 panda,
小狼 只 wolf, 小牛 头 cow, 小企鹅 只 penguin, 小猫头鹰 只 owl, 小蚂蚁 只 ant,
小长颈鹿 只 giraffe, 小恐龙 只 dinosaur, 小龙 条 dragon
"""
_PEOPLE = """
小男孩 个 boy he, 小女孩 个 girl she, 公主 位 princess she, 王子 位 prince he,
机器人 个 robot he, 农夫 位 farmer he, 渔夫 位 fisherman he, 小仙女 位 fairy she,
国王 位 king he, 小画家 位 painter she, 小学生 个 student he, 船长 位 captain he
"""
_PETS_ZH = split_words("咪咪 豆豆 毛毛 球球 花花 点点 圆圆 皮皮 丁丁 果果 多多 乐乐 团团 可可 米米")
_PETS_EN = split_words(
    "Coco Momo Bibi Lulu Pip Toto Nono Kiki Dodo Bobo Tiki Fifi Lola Milo Toby Poppy"
)

_TOPICS = (
    ("友谊", "friendship", ("quarrel", "share", "race", "sick")),
    ("朋友", "friends", ("quarrel", "share", "race", "sick")),
    ("诚实", "honesty", ("broken", "found")),
    ("勇敢", "being brave", ("afraid",)),
    ("下雨天", "rain", ("rain",)),
    ("下雪", "snow", ("snow",)),
    ("雪人", "a snowman", ("snow",)),
    ("生日", "a birthday", ("gift",)),
    ("种子", "a seed", ("plant",)),
    ("分享", "sharing", ("share",)),
    ("合作", "working together", ("together",)),
    ("迷路", "getting lost", ("lost_way",)),
    ("坚持", "not giving up", ("learn",)),
    ("学习", "learning", ("learn",)),
    ("睡觉", "going to sleep", ("night",)),
    ("上学", "school", ("late",)),
    ("比赛", "a race", ("race",)),
    ("帮助别人", "helping others", ("rescue", "found", "sick")),
    ("妈妈", "mother", ("gift",)),
    ("大自然", "nature", ("plant", "rescue", "clean")),
)

_PLACES_ZH = split_words("公园 河边 海边 湖边 草地上 山坡上 树林里 小溪边 果园里 田野里")
_PLACES_EN = split_words(
    "the park,the river,the lake,the beach,the farm,the pond,the old bridge,the hill,the market",
    ",",
)
_WHEN_ZH = split_words("星期天 早上 下午 一天早上 有一天 一天下午 一个晴天 春天的一天 秋天的一天")
_WHEN_EN = split_words(
    "One day,On Sunday,One morning,One afternoon,One sunny day,One fine morning,One spring day", ","
)
_GROWN_UPS_ZH = split_words("妈妈 爸爸 爷爷 奶奶")
_GROWN_UPS_EN = split_words("Mother Father Grandma Grandpa")
_HOMES_ZH = ("森林里", "山脚下", "小河边", "大树下", "村子里", "草原上", "小山上", "湖边")
_HOMES_EN = split_words(
    "in the forest,by the river,under a big tree,in a small village,on a green hill,by the lake",
    ",",
)
_PRONOUNS_ZH = {"": "它", "he": "他", "she": "她"}
_PRONOUNS_EN = {"he": ("he", "him", "his", "He"), "she": ("she", "her", "her", "She")}
_PLURALS = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "deer": "deer"} | {
    "fisherman": "fishermen"
}
_FOR_CHILDREN = ("late",)


@cache
def _kinds() -> dict[Language, dict[str, tuple[str, str]]]:
    """Hero kinds by language: kind -> (measure word, pronoun; "" where he and she both do)."""
    kinds: dict[Language, dict[str, tuple[str, str]]] = {"zh": {}, "en": {}}
    for entry in (_ANIMALS + "," + _PEOPLE).replace("\n", " ").split(","):
        zh, measure, en, *pronoun = entry.split()
        kinds["zh"][zh] = (measure, _PRONOUNS_ZH["".join(pronoun)])
        kinds["en"][en] = ("", "".join(pronoun))
    return kinds


@cache
def _animals(language: Language) -> tuple[str, ...]:
    entries = [entry.split() for entry in _ANIMALS.replace("\n", " ").split(",")]
    return tuple(entry[0 if language == "zh" else 2] for entry in entries)


@cache
def topics(language: Language) -> dict[str, tuple[str, ...]]:
    """What a story can be about without naming its hero, and the plots that are about it."""
    return {(zh if language == "zh" else en): names for zh, en, names in _TOPICS}


@cache
def _plot_names(language: Language, children: bool) -> tuple[str, ...]:
    return tuple(name for name in plots(language) if children or name not in _FOR_CHILDREN)


@cache
def children(language: Language) -> tuple[str, ...]:
    """The names of all children who appear in stories and dialogues."""
    return tuple(name for group in _CHILDREN[language].values() for name in group)


@cache
def subjects(language: Language) -> tuple[str, ...]:
    """What the chat can be asked a story about: kinds of heroes, topics and children's names."""
    return (*_kinds()[language], *topics(language), *children(language))


def spoken(rng: random.Random, subject: str, language: Language) -> str:
    """A subject as it stands in a request: "a rabbit" or "rabbits", "小兔子" or "兔子"."""
    if subject not in _kinds()[language]:
        return subject
    if language == "zh":
        is_little = subject.startswith("小") and subject in _animals("zh")
        return subject[1:] if is_little and rng.random() < 0.3 else subject
    if rng.random() < 0.25:
        return _plural(subject)
    return f"{'an' if subject[0] in 'aeio' else 'a'} {subject}"


def _plural(kind: str) -> str:
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.endswith("y") and kind[-2] not in "aeo":
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith(("s", "x")) else f"{kind}s"


def _kind_named(subject: str, language: Language) -> str | None:
    """The kind of hero that a subject asks for, also as "cats" or as 猫."""
    kinds = _kinds()[language]
    if subject in kinds:
        return subject
    if language == "zh":
        return f"小{subject}" if f"小{subject}" in kinds else None
    return next((kind for kind in kinds if _plural(kind) == subject), None)


def documents(rng: random.Random, *, chinese_share: float = 0.6) -> Iterator[Document]:
    """Endless stories to pretrain on: somewhat more than half have a child as the hero."""
    while True:
        language: Language = "zh" if rng.random() < chinese_share else "en"
        if rng.random() < 0.55:
            text = _with_child(rng, language, None, None)
        else:
            text = _with_kind(rng, language, rng.choice(tuple(_kinds()[language])))
        yield Document(text, source="stories")


def story_about(rng: random.Random, subject: str, language: Language) -> str:
    """A story about a kind of hero ("小猫", "rabbit"), a topic ("友谊", "snow") or a named child.

    A subject that is neither a known kind nor a known topic is taken for the hero's name.
    """
    kind = _kind_named(subject, language)
    if kind is not None:
        return _with_kind(rng, language, kind)
    if subject in topics(language):
        return _with_child(rng, language, None, rng.choice(topics(language)[subject]))
    return _with_child(rng, language, subject, None)


def _with_child(rng: random.Random, language: Language, name: str | None, plot: str | None) -> str:
    by_pronoun = _CHILDREN[language]
    pronoun = rng.choice(tuple(by_pronoun))
    if name is None:
        name = rng.choice(by_pronoun[pronoun])
    else:
        pronoun = next((p for p, names in by_pronoun.items() if name in names), pronoun)
    friend = rng.choice(children(language))
    while friend == name:
        friend = rng.choice(children(language))
    plot = plot or rng.choice(_plot_names(language, True))
    return _tell(rng, language, plot, name, pronoun, friend)


def _with_kind(rng: random.Random, language: Language, kind: str) -> str:
    """A story whose hero is introduced as a kind of animal or person, often with a name."""
    measure, pronoun = _kinds()[language][kind]
    friend = rng.choice(_animals(language))
    while friend == kind:
        friend = rng.choice(_animals(language))
    plot = rng.choice(_plot_names(language, False))
    home = rng.choice(_HOMES_ZH if language == "zh" else _HOMES_EN)
    is_animal = kind in _animals(language)
    if language == "en":
        pronoun = pronoun or rng.choice(("he", "she"))
        name = rng.choice(_PETS_EN if is_animal else _CHILDREN["en"][pronoun])
        one = f"little {kind}" if is_animal else kind
        intro = rng.choice(
            (f"Once there was a {one} named {name} {home}.", f"A {one} named {name} lived {home}.")
        )
        return f"{intro} {_tell(rng, 'en', plot, name, pronoun, friend.capitalize())}"
    one = f"一{measure}{kind}"
    intro = rng.choice((f"从前有{one}，住在{home}", f"从前，{home}有{one}", f"从前有{one}"))
    name = kind
    if is_animal and rng.random() < 0.5:
        name = rng.choice(_PETS_ZH)
        intro += f"，名字叫{name}"
    return f"{intro}。{_tell(rng, 'zh', plot, name, pronoun, friend)}"


def _tell(
    rng: random.Random, language: Language, plot: str, hero: str, pronoun: str, friend: str
) -> str:
    scene = plots(language)[plot]
    if language == "zh":
        slots = {
            "p": pronoun,
            "t": rng.choice(_WHEN_ZH),
            "place": rng.choice(_PLACES_ZH),
            "adult": rng.choice(_GROWN_UPS_ZH),
        }
    else:
        subject, object_, possessive, capital = _PRONOUNS_EN[pronoun]
        slots = {"p": subject, "o": object_, "ps": possessive, "P": capital}
        slots["t"] = rng.choice(_WHEN_EN)
        slots["place"] = rng.choice(_PLACES_EN)
        slots["adult"] = rng.choice(_GROWN_UPS_EN)
    slots["h"], slots["f"] = hero, friend
    return scene.render(rng, slots, "" if language == "zh" else " ")
