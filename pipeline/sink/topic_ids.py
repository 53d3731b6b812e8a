"""Which topic it is that has a name: one that was deleted and made anew has another id."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient

from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import connection_config, create_client
from pipeline.sink.refusals import LastError
from pipeline.sink.settings import KafkaSettings

_ANSWER_WITHIN_S = 15.0
_NONE = str(Uuid(0, 0))
_UNTOLD = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)


@attrs.define(eq=False)
class TopicIds:
    """Asks the cluster over one connection that stays. May be used by several threads."""

    settings: KafkaSettings
    make: Callable[..., AdminClient] = AdminClient
    _trouble: LastError = attrs.field(factory=LastError, init=False)
    _admin: AdminClient | None = attrs.field(default=None, init=False)

    def ask(self, name: str) -> str | None:
        """The id of the topic that has this name now; blocks. Needs the right to describe it, which Read brings along.

        None if nobody tells: brokers before Kafka 2.8 do not, nor is anybody asked where topics are not verified.
        Raises `SinkFailed` if there is no such topic or the cluster does not answer, `Refused` or `ConfigError` if it
        cannot be asked.
        """
        if not self.settings.verify_topics:
            return None
        admin = self._admin
        if admin is None:
            config = connection_config(self.settings) | {"error_cb": self._trouble}
            admin = self._admin = create_client(self.make, config, self.settings)
        admin.poll(0)  # it may want a new token
        described = admin.describe_topics(TopicCollection([name]), request_timeout=_ANSWER_WITHIN_S)[name]
        try:
            found = str(described.result(2 * _ANSWER_WITHIN_S).topic_id)
        except KafkaException as error:
            if error.args[0].code() in _UNTOLD:
                return None
            self._admin = None  # the next one reads passwords anew
            told = self._trouble.told(self.settings, admin, error)
            raise SinkFailed(f"topic {name} cannot be described: {told}") from None
        return None if found == _NONE else found
