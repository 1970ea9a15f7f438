"""Random adapters, made by peft on transformers' model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

ADAPTERS = {
    "LoRA": {"target_modules": ["q_proj", "v_proj", "o_proj", "up_proj"]},
    "rsLoRA": {"target_modules": "all-linear", "use_rslora": True},
    "DoRA": {"target_modules": ["q_proj", "k_proj", "down_proj"], "use_dora": True},
}


def make_adapter(base: Path, target: Path, settings: dict[str, Any]) -> torch.Tensor:
    """Writes a random adapter with peft and returns the logits of the model with it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings)
    adapted = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise
    adapted.save_pretrained(target)
    with torch.no_grad():
        return adapted(ids_bt()).logits


def ids_bt() -> torch.Tensor:
    return torch.randint(360, (2, 40), generator=torch.Generator().manual_seed(4))
