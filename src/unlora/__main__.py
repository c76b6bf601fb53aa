"""`python -m unlora` is the same program as `unlora`."""

from unlora.cli.main import main

main(prog_name="unlora")
