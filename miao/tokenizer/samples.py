"""Short texts to compare tokenizers on: written for this, but for the classical ones, which are in
the public domain."""

from __future__ import annotations

SAMPLES: dict[str, str] = {
    "zh": (
        "清晨六点，小镇的菜市场已经热闹起来。卖豆腐的老王把木板擦得干干净净，一块一块地切，"
        "刀落下去几乎没有声音。旁边的阿姨一边称土豆，一边和熟客聊天：“昨天夜里那场雨真大，"
        "地里的菜都喝饱了水。”孩子们背着书包从人群里钻过去，手里还拿着没吃完的包子。\n\n"
        "专家指出，人工智能正在改变许多行业的工作方式，但它并不会自动让每个人受益。"
        "要让技术真正服务于社会，需要教育、法律和公共服务同时跟上。2025年，全国共有3,200多所学校"
        "参加了试点，其中约62.5%位于县城和农村。学习一门新的语言、修理一台旧机器、照顾好一块菜地，"
        "这些能力同样值得尊重。\n"
    ),
    "en": (
        "The library stood at the end of a narrow street, between a bakery and a shop that sold "
        "second-hand bicycles. Nobody knew exactly how old it was, but the wooden stairs had been "
        "worn smooth by several generations of readers. On rainy afternoons the children would "
        "sit under the tall windows and argue, quietly, about which book to open next.\n\n"
        "Researchers who study small language models often face a simple question: how much can be "
        "learned from a limited amount of text? The answer depends on the quality of the data, the "
        "size of the vocabulary, and the patience of the person who trains the model. In 2024, "
        "roughly 40% of the experiments didn't reproduce at the first attempt.\n"
    ),
    "code": (
        "from collections import Counter\n\n\n"
        "def most_common_words(path: str, limit: int = 10) -> list[tuple[str, int]]:\n"
        '    """The most frequent words of a text file, lower case."""\n'
        "    counts: Counter[str] = Counter()\n"
        '    with open(path, encoding="utf-8") as file:\n'
        "        for line in file:\n"
        "            counts.update(word.strip('.,!?') for word in line.lower().split())\n"
        "    return counts.most_common(limit)\n\n\n"
        "// the same thought in another language\n"
        "for (let i = 0; i < items.length; i++) {\n"
        "  if (items[i].price >= 100 && !items[i].sold) {\n"
        "    total += items[i].price * (1 - discount);\n"
        "  }\n"
        "}\n"
        "SELECT name, COUNT(*) AS n FROM orders WHERE year = 2025 GROUP BY name ORDER BY n DESC;\n"
    ),
    "math": (
        "解方程 3x² − 12x + 9 = 0。两边除以3，得 x² − 4x + 3 = 0，即 (x − 1)(x − 3) = 0，"
        "所以 x = 1 或 x = 3。\n"
        "Let $f(x) = \\frac{1}{2}x^2 - \\sin(x)$. Then $f'(x) = x - \\cos(x)$, and "
        "$\\int_0^1 f(x)\\,dx = \\frac{1}{6} - (1 - \\cos 1) \\approx -0.293$.\n"
        "1234 + 5678 = 6912; 37 × 45 = 1665; 1000 ÷ 8 = 125; 0.125 = 12.5%; √144 = 12.\n"
        "A train covers 270 km in 2.5 hours: its speed is 270 / 2.5 = 108 km/h.\n"
    ),
    "classical": (
        "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？\n"
        "道可道，非常道；名可名，非常名。无名，天地之始；有名，万物之母。\n"
        "北冥有鱼，其名为鲲。鲲之大，不知其几千里也；化而为鸟，其名为鹏。鹏之背，不知其几千里也；"
        "怒而飞，其翼若垂天之云。\n"
        "晋太元中，武陵人捕鱼为业。缘溪行，忘路之远近。忽逢桃花林，夹岸数百步，中无杂树，"
        "芳草鲜美，落英缤纷。渔人甚异之，复前行，欲穷其林。\n"
        "庆历四年春，滕子京谪守巴陵郡。越明年，政通人和，百废具兴，乃重修岳阳楼，增其旧制。\n"
    ),
}
"""Kind of text -> the text."""
