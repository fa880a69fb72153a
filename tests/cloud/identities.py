"""Sources of keys: the stubs satisfy Alibaba's own library, and the sink gets keys from the same stubs."""

import contextlib

from Tea.core import TeaCore
from alibabacloud_credentials.provider.ecs_ram_role import EcsRamRoleCredentialsProvider
from alibabacloud_credentials.provider.oidc import OIDCRoleArnCredentialsProvider
from alibabacloud_credentials.provider.ram_role_arn import RamRoleArnCredentialsProvider
from alibabacloud_credentials.provider.static_ak import StaticAKCredentialsProvider

import corpus
import product
from checks import check, equal
from stubs import Metadata

TRIO = {"ROLE_ARN": "acs:ram::1:role/tail", "OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack"}


@contextlib.contextmanager
def plain_http():
    """The library speaks https only; the stubs are on loopback."""
    real = TeaCore.do_action

    def do_action(request, options=None):
        request.protocol = "http"
        return real(request, options)
    TeaCore.do_action = staticmethod(do_action)
    try:
        yield
    finally:
        TeaCore.do_action = real


def controls(sts, token_file):
    host = sts.url.removeprefix("http://")
    with plain_http():
        with check("Alibaba's library gets keys from the STS stub by OIDC"):
            provider = OIDCRoleArnCredentialsProvider(
                role_arn=TRIO["ROLE_ARN"], oidc_provider_arn=TRIO["OIDC_PROVIDER_ARN"],
                oidc_token_file_path=token_file, sts_endpoint=host)
            assert provider.get_credentials().get_access_key_id().startswith("STS.")
        for secret, works in ((product.KEYS[1], True), ("wrong", False)):
            with check(f"Alibaba's library gets keys from the STS stub by AssumeRole: {works}"):
                base = StaticAKCredentialsProvider(access_key_id=product.KEYS[0], access_key_secret=secret)
                provider = RamRoleArnCredentialsProvider(
                    credentials_provider=base, role_arn=TRIO["ROLE_ARN"], role_session_name="s", sts_endpoint=host)
                try:
                    got = provider.get_credentials().get_access_key_id().startswith("STS.")
                except Exception as error:  # noqa: BLE001
                    got = "SignatureDoesNotMatch" not in str(error)
                equal(got, works)
        for v1, v2 in ((True, False), (False, True)):
            with check(f"Alibaba's library gets keys from the metadata stub: v1 {v1}, v2 {v2}"):
                metadata = Metadata(sts, v1, v2)
                provider = EcsRamRoleCredentialsProvider(async_update_enabled=False)
                provider._EcsRamRoleCredentialsProvider__metadata_service_host = f"127.0.0.1:{metadata.port}"
                assert provider.get_credentials().get_access_key_id().startswith("STS.")


def ours(emulator, sts, folder, token_file):
    file = corpus.write(folder, "identity", corpus.traces(13, spans=8, plain=True))
    rrsa = {**TRIO, "OIDC_TOKEN_FILE": token_file}

    def deliver(name, metadata=None, keys=None, variables=None, **options):
        with check(f"keys by {name}: every request is accepted"):
            emulator.clear()
            sts.clear()
            if metadata:
                options["metadata"] = metadata.url
            product.sls(emulator, [file], keys=keys, variables=variables, sts=sts.url, **options)
            equal(emulator.refused, [])
            equal(len(emulator.logs("otel-traces")), 8)
            return emulator.accepted[0].request

    node = Metadata(sts, v1=False, v2=True)
    deliver("auto: environment", metadata=node, keys=product.STS_KEYS, variables=rrsa)
    with check("auto: with keys in the environment nobody else is asked"):
        equal((len(sts.calls), len(node.calls)), (0, 0))
    deliver("auto: RRSA", metadata=node, variables=rrsa)
    with check("auto: RRSA comes before the node's role"):
        equal((len(sts.calls), len(node.calls)), (1, 0))
        assert sts.oidc_token not in sts.calls[0].target, "the token is in the request line"
    deliver("auto: ECS role", metadata=node)
    deliver("ECS role, hardened", metadata=node, auth="ecs-role", only_v2=True)
    deliver("ECS role, version 1", metadata=Metadata(sts, v1=True, v2=False), auth="ecs-role")
    deliver("AssumeRole", keys=product.KEYS, auth="assume-role")
    with check("hardened metadata refuses version 1"):
        metadata = Metadata(sts, v1=True, v2=False)
        process = product.start_sls(emulator, [file], keys=None, metadata=metadata.url, auth="ecs-role", only_v2=True)
        _, errors = process.communicate(timeout=60)
        assert process.returncode and "version 1 is refused" in errors, errors
    for left_out in rrsa | {"OIDC_TOKEN_FILE": token_file}:
        with check(f"half-set RRSA without {left_out} is an error at start"):
            half = {name: text for name, text in rrsa.items() if name != left_out}
            before = len(node.calls)
            process = product.start_sls(emulator, [file], keys=None, variables=half, metadata=node.url)
            _, errors = process.communicate(timeout=60)
            assert process.returncode and left_out in errors, errors
            equal(len(node.calls), before, "the node was asked")
