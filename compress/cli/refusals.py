"""What is wrong with a command so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.errors import Fault


@dataclass
class Refusals:
    """Every fault so far, and the settings that are not looked at any more."""

    faults: list[Fault] = field(default_factory=list)
    blamed: set[str] = field(default_factory=set)  # settings whose parts would be blamed wrongly now

    def refuse(self, setting: str, value: object, rule: str, remedy: str = "", *, blame: str = "") -> None:
        """Note a fault; settings from ``blame`` on down are not looked at any more."""
        self.faults.append(Fault(setting, value, rule, remedy))
        if blame:
            self.blamed.add(blame)
