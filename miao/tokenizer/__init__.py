"""Text to tokens: training, encoding and streaming, the chat template, and a look inside."""

from miao.tokenizer.inspect import (
    inspect_conversation,
    inspect_text,
    inspect_vocabulary,
    render_inspection,
    render_vocabulary,
)
from miao.tokenizer.sample import sample_texts
from miao.tokenizer.stream import StreamDecoder
from miao.tokenizer.template import MIAO_TEMPLATE, ChatTemplate
from miao.tokenizer.tokenizer import Tokenizer
from miao.tokenizer.train import train_tokenizer
