"""A worker: tables as it sees them, tasks, workloads and batches."""
