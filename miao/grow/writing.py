"""The plan as an ordinary recipe, with a word on every value."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from miao import rules
from miao.corpus.build.own_text import ask, topics_of
from miao.corpus.seedbed.tables import Language
from miao.grow import DEFAULT_NAME
from miao.grow.found import Found
from miao.grow.given import LARGE, Given
from miao.grow.machine import SEQ_LEN, shape_options
from miao.grow.plan import Plan
from miao.recipe import Recipe, SeedbedOptions

SFT_RATES = (0.8, 0.55)
"""AdamW's and Muon's rates of SFT over those of pretraining, as the seedling has them."""


GENTLE, GENTLER = 0.3, 0.03
"""Of the rates for a new model, for one that is trained further: a small one, and a large one that
knows more than this text."""


def recipe_text(
    plan: Plan,
    found: Found,
    texts: list[str],
    name: str,
    out_dir: str,
    maker: str | None,
    until: str | None,
    beginnings: list[str],
    seed: int = 42,
) -> str:
    """YAML.

    Args:
        texts: what to pretrain on. name: of the run, and (where given with a maker or not) of the
            assistant. beginnings: of the user's texts, for samples.
    """
    best, built_in = plan.best, SeedbedOptions()
    given = plan.given if plan.goes_on else None
    inner, tokens = given.inner if given else best.inner, max(best.tokens, 1.0)
    rates = rules.settings(inner, tokens, tokens / best.times)
    gentle = (GENTLE if given.inner < LARGE else GENTLER) if given else 1.0
    batch = max(rates.batch_tokens, max(2, plan.processes) * SEQ_LEN)
    adam, muon = gentle * rates.learning_rate, gentle * rates.muon_learning_rate
    talk = {"identity": 0.4, "general": 0.4, "math": 0.2} if plan.talks < 3000 else {}
    weights = (
        f"\n    conversation_weights: {_flow(talk)}  # few: who it is comes first" if talk else ""
    )
    named = name if name != DEFAULT_NAME else None
    questions = 40 if plan.minutes < 5 else 120 if plan.minutes < 30 else 400
    heldout = round(min(max(0.02 * best.tokens, 2000), 40_000))  # a pass forward costs a third
    language: Language = "zh" if found.chinese > 0.5 else "en"
    own_asks = [ask("about", language, t, random.Random(0)) for t in topics_of(found.pieces, 4)]
    known = [p for p in Recipe().sample_prompts if not re.search("首都|capital|故事|story", p)]
    prompts = known[:: 1 if plan.minutes >= 5 else 2] + own_asks
    minutes = {stage: round(m, 3) for stage, m in plan.stages.items()}
    value, low, high = plan.bits
    bits = f"{value:.2f} ({low:.2f} to {high:.2f})"
    time = f'until: "{until}"' if until else f"minutes: {plan.minutes:g}"
    skip = "true" if any(s.problems for s in found.sources) else "false"
    dpo = (
        f"""dpo:
  epochs: null
  minutes: {minutes.get("dpo")}            # {plan.why["dpo.enabled"]}
  seq_len: {SEQ_LEN}
  batch_tokens: {batch}
  learning_rate: 8.0e-5     # gentle: AdamW for everything
  muon_learning_rate: 0.0
  beta: 0.5
  sft_weight: 0.8           # keeps the chosen answers likely
  replay: 0.3               # share of conversations again
"""
        if "dpo" in minutes
        else f"dpo: {{enabled: false}}      # {plan.why['dpo.enabled']}\n"
    )
    head = f"{plan.minutes:g} minutes, expected {bits} bits per byte of held-out text"
    own = "auto           # yours up to four times over until they are half"
    if given and given.talks and given.inner >= LARGE and found.of("conversation"):
        own = "1              # yours alone: it can talk already"
    return f"""# Written by `miao grow`: {head}.
# An ordinary recipe: `miao run` of this file does the same, and every value can be changed.
name: {_flow(name)}
out_dir: {_flow(out_dir)}
seed: {seed}
{time}      # the whole run; what the stages' minutes are shares of

corpus:
  paths: {_flow(texts)}
  conversations: {_flow(found.files("conversation"))}
  preferences: {_flow(found.files("preference"))}
  local: null
  own_share: {own}
  text_talks: {plan.passages}        # asked for a word of your text, it tells a passage
  skip_bad_records: {skip}
  heldout: {plan.heldout:g}             # share kept out of training, to measure on
  seedbed:                  # the built-in conversations, and who they say it is
    conversations: {plan.talks}   # {plan.why["sft.minutes"]}
    preferences: {min(3000, plan.talks)}{weights}
    name_zh: {_flow(named or built_in.name_zh)}
    name_en: {_flow(named or built_in.name_en)}
    maker_zh: {_flow(maker or built_in.maker_zh)}
    maker_en: {_flow(maker or built_in.maker_en)}

{_going_on(plan, given) if given else _new_model(plan)}

pretrain:
  tokens: null
  minutes: {minutes["pretrain"]}          # {plan.why["pretrain.minutes"]}
  seq_len: {SEQ_LEN}
  batch_tokens: {batch}        # {plan.why["pretrain.batch_tokens"]}
  learning_rate: {adam:.1e}    # {plan.why["pretrain.learning_rate"]}
  muon_learning_rate: {muon:.1e}
  weight_decay: {0 if given else rates.weight_decay:g}         # {plan.why["pretrain.weight_decay"]}
  warmup: {rates.warmup:g}
  decay: {rates.decay:g}               # of the time, whenever it comes
  eval_every: {0.25 if plan.minutes < 5 else 0.1}
  sample_every: {0.5 if plan.minutes < 5 else 0.1}
  save_every: {0.5 if plan.minutes < 5 else 0.1}

sft:
  epochs: null
  minutes: {minutes["sft"]}
  seq_len: {SEQ_LEN}
  batch_tokens: {batch}
  learning_rate: {adam * SFT_RATES[0]:.1e}
  muon_learning_rate: {muon * SFT_RATES[1]:.1e}
  decay: 0.7
  replay: 0.3               # share of your text again: half of what it forgets with 0.15
  eval_every: 0.5
  sample_every: 0.5
  save_every: 0.5

{dpo}
evaluate:
  question_items: {questions}
  seconds: {round(1.2 * plan.minutes, 1)}              # of each evaluation, at most
  preference_pairs: {questions if "dpo" in minutes else 0}
  own_items: {questions if plan.minutes >= 5 else 20}
  max_new_tokens: 96        # as long as a passage
  heldout_tokens: {heldout}   # per source

sample_texts: {_flow(beginnings)}
sample_prompts: {_flow(prompts)}
"""


def _new_model(plan: Plan) -> str:
    best = plan.best
    shape = shape_options(best.width, best.blocks)
    return f"""tokenizer:
  vocab_size: {best.vocabulary}          # {plan.why["tokenizer.vocab_size"]}
  sample: {min(int(plan.characters), 3_000_000 if plan.minutes < 120 else 30_000_000)}

model:                      # {best.parameters / 1e6:.1f}M: {plan.why["model.hidden_size"]}
  hidden_size: {best.width}
  num_hidden_layers: {best.blocks}
  num_attention_heads: {shape.num_attention_heads}
  num_key_value_heads: {shape.num_key_value_heads}
  head_dim: {best.width // shape.num_attention_heads}
  max_position_embeddings: {shape.max_position_embeddings}"""


def _going_on(plan: Plan, given: Given) -> str:
    path = _flow(given.path)
    template = "" if given.talks else "\n  chat_template: miao    # it has none: a base model"
    return f"""tokenizer:
  path: {path}{template}

model:                      # {plan.why["model.path"]}
  path: {path}"""


def _flow(value: Any) -> str:
    """As YAML on one line: JSON is."""
    return json.dumps(value, ensure_ascii=False)
