"""config/k8s as the base of kustomize, and an overlay for each environment in config/kustomize."""

from manifests import call, check_by_tailkeep, complaints, configuration, differences, of_file, read
from suite.process import ROOT

OVERLAYS = ROOT / "config/kustomize"
# Overlay: the file of config/ that it copies, as kustomize reads nothing outside of an overlay.
COPIES = {"ack-sls": "sls", "ack-arms": "arms"}


def write():
    for overlay, name in COPIES.items():
        (OVERLAYS / overlay / "tailkeep.yaml").write_text(configuration(name))


def are_right(checks):
    for manifest in sorted((ROOT / "config/k8s").glob("*.yaml")):
        if manifest.name != "kustomization.yaml":
            checks.equal(f"config/k8s/{manifest.name}: Kubernetes takes it",
                         complaints(of_file(f"config/k8s/{manifest.name}")), [])
    for overlay in ["config/k8s", *sorted(str(path.relative_to(ROOT)) for path in OVERLAYS.iterdir())]:
        documents = read(call("kustomize", "build", overlay))
        checks.equal(f"{overlay}: Kubernetes takes it", complaints(documents), [])
        judged = check_by_tailkeep(documents)
        checks.check(f"{overlay}: tailkeep takes configuration and policy", judged.count("no problem") == 2, judged)
    for overlay, name in COPIES.items():
        checks.equal(f"config/kustomize/{overlay} has config/{name}.yaml",
                     (OVERLAYS / overlay / "tailkeep.yaml").read_text(), configuration(name))
    ways_agree(checks)


def ways_agree(checks):
    """The overlay for Log Service makes what config/k8s/sls.yaml says, but for the names of this and that registry."""
    key = lambda document: (document["kind"], document["metadata"]["name"])  # noqa: E731
    ours = {str(key(document)): document for document in read(call("kustomize", "build", "config/kustomize/ack-sls"))}
    theirs = {str(key(document)): document
              for name in ("sls", "balancer") for document in of_file(f"config/k8s/{name}.yaml")}
    lines = [line for line in differences(ours, theirs)
             if not line.split(":")[0].endswith(("/image", "/storageClassName"))]
    checks.equal("config/kustomize/ack-sls is config/k8s/sls.yaml", lines, [])
