"""`python -m orchestrator` is the command `coppice`."""

from orchestrator.cli.main import main

if __name__ == "__main__":
    main()
