"""The command line: parses, calls a recipe, prints."""
