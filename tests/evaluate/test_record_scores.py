"""`miao corpus score --model`: against probabilities summed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from miao.corpus.records import Conversation, Document, Message, Preference
from miao.evaluate.measure.record_scores import record_scores
from miao.model import Decoder, ModelConfig
from miao.tokenizer import Tokenizer


def loss_of(model: Decoder, ids: list[int], learned: list[int]) -> float:
    """Summed over these places, in nats."""
    with torch.inference_mode():
        logits_tv = model(torch.tensor([ids]))[0].double()
    logprobs_tv = torch.log_softmax(logits_tv, dim=-1)
    return -sum(float(logprobs_tv[place - 1, ids[place]]) for place in learned)


def test_scores_are_sums_of_probabilities(tokenizer: Tokenizer) -> None:
    model = Decoder(ModelConfig(tokenizer.vocab_size, 32, 2, 4, 2, 8, 40, 64))
    model.initialize(3)
    text = "今天天气很好。"
    chat = Conversation([Message("user", "天气好吗？"), Message("assistant", text)])
    pair = Preference(chat.messages[:1], chat.messages[1:], [Message("assistant", "不好。")])
    found = record_scores(model, tokenizer, [chat, Document(text), pair, Document("")])
    boundary = tokenizer.document_boundary_id
    ids = [boundary, *tokenizer.encode(text), boundary]
    bits = loss_of(model, ids, list(range(1, len(ids)))) / math.log(2)
    assert found[1] == {"bits_per_byte": pytest.approx(bits / len(text.encode()), abs=1e-4)}
    ids, mask = tokenizer.chat_template.encode(tokenizer, chat)
    said = [place for place, learned in enumerate(mask) if learned]
    given = loss_of(model, ids, said)
    alone = [boundary, *(ids[place] for place in said)]
    direct = loss_of(model, alone, list(range(1, len(alone))))
    size = len(text.encode())
    assert found[0]["ifd"] == pytest.approx(given / direct, abs=1e-4)
    assert found[0]["answer_bits_per_byte"] == pytest.approx(given / math.log(2) / size, abs=1e-4)
    assert found[2] == found[0] and found[3] == {}
    short = record_scores(model, tokenizer, [Document(text)], most=3)[0]
    bits = loss_of(model, [boundary, *tokenizer.encode(text)][:3], [1, 2]) / math.log(2)
    size = sum(len(tokenizer.token_bytes(token)) for token in tokenizer.encode(text)[:2])
    assert short == {"bits_per_byte": pytest.approx(bits / size, abs=1e-4)}
