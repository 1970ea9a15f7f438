"""A model of ours as lm-evaluation-harness sees it: the harness asks, our engine answers.

Needs the extra `eval`; this file is imported only then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from miao.console import ProgressLine, warn
from miao.engine import SamplingOptions
from miao.errors import MiaoError, install_hint
from miao.evaluate.measure.continuations import Continuation, continuation_logprobs, rolling
from miao.evaluate.measure.writing import ROWS, write_texts
from miao.evaluate.tasks.prompts import Encoder, Prompt
from miao.model.decoder import Decoder

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
except ImportError as error:
    raise MiaoError("lm-evaluation-harness is not installed", fix=install_hint("eval")) from error

MAX_NEW_TOKENS = 256


class MiaoLM(LM):
    """A model of ours as lm-evaluation-harness sees it: texts in, log-probabilities and texts out.

    Contexts and continuations are tokenised as its own `hf` model does, so that scores agree.
    """

    def __init__(self, model: Decoder, encoder: Encoder, rows: int = ROWS):
        super().__init__()
        self.model, self._rows = model, rows
        self.encoder = replace(encoder, chat=False, trusted=True)
        self._rank, self._world_size = 0, 1

    @property
    def tokenizer_name(self) -> str:
        return self.encoder.tokenizer.fingerprint()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the text that the model reads."""
        template = self.encoder.tokenizer.chat_template
        return template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log p, whether greedy decoding would write it) of each continuation."""
        continuations = []
        for request in requests:
            context, continuation = request.args
            ((before, after),) = self.encoder.pairs(Prompt(context, [continuation], [continuation]))
            continuations.append(Continuation(before + after, len(after)))
        with ProgressLine("log-likelihoods", len(continuations)) as line:
            found = continuation_logprobs(self.model, continuations, advance=line.advance)
        if cut := sum(one.cut > 0 for one in found):
            warn(f"{cut} texts were longer than the context and lost their beginning")
        return [(one.logprob, one.is_greedy) for one in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log p of whole texts, in windows of the context's length."""
        limit, windows, owners = self.model.config.context_length, [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            tokenizer = self.encoder.tokenizer
            ids = [*tokenizer.document_start, *tokenizer.encode(text)]
            pieces = rolling(ids, limit)
            windows += pieces
            owners += [number] * len(pieces)
        sums = [0.0] * len(requests)
        for owner, one in zip(owners, continuation_logprobs(self.model, windows), strict=True):
            sums[owner] += one.logprob
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy or sampled text up to the first of the stops."""
        answers: list[str] = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for numbers in groups.values():
            settings = dict(requests[numbers[0]].args[1])
            for number, text in zip(
                numbers,
                self._generate([requests[n].args[0] for n in numbers], settings),
                strict=True,
            ):
                answers[number] = text
        return answers

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        limit = self.model.config.context_length
        longest = int(settings.get("max_gen_toks") or MAX_NEW_TOKENS)
        longest = min(longest, limit - 1)
        temperature = float(settings.get("temperature") or 0.0)
        options = SamplingOptions(
            temperature=temperature if settings.get("do_sample") else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            max_new_tokens=longest,
        )
        tokenizer = self.encoder.tokenizer
        prompts = [
            (self.encoder.context(text) or [*tokenizer.document_start])[-(limit - longest) :]
            for text in contexts
        ]
        with ProgressLine("generating", len(prompts)) as line:
            return write_texts(
                self.model, tokenizer, prompts, options, until, line.advance, self._rows
            )
