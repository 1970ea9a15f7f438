"""What GRPO trains for: problems, reward functions in plain Python, tools that answer calls."""

from miao.rewards.functions import BUILT_IN, Rewards, load_rewards
from miao.rewards.problems import Problem, load_problems, problem_files
from miao.rewards.tools import Environment, load_environment
