"""A server: the shards that it holds in its arena, and what it does with a push."""
