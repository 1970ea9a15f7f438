"""What a step learns from: shards, rollouts, preference pairs, read ahead."""
