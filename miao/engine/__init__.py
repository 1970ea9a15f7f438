"""Generation: KV cache, sampling, many sequences at once."""

from miao.engine.engine import Engine
from miao.engine.sampling import SamplingOptions

__all__ = ["Engine", "SamplingOptions"]
