"""A reporter for tests of what is said."""

from unlora.run.reporter import SilentReporter


class Listening(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
