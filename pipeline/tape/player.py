"""Leads chains through what an archive tells of one process and venue, so that they publish what they published then.

Books, gaps, candles and tickers come out of the messages anew; so do dead letters. What a feed had to say about itself
and what clocks brought about stands in the archive's notes. What was read over REST about an account is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import Subscription, Venue
from pipeline.feeds.account_memory import AccountMemory
from pipeline.feeds.chain import Chain, Publish
from pipeline.feeds.handover import BookKey
from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Instrument, Micros
from pipeline.tape import entries
from pipeline.tape.entries import BEGIN, DATA, NOTE, Entry, Note, read_begin, read_event, read_note


@attrs.define(eq=False)
class Player:
    """One run of one venue. Nothing here waits or reads a clock."""

    venue: Venue
    publish: Publish
    report: Callable[[str], None]
    """Takes what is missing or cannot be understood."""
    wants: Callable[[str], bool] = attrs.field(default=lambda connection: True)
    """Whether a connection, by its name with the generation, is to be replayed; the venue's own notes always are."""
    _segment: int = attrs.field(default=0, init=False)
    """Number of the present one; 0 before the first."""
    _catalogue: dict[tuple[str, str], Instrument] = attrs.field(factory=dict, init=False)
    _listings: dict[tuple[str, str], Instrument] = attrs.field(factory=dict, init=False)
    """The same by the market that the entry itself names."""
    _chains: dict[str, Chain] = attrs.field(factory=dict, init=False)
    _books: dict[str, dict[BookKey, BookOptions]] = attrs.field(factory=dict, init=False)
    _resumes: dict[str, dict[str, int]] = attrs.field(factory=dict, init=False)
    """By connection without the generation, as `Chain.resume`."""
    _memories: dict[str, AccountMemory] = attrs.field(factory=dict, init=False)
    _numbers: dict[str, int] = attrs.field(factory=dict, init=False)
    """The last entry of each connection."""
    _strangers: set[str] = attrs.field(factory=set, init=False)
    """Connections that are not understood, because the archive lacks their beginning."""
    _relieved: set[str] = attrs.field(factory=set, init=False)
    """Connections that another one has taken over from: what is still told of them means nothing."""
    _is_early: bool = attrs.field(default=False, init=False)
    """Whether something was skipped before the first segment."""

    def take(self, entry: Entry) -> None:
        """Do what the entry tells. Raises `ValueError` for one that cannot be read; the next one can be taken."""
        if entry.sequence <= self._numbers.get(entry.connection, 0):
            return  # delivered twice
        if entry.kind == BEGIN:
            self._begin(entry)
        elif not self._segment:
            if not self._is_early:
                self._is_early = True
                self.report(f"{self.venue.name}: the first entries are skipped, up to where a segment begins")
        elif entry.connection == self.venue.name or self.wants(entry.connection):
            self._count(entry)
            if entry.kind == DATA:
                chain = self._chains.get(entry.connection)
                if chain is None:
                    self._note_stranger(entry.connection)
                else:
                    chain.take([entry.payload], Micros(entry.receive_time))
            elif entry.kind == NOTE:
                self._note(entry, read_note(entry.payload))

    def _begin(self, entry: Entry) -> None:
        begin = read_begin(entry.payload)
        if begin.number != self._segment + 1 or not begin.is_whole or not self._segment:
            if self._segment:
                self.report(f"{self.venue.name}: entries are missing before segment {begin.number}")
            self._forget_all()
        self._segment = begin.number
        self._numbers[entry.connection] = entry.sequence

    def _forget_all(self) -> None:
        for known in (self._catalogue, self._listings, self._chains, self._books, self._resumes, self._memories):
            known.clear()
        self._numbers.clear()
        self._strangers.clear()
        self._relieved.clear()

    def _count(self, entry: Entry) -> None:
        before = self._numbers.get(entry.connection)
        if before is not None and entry.sequence > before + 1:
            self.report(f"{entry.connection}: entries {before + 1} to {entry.sequence - 1} are missing")
        self._numbers[entry.connection] = entry.sequence

    def _note_stranger(self, connection: str) -> None:
        if connection not in self._strangers | self._relieved:
            self._strangers.add(connection)
            self.report(f"{connection}: is skipped, as its beginning is missing")

    def _note(self, entry: Entry, note: Note) -> None:
        now, connection = Micros(entry.receive_time), entry.connection
        match note:
            case entries.Known():
                self._know(note)
                return
            case entries.Listed():
                for key in note.keys:
                    if (instrument := self._listings.get(key)) is not None:
                        self.publish(instrument)
                return
            case entries.Published():
                self.publish(read_event(note.event))
                return
            case entries.Opened():
                if not (note.is_joined and connection in self._chains):
                    self._open(connection, note)
                return
        chain = self._chains.get(connection)
        if chain is None:
            self._note_stranger(connection)
            return
        match note:
            case entries.Books():
                self._books[connection].clear()
                self._books[connection].update(_options(note.books))
                chain.reconfigure(now)
            case entries.Invalidated():
                chain.invalidate((note.channel, note.instrument), now, note.reason)
            case entries.Dropped():
                chain.drop((note.channel, note.instrument))
            case entries.Due():
                chain.due(now)
            case entries.Awaited():
                chain.await_seed((note.channel, note.instrument))
            case entries.Seeded():
                _plant(chain, note, now)
            case entries.Conflated():
                chain.conflate(note.policy)
            case entries.CaughtUp():
                chain.conflate_no_more()
            case entries.Recorded():
                chain.record()
            case entries.TakenOver():
                self._take_over(connection, chain, note)
            case entries.Forgotten():
                chain.forget()

    def _know(self, note: entries.Known) -> None:
        instrument = read_event(note.instrument)
        if not isinstance(instrument, Instrument):
            raise ValueError(f"the catalogue cannot have a {instrument.KIND}")
        origin = instrument.origin
        self._catalogue[note.market, str(origin.instrument)] = instrument
        self._listings[origin.market, str(origin.instrument)] = instrument

    def _open(self, connection: str, note: entries.Opened) -> None:
        if not note.is_held:
            self._close_others(connection)
        resume = self._resumes.setdefault(_id(connection), {})
        # A replacement must not take things for published that its predecessor has only just received.
        self._chains[connection] = self._chain(connection, note, dict(resume) if note.is_held else resume)
        if note.is_held:
            self._chains[connection].hold()
        if note.conflated is not None:
            self._chains[connection].conflate(note.conflated.policy)

    def _chain(self, connection: str, note: entries.Opened, resume: dict[str, int]) -> Chain:
        books = self._books[connection] = _options(note.books)
        return Chain(
            self.venue,
            note.endpoint,
            connection,
            self._catalogue,
            self._publishing(note.account),
            lambda key: books.get(key, BookOptions()),
            resume,
            note.account,
            starts_anywhere=note.is_joined,
        )

    def _publishing(self, account: str | None) -> Publish:
        if account is None:
            return self.publish
        memory = self._memories.setdefault(account, AccountMemory(ReconcileSettings()))

        def admit(event: Event) -> bool:
            taken = True
            for each in memory.admit(event):
                taken = self.publish(each) and taken
            return taken

        return admit

    def _take_over(self, connection: str, chain: Chain, note: entries.TakenOver) -> None:
        before = self._chains.get(note.before)
        if before is None:  # it came to an end where the archive has a hole
            before = attrs.evolve(chain, connection=note.before, resume={})
        chain.take_over(before, seamless=note.is_seamless)
        self._close_others(connection)
        self._resumes[_id(connection)] = chain.resume

    def _close_others(self, connection: str) -> None:
        """Forget the generations before this one."""
        for name in [name for name in self._chains if _id(name) == _id(connection) and name != connection]:
            del self._chains[name], self._books[name]
            self._relieved.add(name)


def _id(connection: str) -> str:
    return connection.rpartition("#")[0]


def _options(books: list[entries.Book]) -> dict[BookKey, BookOptions]:
    return {(book.channel, book.instrument): book.options for book in books}


def _plant(chain: Chain, note: entries.Seeded, now: Micros) -> None:
    wanted = Subscription(note.topic, note.kind, note.channel, note.market, note.instrument, chain.stream)
    try:
        chain.seed(chain.normalizer.seed(wanted, note.body, now))
    except BadMessage:
        return  # announced by the chain, as it was then
