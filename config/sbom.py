#!/usr/bin/env python3
"""What the program is made of, as a CycloneDX 1.6 document: the crates that are linked into it, with versions, hashes
and licences, and the C libraries that two of them bring as source.

    python3 config/sbom.py > tailkeep.cdx.json

Needs cargo and Python's standard library. The same sources give the same bytes. The image adds glibc and Debian's list
of authorities (config/image.sh).
"""

import json
import re
import subprocess
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# crate: the library, the header that has its version, and what to read there.
BUNDLED = {
    "libsqlite3-sys": ("sqlite", "sqlite3/sqlite3.h", r'SQLITE_VERSION +"([\d.]+)"'),
    "zstd-sys": ("zstandard", "zstd/lib/zstd.h", r"ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE) +(\d+)"),
}
VENDORS = {"sqlite": "sqlite", "zstandard": "facebook"}


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked():
    """(name, version) of the crates in the binary. `cargo metadata` would add what only tests switch on."""
    lines = run("cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}").splitlines()
    return {(name, version.lstrip("v")) for name, version, *_ in map(str.split, filter(None, lines))}


def component(package, checksum):
    name, version = package["name"], package["version"]
    made = {"type": "library", "bom-ref": f"pkg:cargo/{name}@{version}", "name": name, "version": version,
            "purl": f"pkg:cargo/{name}@{version}"}
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Old crates write `MIT/Apache-2.0`.
        made["licenses"] = [{"expression": re.sub(r" */ *", " OR ", package["license"])}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if name in BUNDLED:
        made["components"] = [bundled(*BUNDLED[name], Path(package["manifest_path"]).parent)]
    return made


def bundled(library, header, pattern, folder):
    version = ".".join(re.findall(pattern, (folder / header).read_text()))
    cpe = f"cpe:2.3:a:{VENDORS[library]}:{library}:{version}:*:*:*:*:*:*:*"
    return {"type": "library", "bom-ref": f"{library}@{version}", "name": library, "version": version, "cpe": cpe}


def bill():
    packages = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))["packages"]
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock}
    found = {(package["name"], package["version"]): package for package in packages}
    components = [component(found[key], checksums[key]) for key in sorted(linked())]
    [program] = [entry for entry in components if entry["name"] == "tailkeep"]
    components.remove(program)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
            "metadata": {"component": program | {"type": "application"}}, "components": components}


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
