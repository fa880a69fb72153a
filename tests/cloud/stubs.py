"""STS and the ECS metadata service, as far as credential libraries use them."""

import itertools
import json
import time

from alibabacloud_credentials.utils import parameter_helper

from server import QuietServer


class Sts:
    """Gives keys that the emulator then knows, for AssumeRoleWithOIDC and for signed AssumeRole."""

    oidc_token = "header.payload.signature"

    def __init__(self, emulator, base_keys):
        self.emulator, self.base_keys = emulator, base_keys
        self.numbers = itertools.count(1)
        self.clear()
        self.server = QuietServer(self._answer)
        self.url = self.server.url

    def clear(self, lifetime=3600):
        self.calls, self.lifetime = [], lifetime

    def issue(self):
        number = next(self.numbers)
        keys = (f"STS.{number}", f"secret{number}", f"token{number}+/=")
        expires = int(time.time()) + self.lifetime
        self.emulator.accounts[keys[0]] = keys[1:]
        self.emulator.expiry[keys[0]] = expires
        return {"AccessKeyId": keys[0], "AccessKeySecret": keys[1], "SecurityToken": keys[2],
                "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))}

    def _answer(self, request):
        given = {**request.query, **(request.form() if request.body else {})}
        self.calls.append(request)
        problem = self._problem(request.method, given)
        if problem:
            status, code = problem
            return status, {}, json.dumps({"Code": code, "Message": code, "RequestId": "STS-R"}).encode()
        return 200, {}, json.dumps({"RequestId": "STS-R", "Credentials": self.issue()}).encode()

    def _problem(self, method, given):
        if given.get("Version") != "2015-04-01" or given.get("Format") != "JSON" or not given.get("RoleSessionName"):
            return 400, "InvalidParameter"
        if not given.get("RoleArn", "").startswith("acs:ram::"):
            return 404, "EntityNotExist.Role"
        if given["Action"] == "AssumeRoleWithOIDC":
            return None if given.get("OIDCToken") == self.oidc_token else (400, "AuthenticationFail.OIDCToken.Invalid")
        signature = given.pop("Signature", "")
        # The vendor's own signer over everything that came.
        text = parameter_helper.compose_string_to_sign(method, given)
        if signature != parameter_helper.sign_string(text, self.base_keys[1] + "&"):
            return 400, "SignatureDoesNotMatch"
        if given.get("AccessKeyId") != self.base_keys[0] or given.get("SecurityToken") != self.base_keys[2]:
            return 404, "InvalidAccessKeyId.NotFound"
        return None


class Metadata:
    """`v1` answers without a session token as well, `v2` knows how to give one."""

    def __init__(self, sts, v1, v2):
        self.sts, self.v1, self.v2, self.calls = sts, v1, v2, []
        self.server = QuietServer(self._answer)
        self.url, self.port = self.server.url, self.server.port

    def _answer(self, request):
        self.calls.append(request)
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            valid = self.v2 and request.header("x-aliyun-ecs-metadata-token-ttl-seconds").isdigit()
            return (200, {}, b"session-token") if valid else (404, {}, b"")
        if not self.v1 and request.header("x-aliyun-ecs-metadata-token") != "session-token":
            return 403, {}, b""
        if request.path == "/latest/meta-data/ram/security-credentials/":
            return 200, {}, b"node-role"
        if request.path == "/latest/meta-data/ram/security-credentials/node-role":
            keys = {"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", **self.sts.issue()}
            return 200, {}, json.dumps(keys).encode()
        return 404, {}, b""
