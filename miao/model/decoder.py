"""The one decoder. Parameter names are Hugging Face's, so saving is a copy.

Weights are float32 masters; every matrix product casts its weight to the type of its input, and
that type is chosen once, at the embedding (`compute_dtype`). There is no autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from miao.device import begin_compiling
from miao.model.attention import Attention, Context
from miao.model.cache import Cache
from miao.model.config import ModelConfig, check_config
from miao.model.feedforward import MLP
from miao.model.latent_attention import LatentAttention
from miao.model.layers import Linear, RMSNorm
from miao.model.mixture import MoE
from miao.model.token_rows import HEAD, TokenRows
from miao.ops.attention import Mask, document_mask
from miao.ops.head_chunks import IGNORE
from miao.ops.linear_cross_entropy import linear_cross_entropy, linear_logprobs
from miao.ops.rope import rope_tables
from miao.ops.rope_scaling import dynamic_frequencies, scaled_frequencies
from miao.ops.varlen import has_varlen

Output = Literal["logits", "hidden", "loss", "logprobs"]


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        kind = LatentAttention if config.is_latent else Attention
        self.self_attn = kind(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: MLP | MoE
        if config.is_sparse(layer):
            self.mlp = MoE(config)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(
        self, x_btd: Tensor, context: Context, wanted_n: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The stream behind this block (of the wanted tokens); of a mixture that trains also its
        balance loss and the tokens per expert."""
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), context)
        if wanted_n is not None:
            x_btd = x_btd.flatten(0, 1)[wanted_n][None]
        normed = self.post_attention_layernorm(x_btd)
        if isinstance(self.mlp, MLP):
            return x_btd + self.mlp(normed), None, None
        added, balance, load_e = self.mlp(normed, context.real_bt)
        return x_btd + added, balance, load_e


class Rotary(nn.Module):
    """Angles for every position, scaled as the configuration says."""

    inverse_frequency: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        frequencies, self.attention_factor = scaled_frequencies(
            config.rope_dim, config.rope_theta, config.rope_scaling
        )
        self.register_buffer("inverse_frequency", frequencies, persistent=False)
        scaling = config.rope_scaling or {}
        self.dynamic_factor = scaling["factor"] if scaling.get("rope_type") == "dynamic" else None

    def forward(self, positions_bt: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        frequencies = self.inverse_frequency
        if self.dynamic_factor is not None:
            # By row, so that a sequence does not depend on what runs beside it.
            frequencies = dynamic_frequencies(
                positions_bt.amax(dim=1) + 1,
                self.config.max_position_embeddings,
                self.config.rope_dim,
                self.config.rope_theta,
                self.dynamic_factor,
            )
        return rope_tables(positions_bt, frequencies, dtype, self.attention_factor)


class Backbone(nn.Module):
    """Embedding, blocks and final norm: token ids in, hidden states out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.activation_checkpointing = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config)

    def forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor,
        segments_bt: Tensor | None,
        cache: Cache | None,
        starts_n: Tensor | None = None,
        wanted_n: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states [b, t, d], and the mean balance loss of the mixtures while training."""
        x_btd = self.embed_tokens(ids_bt).to(self.compute_dtype)
        mask: Mask = None
        if cache is not None:
            mask = cache.mask(positions_bt, self.compute_dtype)
        elif starts_n is not None:
            mask = starts_n
        elif segments_bt is not None:
            mask = document_mask(segments_bt, self.compute_dtype)
        rope = self.rotary(positions_bt, self.compute_dtype)
        real_bt = None if segments_bt is None else (segments_bt > 0).float()
        context = Context(rope, mask, positions_bt, cache, real_bt)
        balances: list[Tensor] = []
        for number, block in enumerate(self.layers, 1):
            wanted = wanted_n if number == len(self.layers) else None
            x_btd, balance, load_e = self._through(block, x_btd, context, wanted)
            if load_e is not None:
                assert isinstance(block, Block) and isinstance(block.mlp, MoE)
                block.mlp.load += load_e
            if balance is not None:
                balances.append(balance)
        return self.norm(x_btd), torch.stack(balances).mean() if balances else None

    def _through(
        self, block: nn.Module, x_btd: Tensor, context: Context, wanted_n: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return block(x_btd, context, wanted_n)
        read = x_btd, context, wanted_n
        # Nothing in a block is random, so there is no random state to put back.
        return checkpoint(block, *read, use_reentrant=False, preserve_rng_state=False)


class Decoder(nn.Module):
    """A causal language model: every architecture of `hf_config.ARCHITECTURES`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        check_config(config)
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.is_compiled = False
        self.token_rows: TokenRows | None = None
        self.loss_scale: Tensor | None = None
        """What the summed loss will be multiplied with, where it must be known before (float16)."""

    def forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        cache: Cache | None = None,
        labels_bt: Tensor | None = None,
        starts_n: Tensor | None = None,
        wanted_n: Tensor | None = None,
        output: Output = "logits",
    ) -> Tensor:
        """Reads token ids; the one entry, so that any wrapper (DDP, FSDP) sees all of it.

        Args:
            ids_bt: token ids [b, t].
            positions_bt: position of each token in its document (default 0, 1, 2, ...).
            segments_bt: document number of each slot of a packed row (0 is padding);
                None: each row is one document.
            cache: keys and values read before; a token sees the positions up to its own.
            labels_bt: the token that each slot should predict, -100 for none.
            starts_n: `document_starts` of the segments, where `has_varlen`: no mask is made.
            wanted_n: numbers of the tokens whose results are asked for, counted through all rows
                (default: all): the last block computes no others, and rows become one [1, n, ...].
            output: "logits" [b, t, v] (of every row of the head, see `token_logits`) and "hidden"
                [b, t, d] in the compute type;
                "loss": summed cross-entropy of the labels in nats (with softmax-routed experts
                also their balance loss, per label), and "logprobs": log p(label) per slot [b, t],
                both float32 and without ever holding all logits.
        """
        if positions_bt is None:
            positions_bt = torch.arange(ids_bt.shape[1], device=ids_bt.device).expand_as(ids_bt)
        # Only the training pass has one static shape and so repays compiling.
        backbone = self.model if self.training and cache is None else self.model.forward
        hidden_btd, balance = backbone(ids_bt, positions_bt, segments_bt, cache, starts_n, wanted_n)
        if output == "hidden":
            return hidden_btd
        if output == "logits":
            return self._all_logits(hidden_btd)
        assert labels_bt is not None, f"output={output!r} needs labels"
        inputs = hidden_btd.flatten(0, 1), self.head_weight, labels_bt.flatten()
        tokens, fused = self.config.tokens, self.fuses_loss
        if output == "logprobs":
            return linear_logprobs(*inputs, tokens=tokens, fused=fused).view(labels_bt.shape)
        result = linear_cross_entropy(*inputs, tokens=tokens, fused=fused, scale=self.loss_scale)
        if balance is not None:
            labels = labels_bt.ne(IGNORE).sum()
            result = result + self.config.router_aux_loss_coef * balance * labels
        return result

    def token_logits(self, hidden_nd: Tensor) -> Tensor:
        """Logits [n, tokens]: of what can come next, without the rows of a padded vocabulary."""
        return self._all_logits(hidden_nd)[..., : self.config.tokens]

    def _all_logits(self, hidden_nd: Tensor) -> Tensor:
        if self.token_rows is None:
            return self.lm_head(hidden_nd)
        return F.linear(hidden_nd, self.head_weight.to(hidden_nd.dtype))

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [v, d], with the rows that are trained by themselves."""
        if self.token_rows is None:
            return self.lm_head.weight
        return self.token_rows.within(HEAD, self.lm_head.weight)

    def train_token_rows(self, ids: Sequence[int]) -> None:
        """Makes the rows of these tokens parameters of their own."""
        embedding = self.model.embed_tokens
        head = None if self.config.tie_word_embeddings else self.lm_head.weight
        self.token_rows = TokenRows(ids, embedding.weight, head)
        embedding.register_forward_hook(self.token_rows.embed)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """The type of activations and matrix products; weights stay as they are."""
        self.model.compute_dtype = dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.model.compute_dtype

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def has_varlen(self) -> bool:
        """Whether attention runs by `document_starts` here."""
        return has_varlen(self.device.type, self.compute_dtype, self.config.query_dim)

    @property
    def fuses_loss(self) -> bool:
        """Whether what is done to the logits of a training pass is compiled as well. (On a CPU the
        number of labels is another in every pass.)"""
        return self.is_compiled and self.training and self.device.type == "cuda"

    def compile_for_training(self, graphs: bool = False, by_block: bool = False) -> None:
        """Compiles the backbone's training pass; evaluation and generation stay eager.

        Args:
            graphs: replayed as CUDA graphs. by_block: each block by itself.
        """
        begin_compiling()
        for module in self.model.layers if by_block else [self.model]:
            module.compile(dynamic=False, mode="reduce-overhead" if graphs else None)
        self.is_compiled = True

    def compilations(self) -> dict[str, int]:
        """How many graphs were compiled since compiling began, for the log."""
        if not self.is_compiled:
            return {}
        return {"compilations": torch._dynamo.utils.counters["stats"]["unique_graphs"]}

    def without_compiling(self) -> None:
        """Goes on eagerly."""
        for module in (self.model, *self.model.layers):
            module._compiled_call_impl = None
        self.is_compiled = False

    def set_activation_checkpointing(self, on: bool) -> None:
        """Whether training keeps only each block's input, and computes what is inside once more in
        the backward pass: far less memory for about a quarter of the speed (arXiv:1604.06174)."""
        self.model.activation_checkpointing = on

    def mixtures(self) -> dict[int, MoE]:
        """The blocks with experts, by their number."""
        return {
            number: block.mlp
            for number, block in enumerate(self.model.layers)
            if isinstance(block, Block) and isinstance(block.mlp, MoE)
        }

    def initialize(self, seed: int) -> None:
        """Sets every weight to its `initial_values`."""
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, values in self.initial_values(seed):
                parameters[name].copy_(values)

    def initial_values(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Random weights, one after the other: N(0, 1/fan_in) for matrices, N(0, 0.02²) for
        embeddings, and zero for the matrices that write to the residual stream, so that every block
        starts as the identity."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                yield name, torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0)
            elif "o_proj" in name or "down_proj" in name:
                yield name, torch.zeros(parameter.shape)
            else:
                embedding = "embed_tokens" in name or "lm_head" in name
                std = 0.02 if embedding else 1 / math.sqrt(parameter.shape[-1])
                yield name, torch.randn(parameter.shape, generator=generator) * std
