"""What readers of one call share: the user's hints, what is wrong, what was passed over."""

from __future__ import annotations

from dataclasses import dataclass, field

from simlab.calibrate.read.hints import ServerHints
from simlab.calibrate.read.problems import Problems


@dataclass
class Context:
    """What readers share.

    Attributes:
        hints: what the user says of the server.
        problems: what is wrong; readers add to it and go on.
        skipped: what holds no run that can be used, each with the reason; an error only where nothing else was read.
        served: names of models as benchmark clients have them, with the files that have each.
    """

    hints: ServerHints = field(default_factory=ServerHints)
    problems: Problems = field(default_factory=Problems)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    served: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, where: str, reason: str) -> None:
        """Passes over a file or rows."""
        self.skipped.append((where, reason))

    def serves(self, model: str, where: str) -> None:
        """Takes down a model's name in a file."""
        self.served.setdefault(model, []).append(where)
