"""`python -m coppice` is the command `coppice`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, where a user's yaml.py would hide the installed package; main() puts it last

    from coppice.orchestrator.cli.main import main

    main()
