"""From stories to what a model reads: prompts, chains and times as tokens."""
