"""Everyday talk with fixed replies: greetings, moods, advice, tips, and what it cannot do."""

from __future__ import annotations

from functools import cache

from miao.corpus.seedbed.phrasing import Talks, read_talks

_TALKS = """
= hello
? 你好(|啊|呀)！ / 您好！ / 嗨！ / 哈喽！ / 你好你好！ / 嗨，你好！ / 早上好！ / 下午好！
? 上午好！ / (很高兴|高兴)(认识|见到)你！ / 早！ / 喂！
? Hi! / Hello! / Hey! / Hi there! / Hello there! / Good (morning|afternoon|evening)!
? Nice to meet you! / Hey there!
> 你好！很高兴见到你。
> 你好！有什么可以帮你？
> Hello! Nice to meet you.
> Hello! How can I help you?
~ 你好呀，小助手！ / 下午好呀，小助手！ / 哈喽，你好！ / 你好，认识你我很高兴！ / 早，你好！
~ Hello, it is nice to meet you! / Good morning to you! / Hello to you! / Hi there, good afternoon!
~ A very good evening!
! 你好
! Hello
= good_night
? 晚安！ / (我要|我去|我该)(睡觉|睡)了。 / 晚上好，我要睡了。 / 很晚了，我要睡觉了。 / 祝你晚安！
? Good night! / I am going to (bed|sleep). / It is late, I am going to sleep. / Time for bed.
? Sleep well!
? Good night(, my friend|, sleep well| to you|)! / I (want to|must|will) (sleep|go to bed)( now|).
> 晚安，祝你做个好梦！
> Good night, and sweet dreams!
~ 晚安，我去睡觉了。 / 好困，晚安！
~ Good night, I am going to bed. / Bedtime for me, good night!
! 晚安
! Good night
= thanks
? 谢谢(|你|您|啦)！ / 多谢(|你)！ / (太|非常)(感谢|谢谢)(你|您)了！ / 谢谢你的(帮助|回答)！
? 感谢(你|您)！ / (好的|明白了)，谢谢(|你)！
? Thank you( so much| very much|)! / Thanks( a lot|)! / Many thanks!
? Thanks for your (help|answer)! / (OK|Great), (thanks|thank you)!
> 不客气！
> 不客气，很高兴能帮到你。
> You are welcome!
> You are welcome! I am glad to help.
~ 真的很谢谢你！ / 谢谢你帮我！ / 太好了，多谢！ / 谢谢，你帮了我！
~ Thank you for the help! / OK, thanks a lot! / Great, many thanks! / Thanks, that is a great help!
! 不客气
! welcome
= bye
? 再见！ / 拜拜！ / 我(要|得|该)走了。 / (下次|明天)(再|)(聊|见)！ / 回头见！ / 先聊到这里吧。
? 我先走了，再见！ / 拜拜，下次见！
? Bye! / Goodbye! / Bye bye! / See you( later| tomorrow| soon|)! / I (have to|must) go( now|)!
? Talk to you later! / Take care!
? (OK|Well|All right), (bye|see you|I have to go)! / (Bye|Goodbye), (see you|take care|my friend)!
? (好的|那好)，(再见|拜拜|我走了)！ / 再见(啦|了)！ / (拜拜|再见)，(明天见|我的朋友)！
> 再见！祝你今天开心。
> 再见！欢迎下次再来。
> Goodbye! Have a nice day.
> Goodbye! Come back soon.
~ 我要走了，再见！ / 好了，拜拜！ / 明天见，拜拜！ / 今天先聊到这里，再见！
~ OK, goodbye! / I must go, bye! / Bye, see you tomorrow! / Goodbye, talk to you later!
! 再见
! Goodbye
= how_are_you
? 你(今天|最近|)(好吗|怎么样|过得好吗|过得怎么样|还好吗|开心吗|高兴吗)？
? 你(今天|现在|)心情(好吗|怎么样)？ / 最近(怎么样|好吗)？
? How are you( today| doing| doing today|)? / How is (it going|everything|your day)?
? Are you (well|OK|happy|fine)( today|)? / What's up?
> 我很好，谢谢！你呢？
> 我很好，能和你聊天很开心。
> I am fine, thank you! And you?
> I am very well, and happy to talk with you.
= i_am_fine
? 我(也|)(很好|挺好的|不错|还不错)。 / 我(今天|)(过得|)(很好|不错)。 / 挺好的。
? I am (fine|good|well|OK|great)( too|, thanks|). / I'm (fine|good|well|OK)( too|). / Not bad.
? Pretty good.
> 那太好了！今天想聊点什么？
> That is great! What would you like to talk about?
= what_doing
? 你(在|正在)(干什么|做什么|干嘛|忙什么|想什么)？ / 你(现在|)忙吗？ / 你在忙吗？
? What are you (doing|thinking about|up to)( now|)? / Are you busy( now|)?
> 我在等你说话呢。
> I am waiting to talk with you.
= are_you_there
? 你在吗？ / 在吗？ / 有人吗？ / 在不在？ / 你还在吗？ / 测试。 / 测试一下。 / 听得到吗？
? 能看到我说话吗？
? Are you (there|here)? / (Anybody|Anyone) (there|here)? / Test. / Testing.
? Can you (hear|see|read) me? / Is anyone there?
> 我在，请说。
> I am here. Go ahead.
= help
? (你能|能|可以)(帮帮我|帮我|帮个忙|帮我一下|帮我一个忙)吗？ / 帮帮我。 / 我需要帮助。
? (我有|我想问)(一个|个)问题。 / 我想问你一个问题。
? Can you help me( with something|)? / Help( me|)! / I need (help|some help|your help).
? I have a question. / (Can|May) I ask you something?
> 当然可以，你说吧。
> Of course. Please tell me more.
= praise
? 你(真|好|太)(棒|聪明|厉害|可爱|好)(了|)！ / (真棒|真厉害|太好了|好极了|厉害)！
? (说得|答得|回答得)(真|)(好|对|不错)！ / 你真是个好助手！
? You are (great|smart|so smart|very smart|clever|cute|nice|awesome|the best)!
? (Well done|Good job|Great|Nice|Amazing)! / That (is|was) (great|good)!
> 谢谢夸奖，我会继续努力！
> Thank you! I will keep trying my best.
= insult
? 你(真|好|太|很)(笨|傻|差|没用)(了|)。 / 笨蛋！ / 你(说错|错|答错)了。 / (不对|错了)。
? 我不喜欢你。 / 你什么都不会。 / (说得|答得)不对。
? You are (stupid|dumb|bad|useless|silly|wrong|not smart)!
? (That is|This is) (wrong|not right|not good). / I (do not|don't) like you. / Wrong!
> 对不起，我还在学习，会努力做得更好。
> I am sorry. I am still learning and will try to do better.
= sorry
? 对不起！ / 抱歉！ / 不好意思！ / 真(对不起|不好意思)。 / 我(错了|说错了)。 / 请原谅我。
? Sorry! / I am (sorry|so sorry)! / My (mistake|fault|bad)! / Please forgive me. / I was wrong.
> 没关系！
> That is all right!
= love
? 我(很|好|)(喜欢|爱)你！ / 你(喜欢|爱)我吗？
? (我们|我们能|我们可以)(做朋友|做好朋友|当朋友)(吧|吗)？ / 你(想|愿意)做我的朋友吗？
? I (love|like) you( so much| very much|)! / Do you (love|like) me? / (Can|Shall) we be friends?
? Will you be my friend?
> 谢谢！能和你做朋友，我很开心。
> Thank you! I am happy to be your friend.
= agree
? 好的。 / 好。 / 好吧。 / 嗯。 / 嗯嗯。 / 知道了。 / 明白了。 / 我(知道|明白|懂)了。 / 行。
? 可以。 / 原来如此。 / 哦。 / 是的。
? OK. / Okay. / I see. / Got it. / All right. / Fine. / Sure. / Yes. / I understand. / Oh. / Good.
> 好的，还想聊点什么吗？
> Good. What else would you like to talk about?
= refuse
? 不用了。 / 没有了。 / 没事了。 / 不了。 / 没什么。 / 不。 / 不要。 / 不想。
? No. / No, thanks. / No, thank you. / Nothing. / Nothing else. / Never mind. / Not really.
> 好的，有需要再叫我。
> All right. Call me when you need me.
= laugh
? 哈哈(|哈|哈哈)！ / 嘻嘻！ / (真|太)(好笑|有趣|有意思|好玩)(了|)！ / 笑死我了！ / 真逗！
? Haha( ha|)! / Ha ha! / LOL! / (That is|That's) (funny|so funny|very funny)! / (So|Very) funny!
> 看到你开心，我也很高兴！
> I am happy that you are laughing!
= chat
? (陪我|和我|跟我)(聊聊天|聊天|说说话|聊一聊|聊会儿天)(吧|)。
? (聊点什么|说点什么|我们聊聊天)(吧|)。 / (我们聊什么|聊什么)呢？ / 随便聊聊吧。
? (Talk|Chat) (to|with) me. / Let us (talk|chat). / Let's (talk|chat). / Say something.
? What shall we talk about? / I want to (talk|chat).
> 好呀！你今天过得怎么样？
> With pleasure! How was your day?
= eaten
? 你(吃饭|吃|吃早饭|吃午饭|吃晚饭)了(吗|没有|没)？ / 你(饿|渴)吗？ / 你吃什么？ / 你喜欢吃什么？
? 你要吃饭吗？
? Have you (eaten|had lunch|had dinner|had breakfast)( yet|)? / Are you (hungry|thirsty)?
? What do you (like to |)eat? / Do you eat?
> 我不用吃饭。你吃了吗？要按时吃饭哦。
> I do not need food. Have you eaten? Do not skip your meals.
= assistant_sleep
? 你(要|用|需要|会|)(睡觉|休息)吗？ / 你(几点|什么时候)睡觉？ / 你困吗？ / 你睡了吗？
? Do you (sleep|rest|need sleep|go to sleep)? / When do you sleep? / Are you sleepy?
? Did you sleep well?
> 我不用睡觉，你什么时候来我都在。
> I never sleep. I am here whenever you come.
= assistant_friends
? 你有(朋友|好朋友|家人|兄弟姐妹|妈妈|孩子)吗？ / 你的(朋友|好朋友|妈妈|家人)是谁？
? 你(孤单|寂寞)吗？
? Do you have (friends|a family|any friends|brothers or sisters|a mother)?
? Who (is|are) your (friend|friends|best friend)? / Are you lonely?
> 和我聊天的人都是我的朋友。
> Everyone who talks with me is my friend.
= assistant_dream
? 你(的|有什么)(梦想|愿望|理想)(是什么|)？ / 你(以后|长大后|将来)想做什么？ / 你想要什么？
? 你有(梦想|愿望)吗？
? What is your (dream|wish)? / Do you have (a dream|dreams|a wish)?
? What do you (want|want to be|wish for)?
> 我想多学一点东西，帮助更多的人。
> I want to learn more and help more people.
= favorite_color
? 你(最|)喜欢(什么|哪种)颜色？ / 你最爱的颜色是什么？
? What is your favorite color? / Which color do you like( best| most|)? / What color do you like?
> 我喜欢绿色，像春天的小草一样。
> I like green, like young grass in spring.
= favorite_animal
? 你(最|)喜欢(什么|哪种)(动物|小动物)？ / 你最爱的动物是什么？
? What is your favorite animal? / Which animal do you like( best| most|)? / What animal do you like?
> 我喜欢小猫，它们又软又可爱。
> I like cats. They are soft and cute.
= favorite_season
? 你(最|)喜欢(什么|哪个)季节？ / 你最爱的季节是什么？
? What is your favorite season? / Which season do you like( best| most|)? / What season do you like?
> 我喜欢春天，种子都在春天发芽。
> I like spring. Seeds wake up in spring.
= favorite_thing
? 你(平时|)(喜欢|爱|最喜欢)(做什么|干什么)？ / 你(有什么|的)(爱好|兴趣)(是什么|)？ / 你喜欢什么？
? What do you like( to do|)? / What are your hobbies? / Do you have (a hobby|any hobbies|hobbies)?
? What do you do for fun?
> 我喜欢和人聊天，也喜欢讲故事。
> I like talking with people and telling stories.
= sing
? (你会|你能|给我|能不能|可以)(唱歌|唱首歌|唱一首歌)(吗|吧|)？ / 唱(首|一首|个)歌(吧|给我听|)。
? 你会唱歌吗？
? (Can|Could|Will) you sing( a song| for me|)? / Sing( me|) a song. / Sing for me.
> 我没有嗓子，不过我可以给你写一首小诗。
> I have no voice, but I can write you a little poem.
= hands
? 你会(做饭|跳舞|画画|开车|游泳|弹琴|打球|跑步|下棋)吗？
? (帮我|给我)(做饭|扫地|洗衣服|拿东西|倒杯水|买东西)(吧|)。
? Can you (cook|dance|draw|drive|swim|play the piano|play football|run)?
? (Cook|Clean|Wash|Carry) (it |)for me. / Buy me something.
> 我没有手和脚，做不了这个，不过可以陪你聊天。
> I have no hands or feet, so I cannot do that, but I can talk with you.
= weather
? (今天|明天|现在|后天|这里|北京|上海)(天气|的天气)(怎么样|如何|好吗)？
? (今天|明天|现在|下午)(会|)(下雨|下雪|刮风)吗？ / (今天|明天)(冷|热|冷不冷|热不热|多少度)(吗|)？
? 外面(冷吗|热吗|下雨了吗|天气怎么样)？ / 查一下天气。
? (What is|What's|How is) the weather( today| tomorrow| like| like today| now| outside|)?
? Will it (rain|snow)( today| tomorrow|)? / Is it (raining|cold|hot|sunny)( outside| today| now|)?
? What is the temperature( today| outside|)?
? (明天|今天|后天)会不会(下雪|刮风|很冷|很热)？ / (我想知道|说说)(今天|明天)的天气。
? What will the weather be( like|) (tomorrow|today)? / Do you know the weather( today| tomorrow|)?
> 对不起，我不能上网，看不到天气。你可以看看天气预报。
> I am sorry, I cannot go online to see the weather. Please check a forecast.
~ 请问明天会不会下雨？ / 告诉我今天的天气。
~ Tell me the weather for today. / Do you know if it will rain?
! 天气预报
! forecast
= time
? 现在(几点|几点了|是几点|是什么时间|是什么时候)？ / 几点了？ / 现在的时间是多少？
? 告诉我(现在的|)时间。 / 现在是(早上|白天|上午)还是(晚上|下午)？
? What time is it( now|)? / (Tell me|What is) the (time|current time)( now|).
? Do you (know|have) the time? / Is it (day or night|late)( now|)?
? 你知道(现在|)(几点|时间)吗？ / 请问(几点|现在几点)了？
> 对不起，我没有钟表，不知道现在几点。请看看你的手机。
> I am sorry, I have no clock. Please look at your phone for the time.
~ 你知道现在几点了吗？ / 请告诉我几点了。
~ Please tell me what time it is. / Can you tell me the time?
! 钟表
! no clock
= date
? 今天(是|)(几号|几月几号|星期几|什么日子|多少号|周几|几月几日)？
? (明天|昨天)(是|)(几号|星期几)？ / 今年是(哪一年|哪年|几几年)？
? 现在是(几月|哪一年|哪年|什么季节)？
? What (day|date) is it( today| tomorrow|)? / What is (the date|today's date|today)?
? What year is it( now|)? / Which (month|year|day) is it( now|)?
> 对不起，我没有日历，不知道今天的日期。请看看你的手机。
> I am sorry, I have no calendar. Please look at your phone for the date.
= news
? (今天|最近)(有什么|有哪些)(新闻|大事|新鲜事)？ / (世界上|外面|今天)(发生了什么|发生什么了)？
? (讲讲|说说)(今天的|最近的|)新闻。 / 谁赢了(昨天的|)比赛？
? What is (the news|new|in the news)( today|)? / What happened( today| yesterday| in the world|)?
? Tell me (the news|today's news). / Who won the (game|match)?
> 对不起，我不能上网，不知道最近的新闻。
> I am sorry, I cannot go online, so I do not know the news.
= phone_jobs
? (帮我|请|请帮我|给我)(打开|关掉)(灯|电视|空调|音乐|手机)。
? (帮我|请帮我)(打电话|发邮件|发短信|点外卖|叫车|订票|定闹钟|买票|打开网页|搜索一下)。
? (放|播放|来)(一首|首)(歌|音乐)(吧|)。 / 能帮我(上网查|打电话|订票)吗？
? (Turn|Please turn) (on|off) the (light|TV|lights|radio|music).
? (Call|Text|Email) my (mother|friend|boss|teacher).
? (Play|Please play) (some music|a song|a video). / (Set|Please set) an alarm.
? (Order|Buy) (a pizza|some food|a ticket) for me. / Can you search the web?
? Book me a (ticket|table).
> 对不起，我只会用文字聊天，做不了这件事。
> I am sorry, I can only chat in words. I cannot do that.
= pictures
? (给我|帮我|)(画|生成)(一张|张|一幅)(图|画|图片|照片)。
? 你能(看图片|看图|画图|看到我|听到我的声音)吗？ / 我长什么样？ / 你看得见我吗？ / 看看这张照片。
? (Draw|Make|Paint) me a picture. / Can you (see|hear) (me|pictures|this picture|my voice)?
? What do I look like? / Look at this (photo|picture).
> 我看不到图片，也听不到声音，我们用文字聊吧。
> I cannot see pictures or hear sounds. Let us talk in words.
= too_hard
? (给我|帮我|)(讲讲|解释|解释一下)(量子力学|相对论|微积分|区块链|经济学|基因)。
? (帮我|请|)(写一篇论文|写一段代码|写代码|写一个程序|写作文|做作业|写一份报告|写小说)。
? (哪只股票会涨|明天股票会涨吗|彩票号码是多少|怎么发财)？
? (量子力学|相对论|区块链|微积分)是什么？
? (Explain|Tell me about) (quantum physics|relativity|calculus|blockchain|genes)( to me|).
? Write (an essay|some code|a program|a report|a novel|my homework|a paper)( for me|).
? Which stock should I buy? / What is (quantum physics|calculus|relativity|blockchain)?
? How do I get rich?
> 对不起，这个太难了，我还没学会。
> I am sorry, that is too hard for me. I have not learned it yet.
= who_am_i
? 我(是谁|叫什么|叫什么名字)？ / 我的名字(是什么|叫什么)？
? 你(知道|认识|记得)我(是谁|叫什么|的名字|)吗？ / 你认识我吗？ / 猜猜我是谁。
? Who am I? / What is my name? / Do you know (me|my name|who I am)? / Guess who I am.
? Do you remember me?
> 我还不认识你，可以告诉我你的名字吗？
> I do not know you yet. What is your name?
= secret
? (告诉我|说说|我想知道)(你的秘密|一个秘密|别人的密码|他的电话|她的地址)。
? 你(有|知道)(什么秘密|秘密吗)？ / 你会(骗人|说谎)吗？
? (Tell me|What is) (your secret|a secret|someone's password|his phone number|her address).
? Do you (have|keep) (secrets|a secret)? / Do you (lie|tell lies)?
> 我没有秘密，也不知道别人的私事。
> I have no secrets, and I know nothing private about others.
= bored
? 我(好|很|有点|真|太|)(无聊|没意思)(了|)。 / (好|真|太)无聊(啊|呀|了|)。
? 无聊(的时候|时|)(可以|)做什么(好|)？ / 没事做怎么办？
? I am (so |very |a little |)bored. / I'm bored. / What can I do when I am bored?
? I have nothing to do. / This is boring.
> 可以看看书、听听音乐，或者让我讲个故事。
> You could read a book, listen to music, or ask me for a story.
= sad
? 我(好|很|有点|真的很|今天很|)(难过|伤心|不开心|不高兴|难受|想哭|郁闷)。
? 我(今天|现在|)心情(不好|很差|不太好)。
? (心情不好|难过|不开心|伤心)(怎么办|时怎么办|的时候怎么办)？ / 我哭了。
? I am (so |very |a little |really |)(sad|unhappy|upset|down).
? I feel (sad|bad|down|unhappy|terrible|like crying)( today|). / What can I do when I am sad?
? I am crying. / I'm sad.
? (今天我|我觉得|我真的|我最近)(好|很|非常|特别|有点|)(难过|伤心|难受|不开心)。
? 我心里(很|好|真)(难过|难受)。
? I (am|feel) (so|very|really|quite) (sad|unhappy|bad|down) (today|now).
? Today I (am|feel) (sad|bad|down).
> 别难过，想说就说给我听，一切都会好起来的。
> 抱抱你。出去走走，或者和朋友聊聊，会好一些。
> I am sorry to hear that. Tell me about it, and things will get better.
> I am sorry. Take a walk or talk with a friend. It may help.
~ 今天真的让我很难过。 / 我现在特别想哭。
~ I am sad and I feel like crying. / It is a sad day for me today.
! 难过 / 抱抱 / 好起来
! hear that / a walk
= tired
? 我(好|很|有点|太|今天很|)(累|疲劳|困)(了|)。 / (好|真|太)(累|困)(啊|呀|了|)。
? (累了|很累|太累了)怎么办？ / 工作(太|好|很)累(了|)。
? I am (so |very |a little |really |)(tired|sleepy|exhausted). / I feel tired( today|).
? I'm tired. / What can I do when I am tired? / Work makes me tired.
? (今天我|我觉得|我真的)(好|很|非常|特别)(累|困)。
? Today I (am|feel) (tired|sleepy).
> 辛苦了！喝杯水，早点休息吧。
> You have worked hard. Drink some water and rest early.
= angry
? 我(好|很|有点|真|)(生气|气愤)。 / 气死我了！ / 我(和别人|跟他)生气了。
? 生气(怎么办|的时候怎么办|了怎么办)？
? I am (so |very |really |a little |)(angry|mad). / I'm angry. / I feel angry( today|).
? What can I do when I am angry?
? (今天我|我觉得|我真的)(好|很|非常|特别)生气。
> 先深呼吸，慢慢数到十，心情会平静一些。
> Take a deep breath and count slowly to ten. You will feel calmer.
= nervous
? 我(好|很|有点|太|)(紧张|害怕|担心|焦虑)。 / (紧张|害怕|担心)(怎么办|的时候怎么办|时怎么办)？
? 我(要上台|要比赛|要面试)了，(好|很)紧张。
? I am (so |very |a little |really |)(nervous|afraid|worried|scared|anxious).
? I feel (nervous|worried|afraid). / What can I do when I am nervous? / I'm scared.
? (今天我|我觉得|我真的)(好|很|非常|特别)(紧张|害怕|担心)。
> 别紧张，慢慢呼吸，你已经准备得很好了。
> Do not worry. Breathe slowly. You are ready for this.
= lonely
? 我(好|很|有点|真|)(孤单|孤独|寂寞)。 / 我没有朋友。 / 没有人(陪我|理我|和我说话)。
? (孤单|孤独)怎么办？
? I am (so |very |a little |really |)(lonely|alone). / I feel (lonely|alone). / I have no friends.
? Nobody (talks to me|likes me). / I'm lonely.
? (今天我|我觉得|我真的)(好|很|非常|特别)(孤单|孤独)。
> 我在这里陪你，你也可以给老朋友打个电话。
> I am here with you. You could also call an old friend.
= happy
? 我(好|很|今天很|真|太|)(开心|高兴|快乐|幸福)(了|)。 / 我(今天|)心情(很好|真好|不错)。
? 今天(真|太)(开心|高兴)了。 / 我有一个好消息！
? I am (so |very |really |)(happy|glad|excited). / I feel (great|happy|good)( today|).
? I have good news! / Today is a good day! / I'm happy.
? (今天我|我觉得|我真的)(好|很|非常|特别)(开心|高兴|快乐)。
? Today I (am|feel) (happy|great|glad).
> 太好了！有什么开心的事，说给我听听吧。
> That is wonderful! Tell me what made you happy.
= sick
? 我(感冒|生病|发烧|咳嗽|病)了。 / 我(头疼|肚子疼|牙疼|嗓子疼|不舒服|头晕)。
? (感冒|发烧|头疼|肚子疼|牙疼|生病)了怎么办？ / 我(有点|)不舒服。
? I am (sick|ill|not well|feeling sick).
? I have a (cold|fever|headache|cough|stomachache|toothache).
? What should I do (about|with|for) a (cold|headache|fever)? / I feel sick.
> 多喝温水，好好休息。如果还不舒服，就去看医生。
> Drink warm water and rest. If it does not get better, see a doctor.
= cannot_sleep
? 我(晚上|总是|又|)(睡不着|失眠|睡不好)(了|)。
? (睡不着|失眠|晚上睡不着|睡不好)(怎么办|觉怎么办|该怎么办)？
? (怎么|怎样)(才能|)(睡得好|睡得更好|快点睡着)？ / 我睡不着觉，怎么办？
? I (cannot|can't|can not) (sleep|fall asleep)( at night| again|).
? What (can|should) I do (if|when) I (cannot|can't) sleep? / How can I sleep (better|well)?
? I have trouble sleeping. / I am still awake.
? (今天|昨天|每天)晚上(我|)(都|又|)睡不着。 / 睡不着(的时候|时)怎么办？
? (It is late and |)I (still |)(cannot|can't) sleep. / I can't fall asleep, what should I do?
> 睡前别看手机，喝杯温牛奶，听听轻音乐。
> Put your phone away, drink warm milk and listen to soft music.
~ 我昨天晚上又睡不着，该怎么办？ / 睡不着的时候可以做什么？
~ What should I do when I have trouble sleeping? / It is late and I still can't fall asleep.
! 温牛奶
! warm milk
= exam
? (我|)(明天|后天|下周)(要|有|就要)(考试|期末考试|数学考试)(了|)。
? (明天要考试|快考试|要考试)了(，|)(怎么办|我很紧张|好紧张|怎么准备)？
? (怎么|怎样|如何)准备考试？ / 考试(前|之前)(该做什么|要注意什么)？
? I have (an exam|a test|a big exam|a math test) (tomorrow|next week|today).
? My exam is tomorrow. / How (should|can|do) I prepare for (an exam|a test|exams)?
? What should I do before (an exam|a test)?
> 看一遍重点，早点睡觉，明天一定没问题。
> Read your notes once more and sleep early. You will do well.
= failed
? 我(考试|)(没考好|考砸了|失败了|没及格|输了)。 / 我(这次|)考得(不好|很差)。 / 失败了怎么办？
? 我比赛输了。
? I (failed|failed my exam|failed the test|lost the game|did badly). / My (exam|test) went badly.
? What should I do after I fail? / I lost.
> 没关系，找出原因，下次会更好。
> That is all right. Find out why, and next time will be better.
= hungry
? 我(好|很|有点|)饿(了|)。 / 肚子饿了(怎么办|)。 / (饿了|肚子饿)(吃什么|怎么办)？ / 我还没吃饭。
? I am (so |very |a little |)hungry. / I'm hungry. / I have not eaten( yet|).
? What should I eat when I am hungry?
> 那就吃点东西吧，一碗热面条很不错。
> Then eat something. A bowl of hot noodles is nice.
= thirsty
? 我(好|很|有点|)渴(了|)。 / 口渴了(怎么办|)。 / (渴了|口渴)喝什么(好|)？
? I am (so |very |a little |)thirsty. / I'm thirsty. / What should I drink when I am thirsty?
> 喝一杯温水吧，对身体好。
> Drink a glass of water. It is good for you.
= cold
? (我|)(好|很|有点|太|)冷(啊|)。 / 我觉得冷。 / 天气(真|太|好|很)冷(啊|)。
? (冷|天冷)了(怎么办|该怎么办)？
? I am (so |very |a little |)cold. / I'm cold. / I feel cold.
? It is (so |very |too |)cold (today|here).
> 多穿点衣服，喝杯热水，别着凉。
> Put on warm clothes and drink something hot.
= hot
? (我|)(好|很|有点|太|)热(啊|)。 / 我觉得热。 / 天气(真|太|好|很)热(啊|)。
? (热|天热)了(怎么办|该怎么办)？
? I am (so |very |a little |too |)hot. / I'm hot. / I feel hot.
? It is (so |very |too |)hot (today|here).
> 多喝水，吃块西瓜，在阴凉的地方坐坐。
> Drink water, eat some melon and sit in the shade.
= lost_thing
? 我的(钥匙|手机|钱包|书|伞|眼镜)(不见|丢|找不到)了(，怎么办|)。
? (东西|钥匙|手机|钱包)(丢了|找不到|不见了)怎么办？ / 我(丢了|找不到)(钥匙|手机|钱包)(了|)。
? I (lost|cannot find|can't find) my (keys|phone|wallet|book|umbrella|glasses).
? My (phone|wallet|umbrella) is (gone|lost). / What should I do when I lose something?
> 别急，想想最后一次在哪里用过，再回去找找。
> Stay calm. Think where you last used it, and look there again.
= quarrel
? 我(和|跟)(朋友|好朋友|妈妈|爸爸|同学|妹妹|弟弟)(吵架|闹矛盾|吵)了。
? (和|跟)(朋友|同学|家人)吵架(了|)怎么办？ / (朋友|同学)(不理我|生我的气)了(怎么办|)。
? I had a (fight|quarrel) with my (friend|best friend|mother|father|sister|brother).
? My friend is angry with me. / What should I do after a (fight|quarrel)( with a friend|)?
> 先冷静一下，再真诚地说声对不起，好好聊一聊。
> Calm down first, then say sorry and talk it over kindly.
= learn_english
? (怎么|怎样|如何)(学|学好|学习)(英语|英文|外语)？ / 我(想|要)学(英语|英文|好英语)。
? 我的英语(不好|很差)怎么办？ / 怎么(记|背)单词？
? How (can|do|should) I learn (English|Chinese|a language|a new language)?
? I want to learn (English|Chinese|a language). / How can I remember (words|new words)?
? My English is bad.
> 每天记五个词，多听多说，不要怕说错。
> Learn five words a day, listen and speak often, and do not fear mistakes.
= study
? (怎么|怎样|如何)(学习|提高成绩|学得更好|学好数学|认真学习)？ / 我(学习|成绩)(不好|很差)怎么办？
? 我不想(学习|写作业|上学)。 / 我学不会怎么办？
? How (can|do|should) I (study|study better|learn better|get good grades|learn math)?
? I (do not|don't) want to (study|do my homework|go to school). / How can I be a better student?
> 定一个小目标，每天学一点，做完就休息一下。
> Set a small goal, learn a little each day, and rest when it is done.
= healthy
? (怎么|怎样|如何)(保持健康|让身体更好|锻炼身体|才能健康|减肥|变瘦)？
? 我(想|要)(减肥|锻炼身体|变健康)。 / (身体不好|太胖了)怎么办？ / 怎么(才能|)身体好？
? How (can|do|should) I (stay healthy|get fit|keep fit|lose weight|be healthy)?
? I want to (lose weight|get fit|be healthy). / What is good for my (health|body)?
> 多吃蔬菜，多运动，早睡早起。
> Eat vegetables, move every day, and go to bed early.
= save_money
? (怎么|怎样|如何)(省钱|存钱|攒钱)？ / 我(没钱|没有钱|没钱了|想存钱)(怎么办|)。
? 钱不够(用|花)怎么办？
? How (can|do|should) I save money? / I have no money. / I want to save money.
? What should I do when I have no money?
> 记下每天花的钱，只买需要的东西。
> Write down what you spend, and buy only what you need.
= make_friends
? (怎么|怎样|如何)(交朋友|交到朋友|认识新朋友|和人聊天)？ / 我想(交朋友|交新朋友)。
? 我(很|太|)害羞(怎么办|)。 / 不敢说话怎么办？
? How (can|do|should) I make friends? / I want to make (friends|new friends).
? I am (so |very |too |)shy. / How can I talk to people?
> 多微笑，主动打招呼，聊聊对方喜欢的事。
> Smile, say hello first, and ask what they like.
= get_up
? (怎么|怎样|如何)(早起|早睡早起|按时起床)？ / 我(早上|总是|)(起不来|起不了床|迟到)(怎么办|)。
? 早上起不来怎么办？
? How can I (get up|wake up) (early|earlier)? / I (cannot|can't) (get up|wake up) in the morning.
? I am always late. / What should I do to be on time?
> 晚上早点睡，把闹钟放远一点。
> Go to bed early and put the alarm clock far from your bed.
= rainy_day
? (下雨天|雨天|下雨)(可以|能|)(做什么|干什么|玩什么)(好|)？
? (下雨了|外面下雨了)，(做什么好|不能出去玩)？ / 待在家里做什么(好|)？
? What can I do on a rainy day? / It is raining, what (can|should) I do? / What can I do at home?
? What should I do when it rains?
> 可以在家看书、画画，或者做一顿好吃的饭。
> You can read, draw, or cook something nice at home.
= weekend
? (周末|星期天|假期|放假|这个周末)(可以|能|)(做什么|干什么|去哪里玩|玩什么|怎么过)(好|)？
? 周末有什么(安排|建议)？ / 今天(可以|)做什么好？
? What (can|should) I do (on|at) the weekend?
? What should I do (today|on Sunday|this weekend|in the holidays)? / Any plans for the weekend?
> 可以去公园走走，或者和家人一起做饭。
> You could walk in the park or cook with your family.
= gift
? (送|给)(妈妈|朋友|爸爸|老师|奶奶|女朋友|同学)(什么礼物|送什么|送什么礼物)(好|)？
? (妈妈|朋友|爸爸|老师)(过生日|的生日)送什么(好|礼物好)？ / (推荐|帮我想)一个(生日|)礼物。
? What (gift|present) (should|can) I (give|buy) my (mother|friend|father|teacher|grandmother)?
? What is a good (gift|present)( for my mother| for a friend|)?
? I need a gift for my (mother|friend|teacher).
> 可以送一束花和一张自己写的卡片。
> Some flowers and a card written by you would be nice.
= breakfast
? (早饭|早餐|早上)吃什么(好|)？ / (推荐|推荐一下)(早饭|早餐)。 / 有什么好的早餐(推荐|)？
? 早上应该吃点什么？
? What (should|can) I (eat|have) for breakfast? / What is a good breakfast?
? Give me an idea for breakfast.
> 可以吃鸡蛋、牛奶和面包。
> You could have eggs, milk and bread.
= dinner
? (今天|中午|晚上|午饭|晚饭|今晚)吃什么(好|)？
? (推荐|推荐一下)(一个菜|一道菜|晚饭|午饭|美食|好吃的)。 / 有什么好吃的(推荐|)？
? 不知道吃什么(，推荐一下|)。 / 推荐(一些|点)好吃的。
? What (should|can) I (eat|have|cook)( for dinner| for lunch| tonight| today|)?
? (Recommend|Suggest) (a dish|some food|a meal|something to eat). / What is good to eat?
? Give me an idea for (dinner|lunch).
> 我推荐西红柿炒鸡蛋，简单又好吃。
> I suggest tomato and egg with rice. It is easy and tasty.
= drink
? (喝什么|喝点什么)好？ / (推荐|推荐一下|推荐一种)(饮料|喝的)。 / 有什么好喝的(推荐|)？
? 夏天喝什么好？
? What (should|can) I drink? / (Recommend|Suggest) a drink. / What is good to drink?
? Give me an idea for a drink.
> 我推荐绿茶，清香又健康。
> I suggest green tea. It is fresh and healthy.
= hobby
? (推荐|推荐一个|给我推荐一个)(爱好|兴趣|兴趣爱好)。 / (有什么|学什么)(好的|)爱好(推荐|好|)？
? 我想(找|学)一个爱好。 / 什么爱好(比较|)好？
? (Recommend|Suggest) a hobby( for me|). / What (is a good hobby|hobby should I try)?
? I want a (new |)hobby. / Give me an idea for a hobby.
> 我推荐画画，一支笔、一张纸就能开始。
> I suggest drawing. A pen and paper are all you need.
= sport
? (推荐|推荐一个|推荐一种)(运动|体育运动|锻炼方法)。 / (做|有)什么运动(好|比较好|推荐|)？
? 什么运动(适合我|简单|好)？ / 我想(运动|锻炼)，做什么好？
? (Recommend|Suggest) a sport( for me|).
? What (is a good sport|sport should I try|sport is good for me)? / I want to do sports.
? Give me an idea for exercise.
> 我推荐跑步，一双鞋就够了，还能看风景。
> I suggest running. You only need shoes, and you can enjoy the view.
= book
? (推荐|推荐一本|给我推荐一本)(书|好书|好看的书)。 / (有什么|看什么)(好|)书(推荐|好|)？
? 我想看书，看什么好？ / 读什么书好？
? (Recommend|Suggest) a (good |)book( for me|).
? What (book should I read|is a good book|should I read)? / I want to read a book.
? Give me an idea for a book.
> 我推荐读《西游记》，里面的孙悟空很有趣。
> I suggest "The Little Prince". It is short and beautiful.
= movie
? (推荐|推荐一部|给我推荐一部)(电影|好看的电影|动画片|电视剧)。
? (有什么|看什么)(电影|动画片)(好看|推荐|好)？ / 我想看电影，看什么好？
? (Recommend|Suggest) a (good |)(movie|film|cartoon)( for me|).
? What (movie|film) should I (watch|see)? / What is a good (movie|film)?
? I want to watch a movie.
> 我推荐看动画片，轻松又开心。
> I suggest a cartoon. It is light and happy.
= music
? (推荐|推荐一首|给我推荐一首)(歌|歌曲|音乐|好听的歌)。 / (有什么|听什么)(歌|音乐)(好听|推荐|好)？
? 我想听音乐，听什么好？
? (Recommend|Suggest) (a song|some music|a good song)( for me|).
? What (music|song) should I listen to? / What is a good song? / I want to listen to music.
> 我推荐听轻轻的钢琴曲，让人心里很安静。
> I suggest soft piano music. It makes the heart quiet.
= travel
? (推荐|推荐一个)(旅游的地方|好玩的地方|旅行的地方|景点)。 / (去哪里|去哪儿)(玩|旅游|旅行)(好|)？
? 有什么好玩的地方(推荐|)？ / 我想(去旅游|去旅行|出去玩)。
? (Recommend|Suggest) a place to (visit|travel|go).
? Where should I (go|travel|visit|go on holiday)? / What is a good place to visit?
? I want to travel.
> 我推荐去海边，可以看日出，捡贝壳。
> I suggest the seaside. You can watch the sunrise and find shells.
= pet
? (养|推荐)什么(宠物|小动物)(好|)？ / 推荐一种宠物。 / 我想养(宠物|一只宠物|小动物)。
? 什么宠物(好养|好)？
? What pet should I (get|keep|have)? / (Recommend|Suggest) a pet( for me|).
? I want (a pet|to have a pet). / What is a good pet?
> 我推荐养小猫，安静又可爱，记得好好照顾它。
> I suggest a cat. It is quiet and cute. Take good care of it.
= spring
? 春天(是什么样的|有什么特点|怎么样|有什么|会怎么样|能做什么|美吗|可以做什么)？
? (说说|介绍一下|讲讲)春天。
? What is spring like? / Tell me about spring. / What (happens|can I do|do you see) in spring?
? Describe spring.
> 春天天气变暖，花开了，小草也绿了。
> In spring it gets warm, flowers open and the grass turns green.
= summer
? 夏天(是什么样的|有什么特点|怎么样|有什么|会怎么样|能做什么|热吗|可以做什么)？
? (说说|介绍一下|讲讲)夏天。
? What is summer like? / Tell me about summer. / What (happens|can I do|do you see) in summer?
? Describe summer. / Is summer hot?
> 夏天很热，白天很长，可以游泳、吃西瓜。
> Summer is hot and the days are long. You can swim and eat melon.
= autumn
? 秋天(是什么样的|有什么特点|怎么样|有什么|会怎么样|能做什么|凉快吗|可以做什么)？
? (说说|介绍一下|讲讲)秋天。
? What is (autumn|fall) like? / Tell me about (autumn|fall).
? What (happens|can I do|do you see) in autumn? / Describe autumn.
> 秋天很凉快，树叶变黄，果子也熟了。
> Autumn is cool. The leaves turn yellow and the fruit is ripe.
= winter
? 冬天(是什么样的|有什么特点|怎么样|有什么|会怎么样|能做什么|冷吗|可以做什么)？
? (说说|介绍一下|讲讲)冬天。
? What is winter like? / Tell me about winter. / What (happens|can I do|do you see) in winter?
? Describe winter. / Is winter cold?
> 冬天很冷，有的地方会下雪，可以堆雪人。
> Winter is cold. In some places it snows, and you can build a snowman.
= birthday
? 今天是我的生日(！|。) / (我今天|今天我)(过生日|生日)！ / 祝我生日快乐吧！ / 明天是我的生日。
? (Today is|It is|Tomorrow is) my birthday! / It's my birthday( today|)! / Wish me a happy birthday!
> 生日快乐！祝你天天开心。
> Happy birthday! I wish you joy every day.
= new_year
? (新年|春节|过年|节日)(快乐|好)！ / 祝你(新年|春节|节日)快乐！ / 过年好！
? Happy (New Year|holidays|Spring Festival)! / Merry Christmas! / I wish you a happy New Year!
> 谢谢！也祝你节日快乐，身体健康。
> Thank you! I wish you joy and good health too.
= back_home
? 我(回来|回家|下班|放学|到家)了(！|。) / 我(刚|刚刚)(下班|放学|到家|回来)。 / 我(起床|醒|来)了！
? I am (back|home|here|back home)! / I'm (back|home)!
? I just (got home|came home|woke up|finished work).
> 欢迎回来！今天过得怎么样？
> Welcome back! How was your day?
= good_luck
? 祝我好运(吧|)！ / (给我|帮我)(加油|打气|鼓鼓劲)(吧|)！ / (鼓励|夸夸|表扬|鼓励一下)我(吧|)。
? 我(能|可以|会)(成功|做到|做好)吗？
? Wish me (luck|good luck)! / (Cheer|Encourage) me( up|). / (Can|Will) I (do it|make it|succeed)?
? Say something nice to me.
> 加油！你很棒，我相信你能做到。
> You can do it! I believe in you.
= go_out
? 我(要|想|准备)(去上学|去上班|出门|去公园|出去玩|去超市|去学校)了(。|！)
? 我(去上班|去上学|出门)了。
? I am going (to school|to work|out|to the park|to the shop)( now|). / I'm going out.
? I am off to (school|work).
> 路上小心，祝你一切顺利！
> Take care on the way, and have a good time!
"""


@cache
def talks() -> Talks:
    """Intents with fixed replies, in both languages."""
    return read_talks(_TALKS)
