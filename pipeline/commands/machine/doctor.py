"""`reelbank doctor`: what is installed, what this machine has, and what fits it.

Exit code 1 when something that Reelbank needs is broken. Imports torch and no model library; looks
at the disk for a second at most.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from pipeline.commands.machine import hardware, software, weights
from pipeline.commands.machine.finding import Finding, Probe, Status, collect
from pipeline.config.tasks.bank_settings import DoctorSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat

_MARKS = {Status.OK: "ok", Status.NOTE: "", Status.MISSING: "--", Status.BROKEN: "!!"}


def run(settings: DoctorSettings) -> int:
    """reelbank doctor."""
    findings = list(collect(_probes(Path(settings.bank))))
    works = all(finding.status != Status.BROKEN for finding in findings)
    if settings.format == OutputFormat.json:
        print(json.dumps({"works": works, "findings": [asdict(one) for one in findings]}))
    else:
        print("\n".join(_lines(findings, works)))
    return 0 if works else 1


def _probes(bank: Path) -> list[tuple[str, Probe]]:
    return [
        ("installation", software.python),
        ("installation", software.reelbank),
        ("installation", software.own_packages),
        ("packages", software.core),
        ("extras", software.extras),
        ("machine", hardware.processor),
        ("machine", hardware.accelerators),
        ("machine", hardware.memory),
        (weights.SECTION, weights.shipped),
        (weights.SECTION, weights.cached),
        (weights.SECTION, weights.fits),
        ("bank", functools.partial(hardware.bank, bank)),
    ]


def _lines(findings: list[Finding], works: bool) -> Iterator[str]:
    width = max(len(finding.name) for finding in findings)
    for section, group in groupby(findings, key=lambda finding: finding.section):
        yield section
        for one in group:
            yield f"  {_MARKS[one.status]:<2}  {one.name:<{width}}  {one.text}".rstrip()
        yield ""
    broken = sum(finding.status == Status.BROKEN for finding in findings)
    if works:
        yield "Everything that Reelbank needs is here; -- is an extra or a model that is not."
    else:
        yield f"{broken} of these do not work, marked !!; what to do stands behind each."
