"""Small poems, jokes and riddles to give on request."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from miao.corpus.seedbed.persona import Language

# Topic, then four lines.
_POEMS_ZH = """
春天 | 春风吹，小草绿，/花儿开在小河西。/燕子飞回旧屋檐，/带来一场毛毛雨。
月亮 | 月亮弯，像小船，/停在高高云海边。/我想上去坐一坐，/看看星星眨着眼。
雪 | 雪花飘，轻又轻，/落在屋顶没声音。/早上推开小木门，/世界白得亮晶晶。
大海 | 大海大，大海蓝，/浪花跑到沙滩边。/送我一个小贝壳，/转过身去又跑远。
妈妈 | 妈妈的手暖又轻，/晚上为我点亮灯。/我把月亮画成花，/送给妈妈表真情。
小猫 | 小猫咪，毛茸茸，/睡在窗前阳光中。/梦里追着花蝴蝶，/尾巴轻轻动一动。
雨 | 小雨点，滴答答，/落在伞上开水花。/青蛙听了呱呱唱，/小树喝饱要长大。
星星 | 星星亮，挂天上，/好像小灯一行行。/要是夜里迷了路，/抬头看看就不慌。
太阳 | 太阳公公起得早，/爬上山坡对我笑。/花儿草儿伸个腰，/新的一天真美好。
小树 | 小小树，站路旁，/风吹雨打不慌张。/一年一年慢慢长，/长成一把大伞样。
"""
_POEMS_EN = """
spring | Spring is here, the grass is green,/The softest rain that I have seen./A little bird comes home to sing,/And every flower calls it spring.
the moon | The moon is like a silver boat,/On clouds of grey it likes to float./It sails all night, so soft and slow,/And lights the sleeping fields below.
snow | Soft and white, without a sound,/The snow comes down and hides the ground./The roof, the tree, the garden wall,/The quiet snow has dressed them all.
the sea | The sea is big, the sea is blue,/It brings a little shell to you./The waves run up, the waves run back,/And wash away our sandy track.
mother | My mother's hands are warm and light,/They tuck me gently in at night./I draw a flower, red and blue,/And write: dear mother, I love you.
a cat | My little cat is soft and small,/She sleeps beside the sunny wall./She dreams of butterflies and mice,/And thinks a bowl of milk is nice.
rain | Drip and drop, the rain comes down,/It washes every street in town./The frogs all sing, the flowers drink,/The evening sky is turning pink.
the stars | Little stars, so far, so bright,/You are the lamps that guide the night./When I am lost, I look at you,/And then I know what I should do.
the sun | The sun gets up behind the hill,/The fields are wet, the air is still./He paints the sky with red and gold,/A brand-new day for young and old.
a tree | A little tree stands by the way,/It grows a little every day./One day its branches, wide and tall,/Will make a shade to cool us all.
"""

_JOKES_ZH = """
老师问：“你的作业呢？”小明说：“它还在睡觉，我没忍心叫醒它。”
蜗牛对乌龟说：“你跑慢一点，我头晕。”
小猫照着镜子说：“咦，是谁在学我穿毛衣？”
爸爸问：“你为什么把闹钟放进冰箱？”儿子说：“我想凉快一会儿再起床。”
小熊去买鞋，店员问：“要几只？”小熊说：“四只，我不用手套。”
小红说：“我昨天睡了十个小时。”小丽说：“我更厉害，上课也能睡。”
医生说：“胡萝卜对眼睛好。”小兔子说：“怪不得我从来不戴眼镜。”
妈妈问：“袜子怎么穿在手上？”小刚说：“脚已经不冷了。”
"""
_JOKES_EN = """
The teacher asked, "Where is your homework?" Tom said, "It was asleep, and I did not want to wake it."
A snail said to a turtle, "Please slow down. I feel dizzy."
A cat looked in the mirror and said, "Who is that, and why does she wear my coat?"
Father asked, "Why is the clock in the fridge?" Ben said, "I want to have a cool time."
A bear went to buy shoes. "Two?" asked the clerk. "Four," said the bear. "I do not need gloves."
Lily said, "I slept ten hours last night." Anna said, "I do better. I also sleep in class."
The doctor said, "Carrots are good for the eyes." The rabbit said, "So that is why I need no glasses."
Mother asked, "Why is your sock on your hand?" Sam said, "My foot is already warm."
"""

# The riddle, then its answer as it stands in a sentence.
_RIDDLES_ZH = """
你走它也走，你停它也停，天黑就不见。 | 影子
下雨的时候开花，天晴的时候收起来。 | 雨伞
有脸没有嘴，从早到晚滴答走。 | 钟
有时像圆盘，有时像小船，夜里挂在天边。 | 月亮
没有手也没有脚，一生都在水里游。 | 鱼
没有嘴，却会告诉你很多事，要一页一页翻开它。 | 书
像花不是花，冬天飘下来，到了手里就化。 | 雪
你笑它也笑，你哭它也哭，就是不说话。 | 镜子
看不见，摸不着，树叶见了它就点头。 | 风
白天睡觉，晚上眨眼，多得数不清。 | 星星
"""
_RIDDLES_EN = """
It walks when you walk and stops when you stop, but it goes away in the dark. | a shadow
It opens in the rain and closes in the sun. | an umbrella
It has a face but no mouth, and it ticks all day. | a clock
Sometimes it is a plate and sometimes a boat, and it hangs in the night sky. | the moon
It has no hands and no feet, and it swims all its life. | a fish
It has no mouth, but it tells you many things, page by page. | a book
It looks like a white flower, falls in winter, and melts in your hand. | snow
It smiles when you smile and cries when you cry, but it never says a word. | a mirror
You cannot see it or hold it, but the leaves nod when it comes. | the wind
They sleep by day and shine by night, and nobody can count them. | the stars
"""


class Riddle(NamedTuple):
    question: str
    answer: str


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]


@cache
def poems(language: Language) -> dict[str, str]:
    """Poems of four lines by their topic."""
    rows = _rows(_POEMS_ZH if language == "zh" else _POEMS_EN)
    return {topic: poem.replace("/", "\n") for topic, poem in rows}


@cache
def jokes(language: Language) -> tuple[str, ...]:
    """Jokes of one or two sentences."""
    return tuple(row for (row,) in _rows(_JOKES_ZH if language == "zh" else _JOKES_EN))


@cache
def riddles(language: Language) -> tuple[Riddle, ...]:
    """Riddles and their answers."""
    return tuple(Riddle(*row) for row in _rows(_RIDDLES_ZH if language == "zh" else _RIDDLES_EN))
