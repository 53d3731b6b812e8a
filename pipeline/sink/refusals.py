"""Why Kafka does not let us in, in one line: librdkafka names neither the setting nor, of TLS, the reason."""

from __future__ import annotations

import re
import ssl

import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from pipeline.model.secret import Secret
from pipeline.sink.settings import KafkaSettings

_AUTHENTICATION = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_PROBE_WITHIN_S = 3.0
_SHAPE = re.compile(
    r"(?:\w+://)?(?P<broker>[^/\s]+)/\w+: (?P<what>.*?)(?: \(after \d+ms in state \w+.*\))?$", re.DOTALL
)
_ALERT = re.compile(r"alert ((?:bad |unsupported |unknown |)certificate\w*(?: \w+)*|unknown ca|access denied)")
_NO_TLS = "connecting to a PLAINTEXT broker listener?"
_AT = "kafka.properties."


class LastError:
    """An `error_cb` that remembers, for clients that do not live long enough to log."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Called by librdkafka."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.error = error

    def told(self, settings: KafkaSettings, client: Consumer | Producer | AdminClient, error: KafkaException) -> str:
        """What to say about a call that failed: the refusal behind it, if there is one."""
        client.poll(0)  # librdkafka calls back from here only
        return refusal(settings, self.error) or str(error.args[0].str())


def refusal(settings: KafkaSettings, error: KafkaError | None) -> str | None:
    """What an error says about being refused, and the setting to look at; None if it may be passing trouble."""
    if error is None:
        return None
    broker, what = _parts(error.str())
    if error.code() in _AUTHENTICATION:
        return f"{broker}: {_login(settings)} failed: {what}; see {_login_settings(settings, what)}"
    if error.code() == KafkaError._SSL:
        return f"{broker}: {what}"
    alert = _ALERT.search(what)
    if alert is not None:
        if settings.properties.keys() & {"ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"}:
            return f"{broker}: our client certificate was refused ({alert[1]}); see {_AT}ssl.certificate.location"
        return f"{broker}: asks for a client certificate; see {_AT}ssl.certificate.location and ssl.key.location"
    if _NO_TLS in what:
        return f"{broker}: does not speak TLS; see {_AT}security.protocol, which is {_protocol(settings)}"
    return None


async def diagnosis(settings: KafkaSettings, error: KafkaError | None) -> str | None:
    """The same, found out by a TLS handshake of our own where an error does not tell."""
    known = refusal(settings, error)
    if error is not None and (known is None or error.code() != KafkaError._SSL) and _uses_tls(settings):
        return known
    broker = _parts(error.str())[0] if error is not None and known else next(iter(settings.bootstrap_servers), "")
    host, _, port = broker.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return known
    found = None
    with trio.move_on_after(_PROBE_WITHIN_S):
        found = await _handshake(settings, host.strip("[]"), int(port))
    if found is None:
        return known
    return f"{broker}: {found}"


async def _handshake(settings: KafkaSettings, host: str, port: int) -> str | None:
    """What is wrong with TLS there; None if nothing is, or nobody answers."""
    uses_tls = _uses_tls(settings)
    context = ssl.create_default_context() if uses_tls else ssl._create_unverified_context()
    try:
        if uses_tls and (authority := settings.properties.get("ssl.ca.location")) is not None:
            context.load_verify_locations(cafile=_text(authority))
        stream = trio.SSLStream(await trio.open_tcp_stream(host, port), context, server_hostname=host)
        try:
            await stream.do_handshake()
        finally:
            await trio.aclose_forcefully(stream)
    except (trio.BrokenResourceError, OSError, ssl.SSLError) as error:
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
        return _certificate_problem(cause) if uses_tls and isinstance(cause, ssl.SSLError) else None
    return (
        None
        if uses_tls
        else f"speaks TLS; set {_AT}security.protocol, which is {_protocol(settings)}, to SSL or SASL_SSL"
    )


def _certificate_problem(error: ssl.SSLError) -> str | None:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    why = error.verify_message.rstrip(".")
    if "expired" in why or "not yet valid" in why:
        return f"its certificate is not accepted: {why}; it must be renewed, or our clock is wrong"
    if "mismatch" in why or "doesn't match" in why:
        return f"its certificate is for another name: {why}; see kafka.bootstrap_servers"
    return f"its certificate is not accepted: {why}; see {_AT}ssl.ca.location"


def _parts(text: str) -> tuple[str, str]:
    """The broker's address and what happened, of `protocol://host:port/name: what (after … in state …)`."""
    match = _SHAPE.match(text)
    return (match["broker"], match["what"]) if match is not None else ("the cluster", text)


def _protocol(settings: KafkaSettings) -> str:
    return str(settings.properties.get("security.protocol", "plaintext")).upper()


def _uses_tls(settings: KafkaSettings) -> bool:
    return "SSL" in _protocol(settings)


def _mechanism(settings: KafkaSettings) -> str:
    if settings.oauth_token is not None:
        return "OAUTHBEARER"
    chosen = settings.properties.get("sasl.mechanism", settings.properties.get("sasl.mechanisms", "GSSAPI"))
    return str(chosen).upper()


def _login(settings: KafkaSettings) -> str:
    user = settings.properties.get("sasl.username")
    name = f" of {user}" if isinstance(user, str) else ""
    return f"the login{name} by {_mechanism(settings)}"


def _login_settings(settings: KafkaSettings, what: str) -> str:
    if "mechanism" in what and "nsupported" in what:
        return f"{_AT}sasl.mechanism"
    if _mechanism(settings) != "OAUTHBEARER":
        return f"{_AT}sasl.username and sasl.password"
    return "kafka.oauth_token" if settings.oauth_token is not None else f"{_AT}sasl.oauthbearer.*"


def _text(value: object) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)
