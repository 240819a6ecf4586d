"""The errors a user can meet: all derive from `Error`, each mixed with the standard class that fits."""


class Error(Exception):
    """Base of every error that mpips raises on purpose; its text names the thing, the place and the remedy."""
