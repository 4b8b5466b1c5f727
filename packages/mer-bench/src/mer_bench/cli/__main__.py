"""Run as `python -m mer_bench.cli`."""

from mer_bench.cli import main

if __name__ == "__main__":  # spawned workers import this module by another name
    main()
