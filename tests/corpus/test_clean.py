"""Rules: each against cases worked out by hand, all of them against random text."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.clean import Cleaned, Cleaner, Rejected, checks, edits, reasons
from miao.corpus.clean.dialogue import refusal, wrong_order
from miao.corpus.clean.language import foreign_share
from miao.corpus.clean.personal import is_identity_number, mask_emails, mask_phones
from miao.corpus.clean.personal import mask_identity_numbers as mask_ids
from miao.corpus.ngrams import TextView, language_of
from miao.corpus.records import Conversation, Document, Message, Preference
from miao.errors import MiaoError
from miao.recipe.cleaning import CleanOptions

STRICT = CleanOptions(
    html=True,
    boilerplate=True,
    personal=["id", "email", "phone"],
    min_characters={"zh": 5, "en": 20},
    max_characters=5000,
    max_symbols=0.45,
    max_digits=0.4,
    max_repeated_lines=0.3,
    max_repeated_ngrams=0.4,
    role_order=True,
    refusals=True,
)


@pytest.mark.parametrize(
    ("function", "before", "after"),
    [
        (edits.normalise_unicode, "\ufeff零\u200b宽\r\n行\u2028末\u00a0空", "零宽\n行\n末 空"),
        (edits.normalise_unicode, "e\u0301te\u0301", "été"),
        (edits.normalise_unicode, "\u3000\u3000段首缩进，全角标点！", "\u3000\u3000段首缩进，全角标点！"),
        (edits.normalise_unicode, "👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        (edits.remove_controls, "a\x00b\x07c\td\ne", "abc\td\ne"),
        (edits.remove_controls, "郭志\ue853痧辨", "郭志□痧辨"),
        (edits.remove_controls, "戊实淫\ue4c7，李\ue844\ue844", "戊实淫□，李□□"),
        (edits.remove_controls, "\ue001 menu\n\ue002首页", " menu\n首页"),
        (edits.narrow_width, "ＡＢｚ１２９，（）！", "ABz129，（）！"),
        (edits.tidy_whitespace, "\n\na  \n\n\n\n    b\t\nc\n", "a\n\n    b\nc"),
        (edits.strip_html, "<p>你好<br/>世界&nbsp;&amp;</p>", "你好\n世界 &"),
        (edits.strip_html, '<a href="x">link</a> a < b > c &unknown;', "link a < b > c &unknown;"),
        (edits.strip_html, "<script>\nvar a;\n</script>text<!-- no -->", "text"),
        (edits.strip_html, "use `<p>` and\n```\n<div>&amp;</div>\n```", "use `<p>` and\n```\n<div>&amp;</div>\n```"),
        (edits.strip_html, "    <p>indented code</p>", "    <p>indented code</p>"),
        (edits.strip_html, "std::vector<int> x; List<String>", "std::vector<int> x; List<String>"),
        (edits.remove_boilerplate, "正文。\n版权所有 © 2020 某公司\n上一篇\n结尾。", "正文。\n结尾。"),
        (edits.remove_boilerplate, "```\ncopyright: 2020\n© 2020\n```", "```\ncopyright: 2020\n© 2020\n```"),
        (edits.remove_boilerplate, "来源于生活的故事很多。\n点击按钮就可以。", "来源于生活的故事很多。\n点击按钮就可以。"),
        (edits.remove_boilerplate, "Read more\nHe read more books.\nAll rights reserved.", "He read more books."),
    ],
)  # fmt: skip
def test_edits(function, before: str, after: str) -> None:
    assert function(before) == after
    assert function(after) == after, "an edit has nothing more to do"


def test_identity_numbers() -> None:
    # The example of GB 11643-1999, and the same with one digit changed.
    assert is_identity_number("11010519491231002X")
    assert not is_identity_number("11010519491231012X")
    assert mask_ids("证号11010519491231002x。") == "证号[id]。"
    for kept in ("11010519491331002X", "311010519491231002X", "11010519491231002XY"):
        assert mask_ids(kept) == kept


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("电话：13812345678。", "电话：[phone]。"),
        ("+86 138 1234 5678", "[phone]"),
        ("138-1234-5678，010-62345678", "[phone]，[phone]"),
        ("（0571）87654321", "[phone]"),
        ("call +1 650 253 0000 now", "call [phone] now"),
        ("圆周率 3.14159265358979, 订单 2013812345678900", "圆周率 3.14159265358979, 订单 2013812345678900"),
        ("ISBN 978-7-302-12345-6, 1381234567, 2010-2020", "ISBN 978-7-302-12345-6, 1381234567, 2010-2020"),
        ("bytes   17448304640\t13812345678", "bytes   17448304640\t13812345678"),
        ("图 0-1234567, v13812345678", "图 0-1234567, v13812345678"),
    ],
)  # fmt: skip
def test_phones(before: str, after: str) -> None:
    assert mask_phones(before) == after


def test_emails() -> None:
    text = "写信给 zhang.san@mail.edu.cn，或 a@example.com；git@github.com:owner/x 不是。"
    assert mask_emails(text) == text.replace("zhang.san@mail.edu.cn", "[email]")


def test_language_by_script() -> None:
    told = {
        t: language_of(TextView(t))
        for t in ("春天来了。", "Spring is here.", "これはペンです。", "123", "Привет")
    }
    assert list(told.values()) == ["zh", "en", "other", "other", "other"]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("empty", "。。。！！"),
        ("too short", "太短了"),
        ("too short", "Too short."),
        ("too long", "长" * 20 + "很长的一段话。" * 900),
        ("one character", "哈" * 80 + "你好"),
        ("symbols", "@#$^&*~=" * 10 + "文字说明在此处"),
        ("digits", "价格 " + "12345 " * 30),
        ("repeated lines", "同样的一行文字在这里\n" * 8 + "最后一行"),
        ("repeated n-grams", "今天的天气真好我们一起去公园散步吧" * 12),
        ("broken", "乱码\ufffd\ufffd\ufffd文字，还有一些其他文字"),
    ],
)
def test_each_check_finds_its_text(rule: str, text: str) -> None:
    found = Cleaner(STRICT).clean(Document(text))
    assert isinstance(found, Rejected) and found.rule == rule


def test_good_texts_pass_all_rules() -> None:
    texts = [
        "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
        "中华人民共和国成立于1949年10月1日，首都是北京，人口超过十四亿。",
        "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))  # 3\n" + "for x in y: pass\n" * 2,
        "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
        "| 年份 | 数量 |\n|---|---|\n| 二零一九 | 一百 |\n| 二零二零 | 二百 |\n表格说明如上所示。",
    ]
    for text in texts:
        assert isinstance(Cleaner(STRICT).clean(Document(text)), Cleaned), text


def test_repetition_is_what_one_counts_by_hand() -> None:
    lines = ["一二三四"] * 4 + ["五六七八"] * 4  # 32 characters, 8 of them new
    assert checks.repeated_line_share(TextView("\n".join(lines))) == pytest.approx(0.75)
    token_count = 50
    text = "".join(chr(0x4E00 + i) for i in range(token_count)) * 2
    grams = 2 * token_count - checks.NGRAM + 1  # 91, of which 50 different
    assert checks.repeated_ngram_share(TextView(text)) == pytest.approx(
        (grams - token_count) / grams
    )
    long = "".join(chr(0x4E00 + i) for i in range(8000)) * 2
    assert checks.repeated_ngram_share(TextView(long)) == pytest.approx(0.5, abs=0.01), "sampled"


def test_blocklist(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("加微信\nviagra\n代开发票\n", encoding="utf-8")
    cleaner = Cleaner(CleanOptions(blocklists=[str(words)], max_blocked=1))
    assert isinstance(cleaner.clean(Document("请加微信联系。Viagras are not one.")), Cleaned)
    found = cleaner.clean(Document("请加微信联系，买 VIAGRA。"))
    assert isinstance(found, Rejected) and found.detail == "2: viagra, 加微信"
    with pytest.raises(MiaoError, match="cannot be read"):
        Cleaner(CleanOptions(blocklists=[str(tmp_path / "none.txt")]))


def turns(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role, content) for role, content in pairs]  # type: ignore[arg-type]


def test_dialogue_rules() -> None:
    good = turns(
        ("system", "s"),
        ("user", "问"),
        ("assistant", "答"),
        ("user", "再问"),
        ("assistant", "再答"),
    )
    assert wrong_order(good) is None
    called = [
        Message("user", "天气"),
        Message("assistant", "", None, [{"name": "w", "arguments": {}}]),
    ]
    assert wrong_order([*called, Message("tool", "晴"), Message("assistant", "晴天")]) is None
    assert wrong_order(good[:2]) == "ends with user"
    assert wrong_order(good[2:]) == "turn 1 is assistant after start"
    assert wrong_order([*good[:2], *good[1:]]) == "turn 3 is user after user"
    for text in (
        "作为一个人工智能语言模型，我没有感情。",
        "很抱歉，我无法回答这个问题。",
        "As an AI language model, I cannot",
        "I'm sorry, but I can't help with that.",
    ):
        assert refusal(turns(("user", "x"), ("assistant", text))), text
    for text in (
        "人工智能是计算机科学的一个分支。",
        "抱歉让你久等了，答案是42。",
        "AI is a field of computer science.",
        "作为一名教师，我认为学习很重要。",
    ):
        assert refusal(turns(("user", "作为一个人工智能"), ("assistant", text))) is None, text


def test_a_rejected_answer_may_refuse() -> None:
    cleaner = Cleaner(CleanOptions(refusals=True))
    sides = turns(("assistant", "好的，答案是四。")), turns(("assistant", "对不起，我无法回答。"))
    prompt = turns(("user", "二加二？"))
    assert isinstance(cleaner.clean(Preference(prompt, *sides)), Cleaned)
    assert isinstance(cleaner.clean(Preference(prompt, sides[1], sides[0])), Rejected)


def test_edits_reach_every_turn_and_change_nothing_given() -> None:
    conversation = Conversation(turns(("user", "ａ\u200b"), ("assistant", "ｂ\u200b")), "here")
    cleaned = Cleaner(CleanOptions()).clean(conversation)
    assert isinstance(cleaned, Cleaned) and isinstance(cleaned.record, Conversation)
    assert [message.content for message in cleaned.record.messages] == ["a", "b"]
    assert cleaned.record.source == "here" and conversation.messages[0].content == "ａ\u200b"
    assert cleaned.edits["unicode"][0] == 2 and set(cleaned.edits) == {"unicode", "halfwidth"}


def test_nothing_is_done_when_switched_off() -> None:
    record = Document("\x00。")
    cleaned = Cleaner(CleanOptions(enabled=False)).clean(record)
    assert isinstance(cleaned, Cleaned) and cleaned.record == record and not cleaned.edits


def test_a_text_without_what_an_edit_acts_on_is_not_changed_by_it() -> None:
    every = [chr(c) for c in [*range(0x10000), *range(0x1E900, 0x1FAFF), *range(0x20000, 0x2A6E0)]]
    acting = [rule for rule in Cleaner(CleanOptions(html=True)).edits if rule.acts_on]
    assert {rule.name for rule in acting} == {"html", "unicode", "controls", "halfwidth"}
    for rule in acting:
        acted_on = re.compile(f"[{rule.acts_on}]")
        without = "".join(f"e{c}か" for c in every if not acted_on.match(c))
        assert len(without) > 60_000 and rule.apply(without) == without, rule.name
        if rule.name == "unicode":  # what composes holds one of them
            parts = [unicodedata.normalize("NFD", c) for c in every if not "\ud7ff" < c < "\ue000"]
            assert all(acted_on.search(p) or unicodedata.normalize("NFC", p) == p for p in parts)


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ftfy", "opencc", "lingua"):
        pytest.importorskip(name)
    options = CleanOptions(mojibake=True, simplify=True, languages=["zh", "en"])
    cleaner = Cleaner(options)
    broken = "这是一个测试".encode().decode("latin-1")
    for before, after in (("漢語與繁體字的轉換", "汉语与繁体字的转换"), (broken, "这是一个测试")):
        cleaned = cleaner.clean(Document(before))
        assert isinstance(cleaned, Cleaned) and cleaned.view.text == after
    german = cleaner.clean(Document(FOREIGN["de"]))
    assert isinstance(german, Rejected) and german.rule == "language"
    with pytest.raises(MiaoError, match="no language"):
        Cleaner(CleanOptions(languages=["klingon"]))
    with pytest.raises(MiaoError, match="no kind of personal data"):
        Cleaner(CleanOptions(personal=["emial"]))


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_is_kept_or_rejected_with_a_known_rule(text: str) -> None:
    found = Cleaner(STRICT).clean(Document(text))
    if isinstance(found, Rejected):
        assert found.rule in reasons()
        return
    assert set(found.edits) <= set(reasons())
    again = Cleaner(STRICT).clean(Document(found.view.text))
    if isinstance(again, Cleaned):  # what was unescaped may need a second look, no more
        assert unicodedata.is_normalized("NFC", again.view.text)
    tokens = TextView(text)
    assert len(tokens.tokens) <= len(text) and sum(tokens.counts) == len(text)


FOREIGN = {
    "ja": "これは日本語の文章です。私は毎朝、公園を散歩してから会社へ行きます。昨日は友達と映画を見ました。",
    "ko": "오늘은 날씨가 아주 좋아서 친구와 함께 공원에 갔습니다. 우리는 점심을 먹고 이야기를 나누었습니다.",
    "ru": "Сегодня хорошая погода, и мы решили пойти в парк, чтобы погулять и поговорить о жизни.",
    "ar": "الطقس جميل اليوم ولذلك قررنا أن نذهب إلى الحديقة لنتمشى ونتحدث عن الحياة والعمل.",
    "fr": "Il fait beau aujourd'hui, alors nous avons décidé d'aller au parc pour nous promener et pour "
    "parler de la vie, du travail et des choses que nous avons vues pendant le voyage.",
    "de": "Heute ist das Wetter schön, und deshalb sind wir in den Park gegangen, um dort zu spazieren "
    "und über die Dinge zu reden, die wir auf der langen Reise gesehen haben.",
    "es": "Hoy hace buen tiempo, así que decidimos ir al parque para pasear y hablar de la vida y de las "
    "cosas que vimos durante el largo viaje por las montañas del norte.",
    "vi": "Hôm nay thời tiết rất đẹp nên chúng tôi quyết định đi công viên để dạo chơi và nói chuyện về "
    "cuộc sống và công việc của mình trong những năm qua.",
}  # fmt: skip
WANTED = frozenset(["zh", "en"])
SOUND = {
    "a Chinese text on Japan": "高桥一生（たかはしいっせい）是日本男演员，东京都出身。以《フォーティンブラス》的准主角之姿首次登上"
    "舞台，此后出演多部影视作品。代表作《カルテット》《リバース》。",
    "names in English": "Giulio Cesare Borea (1621–1655) was a Roman Catholic prelate who served as Bishop of "
    "Belcastro. In Milano he sang Serafina (\"Il campanello\"), Zerlina (\"Don Giovanni\") and Norina at the "
    "Teatro alla Scala, and was followed by Francesco de Napoli and Carlo Sgombrino of Santa Maria Maggiore.",
    "a list of names": "Niccolò Machiavelli\nJosé María Velasco Ibarra\nFrançois-Xavier Dupont de l'Étang\n"
    "Volker von Alzey\nWolfgang Amadeus Mozart\nMaria da Conceição Nóbrega Teixeira\nLuís de Camões\n",
    "formulas": "设 $g$ 是原根，则 $x^k \\equiv a \\pmod m$ 有解．\n$$\n\\{g^{di}\\bmod m : 0 \\le i < d'\\}\n$$\n"
    "因为 $a\\perp m$，所以 $x\\perp m$．" * 3,
    "code": "查询如下：\n```sql\ndb.s2.find().sort({\"userid\": 1, \"score\": -1})\n```\n索引的目的是加快查询，如下：\n"
    "```js\ndb.s2.createIndex({userid: 1, score: -1, unique: true, partialFilterExpression: null})\n```\n",
    "classical Chinese": "子曰：「學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？」",
    "too little to tell": "Danke schön, mein Freund.",
    "Latin names of species": "Lymantria ampla feeds on Rosa, Ricinus communis, Tectona grandis, Terminalia catappa, "
    "Quisqualis indica, Pelargonium.",
}  # fmt: skip


def test_what_is_foreign_and_what_only_seems_so() -> None:
    pytest.importorskip("lingua")
    for code, text in FOREIGN.items():
        assert foreign_share(text, WANTED) == (1.0, code), code
        assert foreign_share(text, WANTED | {code}) == (0.0, ""), code
    for name, text in SOUND.items():
        assert foreign_share(text, WANTED)[0] < 0.2, name
    chinese = "今天天气很好，我们决定去公园散步，一边走一边谈论生活、工作和旅途中看到的事情。" * 4
    assert foreign_share(f"{chinese}\n{FOREIGN['fr']}", WANTED)[0] < 0.5
    assert foreign_share(chinese, frozenset(["en"])) == (1.0, "zh")


def test_scripts_need_no_library() -> None:
    wanted = frozenset(["zh"])
    assert foreign_share(FOREIGN["ko"], wanted) == (1.0, "ko")
    assert foreign_share(FOREIGN["de"], wanted) == (1.0, "other")
    assert foreign_share(SOUND["classical Chinese"], wanted) == (0.0, "")


def test_garbled_text_is_found_and_poems_are_not() -> None:
    poem = (
        "哀世兮睩睩，諓諓兮嗌喔。众多兮阿媚，骪靡兮成俗。贪枉兮党比，贞良兮茕独。鹄窜兮枳棘，鹈集兮帷幄。"
        "罽蕠兮青葱，槁本兮萎落。睹斯兮伪惑，心为兮隔错。逡巡兮圃薮，率彼兮畛陌。"
    )
    garbled = "夏四月丁卯诏襄阳安抚高达".encode().decode("gb18030", "ignore") * 4
    assert checks.garbled_share(TextView(poem)) == 0
    assert checks.garbled_share(TextView(garbled)) == 1
    assert checks.garbled_share(TextView(garbled[:20])) == 0, "too little to tell"
    found = Cleaner(CleanOptions()).clean(Document(garbled))
    assert isinstance(found, Rejected) and found.rule == "garbled"
