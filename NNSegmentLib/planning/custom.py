"""Configurations that a person wrote into a plans file by hand, which a new plan keeps."""

from __future__ import annotations

from pathlib import Path

from ..errors import PlanError
from ..machine.memory import Say, unsaid
from ..records import read_json
from .plan import CONFIGURATIONS, Plan, plan_from_json, set_plan_aside, with_configurations


def keeping_custom_configurations(made: Plan, existing: Path, say: Say = unsaid) -> Plan:
    """Configurations written by hand into an existing plans file stay, as in nnU-Net; a damaged file is kept beside.

    Raises PlanError for a file that cannot be read at the moment, and for configurations that cannot be kept.
    """
    if not existing.is_file():
        return made
    try:
        before = plan_from_json(read_json(existing, PlanError), str(existing))
    except PlanError as damaged:
        if isinstance(damaged.__cause__, OSError):
            raise  # it may be whole, and cannot be read at the moment
        say(f"{damaged} It is made anew now; what was there is kept as {set_plan_aside(existing)}.")
        return made
    names = {c.name for c in made.configurations}
    for name in set(before.unsupported) - {*names, *CONFIGURATIONS}:
        before.configuration(name)  # raises: writing the plan without it would lose it
    own = [c.name for c in before.configurations if c.name not in {*names, *CONFIGURATIONS}]
    return with_configurations(made, before, own, f"{existing} with the plan that is made now")
