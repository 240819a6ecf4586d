"""What a person types: `mpips run`, `mpips scale`, `mpips inspect`, `mpips trace`, `mpips plot`, `mpips doctor`."""

import sys

from mpips.errors import Error


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 1."""
    from mpips.cli.app import app

    try:
        app()
    except Error as error:
        print("mpips:", error, sep="\n" if "\n" in str(error) else " ", file=sys.stderr)  # noqa: T201
        sys.exit(1)
