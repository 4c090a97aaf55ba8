"""``plan.json``: what a sweep is, for the next command of the same name and for processes that join it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ddtl.records import plan as plan_record
from ddtl.records.checking import refusal
from ddtl.records.identity import differences
from ddtl.sweeps.store import storages
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from ddtl.utils.redaction import redact, redact_tree

if TYPE_CHECKING:
    from ddtl.sweeps.plan.settings import Plan

NAME = plan_record.NAME


def without_password(plan: Plan) -> Plan:
    """Return the plan as it may be shown, written and sent to other processes."""
    shown = storages.without_password(plan.settings.sweep.storage)
    section = plan.settings.sweep.model_copy(update={"storage": shown})
    settings = plan.settings.model_copy(update={"sweep": section})
    words = tuple(
        f"sweep.storage={shown}" if word.lstrip("+").startswith("sweep.storage=") else word for word in plan.words
    )
    return replace(plan, settings=settings, words=words)


def write(plan: Plan) -> None:
    """Write it; the plan must contain no password."""
    from ddtl.sweeps.space.space import Listed

    space = plan.space
    jobs = [list(job) for job in space.jobs] if isinstance(space, Listed) else None
    settings = plan.settings.model_dump(mode="json")
    settings["engine"]["setup"] = list(map(redact, settings["engine"]["setup"]))
    document = {
        "name": plan.name,
        "identity": plan.identity(),
        "settings": settings,
        "fixed": list(plan.fixed),
        "jobs": jobs,
        "words": list(map(redact, plan.words)),
        "targets": plan.targets,
        "planned": list(plan.planned),
    }
    write_json(plan.folder / NAME, document)


def read(folder: Path) -> Plan:
    """Return the plan that is in a sweep's folder.

    Raises:
        UserError: none does.
    """
    from ddtl.config import load
    from ddtl.schema.sweep import SweepConfig
    from ddtl.sweeps.plan.settings import Plan
    from ddtl.sweeps.space.space import Space, list_jobs, read_space

    document = plan_record.read(folder)
    if document is None:
        raise UserError(f"{folder}: is not the folder of a sweep: it has no readable {NAME}.")
    try:
        settings = SweepConfig.model_validate_json(json.dumps(document["settings"]))
    except ValidationError as error:
        raise refusal(folder / NAME, error, SweepConfig.model_json_schema, "", "settings") from None
    jobs, search = document["jobs"], settings.search
    space: Space = read_space(search.space) if jobs is None and search is not None else list_jobs(jobs or [])
    base, _ = load.check([*document["fixed"], *(jobs[0] if jobs else [])])
    words = tuple(document["words"])
    targets = tuple(tuple((name, tuple(evaluate)) for name, evaluate in each) for each in document.get("targets", []))
    planned = tuple(document.get("planned", []))
    fixed = tuple(document["fixed"])
    return Plan(settings, fixed, space, base, document["name"], folder, words, targets=targets, planned=planned)


def check_same(earlier: Mapping[str, Any] | None, plan: Plan) -> None:
    """Refuse to resume another search under a name.

    Raises:
        UserError: with a line for each thing that differs.
    """
    # A plan.json contains no secret.
    earlier = None if earlier is None else redact_tree(earlier)
    changed = [] if earlier is None else differences(earlier, redact_tree(json.loads(json.dumps(plan.identity()))))
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"sweep {plan.name} in {plan.folder} is another search. What differs:\n{lines}\n"
            "Set another sweep.name=… for this one, or undo what differs."
        )
