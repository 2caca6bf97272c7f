"""List the rules of the doctor, from the most to the least urgent, and look them up by code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from estiba.core.errors import NotFound
from estiba.core.suggest import did_you_mean
from estiba.doctor.finding import Finding, listed
from estiba.doctor.read.containers import Container
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule
from estiba.doctor.rules import (
    base_images,
    compose,
    copy_missing,
    dockerfile,
    exits,
    health_checks,
    image_size,
    missing_files,
    permissions,
    pickles,
    ports,
    project_file,
    requirements,
    secrets,
    servers,
)

RULES: tuple[type[Rule], ...] = (
    # Nothing can be built or started
    exits.OutOfMemory,
    dockerfile.DockerfileSyntax,
    dockerfile.CommentAfterBackslash,
    dockerfile.TrailingComment,
    dockerfile.CopyShell,
    dockerfile.JsonQuotes,
    dockerfile.ExecVariable,
    servers.WindowsLineEnds,
    compose.ComposeInvalid,
    project_file.ProjectFile,
    copy_missing.CopyMissing,
    # It starts and cannot work
    missing_files.ModelMissing,
    pickles.ModuleMissing,
    requirements.SystemLibraryMissing,
    pickles.PickleVersion,
    permissions.PermissionDenied,
    exits.Crashed,
    ports.LoopbackHost,
    ports.PortMismatch,
    health_checks.HealthPort,
    health_checks.CurlMissing,
    health_checks.Unhealthy,
    compose.DependsOnNoHealth,
    # An attacker gets in
    secrets.SecretInLayer,
    secrets.DefaultPassword,
    servers.DebugMode,
    # It works, and will fail some day or cost too much
    secrets.SecretInCompose,
    servers.DevelopmentServer,
    permissions.RootUser,
    permissions.DockerSocket,
    ports.PublishedDatabase,
    health_checks.StartPeriodShort,
    compose.DependsOnOrder,
    missing_files.BindHidesCode,
    missing_files.StaleVolume,
    compose.ThreadsOverCpus,
    servers.ShellForm,
    image_size.CacheOrder,
    image_size.MissingDockerignore,
    image_size.DockerignoreGaps,
    base_images.EndOfLifeImage,
    base_images.UnpinnedBaseImage,
    requirements.UnpinnedRequirements,
    requirements.CudaInImage,
    base_images.FullBaseImage,
    image_size.BuildTools,
    requirements.DevRequirements,
    image_size.ImageTooBig,
    # It could be better
    dockerfile.CopyWithoutWorkdir,
    image_size.PipCache,
    image_size.AptLists,
    ports.ExposeMismatch,
    health_checks.NoHealthcheck,
    compose.NoRestart,
    compose.NoLimits,
    compose.ComposeVersion,
)
"""Findings are shown in this order: by severity, then faults that may cause others first."""


def rule(code: str) -> type[Rule]:
    """Return the rule with a code.

    Raises:
        NotFound: there is none.
    """
    by_code = {rule.code: rule for rule in RULES}
    if code not in by_code:
        hint = "A finding shows its code in brackets; docs/reference/doctor.md lists all of them."
        raise NotFound(f"The doctor has no rule {code!r}{did_you_mean(code, by_code)}", hint=hint)
    return by_code[code]


def check_container(container: Container, folder: Path | None) -> list[Finding]:
    """Run the rules about one container; those about files of the host only if there is a folder."""
    findings = [finding for rule in RULES for finding in rule.check_container(container)]
    if folder is not None:
        findings += [finding for rule in RULES for finding in rule.check_mounts(container, folder)]
    return findings


def check_running(container: InspectedContainer) -> list[Finding]:
    """Run the rules about a container of Docker. A crash whose cause was found is not reported as well."""
    findings = [finding for rule in RULES for finding in rule.check_running(container)]
    causes = {rule.code for rule in RULES if rule.explains_exit}
    explained = any(finding.code in causes for finding in findings)
    return [finding for finding in findings if not (explained and finding.code == exits.Crashed.code)]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings, the main one first. Duplicates are left out, and the same message about several lines is one.

    So is the same line with the same message about several services, to which an anchor brings it.
    """
    rank = {rule.code: number for number, rule in enumerate(RULES)}
    unique = {(finding.code, finding.where, finding.message): finding for finding in findings}
    lines: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in unique.values():
        lines.setdefault((finding.code, finding.where, finding.message.partition(" ")[2]), []).append(finding)
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    by_place = sorted(map(_of_services, lines.values()), key=lambda item: (rank[item.code], item.file, item.line))
    for finding in by_place:
        groups.setdefault((finding.code, finding.file, finding.message), []).append(finding)
    return [_of_lines(group) for group in groups.values()]


def _of_services(group: list[Finding]) -> Finding:
    """Return the first of findings about a line whose messages differ in the first word only: the service."""
    first, *others = group
    names = [finding.message.partition(" ")[0] for finding in others]
    return _extended(first, f"also for {listed(names)}") if names and ".y" in first.file else first


def _of_lines(group: list[Finding]) -> Finding:
    """Return the first of findings with the same message, with the lines of the others added to it."""
    first, *others = group
    lines = listed(str(finding.line) for finding in others)
    return _extended(first, f"also on line{'s' if len(others) > 1 else ''} {lines}") if others else first


def _extended(finding: Finding, addition: str) -> Finding:
    return msgspec.structs.replace(finding, message=f"{finding.message.removesuffix('.')}; {addition}.")
