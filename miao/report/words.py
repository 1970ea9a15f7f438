"""The words of the report in both languages, and how its numbers are written."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeGuard

from miao.corpus.clean import REASONS


class Text(NamedTuple):
    """One phrase in both languages; the page shows the one that the reader chose."""

    zh: str
    en: str


STAGE_NAMES = {
    "corpus": Text("语料", "Corpus"),
    "eval items": Text("出题", "Evaluation items"),
    "tokenizer": Text("分词器", "Tokenizer"),
    "shards": Text("切成词元", "Shards"),
    "before": Text("之前", "Before"),
    "pretrain": Text("预训练", "Pretraining"),
    "sft": Text("微调 SFT", "SFT"),
    "dpo": Text("偏好 DPO", "DPO"),
    "grpo": Text("奖励 GRPO", "GRPO"),
    "report": Text("报告", "Report"),
}

TASK_NAMES = {
    "bits per byte": Text("每字节比特数", "Bits per byte"),
    "multiple choice": Text("选择题", "Multiple choice"),
    "questions": Text("问答", "Questions"),
    "preference (likelihood)": Text("偏好：似然", "Preference: likelihood"),
    "preference (reward)": Text("偏好：隐式奖励", "Preference: implicit reward"),
    "preference margin": Text("偏好间隔", "Preference margin"),
    "rewards": Text("奖励", "Rewards"),
}

TASK_NOTES = {
    "bits per byte": Text(
        "留出文本的每个 UTF-8 字节平均要用多少比特；越低越好，与词表大小无关。",
        "How many bits each UTF-8 byte of held-out text costs; lower is better, and the size of "
        "the vocabulary does not matter.",
    ),
    "multiple choice": Text(
        "把每个选项接在题目后面，选困惑度最低的一个。",
        "Each option is read after the question; the least perplexing one is chosen.",
    ),
    "questions": Text(
        "在对话里提问，贪心解码，按答案文字判对错；没有可比的瞎猜分数。",
        "Asked in the chat, decoded greedily, judged by the text of the answer; guessing has no "
        "score here.",
    ),
    "preference (likelihood)": Text(
        "好回答的平均词元对数概率高于差回答的比例。",
        "How often the better answer has the higher mean log-probability per token.",
    ),
    "preference (reward)": Text(
        "以 DPO 之前的模型为参照，好回答的隐式奖励更高的比例。",
        "How often the better answer has the higher implicit reward, held against the model "
        "before DPO.",
    ),
    "preference margin": Text(
        "好回答与差回答的隐式奖励之差，已乘 β。",
        "Implicit reward of the better answer minus that of the worse one, times β.",
    ),
    "rewards": Text(
        "不参加训练的题目，贪心解码，由程序给出的奖励。",
        "What a program gives for greedy answers to problems that GRPO has not trained on.",
    ),
}

CATEGORY_NAMES = {
    "all": Text("全部", "All"),
    "single answers": Text("单个回答", "Single answers"),
    "animals": Text("动物", "Animals"),
    "arithmetic": Text("算术", "Arithmetic"),
    "calendar": Text("历法", "Calendar"),
    "comparison": Text("比大小", "Comparison"),
    "concise": Text("简洁", "Concise"),
    "conversations": Text("对话", "Conversations"),
    "correct": Text("正确", "Correct"),
    "dialogues": Text("对白", "Dialogues"),
    "documents": Text("文档", "Documents"),
    "general": Text("日常", "General"),
    "geography": Text("地理", "Geography"),
    "identity": Text("身份", "Identity"),
    "knowledge": Text("知识", "Knowledge"),
    "language": Text("语言", "Language"),
    "nature": Text("自然", "Nature"),
    "people": Text("人物", "People"),
    "polite": Text("礼貌", "Polite"),
    "preferences": Text("偏好对", "Preference pairs"),
    "science": Text("科学", "Science"),
    "stories": Text("故事", "Stories"),
    "units": Text("单位", "Units"),
}

RECORD_NAMES = {
    "pretrain": Text("篇文档", "documents"),
    "sft": Text("段对话", "conversations"),
    "dpo": Text("对偏好", "preference pairs"),
}


_RULES_ZH = {
    "unicode": "合成重音，去掉看不见的字符，统一换行",
    "controls": "控制字符教不了什么",
    "halfwidth": "全角字母和数字就是半角的那些",
    "whitespace": "行尾空格和连续空行白占词元",
    "mojibake": "解码时弄错的文字",
    "html": "标签和实体不是正文",
    "boilerplate": "导航、版权和分享说明",
    "simplify": "只留一种字形，每个字的例子加倍",
    "id": "身份证号是个人信息",
    "email": "电子邮箱是个人信息",
    "phone": "电话号码是个人信息",
    "empty": "没有汉字、字母或数字",
    "too short": "上下文太少，学不到东西",
    "too long": "转储或拼接的文字",
    "broken": "解码出错丢了字符",
    "garbled": "乱码，无法修复：汉字几乎都不是常用的",
    "symbols": "表格、图形或编码过的数据",
    "digits": "数字表格",
    "repeated lines": "重复的列表、菜单或日志",
    "repeated n-grams": "生成或复制来凑数的文字",
    "one character": "同一个字符排成行",
    "language": "不是想要的语言",
    "chinese share": "中文太少",
    "blocklist": "含有用户不要的词",
    "quality": "质量列的分数太低或太高",
    "domain": "网页来自你不要的网站",
    "empty turn": "有一轮没有文字",
    "role order": "两方没有轮流说话",
    "refusal": "拒绝回答，或自称语言模型",
    "short lines": "菜单、表格和列表",
    "ended lines": "标题和链接，不是句子",
    "line ends": "是列表，不是文章",
    "list lines": "几乎只有列表",
    "ellipsis lines": "只有开头，正文在别处",
    "marks": "标签和省略号多过文字",
    "lettered words": "数字和符号",
    "stop words": "一串名字或关键词，不成文",
    "word length": "不是正常的英文",
    "sentences": "几乎不成文",
    "repeated paragraphs": "同一段反复出现",
    "repetition": "同样的话反复出现",
    "placeholders": "模板或代码",
    "whole lines": "不成句的行和法律声明",
    "classifier": "你的质量分类器认为差",
    "own rule": "你自己写的函数",
    "repeated passages": "前面的文档里已经有了",
}

RULE_REASONS = {name: Text(_RULES_ZH.get(name, why), why) for name, why in REASONS.items()}
"""Why a rule of `miao.corpus.clean` rejects or edits."""


def stage_name(stage: str) -> Text:
    """A stage of the chain; `evaluate X` is the evaluation of X."""
    if stage.startswith("evaluate "):
        of = stage_name(stage.removeprefix("evaluate "))
        return Text(f"评测：{of.zh}", f"Evaluation: {of.en}")
    return STAGE_NAMES.get(stage, Text(stage, stage))


def task_name(task: str) -> Text:
    return TASK_NAMES.get(task, Text(task, task))


def category_name(category: str, task: str = "") -> Text:
    """Names of the user's own sources and categories stay as they are."""
    if task.startswith("preference") and category == "language":
        return Text("用对语言", "Right language")
    return CATEGORY_NAMES.get(category, Text(category, category))


def quantity(number: float) -> str:
    """Three significant digits: `950`, `12.3K`, `2M`, `1.5B`."""
    for scale, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= scale * 0.9995:
            return f"{_minus(f'{number / scale:.3g}')}{suffix}"
    return _minus(f"{number:.3g}")


def share(value: float) -> str:
    """`0.5` -> `50.0%`."""
    return _minus(f"{100 * value:.1f}%")


def decimal(value: float) -> str:
    """Four digits; two of a number that would else be 0.00 something."""
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        return _minus(f"{value:.2g}".replace("e-0", "e-"))
    places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return _minus(f"{value:.{places}f}")


def tick(value: float) -> str:
    """A round number of an axis, as short as it can be."""
    text = f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.6g}"
    return _minus(text.replace("e-0", "e-"))


def duration(seconds: float) -> Text:
    """`0.6 s`, `42 s`, `13 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return Text(f"{seconds:.1f} 秒", f"{seconds:.1f} s")
    whole = round(seconds)
    if whole < 60:
        return Text(f"{whole} 秒", f"{whole} s")
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return Text(f"{hours} 小时 {minutes:02d} 分", f"{hours} h {minutes:02d} min")
    return Text(f"{minutes} 分 {whole % 60:02d} 秒", f"{minutes} min {whole % 60:02d} s")


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number (training that went wrong leaves NaN behind, an unknown value None)."""
    return isinstance(value, int | float) and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")
