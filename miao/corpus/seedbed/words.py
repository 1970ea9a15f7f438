"""Word tables: translations, opposites, sentences with a word, lists of things."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.phrasing import split_words


class Word(NamedTuple):
    """A word in both languages, and a sentence with it in each."""

    zh: str
    en: str
    sentence_zh: str
    sentence_en: str


# Chinese | English | a sentence with each
_WORDS = """
苹果 | apple | 我每天吃一个苹果。 | I eat an apple every day.
香蕉 | banana | 猴子喜欢吃香蕉。 | The monkey likes to eat a banana.
葡萄 | grape | 紫色的葡萄很甜。 | This purple grape is sweet.
西瓜 | watermelon | 夏天吃西瓜真凉快。 | A watermelon is nice in summer.
橘子 | orange | 妈妈买了一袋橘子。 | Mother gave me an orange.
水果 | fruit | 多吃水果身体好。 | Fruit is good for you.
面包 | bread | 早上我吃面包。 | I eat bread in the morning.
米饭 | rice | 我吃了一碗米饭。 | I ate a bowl of rice.
鸡蛋 | egg | 桌上有一个鸡蛋。 | There is an egg on the table.
牛奶 | milk | 睡前喝一杯牛奶。 | Drink some milk before bed.
水 | water | 请给我一杯水。 | Please give me some water.
茶 | tea | 爷爷喜欢喝茶。 | Grandpa likes tea.
蛋糕 | cake | 生日那天我吃了蛋糕。 | We had cake on my birthday.
鱼 | fish | 河里有一条鱼。 | There is a fish in the river.
猫 | cat | 猫在沙发上睡觉。 | The cat sleeps on the sofa.
狗 | dog | 狗在院子里跑。 | The dog runs in the yard.
鸟 | bird | 鸟在树上唱歌。 | A bird sings in the tree.
马 | horse | 马跑得很快。 | The horse runs fast.
牛 | cow | 牛在山坡上吃草。 | The cow eats grass on the hill.
羊 | sheep | 羊的毛又白又软。 | The sheep has soft white wool.
猪 | pig | 猪在泥里打滚。 | The pig rolls in the mud.
兔子 | rabbit | 兔子爱吃胡萝卜。 | The rabbit likes carrots.
老虎 | tiger | 老虎住在山林里。 | The tiger lives in the forest.
大象 | elephant | 大象的鼻子很长。 | The elephant has a long nose.
猴子 | monkey | 猴子会爬树。 | The monkey can climb trees.
太阳 | sun | 太阳从东方升起。 | The sun rises in the east.
月亮 | moon | 今晚的月亮很圆。 | The moon is round tonight.
星星 | star | 天上的星星一闪一闪。 | I can see a star in the sky.
天空 | sky | 天空蓝蓝的。 | The sky is blue.
雨 | rain | 外面下着雨。 | I walk home in the rain.
雪 | snow | 雪落在屋顶上。 | Snow falls on the roof.
风 | wind | 风吹动了树叶。 | The wind moves the leaves.
山 | mountain | 我们去爬山。 | We climb the mountain.
河 | river | 河里的水很清。 | The river is clear.
海 | sea | 海又大又蓝。 | The sea is big and blue.
花 | flower | 花开得很美。 | The flower is beautiful.
树 | tree | 门前有一棵树。 | There is a tree by the door.
草 | grass | 草地上有露水。 | The grass is wet.
书 | book | 我在看一本书。 | I am reading a book.
笔 | pen | 我用笔写字。 | I write with a pen.
桌子 | table | 书放在桌子上。 | The book is on the table.
椅子 | chair | 请坐在椅子上。 | Please sit on the chair.
门 | door | 请把门关上。 | Please close the door.
窗户 | window | 打开窗户透透气。 | Open the window for fresh air.
房子 | house | 山脚下有一座房子。 | There is a house by the hill.
床 | bed | 我躺在床上。 | I lie on the bed.
灯 | lamp | 晚上要开灯。 | The lamp is on at night.
汽车 | car | 路上有一辆汽车。 | There is a car on the road.
火车 | train | 火车开得很快。 | The train is fast.
飞机 | plane | 飞机在天上飞。 | The plane flies in the sky.
船 | boat | 船在河上走。 | The boat is on the river.
衣服 | clothes | 我洗了衣服。 | I washed my clothes.
帽子 | hat | 她戴着一顶帽子。 | She wears a hat.
鞋 | shoe | 我的鞋湿了。 | My shoe is wet.
妈妈 | mother | 妈妈在做饭。 | My mother is cooking.
爸爸 | father | 爸爸在看报。 | My father reads the paper.
哥哥 | brother | 哥哥比我高。 | My brother is tall.
姐姐 | sister | 姐姐在唱歌。 | My sister is singing.
朋友 | friend | 他是我的好朋友。 | He is my good friend.
老师 | teacher | 老师在教室里。 | The teacher is in the classroom.
学生 | student | 我是一个学生。 | I am a student.
医生 | doctor | 医生给我看病。 | The doctor helps me.
学校 | school | 我走路去学校。 | I walk to school.
家 | home | 我想回家。 | I want to go home.
手 | hand | 饭前要洗手。 | Wash your hand before dinner.
眼睛 | eye | 她的眼睛很亮。 | A cat has a bright eye.
红色 | red | 苹果是红色的。 | The apple is red.
蓝色 | blue | 大海是蓝色的。 | The sea is blue.
绿色 | green | 小草是绿色的。 | The grass is green.
白色 | white | 雪是白色的。 | The snow is white.
黑色 | black | 夜空是黑色的。 | The night is black.
今天 | today | 今天我很开心。 | I am happy today.
明天 | tomorrow | 明天我去公园。 | I will go to the park tomorrow.
春天 | spring | 春天花都开了。 | Flowers open in spring.
夏天 | summer | 夏天可以游泳。 | I swim in summer.
秋天 | autumn | 秋天树叶黄了。 | Leaves turn yellow in autumn.
冬天 | winter | 冬天会下雪。 | It snows in winter.
早上 | morning | 早上空气很好。 | The air is fresh in the morning.
晚上 | night | 晚上星星出来了。 | Stars come out at night.
音乐 | music | 我喜欢听音乐。 | I like music.
电影 | movie | 我们去看电影。 | We watch a movie.
电话 | phone | 我给奶奶打电话。 | My phone is on the desk.
谢谢 | thank you | 我对老师说谢谢。 | I say thank you to my teacher.
再见 | goodbye | 我和朋友说再见。 | I say goodbye to my friend.
爱 | love | 我爱我的家。 | I love my family.
"""

# The first opposite of a word is the one that is answered; pairs are asked in both directions.
_OPPOSITES_ZH = """
大:小 多:少 高:低 长:短 快:慢 冷:热 黑:白 上:下 左:右 前:后 里:外 新:旧 好:坏 远:近 轻:重 胖:瘦
早:晚 厚:薄 来:去 买:卖 真:假 甜:苦 软:硬 干:湿 深:浅 粗:细 宽:窄 强:弱 哭:笑 高兴:难过
美丽:丑陋 聪明:愚笨 勤劳:懒惰 干净:肮脏 安静:吵闹 容易:困难 勇敢:胆小 成功:失败 开始:结束
安全:危险 简单:复杂 骄傲:谦虚 热闹:冷清 喜欢:讨厌 上升:下降 打开:关闭 增加:减少 白天:黑夜 朋友:敌人
"""
_OPPOSITES_EN = """
big:small hot:cold up:down long:short tall:short fast:slow early:late happy:sad new:old young:old
good:bad hard:soft heavy:light day:night open:closed full:empty clean:dirty wet:dry rich:poor
strong:weak thick:thin wide:narrow deep:shallow near:far loud:quiet left:right true:false high:low
push:pull buy:sell love:hate easy:difficult black:white safe:dangerous sweet:bitter in:out yes:no
win:lose begin:end remember:forget first:last bright:dark friend:enemy laugh:cry before:after
above:below inside:outside always:never start:stop
"""

# Each list is said in this order, as far as the number asked for.
_LISTS = """
水果 | 种 | 苹果 香蕉 葡萄 西瓜 橘子 | fruits | apples bananas grapes oranges pears
蔬菜 | 种 | 白菜 萝卜 土豆 黄瓜 西红柿 | vegetables | carrots potatoes onions tomatoes beans
动物 | 种 | 猫 狗 马 兔子 老虎 | animals | cats dogs horses rabbits tigers
颜色 | 种 | 红色 黄色 蓝色 绿色 白色 | colors | red yellow blue green white
运动 | 种 | 跑步 游泳 篮球 足球 跳绳 | sports | running swimming football tennis skating
饮料 | 种 | 水 茶 牛奶 果汁 咖啡 | drinks | water tea milk juice coffee
交通工具 | 种 | 汽车 火车 飞机 轮船 自行车 | vehicles | cars trains planes ships bicycles
花 | 种 | 玫瑰 菊花 荷花 梅花 桃花 | flowers | roses lilies tulips daisies sunflowers
鸟 | 种 | 麻雀 燕子 鸽子 老鹰 孔雀 | birds | sparrows swallows doves eagles owls
家具 | 种 | 桌子 椅子 床 柜子 沙发 | furniture | tables chairs beds desks sofas
文具 | 种 | 铅笔 钢笔 橡皮 尺子 本子 | school things | pencils pens rulers books erasers
乐器 | 种 | 钢琴 吉他 笛子 二胡 小提琴 | instruments | pianos guitars flutes drums violins
职业 | 种 | 老师 医生 农民 司机 厨师 | jobs | teachers doctors farmers drivers cooks
家人 | 位 | 爸爸 妈妈 爷爷 奶奶 哥哥 | family members | father mother brother sister grandmother
季节 | 个 | 春天 夏天 秋天 冬天 | seasons | spring summer autumn winter
食物 | 种 | 米饭 面条 饺子 面包 鸡蛋 | foods | rice noodles bread eggs soup
国家 | 个 | 中国 法国 日本 美国 英国 | countries | China France Japan America England
城市 | 个 | 北京 上海 巴黎 东京 纽约 | cities | Beijing Shanghai Paris Tokyo London
昆虫 | 种 | 蚂蚁 蜜蜂 蝴蝶 蜻蜓 蚊子 | insects | ants bees butterflies flies beetles
衣服 | 种 | 上衣 裤子 裙子 外套 毛衣 | clothes | shirts coats dresses skirts socks
"""

NUMBERS_ZH = tuple("一二三四五六七八九十")
NUMBERS_EN = split_words("one two three four five six seven eight nine ten")


class Group(NamedTuple):
    """A kind of thing with its members in the order in which they are named."""

    zh: str
    measure: str
    members_zh: tuple[str, ...]
    en: str
    members_en: tuple[str, ...]


@cache
def words() -> tuple[Word, ...]:
    """The words that the assistant can translate and use in a sentence."""
    return tuple(
        Word(*(cell.strip() for cell in line.split("|"))) for line in _WORDS.strip().splitlines()
    )


@cache
def opposites(language: Language) -> dict[str, str]:
    """The opposite of every word that the assistant knows one for."""
    table = _OPPOSITES_ZH if language == "zh" else _OPPOSITES_EN
    opposite: dict[str, str] = {}
    for pair in table.split():
        word, other = pair.split(":")
        opposite.setdefault(word, other)
        opposite.setdefault(other, word)
    return opposite


@cache
def groups() -> tuple[Group, ...]:
    """The kinds of things that the assistant can list."""
    read = []
    for line in _LISTS.strip().splitlines():
        zh, measure, members_zh, en, members_en = (cell.strip() for cell in line.split("|"))
        read.append(Group(zh, measure, tuple(members_zh.split()), en, tuple(members_en.split())))
    return tuple(read)
