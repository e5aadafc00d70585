"""Entry point of `python -m bench`."""

import sys


def main(arguments: list[str]) -> int:
    """Run the benchmarks named on the command line."""
    print("bench: nothing to run yet:", *arguments, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
