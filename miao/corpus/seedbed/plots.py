"""The plots of the stories: a problem, its cause, what is done about it, and what follows.

Slots: {t} when, {h} the hero, {p} the pronoun (in English {p} he, {o} him, {ps} his, {P} He),
{f} a friend, {place} where, {adult} a grown-up; all others are filled from the plot's tables.
"""

from __future__ import annotations

from functools import cache

from miao.corpus.seedbed.persona import Language
from miao.corpus.seedbed.scenes import Scene, read_scenes

_ZH = """
= lost
{t}，{h}(带着|拿着){a}(去|来到){place}玩。
{b}，{a}不见了。
{h}(很着急|急得快哭了|心里很难过)，(到处找|找来找去也没找到)。
{f}(看见了，|知道了，|走过来)(说：“别急，我帮你找。”|说：“我们一起找吧。”)
(最后|后来|不一会儿)，{f}在{c}(找到了|看见了){a}。
{h}(高兴地|笑着)说：“谢谢你，{f}！”
: a b c
- 红气球/草帽/蓝围巾/风车/一张画 | 忽然，一阵大风吹来/没想到，一阵风吹过 | 树枝上/草丛里/屋顶上/花丛里
- 硬币/小铃铛/玻璃球/小钥匙/贝壳 | 没想到，口袋破了一个洞/走着走着，口袋破了 | 小路上/台阶上/小桥上/门口
- 图画书/小铲子/水壶/布娃娃/饭盒 | {h}只顾着玩/{h}跑得太快 | 长椅下面/大树后面/石头旁边/沙堆里

= share
{t}，{h}带着{a}来到{place}。
{h}看见{f}(一个人坐着|坐在树下)，(很不开心|低着头，不说话)。
原来，{f}{b}，(肚子饿极了|肚子咕咕叫)。
{h}(想了想|笑了笑)，把{a}分了一半给{f}。
{f}(吃得很香|大口大口地吃)，(又笑了|脸上有了笑容)。
(第二天，{f}送给{h}{c}。|从此，{h}和{f}成了好朋友。|{h}说：“一起吃，味道更香。”)
: a b c
- 面包/饼干/苹果/蛋糕/玉米/月饼/一大块西瓜 | 忘了带午饭/从早上起什么也没吃/把饭盒掉进了水里 | 一朵花/一个贝壳/一张画/一片红叶/一块漂亮的石头

= rain
{t}，{h}(去|来到){place}{a}。
(忽然|没过多久)，天上来了乌云，下起了(大雨|雨)。
{p}没有带伞，(全身都湿了|只好躲在树下|冷得直发抖)。
{b}
{c}
雨停了，天上出现了一道(美丽的|弯弯的|)彩虹。
: a
- 玩/采花/捡树叶/放风筝/画画/散步
: b c
- {f}打着伞走过来，说：“我们一起走吧。” | {h}和{f}挤在一把伞下，慢慢走回家。
- {f}在屋里招手，说：“快进来躲雨。” | {h}在{f}家里喝了一杯热茶，身上暖暖的。
- {f}送来一片大叶子，说：“用它挡雨吧。” | {h}举着大叶子，跑回了家。

= afraid
{h}(一直|从小就)(很怕|害怕){a}。
{b}。{h}(吓得不敢动|不敢出声|心里咚咚跳)。
{f}(拉着|握住){h}的手，说：“别怕，{c}。”
{h}(深吸一口气|点点头|鼓起勇气)，{d}。
(原来|{p}发现)，{a}(没有那么可怕|一点也不可怕)。
(从此|后来)，{h}再也不怕{a}了。
: a b c d
- 黑 | 一天晚上，屋里停了电/夜里，屋里一点光也没有 | 黑夜里还有星星/我们来数星星 | 抬头看了看窗外的星星
- 打雷 | 一天夜里，天上响起了雷声/有一天，外面又打雷又下雨 | 雷声只是云在说话/跟我一起数数 | 慢慢地从一数到十
- 水 | 夏天到了，大家都下水玩，只有{h}站在岸上 | 先把脚放进水里/我在旁边陪着你 | 一步一步走进了浅水里
- 大狗 | 有一天，门口来了一只大狗 | 它只是想和你玩/它在对你摇尾巴 | 轻轻摸了摸大狗的头

= learn
{h}(很想|一直想)学{a}。
{t}，{h}(第一次|开始)练习，{b}。
{p}(有点难过|脸红了)，(但是没有放弃|可是不肯放弃)。
{f}说：“(别着急|慢慢来)，{c}。”
{h}(每天都练习|练了一天又一天)，(一个月后|到了春天|过了几个星期)，{d}。
(大家都为{h}鼓掌。|{h}开心地笑了。|{h}说：“坚持就能成功！”)
: a b c d
- 游泳 | 喝了好几口水 | 先学会换气 | {h}能游到河的对面了
- 骑自行车 | 摔了好几次 | 眼睛要看着前面 | {h}骑得又稳又快
- 唱歌 | 声音又小又抖 | 先深吸一口气 | {h}的歌声像小鸟一样好听
- 画画 | 画得歪歪扭扭 | 先仔细看，再动笔 | {h}画的花像真的一样
- 滑冰 | 一下子坐在了冰上 | 腿要弯一点 | {h}在冰上滑得像飞一样
- 跳绳 | 跳两下就停了 | 手和脚要一起动 | {h}能连着跳一百下
- 包饺子 | 饺子全都破了 | 馅不要放太多 | {h}包的饺子又圆又好看

= broken
{t}，{h}(在玩的时候|跑来跑去)，不小心{a}了{b}。
{h}(很害怕|心里很不安)，(想偷偷走开|不知道怎么办)。
(可是|但是)，{p}想：“(做错了就要承认|说谎是不对的)。”
{h}(低着头|红着脸)对{c}说：“对不起，是我不小心。”
{c}(没有生气|笑了笑)，说：“(你很诚实，我不怪你|说实话，就是好孩子)。”
(后来|于是)，{h}和{c}一起{d}。
: a b c d
- 打碎 | 妈妈的花瓶/妈妈的杯子 | 妈妈 | 把碎片扫干净了
- 弄坏 | {f}的风筝/{f}的小木船 | {f} | 把它修好了
- 弄湿 | {f}的书/{f}的图画本 | {f} | 把它放在太阳下晒干了
- 踩坏 | 爷爷种的花/爷爷种的菜 | 爷爷 | 种下了新的种子

= plant
{t}，{h}在(院子里|家门口|小山坡上)种下一颗{a}种子。
{h}每天给它浇水，(可是它一直不发芽|可是过了很久也没有发芽)。
{adult}看了看，说：“(可能是|我想，是){b}。”
{h}(点点头|明白了)，{c}。
(几天后|过了几天|春天到了)，种子(终于|真的)发芽了。
(到了夏天|后来)，它{d}，{h}(开心极了|高兴地叫大家来看)。
: a d
- 西瓜 | 结出了一个大西瓜
- 向日葵 | 开出了金黄的花
- 南瓜 | 结出了圆圆的南瓜
- 玫瑰 | 开出了红红的花
- 苹果 | 长成了一棵小树
: b c
- 这里晒不到太阳 | 把它移到了有阳光的地方
- 水浇得太多了 | 改成三天浇一次水
- 天气还太冷 | 给它盖上了一层干草
- 土太硬了 | 把土松了松

= found
{t}，{h}在{place}捡到{a}{b}。
{h}想：“丢了{b}的人一定很着急。”
{p}没有走开，(一直等在那里|站在那里等)。
(过了很久|过了一会儿)，{c}(急急忙忙地跑来|低着头走来)，(问：“你看见我的{b}了吗？”|到处找东西。)
{h}把{b}还给了{d}。
{d}说：“(太谢谢你了|谢谢你，你真好)！”
: a b
- 一个 | 钱包/书包/皮球
- 一把 | 雨伞/钥匙/扇子
- 一只 | 手套/手表
- 一顶 | 帽子
- 一本 | 书
: c d
- 一位老爷爷 | 老爷爷
- 一位阿姨 | 阿姨
- 一位老奶奶 | 老奶奶
- 一个小女孩 | 小女孩
- 一个小男孩 | 小男孩

= rescue
: place
- 河边/树林里/草地上/山坡上/湖边
{t}，{h}在{place}听见(小小的哭声|轻轻的叫声)。
{h}走过去一看，原来一只{a}{b}。
{h}说：“别怕，我来帮你。”
{p}(想了个办法|马上动手)，{c}。
{a}(高兴地|感激地)说：“谢谢你救了我！”
(从此，|后来，){a}(常常来找{h}玩|和{h}成了好朋友)。
: a b c
- 小鸟 | 从窝里掉了下来 | 轻轻捧起它，把它送回窝里
- 小乌龟 | 翻了过来，怎么也翻不回去 | 轻轻一推，帮它翻了过来
- 小刺猬 | 掉进了一个坑里 | 找来一根长树枝，让它爬上来
- 蚂蚁 | 掉进了水里 | 放下一片树叶，让它爬上来
- 小羊 | 和妈妈走散了 | 带着它找到了羊妈妈
- 蝴蝶 | 被蜘蛛网粘住了 | 轻轻拨开了蜘蛛网

= sick
{t}，{h}去找{f}玩，{f}却没有出门。
原来，{f}{a}，躺在床上(没有力气|很难受)。
{p}(想了想|马上跑回家)，{b}。
{h}说：“(好好休息|别担心)，(很快会好的|我陪着你)。”
(几天后|过了几天)，{f}(全好了|好起来了)，(又能和{h}一起玩了|第一件事就是来找{h})。
{f}说：“(有你真好|谢谢你照顾我)！”
: a b
- 感冒了 | 给{f}端来一碗热汤
- 发烧了 | 给{f}送来温水和毛巾
- 牙疼 | 陪{f}去看了医生
- 肚子疼 | 请来了医生
- 摔伤了腿 | 天天来给{f}讲故事

= lost_way
{t}，{h}追着一只{a}，(越走越远|走进了树林深处)。
天(快黑了|黑了)，{h}发现自己迷路了。
{p}(有点害怕，但是没有哭|没有慌，坐下来想办法)。
{b}
(不久|走了很久)，{h}终于看见了家里的灯光。
{adult}(抱住|拉着){h}，说：“下次不要走得太远。”
: a
- 花蝴蝶/蜻蜓/小松鼠/萤火虫/小青蛙
: b
- {h}记得家在小河边，就沿着小河走。/{h}听见远处的钟声，就朝着钟声走。/一只猫头鹰飞来，给{h}指了路。/{h}看见了自己的脚印，就跟着脚印往回走。

= race
{t}，{place}有一场{a}比赛，{h}和{f}都来了。
比赛开始了，{h}(一直在最前面|很快就到了前面)。
(忽然|快到终点的时候)，{f}{b}，(停了下来|疼得叫了起来)。
{h}(马上|赶快)转过身，(扶着{f}|拉着{f}的手)，一起往前走。
(最后|结果)，{h}没有得第一，(可是大家都为{h}鼓掌|却一点也不难过)。
{f}说：“你是我最好的朋友。”
: a
- 跑步/长跑
: b
- 摔了一跤/扭伤了脚/撞到了一块石头

= gift
明天是{adult}的生日，{h}想送一件礼物。
可是，{p}没有钱，(不知道怎么办|心里很着急)。
{h}(想了很久|忽然有了主意)，{a}，{b}。
第二天，{h}把{c}送给{adult}，说：“生日快乐！”
{adult}(高兴地笑了|把它看了又看)，说：“这是最好的礼物。”
: a b c
- 捡来漂亮的树叶/找来彩色的纸 | 做成了一张卡片 | 卡片
- 采来野花/摘来一把小花 | 编成了一个花环 | 花环
- 拿出彩笔/找来纸和笔 | 画了一张全家的画 | 画
- 找来面粉和鸡蛋/请{f}来帮忙 | 做了一个小蛋糕 | 蛋糕
- 捡来贝壳/找来小珠子 | 串成了一条项链 | 项链

= quarrel
{t}，{h}和{f}在{place}玩。
那里只有一个{a}，(两个好朋友都想要|谁都想先玩)。
{h}说：“我先来的！”{f}说：“(是我先看见的|该我玩了)！”谁也不(理|肯让)谁。
(过了一会儿|后来)，{h}说：“对不起，你先玩吧。”
{f}(不好意思地笑了|也笑了)，说：“我们轮流玩吧。”
(从此，两个好朋友再也不吵架了。|那天，两个好朋友玩得很开心。)
: a
- 秋千/皮球/滑梯/小木马/风车/布娃娃
: place
- 公园/广场上/操场上/院子里

= late
(晚上|昨天晚上)，{h}(一直|){a}，很晚才睡。
第二天早上，{h}起晚了，(没有吃早饭就往外跑|没有赶上车)。
到了学校，(大家已经在上课|第一节课已经开始)了，{h}的脸红了。
老师说：“(早睡早起，身体才好|晚上要早点睡)。”
{p}(点点头|记住了老师的话)，(从那天起|从此)，每天九点就上床睡觉。
{p}再也没有迟到过。
: a
- 看电视/玩游戏/看漫画/玩积木/看动画片

= clean
: place
- 公园/河边/海边/湖边/广场上
{t}，{h}和{f}去{place}散步，看见地上有很多(垃圾|纸和瓶子)。
{h}说：“(这里太脏了|这里真不好看)，我们来打扫吧。”
{h}捡{a}，{f}捡{b}，(忙了一上午|忙了半天)。
(大家看见了，也来帮忙。|一位老爷爷看见了，也来帮忙。)
(很快|不久)，{place}变得(干干净净|又干净又漂亮)。
(虽然很累|虽然出了很多汗)，{h}的心里却很高兴。
: a b
- 纸 | 瓶子/果皮/塑料袋
- 果皮 | 纸/瓶子
- 瓶子 | 塑料袋/纸

= snow
早上，{h}(推开门|打开窗)一看，外面一片白，下雪了！
{h}叫来{f}，一起堆了一个大雪人。
用{a}做眼睛，用{b}做鼻子。
{p}怕雪人冷，(把自己的{c}给了它|给它戴上了自己的{c})。
(第二天|几天后)，太阳出来了，雪人化了，地上只剩下{c}。
{f}说：“别难过，明年冬天它还会来。”
: a b c
- 黑石子/纽扣/黑豆/葡萄 | 胡萝卜/树枝/红辣椒/松果 | 围巾/帽子/手套

= night
(夜里|晚上)，{h}躺在床上，(怎么也睡不着|翻来翻去睡不着)。
(因为|原来){a}。
{adult}(走进来|坐在床边)，说：“{b}”
{h}(闭上眼睛|盖好被子)，{c}。
(不一会儿|很快)，{h}就睡着了，梦见了{d}。
: a
- 明天要去{place}玩，{h}太高兴了/外面的风很大，{h}有点怕/白天和{f}吵了架，{h}心里难过/今天白天{h}睡得太多了
: b c
- 我们来数星星吧。 | 一颗、两颗、三颗，慢慢地数着
- 我唱一首歌给你听。 | 静静地听着轻轻的歌声
- 我讲个故事给你听。 | 听着一个关于月亮的故事
: d
- 彩色的月亮/会飞的鱼/糖果做的房子/会唱歌的花/一片金色的海

= together
{t}，{h}(想|要)把一{a}搬回家。
可是{b}太重了，{p}(推也推不动|怎么也搬不动)。
{f}(看见了，来帮忙|跑来帮忙)，还是搬不动。
{h}说：“我们再叫几个朋友来吧。”
大家一起用力，“一、二、三！”{b}终于动了。
(晚上|后来)，{adult}用{b}{c}，大家(都很高兴|笑得很开心)。
: a b c
- 个大南瓜 | 南瓜 | 做了一锅甜甜的汤/做了一盏灯
- 根大木头 | 木头 | 做了一张小桌子/做了一座小桥
- 个大箱子 | 箱子 | 做了一个小书柜
- 袋大米 | 大米 | 做了一锅香香的米饭
"""

_EN = """
= lost
{t}, {h} went to {place} with {a}.
{b}, and it was gone.
{h} looked (here and there|everywhere), but {p} could not find it. {P} was (very sad|close to tears).
{f} (came and|saw this and) said, "Do not cry. I will help you."
(At last|Soon) {f} found it {c}.
{h} (smiled|was so happy) and said, "Thank you, {f}!"
: a b c
- a red balloon/a straw hat/a blue scarf/a paper kite | Suddenly a strong wind came/Then the wind blew hard | in a tree/on the roof/in the long grass
- a gold coin/a little bell/a small key/a pretty shell | On the way {ps} pocket tore | on the path/on the bridge/by the gate
- a picture book/a toy boat/a lunch box/a rag doll | {P} put it down to play | under the bench/behind a big tree/beside a rock

= share
{t}, {h} came to {place} with {a}.
{P} saw {f} sitting alone (under a tree|on the ground). {f} looked (sad|very unhappy).
{f} had {b} and was very hungry.
{h} (thought for a moment|smiled) and gave {f} half of {ps} food.
{f} ate it all and smiled again.
(The next day {f} gave {h} {c}.|From that day they were good friends.|"Food tastes better with a friend," said {h}.)
: a b c
- some bread/some cookies/a big cake/a bag of nuts/a large pie | left lunch at home/eaten nothing all day/dropped lunch in the water | a flower/a shell/a picture/a red leaf/a shiny stone

= rain
{t}, {h} went to {place} to {a}.
(Soon|Suddenly) dark clouds came and it began to rain.
{h} had no umbrella. {P} (was wet and cold|hid under a tree).
{b}
{c}
When the rain stopped, (there was a rainbow in the sky|they saw a rainbow in the sky).
: a
- play/pick flowers/fly a kite/draw pictures/take a walk
: b c
- {f} came with an umbrella and said, "Let us walk together." | The two friends walked home side by side.
- {f} called from the door, "Come in, come in!" | {h} sat by the fire and drank hot tea with {f}.
- {f} brought a big leaf and said, "Hold this over your head." | {h} laughed and ran home with {f} under the leaf.

= afraid
{h} was always afraid of {a}.
{b}. {h} (could not move|was shaking|hid {ps} face).
{f} took {ps} hand and said, "Do not be afraid. {c}"
{h} took a deep breath and {d}.
It was not so bad after all. {h} (laughed|smiled).
(From that day on|After that), {p} was never afraid of {a} again.
: a b c d
- the dark | One night the lamp went out/One evening the house was very dark | Look at the stars. | looked at the bright stars outside
- thunder | One night there was a big storm/One day thunder rolled over the hill | It is only the clouds talking. | counted slowly from one to ten
- the water | One summer day all the friends went into the lake | Put one foot in first. | walked into the water step by step
- big dogs | One day a big dog stood at the gate | It only wants to play. | touched the dog softly on the head

= learn
{h} wanted to learn to {a}.
{t}, {p} tried for the first time, but {p} {b}.
{h} (was sad|felt sad), but {p} did not give up.
{f} said, "(Take your time|Do not hurry). {c}"
{h} tried again and again, day after day.
(One month later|When spring came|After a few weeks), {p} {d}. (Everyone clapped.|How proud {p} was!)
: a b c d
- swim | drank a lot of water | First learn to breathe. | could swim across the river
- ride a bike | fell down many times | Look at the road ahead. | could ride down the long road
- sing | sang in a tiny voice | First breathe in deep. | sang as sweetly as a bird
- paint | only made a mess | Look well before you paint. | painted a flower that looked real
- skate | sat down hard on the ice | Bend your knees a little. | could skate as fast as the wind
- bake bread | burned it black | Keep the fire low. | made the best bread in town

= broken
{t}, {h} was running around and {a} {b}.
{P} was afraid and wanted to (hide|run away).
But {p} thought, "(It is wrong to lie|I must tell the truth)."
So {h} went to {c} and said, "I am sorry. I did it."
{c} was not angry. "Thank you for telling the truth," {c} said.
Then they {d} together.
: a b c d
- broke | a cup/a vase | Mother | cleaned the floor
- broke | a kite that {f} loved/a toy boat that {f} loved | {f} | mended it
- stepped on | the flowers in the garden/the young beans | Grandpa | planted new seeds
- spilled water on | a book that {f} loved | {f} | dried it in the sun

= plant
{t}, {h} put {a} seed into the ground (by the house|in the garden|on the hill).
{P} gave it water every day, but nothing came up.
{adult} looked at it and said, "{b}"
{h} understood, so {p} {c}.
(A few days later|Soon), a green leaf came out of the ground.
In the summer it {d}, and {h} (was very happy|showed it to everyone).
: a d
- a melon | gave a big sweet melon
- a sunflower | had a big yellow flower
- a pumpkin | gave a round pumpkin
- a rose | had a red rose
- an apple | grew into a little tree
: b c
- There is no sun here. | moved it to a sunny place
- You give it too much water. | gave it water only twice a week
- It is still too cold. | covered it with dry grass
- The ground is too hard. | dug the ground until it was soft

= found
{t}, {h} found {a} {b} (at|near) {place}.
"Someone must be looking for this {b}," {p} thought.
{h} did not go away. {P} waited there (for a long time|for an hour).
Then {c} came and asked, "Did you see my {b}?"
{h} gave it back (with a smile|at once).
"Thank you! (You are very kind|You are so good)," said {d}.
: a b
- a | wallet/bag/ball/key/hat/glove/book/watch
- an | umbrella
: c d
- an old man | the old man
- an old woman | the old woman
- a young woman | the young woman
- a little girl | the little girl
- a little boy | the little boy

= rescue
: place
- the river/the woods/the lake/the farm/the pond
{t}, {h} heard a small cry near {place}.
{P} looked and saw a little {a}. It {b}.
"Do not be afraid," said {h}. "I will help you."
{h} {c}.
"Thank you for saving me," said the little {a}.
(From that day on, they were good friends.|After that, it often came to play with {h}.)
: a b c
- bird | had fallen from its nest | picked it up softly and put it back in the nest
- turtle | was on its back and could not turn over | gave it a soft push and turned it over
- hedgehog | had fallen into a hole | found a long branch, and it climbed up
- ant | had fallen into the water | put a leaf on the water, and it climbed up
- lamb | had lost its mother | walked with it until they found its mother
- butterfly | was caught in a spider web | opened the web and set it free

= sick
{t}, {h} went to play with {f}, but {f} did not come out.
{f} {a} and had to stay in bed.
{h} (thought for a moment|ran home) and {b}.
"(Rest well|Do not worry)," {p} said. "You will be better soon."
A few days later, {f} was well again.
"(Thank you for your help|You are a true friend)," said {f}, and they (played all day|went out to play).
: a b
- had a cold | came back with hot soup
- had a fever | came back with cool water and a towel
- had a toothache | called the doctor
- had hurt a leg | came back with a book of stories

= lost_way
{t}, {h} ran after {a} and went (too far|deep into the woods).
It was getting dark, and {h} did not know the way home.
{P} was a little afraid, but {p} did not cry.
{b}
(Soon|After a long walk), {h} saw the lights of home.
{adult} (hugged {o}|held {ps} hand) and said, "Please do not go so far next time."
: a
- a butterfly/a dragonfly/a squirrel/a firefly/a frog
: b
- {P} knew that home was by the river, so {p} walked along the river./{P} heard a bell far away and walked toward the sound./An owl came down and showed {o} the way./{P} saw footprints on the ground and followed them back.

= race
{t}, there was a {a} race at {place}. {h} and {f} both came.
At first {h} was ahead of everyone.
(Suddenly|Near the end), {f} {b} and had to stop.
{h} turned back at once and (took {ps} friend by the hand|helped {f} stand up).
They walked to the end side by side. {h} did not win, but everyone clapped.
"You are my best friend," said {f}.
: a
- running/long/big
: b
- fell down/hurt a foot/hit a rock

= gift
It was nearly {adult}'s birthday, and {h} wanted to give {adult} a gift.
But {p} had no money. (What could {p} do?|{P} did not know what to do.)
Then {h} had a good idea. {P} {a} and made {b}.
On that day, {h} said, "Happy birthday!" and gave {adult} {c}.
{adult} smiled. "This is the best gift of all."
: a b c
- found pretty leaves/got some colored paper | a card | the card
- picked wild flowers/picked small daisies | a ring of flowers | the flowers
- took some paint/got a pen and paper | a picture of the family | the picture
- found flour and eggs/asked {f} to help | a little cake | the cake
- found shells on the beach/found some beads | a necklace | the necklace

= quarrel
{t}, {h} and {f} were playing at {place}.
There was only one {a}, and both of them wanted it.
"(I was here first|It is mine)," said {h}. "No, (it is my turn|I saw it first)," said {f}.
They were both angry and nobody had any fun.
Then {h} said, "I am sorry. You can go first."
{f} smiled. "Let us take turns." (They played happily all day.|They never fought again.)
: a
- swing/ball/slide/toy horse/kite/bucket
: place
- the park/the school yard/the playground

= late
Last night {h} {a} until very late.
In the morning {p} got up late and (missed the bus|ran out with no breakfast).
At school the class had already begun. {h} turned red.
The teacher said, "(Go to bed early|Good sleep makes a good day)."
{h} (did not forget this|nodded). From that day on, {p} went to bed at nine.
{P} was never late again.
: a
- watched TV/played games/read comics/played with blocks/watched cartoons

= clean
: place
- the park/the river/the lake/the beach
{t}, {h} and {f} took a walk at {place}. There was paper all over the ground.
"(It is so dirty here|This does not look nice)," said {h}. "Let us clean it up."
{h} picked up {a} and {f} picked up {b}.
(An old man saw them and came to help.|Other people saw them and came to help.)
Soon everything was clean and beautiful.
{h} was tired, but {p} was very happy.
: a b
- the paper | the bottles/the bags
- the bottles | the paper/the cans
- the bags | the bottles/the paper

= snow
In the morning {h} opened the (door|window). Everything was white. It was snow!
{P} called {f}, and they made a big snowman.
They used {a} for the eyes and {b} for the nose.
"The snowman must be cold," said {h}, and {p} gave it {ps} own {c}.
(The next day|A few days later) the sun came out. The snowman was gone, and only the {c} was left.
"Do not be sad," said {f}. "It will come back next winter."
: a b c
- black stones/buttons/beans/grapes | a carrot/a stick/a red pepper | scarf/hat/cap

= night
It was night, and {h} (could not sleep|lay awake in bed).
{a}
{adult} (came in|sat by the bed) and said, "{b}"
{h} closed {ps} eyes and {c}.
Soon {p} was asleep, and {p} dreamed of {d}. (In the morning {p} felt fine.|It was a lovely dream.)
: a
- {P} would go to {place} in the morning and was too happy to sleep./The wind was loud, and {p} was a little afraid./{P} had had a fight with {f} that day and was sad./{P} had slept too long that day.
: b c
- Let us count the stars. | counted slowly: one star, two stars, three stars
- I will sing you a song. | listened to the soft song
- I will tell you a story. | listened to a story about the moon
: d
- a golden moon/fish that could fly/a house made of candy/flowers that could sing/a silver sea

= together
{t}, {h} wanted to take {a} home.
But the {b} was too heavy. {h} pushed and pulled, but it did not move.
{f} came to help, but it still did not move.
"Let us call more friends," said {h}.
"One, two, three!" They all pushed together, and the {b} moved at last.
(That evening|Later), {adult} made {c} from it, and everyone was happy.
: a b c
- a big pumpkin | pumpkin | a pot of sweet soup/a bright lamp
- a long log | log | a small table/a little bridge
- a big box | box | a shelf for books
- a sack of rice | sack | a warm dinner
"""


@cache
def plots(language: Language) -> dict[str, Scene]:
    """The plots by name; both languages have the same names."""
    return read_scenes(_ZH if language == "zh" else _EN)
