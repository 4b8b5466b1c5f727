"""Run as `python -m mer_flow.cli`."""

from mer_flow.cli import main

if __name__ == "__main__":  # spawned workers import this module by another name
    main()
