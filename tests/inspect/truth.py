"""What transformers computes inside a model, for inspections to be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from miao.export.huggingface import write_huggingface


def in_transformers(model: Path, to: Path) -> Any:
    """A model directory of Miao's in transformers, whose attention can be looked at."""
    write_huggingface(model, to, "float32")
    return AutoModelForCausalLM.from_pretrained(to, attn_implementation="eager").eval()


def forward(model: Any, ids: list[int], count: int) -> tuple[Any, Any, Any]:
    """Log-probabilities after each layer [layer, time, token], sizes of the residual stream [layer,
    time], attention [layer, head, time, time]."""
    streams: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: streams.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in model.model.layers
    ]
    with torch.no_grad():
        said = model(torch.tensor([ids]), output_attentions=True)
        x_ltd = torch.cat([stream.reshape(1, len(ids), -1) for stream in streams])
        logits_ltv = model.lm_head(model.model.norm(x_ltd))[..., :count]
        assert torch.allclose(logits_ltv[-1], said.logits[0, :, :count], atol=1e-4)
    for hook in hooks:
        hook.remove()
    sizes = x_ltd.square().mean(-1).sqrt()
    return logits_ltv.log_softmax(-1).numpy(), sizes.numpy(), torch.cat(said.attentions).numpy()
