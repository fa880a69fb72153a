"""The conformance run: controls, verification under load, oracle, faults, identity, ARMS, truth."""

import logging
import os
import tempfile

import arms
import checks
import compare
import controls
import corpus
import faults
import identities
import percentiles
import product
import truth
import whole
from checks import check, equal
from emulator import Emulator
from stubs import Sts


def matrix(emulator, folder):
    """Every signature, compression and kind of key, four processes at a time."""
    files = [corpus.write(folder, "load", corpus.traces(31, spans=512)),
             corpus.write(folder, "load", corpus.logs(32)), corpus.write(folder, "load", corpus.metrics(33))]
    per_round = 512 + 14 + len(corpus.TEXTS[1:]) * 2 + 14 + 1
    for version in ("v1", "v4"):
        for compression in ("lz4", "zstd", "none"):
            for keys in (product.KEYS, product.STS_KEYS):
                kind = "STS" if keys[2] else "keys"
                with check(f"every request verifies under load: {version}, {compression}, {kind}"):
                    emulator.clear()
                    options = {"signature": version, "compression": compression, "repeat": 5, "keys": keys}
                    options |= {"shard_key": "pod-1"} if keys[2] else {"metrics_path": "prometheus"}
                    processes = [product.start_sls(emulator, files, **options) for _ in range(4)]
                    for process in processes:
                        said = product.result(process)
                        equal((said["rejected"], said["retries"]), (0, []))
                    equal(emulator.refused, [])
                    equal(len(emulator.logs("otel-traces")) + len(emulator.logs("otel-logs")), 20 * per_round)
                    assert len(emulator.logs("otel-metrics")) % 20 == 0 and emulator.logs("otel-metrics")
                    packs = [accepted.group.LogTags[0].Value for accepted in emulator.accepted]
                    equal(len(set(packs)), len(packs), "pack ids are unique")


def doctor(emulator):
    with check("doctor: signed probes of keys and stores"):
        emulator.clear()
        ran = product.run("doctor", "sls", *product.sls_arguments(emulator), keys=product.STS_KEYS)
        equal(ran.returncode, 0, ran.stdout)
        equal(emulator.probed, ["otel-traces", "otel-metrics", "otel-logs"])
        assert ran.stdout.count("request id") == 3 and "4 probes, none failed" in ran.stdout, ran.stdout
    with check("doctor: says what to do, shows no secret"):
        ran = product.run("doctor", "sls", *product.sls_arguments(emulator), keys=(product.KEYS[0], "swordfish", None))
        assert ran.returncode and "secret belongs" in ran.stdout, ran.stdout
        assert "swordfish" not in ran.stdout + ran.stderr


def main():
    # Alibaba's libraries log every refusal that the controls provoke.
    logging.disable(logging.CRITICAL)
    emulator = Emulator({keys[0]: keys[1:] for keys in (product.KEYS, product.STS_KEYS)})
    sts = Sts(emulator, product.KEYS)
    with tempfile.TemporaryDirectory() as folder:
        controls.official_clients(emulator, product.KEYS, product.STS_KEYS)
        controls.tampering(emulator, product.KEYS, product.STS_KEYS)
        matrix(emulator, folder)
        compare.run(emulator, os.environ["ORACLE"], folder)
        faults.run(emulator, folder)
        faults.rotation(emulator, sts, folder)
        identities.controls(sts, f"{folder}/oidc-token")
        identities.ours(emulator, sts, folder, f"{folder}/oidc-token")
        doctor(emulator)
        arms.run(folder)
        truth.run(emulator, folder)
        percentiles.run(emulator, folder)
        whole.run(emulator, sts, folder, f"{folder}/oidc-token")
    checks.finish()


main()
