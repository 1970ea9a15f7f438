"""Answers sampled by a running vLLM server, which is handed the weights before every rollout.

Source: vLLM 0.32, `entrypoints/openai/completion/protocol.py` and the development routes of
`entrypoints/serve` (`/collective_rpc`, `/reset_prefix_cache`; VLLM_SERVER_DEV_MODE=1).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from miao.engine import Request
from miao.engine.request import Event, TokenLogprobs
from miao.errors import MiaoError
from miao.model.config import ModelConfig
from miao.model.decoder import Decoder
from miao.model.directory import save_model
from miao.openai_api import NoAnswer, api_key, ask, base_url
from miao.recipe.grpo import GrpoOptions

WAIT = 1800.0
"""Seconds for an answer; those that are queued wait for the others."""
FARTHEST = 0.5
"""Mean distance in nats between the server's log-probabilities and our own above which it has other
weights. Rounding to bfloat16 makes some hundredths."""


def check_served(config: ModelConfig, processes: int) -> None:
    """Refuses what a server of vLLM cannot follow. Its `reload_weights` (0.32, on CPUs) leaves a
    head that is tied to the embeddings as it was, without a word."""
    if processes > 1:
        raise MiaoError("vllm serves one process that trains", where="grpo.rollouts")
    if config.tie_word_embeddings:
        raise MiaoError(
            "vllm does not reload a head that is tied to the embeddings: "
            "it would draw with old weights",
            where="grpo.rollouts",
            fix="rollouts: engine, or a model that was trained with "
            "model.tie_word_embeddings: false",
        )


class VllmServer:
    """A server that takes requests like a `Scheduler`, for one process that trains.

    Args:
        stop_ids: end a turn and stay part of it.

    Raises:
        MiaoError: no vLLM there, or one whose context is too short.
    """

    def __init__(self, options: GrpoOptions, stop_ids: frozenset[int], length: int):
        self._options, self._stop_ids = options, sorted(stop_ids)
        self._url, self._key = base_url(options.vllm_url), api_key(None)
        self._own = None if options.vllm_weights else TemporaryDirectory(prefix="miao-rollouts-")
        self._directory = Path(self._own.name if self._own else options.vllm_weights or "")
        self._directory = self._directory.resolve()
        self._asked: dict[Future[Any], Request] = {}
        self._pool: ThreadPoolExecutor | None = None
        try:
            [card, *_] = ask(f"{self._url}/models", key=self._key)["data"]
            self.name, context = card["id"], card.get("max_model_len") or length
        except (NoAnswer, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._error(f"no vLLM server answers: {error}", "start it first") from error
        if context < length:
            raise self._error(
                f"the server's context of {context} tokens is shorter than a rollout ({length})",
                f"start it with --max-model-len {length}, or lower grpo.seq_len",
            )

    def load(self, model: Decoder) -> VllmServer:
        """Hands over the weights of now; what the server had read with others is forgotten."""
        save_model(model, self._directory, model.compute_dtype)
        self._model, self._is_compared = model, False
        self._pool = self._pool or ThreadPoolExecutor(self._options.parallel_answers)
        root = self._url.removesuffix("/v1")
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._directory)}}
        try:
            for route, body in (("collective_rpc", reload), ("reset_prefix_cache", {})):
                if ask(f"{root}/{route}", body, self._key, WAIT).get("success") is False:
                    raise NoAnswer("it still holds prefixes of other weights")
        except NoAnswer as error:
            raise self._error(
                f"the server does not take the weights: {error}",
                "start vLLM with VLLM_SERVER_DEV_MODE=1"
                if error.code == 404
                else f"it must serve this model and be able to read {self._directory} "
                "(grpo.vllm_weights)",
            ) from error
        return self

    @property
    def has_work(self) -> bool:
        return bool(self._asked)

    def submit(self, request: Request) -> None:
        assert self._pool is not None
        body = self._body(request)
        task = self._pool.submit(ask, f"{self._url}/completions", body, self._key, WAIT)
        self._asked[task] = request

    def step(self) -> list[Event]:
        """Waits for the next answers."""
        done = wait(self._asked, return_when=FIRST_COMPLETED).done
        try:
            return [self._hear(task, self._asked.pop(task)) for task in done]
        except BaseException:
            for task in self._asked:
                task.cancel()
            self._asked.clear()
            raise

    def _body(self, request: Request) -> dict[str, Any]:
        """A completion of token ids, drawn from the whole distribution, whatever the server's own
        settings are; rows of the vocabulary that are no tokens get vLLM's least bias."""
        options, config = request.options, self._model.config
        draw = f"{options.seed}:{request.index}".encode()
        return {
            "model": self.name,
            "prompt": list(request.prompt),
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": int.from_bytes(hashlib.blake2b(draw, digest_size=7).digest()),
            "ignore_eos": True,
            "stop_token_ids": self._stop_ids,
            "logit_bias": {str(id): -100.0 for id in range(config.tokens, config.vocab_size)},
            "logprobs": 0,
            "return_token_ids": True,
        }

    def _hear(self, task: Future[Any], request: Request) -> Event:
        try:
            [choice] = task.result()["choices"]
            said, numbers = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            request.logprobs = [TokenLogprobs(value, []) for value in map(float, numbers)]
            if not said or len(said) != len(numbers):
                raise ValueError(f"{len(said)} tokens, {len(numbers)} log-probabilities")
        except NoAnswer as error:
            raise self._error(
                f"vLLM gives no answer: {error}", "start it again, then the run: it continues"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(
                f"the answer has no token ids with log-probabilities ({error!r})",
                "use vLLM 0.32 or newer",
            ) from error
        if not all(0 <= id < self._model.config.tokens for id in said):
            raise self._error("the server says ids that are no tokens of this model")
        request.tokens = [*request.prompt, *said]
        request.finish = "stop" if said[-1] in self._stop_ids else "length"
        if not self._is_compared:
            self._compare(request)
        return Event(request, said[-1], finishes=True)

    @torch.no_grad()
    def _compare(self, request: Request) -> None:
        """Whether the server's log-probabilities (before temperature) are those of our weights."""
        ids = torch.tensor(request.tokens, device=self._model.device)
        logits = self._model(ids[None, :-1])[0, len(request.prompt) - 1 :].float()
        own = logits[:, : self._model.config.tokens].log_softmax(-1)
        own = own.gather(1, ids[len(request.prompt) :, None])[:, 0]
        pairs = zip(own.tolist(), request.logprobs, strict=True)
        gap = fmean(abs(value - given.chosen) for value, given in pairs)
        if not gap <= FARTHEST:
            raise self._error(
                f"the server answers with other weights: its log-probabilities are {gap:.2f} from "
                "this model's",
                "serve the model that the stage begins with, with the default --logprobs-mode",
            )
        self._is_compared = True

    def _error(self, what: str, fix: str | None = None) -> MiaoError:
        return MiaoError(what, where=f"grpo.vllm_url {self._options.vllm_url}", fix=fix)
