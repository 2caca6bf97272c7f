"""The rule about the project file, estiba.toml. The command checks it, as the doctor does not import projects."""

from __future__ import annotations

from typing import ClassVar

from estiba.doctor.rule import Rule


class ProjectFile(Rule):
    code = "project-file"
    severity = "error"
    title = "The project file estiba.toml has a mistake."
    reason = "All commands that read the project refuse it until it is corrected."
    example: ClassVar = {"estiba.toml": '[project]\nname = "churn"\n\n[server]\nprot = 8000\n'}
    remedy = "Correct the key that the finding names; the reference of the project file lists all keys."
