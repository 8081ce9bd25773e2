"""`python -m gnnsys` is the command line."""

from gnnsys.cli.main import main

main()
