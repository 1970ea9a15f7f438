"""A small tokenizer, trained once per run from the sentences below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miao.tokenizer import Tokenizer, train_tokenizer

SENTENCES = """
清晨的露水落在小小的苗上，太阳慢慢升起来了。
你是谁？我是一个小小的语言模型，我的名字叫苗。
今天天气很好，我们去公园散步，好吗？好的，我们走吧。
请问，水为什么会结冰？因为天气冷的时候，水的温度降到了零度以下。
北京是中国的首都，上海是中国最大的城市之一。
她说："我喜欢读书，也喜欢写字。"他说："我也喜欢。"
第一步，把水烧开；第二步，放入茶叶；第三步，等三分钟。
学习语言需要时间，也需要耐心，每天读一点，就会有进步。
The seedling grew a little every day, and the rain was kind to it.
I'm a small language model; you're reading what they've trained me on.
Why does water freeze? Because the temperature falls below zero degrees.
The weather is fine today, so we shall walk in the park together.
She said that the first step is to boil the water, then to add the tea leaves.
There are 12 months in a year, 24 hours in a day and 60 minutes in an hour.
def area(width, height):\n    return width * height  # 3 * 4 == 12
The cat sat by the window and watched the birds in the garden.
We'll learn something new whenever we are patient with ourselves.
小猫坐在窗边，看着花园里的鸟。花园里有红色的花，也有黄色的花。
老师问学生：一年有几个月？学生回答：一年有十二个月。
他们一起走到河边，看见了很多小鱼，大家都很高兴。
""".strip().splitlines()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    # Twice, so that every pair is frequent enough to be merged.
    return train_tokenizer([line.replace("\\n", "\n") for line in SENTENCES] * 2, vocab_size=600)


@pytest.fixture(scope="session")
def directory(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(path)
    yield path
