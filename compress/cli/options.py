"""Options that are chosen by name, and whether there are such; a hub id becomes a data set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from compress.cli.refusals import Refusals
from compress.data.names import folder_instead, no_data_set
from compress.registry import GROUPS, SEVERAL
from compress.settings import nearest

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class OptionLookup:
    """Looks options up."""

    refusals: Refusals
    hub_ids: list[str] = field(default_factory=list)  # of data sets that were chosen

    def exist(self, group: str, chosen: Any, setting: str) -> bool:
        """Return whether what is chosen of a group exists; if not, ``setting`` is blamed."""
        if group in SEVERAL:
            options = chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]
        else:
            options = ["null" if chosen is None else chosen]
        good = True
        for option in options:
            if isinstance(option, str) and option in GROUPS[group]:
                continue
            if group == "data" and (reason := no_data_set(str(option)) or folder_instead(str(option))):
                self.refusals.refuse(setting, option, *reason, blame="data")
                good = False
                continue
            if group == "data" and isinstance(option, str) and HUB_ID.fullmatch(option):
                self.hub_ids.append(option)
                continue
            remedy = nearest(str(option), GROUPS[group])
            if group == "data":
                remedy += " Any other data set of the hub: data=hub data.path=ID."
            self.refusals.refuse(setting, option, "is not a choice", remedy, blame=group.replace("/", "."))
            good = False
        return good
