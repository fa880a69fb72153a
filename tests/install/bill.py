"""The bill of materials of config/sbom.py."""

import json
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from manifests import call
from suite.process import ROOT
from suite.tailkeep import binary


def is_right(checks):
    text = call("python3", "config/sbom.py")
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    checks.check("the bill of materials is CycloneDX 1.6", error is None, str(error))
    checks.check("the same sources give the same bytes", call("python3", "config/sbom.py") == text)
    components = json.loads(text)["components"]
    lock = {(entry["name"], entry["version"]): entry.get("checksum")
            for entry in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    wrong = [component["name"] for component in components
             if [entry["content"] for entry in component.get("hashes", [])]
             != [lock[component["name"], component["version"]]]]
    checks.equal("every crate has the hash of Cargo.lock", wrong, [])
    checks.equal("every crate has a licence", [part["name"] for part in components if "licenses" not in part], [])
    names = {component["name"] for component in components}
    direct = tomllib.loads((ROOT / "Cargo.toml").read_text())
    checks.equal("every dependency is there", sorted(direct["dependencies"].keys() - names), [])
    only_tests = direct["dev-dependencies"].keys() - direct["dependencies"].keys()
    checks.check("and nothing that only tests use", only_tests and not only_tests & names, str(only_tests & names))
    bundled = {part["name"]: part["version"] for component in components for part in component.get("components", [])}
    checks.equal("the C libraries are named", sorted(bundled), ["sqlite", "zstandard"])
    checks.check(f"SQLite {bundled.get('sqlite')} is what the program has in it",
                 bundled.get("sqlite", "none").encode() in binary().read_bytes())
