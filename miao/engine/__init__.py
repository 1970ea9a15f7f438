"""Generation: KV cache, sampling, many sequences at once."""

from miao.engine.backend import make_runner, pack
from miao.engine.engine import Engine
from miao.engine.request import Event, Request
from miao.engine.runner import Runner
from miao.engine.sampling import SamplingOptions
from miao.engine.scheduler import Scheduler
