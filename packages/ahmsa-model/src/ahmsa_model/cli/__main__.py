"""Run as `python -m ahmsa_model.cli`."""

from ahmsa_model.cli import main

if __name__ == "__main__":
    main()
