"""The decisions of a job: who does what, where a shard lives, which workload is next. Pure state machines."""
