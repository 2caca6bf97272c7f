"""Keep the image digests of manifests that are rendered again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from estiba.core.errors import Conflict
from estiba.core.stores.disk import explained
from estiba.deploy.plan.plan import Plan

_PINNED = re.compile(r"^\s*(?:- )?image: [\"']?(?P<image>[^\s\"'@]+)@(?P<digest>sha256:[0-9a-f]{64})", re.MULTILINE)


def keep_digests(plan: Plan, folder: Path) -> Plan:
    """Return the plan with the digests that rendered manifests already have behind the same tags.

    The tag of an image that Estiba builds changes with its contents, so a digest written before is right for the same
    tag. `estiba kubernetes --pin` wrote it, in a pipeline for one.

    Raises:
        Conflict: the manifests have the digest of an image that has changed since: its new digest is not known here.
    """
    digests = _read_digests(folder)
    pinned_names = {_without_tag(image) for image in digests}
    services = []
    for service in plan.services:
        image = service.image
        if image in digests:
            image = f"{image}@{digests[image]}"
        elif service.build is not None and "@" not in image and _without_tag(image) in pinned_names:
            raise Conflict(
                f"The manifests in {folder} have the digest of an older image of {service.name}; the project now has "
                f"{image}, whose digest is not known here.",
                hint="Push it with `estiba build --push --json > images.json` and pass --pin images.json, or apply the "
                "manifests as they are with --no-render.",
            )
        services.append(replace(service, image=image))
    return replace(plan, services=tuple(services))


def _read_digests(folder: Path) -> dict[str, str]:
    """Return the digests in the manifests of a folder, by image with its tag."""
    digests: dict[str, str] = {}
    for path in sorted([*folder.glob("base/*.yaml"), *folder.glob("components/*/*.yaml")]):
        with explained("read", path):
            text = path.read_text()
        digests.update((match["image"], match["digest"]) for match in _PINNED.finditer(text))
    return digests


def _without_tag(image: str) -> str:
    name, colon, tag = image.rpartition(":")
    return name if colon and "/" not in tag else image
