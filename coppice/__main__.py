"""`python -m coppice` is the command `coppice`."""

from coppice.orchestrator.cli.main import main

if __name__ == "__main__":
    main()
