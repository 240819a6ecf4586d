"""Who does what: the view of a job, and what every rank works out from it by itself."""
