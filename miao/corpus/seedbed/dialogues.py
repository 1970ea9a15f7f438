"""Little everyday dialogues between two people, and word lessons between teacher and pupil."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from miao.corpus.records import Document
from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.scenes import Scene, read_scenes
from miao.corpus.seedbed.skills import lesson
from miao.corpus.seedbed.stories import children

# {x} and {y} are two children, {adult} a grown-up; all other slots come from the tables.
# Nobody adds prices up here: sums are left to the arithmetic part of the corpus.
_ZH = """
= fruit_shop
{x}：(请问，|你好，)(苹果|香蕉|西瓜|葡萄)多少钱一斤？
店员：{a}块钱一斤，(今天刚到的|很新鲜|很甜)。
{x}：(好的，|那|)我要{b}斤。
店员：给你，(还要别的吗|还需要别的吗)？
{x}：(不用了，谢谢|没有了，谢谢)！
: a b
- 三/四/五/六/七/八 | 两/三/四/五
= clothes_shop
{x}：这{a}多少钱？
店员：{b}块。(这个颜色很适合你。|今天有新的样子。)
{x}：(有点贵|太贵了)，(可以便宜一点吗|能便宜一点吗)？
店员：那就{c}块吧。
{x}：好，我买了。
: a
- 件衣服/条裤子/条裙子/双鞋/顶帽子/条围巾
: b c
- 一百/九十/九十五 | 八十/八十五
- 六十/五十五 | 五十/四十五
- 三十/三十五 | 二十五/二十
= way
{x}：(请问|你好，请问){a}怎么走？
路人：(一直往前走|先往前走)，到{b}(往左拐|往右拐)就到了。
{x}：(远不远|走路要多久)？
路人：(不远，走|)(五|十|十五)分钟就到了。
{x}：(太谢谢你了|谢谢你)！
路人：不客气。
: a b
- 医院/学校/图书馆/公园/火车站/超市/银行/博物馆 | 红绿灯/第一个路口/第二个路口/桥边/大树那里
= weather
{x}：今天天气(真好|真不错)，我们去{a}吧！
{y}：(好呀|好主意)，(要带什么|带点什么)呢？
{x}：带上{b}就行。
{y}：(那我们|)(九点|十点|下午两点|下午三点)在门口见。
: a b
- 公园/爬山/河边/海边 | 水和面包/帽子和水/一些水果
- 放风筝 | 风筝和水
- 踢足球 | 足球和水
- 画画 | 纸和彩笔
= rain
{y}：外面下(雨|大雨)了，你带伞了吗？
{x}：(没有|我忘了带)，怎么办？
{y}：(没关系|别着急)，(我们一起用我的伞|我有两把伞，借给你一把)。
{x}：(太好了，|)谢谢你！
= school
老师：{x}，(今天|)你怎么迟到了？
{x}：(对不起，|)老师，{a}。
老师：下次{b}。
{x}：(好的，|)我记住了。
: a b
- 我起晚了 | 要早点睡/要定好闹钟
- 我没赶上车 | 要早点出门
- 我忘了带书，又回家去拿了 | 晚上就要收好书包
- 路上帮一位老奶奶找路了 | 可以先打个电话，不过你做得对
= homework
{x}：你的作业写完了吗？
{y}：还没有，(这道题|有一道题)(太难了|我不会)。
{x}：(我来看看|别急，我教你)，{a}。
{y}：(原来是这样|我明白了)，(谢谢你|你讲得真清楚)！
: a
- 先读清楚题目/先画一张图，就清楚了/我们一步一步来/先想想它问的是什么
= breakfast
{adult}：{x}，早饭想吃什么？
{x}：我想吃{a}。
{adult}：好，再喝一杯{b}吧。
{x}：(谢谢|好的，谢谢){adult}！
: a b
- 鸡蛋和面包/包子/面条/饺子/玉米/粥 | 牛奶/豆浆/温水/果汁
= dinner
{x}：(好香啊|真香)！(今天吃什么|晚饭吃什么)？
{adult}：(今天|晚饭)吃{a}。
{x}：(太好了|真好)，我最爱吃{a}了！
{adult}：(先去洗手|快去洗手)，马上就好。
: a
- 鱼/饺子/面条/西红柿炒鸡蛋/土豆/豆腐/白菜
= restaurant
服务员：(您好|你好)，(请问想吃点什么|请问要点什么)？
{x}：我要一碗{a}。
服务员：好的，要喝点什么吗？
{x}：(来|请给我)一杯{b}。
服务员：好的，请稍等。
: a b
- 面条/米饭/牛肉面/饺子/汤 | 茶/水/果汁/豆浆
= library
{x}：(老师好|你好)，我想借一本关于{a}的书。
老师：(在那边的书架上|在二楼|在窗边的书架上)。
{x}：可以借多久？
老师：(两个星期|一个月|十天)，(记得按时还|请爱护图书)。
{x}：好的，谢谢老师。
: a
- 动物/星星/大海/植物/恐龙/历史/画画
= doctor
医生：你哪里不舒服？
{x}：我{a}，(昨天开始的|已经两天了)。
医生：(别担心，|没关系，){b}，(很快就会好|过几天就好了)。
{x}：谢谢医生。
: a b
- 感冒了/发烧了/嗓子疼/头疼 | 多喝水，多休息/吃点药，好好睡一觉
- 肚子疼 | 这两天吃得清淡一点/别吃太凉的东西
- 牙疼 | 少吃糖，早晚要刷牙
- 眼睛疼 | 少看手机，多看看远处
= hobby
{x}：你周末喜欢做什么？
{y}：我喜欢{a}，你呢？
{x}：我喜欢{b}。
{y}：(下次我们一起玩吧|听起来真有意思|你可以教教我吗)！
: a b
- 画画/踢足球/看书/唱歌 | 跑步/做饭/爬山/听音乐
- 跑步/做饭/爬山/听音乐 | 画画/下棋/看书/跳绳
= birthday
{x}：{y}，生日快乐！这是送给你的礼物。
{y}：(哇，|)是{a}！(我太喜欢了|真漂亮)，谢谢你！
{x}：(你喜欢就好|快来吹蜡烛吧)。
: a
- 一本书/一顶帽子/一盒彩笔/一条围巾/一个风筝/一只布娃娃
= lost_thing
{x}：{y}，你看见我的{a}了吗？
{y}：没有，你(最后一次|上次)在哪里用的？
{x}：(好像|应该)是在{b}。
{y}：(我们一起去找找|走，去那里看看)。
{x}：找到了！(就在桌子下面|原来掉在椅子后面了)。
: a b
- 铅笔/书/本子/尺子 | 教室里/图书馆里
- 钥匙/手机/眼镜 | 客厅里/厨房里
= phone
{x}：喂，你好，请问{y}在家吗？
{adult}：{y}不在家，(去买东西了|去上课了|去公园了)。
{x}：那{y}什么时候回来？
{adult}：(大概|)(五点|六点|晚上|吃饭前)回来。
{x}：好的，我(晚点|到时候)再打来，谢谢！
= borrow
{x}：能借我(用一下|)你的{a}吗？
{y}：(可以|当然可以)，给你。
{x}：谢谢，我(下课|明天|用完)就还给你。
{y}：(不急|没关系)，慢慢用。
: a
- 铅笔/橡皮/尺子/词典/彩笔/雨伞
= new_friend
{x}：你好，我叫{x}，你叫什么名字？
{y}：我叫{y}，(我是新来的|我刚搬到这里)。
{x}：(欢迎你|很高兴认识你)！(我们一起玩吧|我带你到处看看)。
{y}：(太好了|好呀)，谢谢你！
"""

_EN = """
= fruit_shop
{x}: (Excuse me, how|How) much are the {a}?
Clerk: {b} dollars a bag. They are (very fresh|very sweet) today.
{x}: (Good.|All right.) I will take {c} bags, please.
Clerk: Here you are. (Anything else|Do you need anything else)?
{x}: No, thank you.
: a b c
- apples/bananas/oranges/grapes/pears | Two/Three/Four/Five | two/three/four
= clothes_shop
{x}: How much is this {a}?
Clerk: It is {b} dollars.
{x}: That is (too much|a little expensive). Can I have it for less?
Clerk: (All right|Well), {c} dollars for you.
{x}: (Thank you|Good). I will take it.
: a
- coat/hat/shirt/skirt/scarf/bag
: b c
- thirty/thirty-five | twenty-five/twenty
- fifty/fifty-five | forty-five/forty
- eighty/ninety | seventy/seventy-five
= way
{x}: Excuse me, (where is|how do I get to) the {a}?
Man: Go straight and turn (left|right) at the {b}.
{x}: Is it far from here?
Man: No, it is only (five|ten|fifteen) minutes on foot.
{x}: Thank you very much!
Man: You are welcome.
: a b
- hospital/school/library/park/station/market/bank/museum | traffic light/first street/second street/bridge/big tree
= weather
{x}: The weather is (so nice|lovely) today. Let us {a}!
{y}: (Good idea|I would love to)! What should I bring?
{x}: Just bring {b}.
{y}: (All right|OK), see you at (nine|ten|two|three) by the gate.
: a b
- go to the park/climb the hill/walk by the river/go to the beach | some water and bread/a hat and some water/some fruit
- fly a kite | your kite and some water
- play football | a ball and some water
- draw outside | paper and a pencil
= rain
{y}: It is raining outside. Do you have an umbrella?
{x}: No, I (forgot it|left it at home). What can I do?
{y}: (Do not worry|That is all right). (We can share mine|I have two, so take one).
{x}: (How kind of you|That is great). Thank you!
= school
Teacher: {x}, why are you late today?
{x}: I am sorry. {a}.
Teacher: (Next time|Please) {b}.
{x}: Yes, I will (remember that|do that).
: a b
- I got up late | go to bed early/set an alarm clock
- I missed the bus | leave home a little earlier
- I forgot my book and went home for it | pack your bag in the evening
= homework
{x}: Have you done your homework?
{y}: Not yet. (One question|This question) is too hard for me.
{x}: Let me see. {a}.
{y}: (Now I understand|I see). Thank you!
: a
- Read the question slowly first/Let us draw a picture of it/Let us go step by step/First think about what it asks
= breakfast
{adult}: {x}, what would you like for breakfast?
{x}: I would like {a}, please.
{adult}: (All right|Sure). Drink some {b} too.
{x}: Thank you, {adult}!
: a b
- eggs and bread/noodles/an egg/some toast/some rice/corn | milk/water/juice/tea
= dinner
{x}: It smells (so good|wonderful)! What is for dinner?
{adult}: We are having {a} tonight.
{x}: (Great|Wonderful)! I love {a}.
{adult}: (Wash your hands first|Go and wash your hands). It is almost ready.
: a
- fish/soup/noodles/chicken/potatoes/rice and beans
= restaurant
Waiter: Good evening. What would you like to eat?
{x}: I would like {a}, please.
Waiter: Would you like something to drink?
{x}: (A glass|A cup) of {b}, please.
Waiter: (Very well|Sure). Just a moment.
: a b
- a bowl of noodles/a bowl of soup/chicken and rice/fish and potatoes | water/milk/tea/juice
= library
{x}: Hello. I am looking for a book about {a}.
Teacher: It is (on that shelf|on the second floor|by the window).
{x}: How long can I keep it?
Teacher: (Two weeks|One month|Ten days). Please (take good care of it|bring it back in time).
{x}: I will. Thank you!
: a
- animals/stars/the sea/plants/dinosaurs/history/painting
= doctor
Doctor: What is wrong?
{x}: I have a {a}. It started (yesterday|two days ago).
Doctor: Do not worry. {b}.
{x}: Thank you, doctor.
: a b
- cold/fever/headache/sore throat | Drink water and rest well/Take this and sleep well
- stomachache | Eat only light food for two days
- toothache | Eat less candy and brush your teeth
= hobby
{x}: What do you like to do on weekends?
{y}: I like to {a}. And you?
{x}: I like to {b}.
{y}: (That sounds fun|Can you teach me|Let us do it together next time)!
: a b
- draw/play football/read/sing | run/cook/climb hills/listen to music
- run/cook/climb hills/listen to music | draw/play chess/read/skate
= birthday
{x}: Happy birthday, {y}! This is for you.
{y}: Oh, {a}! (I love it|It is beautiful). Thank you!
{x}: I am glad you like it. (Come and cut the cake|Now make a wish)!
: a
- a book/a hat/a box of paints/a scarf/a kite/a toy boat
= lost_thing
{x}: {y}, have you seen my {a}?
{y}: No. Where did you last (use|see) it?
{x}: (I think|Maybe) it was in the {b}.
{y}: Let us go and look there.
{x}: I found it! It was (under the table|behind the chair).
: a b
- pencil/book/ruler | classroom/library
- key/phone/watch | kitchen/living room
= phone
{x}: Hello, is {y} at home?
{adult}: No, {y} is (at the shop|at school|in the park).
{x}: When will {y} be back?
{adult}: (At five|At six|Before dinner|In the evening).
{x}: All right, I will call again. Thank you!
= borrow
{x}: May I use your {a}?
{y}: (Of course|Sure). Here you are.
{x}: Thank you. I will give it back (after class|tomorrow|soon).
{y}: (No hurry|That is fine). Take your time.
: a
- pencil/ruler/pen/dictionary/umbrella/brush
= new_friend
{x}: Hello, I am {x}. What is your name?
{y}: My name is {y}. I (am new here|just moved here).
{x}: (Welcome|Nice to meet you)! (Let us play together|I will show you around).
{y}: (Great|That is kind of you). Thank you!
"""

_LESSON_SHARE = 0.3
_GROWN_UPS: dict[Language, tuple[str, ...]] = {
    "zh": ("妈妈", "爸爸", "奶奶", "爷爷"),
    "en": ("Mother", "Father", "Grandma", "Grandpa"),
}


@cache
def _scenes(language: Language) -> tuple[Scene, ...]:
    return tuple(read_scenes(_ZH if language == "zh" else _EN).values())


def documents(rng: random.Random, *, chinese_share: float = 0.6) -> Iterator[Document]:
    """Endless dialogues of two to six lines, each line beginning with its speaker."""
    while True:
        language: Language = "zh" if rng.random() < chinese_share else "en"
        if rng.random() < _LESSON_SHARE:
            yield Document(_lesson(rng, language), source="dialogues")
            continue
        first, second = rng.sample(children(language), 2)
        slots = {"x": first, "y": second, "adult": rng.choice(_GROWN_UPS[language])}
        text = rng.choice(_scenes(language)).render(rng, slots, "\n")
        yield Document(text, source="dialogues")


def _lesson(rng: random.Random, language: Language) -> str:
    """One to three questions about words, in the very sentences in which the chat answers them."""
    teacher, colon = ("老师", "：") if language == "zh" else ("Teacher", ": ")
    pupil = rng.choice(children(language))
    return "\n".join(
        f"{teacher}{colon}{ask}\n{pupil}{colon}{reply}"
        for ask, reply in lesson(rng, language, rng.randint(1, 3))
    )
