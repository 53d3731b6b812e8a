"""A broker that asks who is there: TLS, client certificates, passwords, tokens, and rights for each user."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import trustme
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.services.broker import KafkaBroker
from tests.services.ports import reserve_port

REAUTHENTICATE_S = 2.0
"""How long a connection with a password or token lives before it has to prove itself again."""


class Certificates:
    """Of an authority of our own: the broker's, one that has expired, the client's; and an authority nobody knows."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        authority = trustme.CA()
        self.authority = self._written("ca.pem", authority.cert_pem.bytes())
        self.stranger = self._written("stranger.pem", trustme.CA().cert_pem.bytes())
        self.broker = self._keystore("broker.pem", authority.issue_cert("127.0.0.1"))
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        expired = authority.issue_cert("127.0.0.1", not_before=past - datetime.timedelta(days=1), not_after=past)
        self.expired = self._keystore("expired.pem", expired)
        client = authority.issue_cert("client.test", common_name="client")
        self.client = self._written("client.pem", client.cert_chain_pems[0].bytes())
        self.client_key = self._written("client.key", client.private_key_pem.bytes())

    def _keystore(self, name: str, issued: trustme.LeafCert) -> Path:
        """Java reads keys in PKCS#8 only."""
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self._written(name, text + issued.cert_chain_pems[0].bytes())

    def _written(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path


class SecuredBroker(KafkaBroker):
    """Beside `bootstrap`, which needs nothing and may everything, one listener per way of getting in.

    Users are `client` (by certificate), `plain`, and who is created with `set_password`; none may do anything until
    `allow` says so.
    """

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder / "certificates")
        self.tls, self.sasl, self.expired, self.behind, self.proxy = (f"127.0.0.1:{reserve_port()}" for _ in range(5))
        super().__init__(folder, self._security())

    @property
    def listeners(self) -> Mapping[str, str]:
        """TLS asks for a client certificate, EXPIRED has an expired one, BEHIND tells clients the address `proxy`."""
        ours = {"TLS": self.tls, "SASL": self.sasl, "EXPIRED": self.expired, "BEHIND": self.behind}
        return {**super().listeners, **ours}

    @property
    def advertised(self) -> Mapping[str, str]:
        """What clients are told to connect to."""
        return {**self.listeners, "BEHIND": self.proxy}

    def set_password(self, user: str, password: str) -> None:
        """Create a user for SCRAM-SHA-512, or change the password."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = self._admin()  # must outlive its answer
        for future in admin.alter_user_scram_credentials([change]).values():
            future.result()

    def allow(self, user: str, *rights: tuple[str, str, str]) -> None:
        """Grant rights: (operation, kind of resource, prefix of its name); of the cluster the name is kafka-cluster."""
        bindings = [
            AclBinding(
                ResourceType[kind],
                name,
                ResourcePatternType.LITERAL if kind == "BROKER" else ResourcePatternType.PREFIXED,
                f"User:{user}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation, kind, name in rights
        ]
        admin = self._admin()  # must outlive its answer
        for future in admin.create_acls(bindings).values():
            future.result()
        # The filter's annotations do not know that None stands for every one.
        user_only = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type]
            ResourcePatternType.ANY,
            f"User:{user}",
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for _ in self._attempts():  # the controller knows a moment before the broker does
            if set(bindings) <= set(admin.describe_acls(user_only).result()):
                return

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    def _security(self) -> dict[str, str]:
        files, login = self.certificates, "org.apache.kafka.common.security"
        stores = {
            f"listener.name.{name}.ssl.{store}": value
            for name, key in (("tls", files.broker), ("sasl", files.broker), ("expired", files.expired))
            for store, value in (
                ("keystore.type", "PEM"),
                ("keystore.location", str(key)),
                ("truststore.type", "PEM"),
                ("truststore.location", str(files.authority)),
            )
        }
        return {
            **stores,
            "listener.security.protocol.map": (
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,EXPIRED:SSL,SASL:SASL_SSL,BEHIND:PLAINTEXT"
            ),
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.tls.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]*).*$/$1/",
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.sasl.connections.max.reauth.ms": f"{REAUTHENTICATE_S * 1000:.0f}",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{login}.plain.PlainLoginModule required user_plain="plain-secret";'
            ),
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.sasl.oauthbearer.sasl.jaas.config": (
                f'{login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
