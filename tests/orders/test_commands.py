from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.avro.schemas import ORDER_COMMAND, confluent_header, load_schema, split_header
from pipeline.model.header import Micros
from pipeline.model.orders import (
    ACTIONS,
    AMEND,
    CANCEL,
    CANCEL_ALL,
    CREATE,
    ITEM_ACTIONS,
    KILL,
    MASS_CANCEL,
    RESUME,
    OrderCommand,
    OrderItem,
)
from pipeline.orders.commands import MalformedCommand, encode_command, read_command
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings
from tests.orders.samples import NOW, command, item, named

DECODER = Decoder(KafkaSettings(), is_plain=True)


def fields_of(made: OrderCommand) -> dict[str, Any]:
    return attrs.asdict(made)


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(MalformedCommand) as caught:
        read_command(fields)
    return str(caught.value)


def refused(*items: OrderItem, action: str = CREATE, **changes: Any) -> str:
    return refusal(fields_of(command(*items, action=action, **changes)))


GOOD = {
    "a limit order": command(item()),
    "a market order": command(item(order_type="market", price=None, size_unit="quote", time_in_force="ioc")),
    "all fields": command(
        item(
            client_order_id="mine",
            time_in_force="gtc",
            size_unit="contract",
            is_post_only=True,
            is_reduce_only=True,
            position_side="long",
            margin_mode="cross",
            trigger_price="64000",
            extras={"triggerDirection": "1"},
        ),
        reason="rebalance ü",
    ),
    "a batch": command(*(item(client_order_id=f"n{number}") for number in range(20))),
    "amend": command(
        named(price="1"), named("mine-2", size="2"), named("mine-3", extras={"takeProfit": "1"}), action=AMEND
    ),
    "cancel": command(named(), named(None, order_id="7"), action=CANCEL),
    "cancel_all": command(action=CANCEL_ALL),
    "cancel_all of a market": command(action=CANCEL_ALL, market="linear"),
    "cancel_all of an instrument": command(action=CANCEL_ALL, market="linear", instrument="BTCUSDT"),
    "mass_cancel": command(action=MASS_CANCEL, market="option", instrument="BTC-USD"),
    "kill": command(action=KILL, reason="too hot"),
    "resume": command(action=RESUME),
}


@pytest.mark.parametrize("made", GOOD.values(), ids=GOOD)
def test_what_is_written_is_read(made: OrderCommand) -> None:
    assert read_command(DECODER.decode(encode_command(made))) == made


def test_every_action_has_a_sample() -> None:
    assert {made.action for made in GOOD.values()} == set(ACTIONS)


def test_a_registrys_header() -> None:
    made = GOOD["a limit order"]
    name, body = split_header(encode_command(made, confluent_header(7)))
    assert (name, body) == (7, split_header(encode_command(made))[1])


def test_what_no_record_can_hold() -> None:
    with pytest.raises(ValueError, match="no record can hold this command"):
        encode_command(command(item(), command_id=None))


def test_the_schema_and_the_classes_have_the_same_fields() -> None:
    schema = load_schema(ORDER_COMMAND)
    for described, record in ((OrderCommand, schema), (OrderItem, items_schema(schema))):
        assert {field["name"] for field in record["fields"]} == set(attrs.fields_dict(described))
        for field in record["fields"]:
            assert field["doc"].endswith("."), field["name"]
            required = attrs.fields_dict(described)[field["name"]].default is attrs.NOTHING
            assert required == ("default" not in field), field["name"]


def items_schema(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(field for field in schema["fields"] if field["name"] == "items")["type"]["items"]
    return found


def test_a_record_of_an_older_schema_lacks_what_has_a_default() -> None:
    fields = fields_of(command(item()))
    for name in ("market", "instrument", "reason"):
        del fields[name]
    for name in ("is_post_only", "is_reduce_only", "extras", "margin_mode", "client_order_id"):
        del fields["items"][0][name]
    assert read_command(fields) == command(item())
    del fields["items"]
    assert read_command({**fields, "action": KILL}) == command(action=KILL)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"command_id": ""}, "command_id: is empty"),
        ({"command_id": None}, "command_id: is missing"),
        ({"command_id": 5}, "command_id: expected text, got 5"),
        ({"command_id": "x" * 65}, "command_id: 65 characters are too many, at most 64"),
        ({"command_id": "a\nb"}, "command_id: 'a\\nb' has characters that cannot be printed"),
        ({"command_id": "a\x00"}, "command_id: 'a\\x00' has characters that cannot be printed"),
        ({"venue": None}, "venue: is missing"),
        ({"account": ""}, "account: is empty"),
        (
            {"action": "crate"},
            "action: 'crate' is none of create, amend, cancel, cancel_all, mass_cancel, kill, resume",
        ),
        ({"issued_at": None}, "issued_at: expected microseconds since 1970, got None"),
        ({"issued_at": 1.5}, "issued_at: expected microseconds since 1970, got 1.5"),
        ({"not_after": True}, "not_after: expected microseconds since 1970, got True"),
        ({"issued_at": 0}, "issued_at: 0 is not after 1970"),
        (
            {"not_after": NOW * 1000},
            f"not_after: {NOW * 1000} is after the year 9999: expected microseconds since 1970",
        ),
        ({"not_after": NOW - 1}, f"not_after: {NOW - 1} is before issued_at, which is {NOW}"),
        ({"items": None}, "items: expected a list, got None"),
        ({"items": "abc"}, "items: expected a list, got 'abc'"),
        ({"items": [5]}, "items[0]: expected a record, got 5"),
        ({"items": []}, "items: create needs at least one"),
        ({"market": "linear"}, "market: belongs to the items of create"),
        ({"instrument": "X"}, "instrument: belongs to the items of create"),
        ({"reason": "x" * 257}, "reason: 257 characters are too many, at most 256"),
    ],
)
def test_a_command_that_is_none(changes: dict[str, Any], why: str) -> None:
    assert refusal({**fields_of(command(item())), **changes}) == why


@pytest.mark.parametrize(
    ("action", "changes", "why"),
    [
        (CANCEL_ALL, {"instrument": "X"}, "market: is missing beside instrument"),
        (MASS_CANCEL, {"market": "option"}, "instrument: is missing, mass_cancel needs it"),
        (MASS_CANCEL, {"instrument": "BTC-USD"}, "market: is missing, mass_cancel needs it"),
        (KILL, {"market": "linear"}, "market: kill concerns the whole account"),
        (RESUME, {"instrument": "X"}, "instrument: resume concerns the whole account"),
    ],
)
def test_what_concerns_an_account(action: str, changes: dict[str, Any], why: str) -> None:
    assert refused(action=action, **changes) == why


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - ITEM_ACTIONS))
def test_items_where_none_belong(action: str) -> None:
    assert refused(item(), action=action) == f"items: {action} takes none"


def test_too_many_items() -> None:
    items = [item(client_order_id=f"n{number}") for number in range(21)]
    assert refused(*items) == "items: 21 are too many, at most 20 go into one command"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"market": ""}, "market: is empty"),
        ({"instrument": None}, "instrument: is missing"),
        ({"client_order_id": ""}, "client_order_id: is empty"),
        ({"client_order_id": "x" * 37}, "client_order_id: 37 characters are too many, at most 36"),
        ({"order_id": "7"}, "order_id: the venue gives it, create cannot"),
        ({"side": None}, "side: is missing, create needs it"),
        ({"side": "Buy"}, "side: 'Buy' is none of buy, sell"),
        ({"order_type": None}, "order_type: is missing, create needs it"),
        ({"order_type": "stop"}, "order_type: 'stop' is none of limit, market"),
        ({"time_in_force": "gtd"}, "time_in_force: 'gtd' is none of gtc, ioc, fok"),
        ({"size_unit": "coins"}, "size_unit: 'coins' is none of base, quote, contract"),
        ({"size_unit": "quote"}, "size_unit: quote is for market orders only"),
        ({"position_side": "both"}, "position_side: 'both' is none of long, short"),
        ({"margin_mode": "x"}, "margin_mode: 'x' is none of cash, cross, isolated, spot_isolated"),
        ({"price": None}, "price: is missing, a limit order needs it"),
        ({"order_type": "market"}, "price: a market order has none"),
        ({"size": None}, "size: is missing, create needs it"),
        ({"size": "0.000"}, "size: 0.000 is not above 0"),
        ({"size": "-1"}, "size: -1 is not above 0"),
        ({"size": "1e3"}, "size: '1e3' is no decimal number"),
        ({"price": "NaN"}, "price: 'NaN' is no decimal number"),
        ({"price": "1,5"}, "price: '1,5' is no decimal number"),
        ({"price": 1.5}, "price: expected text, got 1.5"),
        ({"price": "1" * 41}, "price: 41 characters are too many, at most 40"),
        ({"trigger_price": "x"}, "trigger_price: 'x' is no decimal number"),
        ({"is_post_only": "yes"}, "is_post_only: expected true or false, got 'yes'"),
        ({"is_post_only": True, "time_in_force": "ioc"}, "is_post_only: contradicts an order that takes"),
        ({"is_post_only": True, "time_in_force": "fok"}, "is_post_only: contradicts an order that takes"),
        (
            {"is_post_only": True, "order_type": "market", "price": None},
            "is_post_only: contradicts an order that takes",
        ),
        ({"extras": {"a": ""}}, "extras.a: is empty"),
    ],
)
def test_an_order_that_is_none(changes: dict[str, Any], why: str) -> None:
    assert refused(item(**changes)).startswith(f"items[0].{why}")


@pytest.mark.parametrize(
    ("extras", "why"),
    [
        ([], "expected a map, got []"),
        ({"a b": "1"}, "'a b' is no parameter's name"),
        ({f"n{number}": "1" for number in range(33)}, "33 are too many, at most 32"),
    ],
)
def test_extras_that_are_none(extras: Any, why: str) -> None:
    assert refused(item(extras=extras)) == f"items[0].extras: {why}"


@pytest.mark.parametrize("action", [AMEND, CANCEL])
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"side": "buy"}, "side"),
        ({"order_type": "limit"}, "order_type"),
        ({"time_in_force": "gtc"}, "time_in_force"),
        ({"size_unit": "base"}, "size_unit"),
        ({"is_post_only": True}, "is_post_only"),
        ({"is_reduce_only": True}, "is_reduce_only"),
        ({"position_side": "long"}, "position_side"),
        ({"margin_mode": "cross"}, "margin_mode"),
    ],
)
def test_what_an_order_is_born_with(action: str, changes: dict[str, Any], name: str) -> None:
    assert refused(named(**changes), action=action) == f"items[0].{name}: {action} does not change it"


@pytest.mark.parametrize("name", ["price", "size", "trigger_price"])
def test_a_cancellation_changes_nothing(name: str) -> None:
    assert refused(named(**{name: "1"}), action=CANCEL) == f"items[0].{name}: cancel does not change it"


def test_an_amendment_changes_something() -> None:
    why = "items[0].price: is missing, and size and trigger_price too: amend without a change"
    assert refused(named(), action=AMEND) == why


@pytest.mark.parametrize("action", [AMEND, CANCEL])
def test_an_order_has_to_be_named(action: str) -> None:
    why = f"items[0].client_order_id: is missing, and order_id too: {action} needs one of them"
    assert refused(named(None), action=action) == why
    why = "items[0].order_id: is given beside client_order_id, and they may name two orders: give one of them"
    assert refused(named("mine", order_id="7", size="1" if action == AMEND else None), action=action) == why


def test_one_market_per_command() -> None:
    assert refused(item(), item(market="inverse")) == "items[1].market: inverse beside linear, it must be one market"


@pytest.mark.parametrize(
    ("action", "items", "why"),
    [
        (CREATE, (item(client_order_id="a"), item(client_order_id="a")), "client_order_id: a"),
        (CANCEL, (named("a"), named("b"), named("a")), "client_order_id: a"),
        (CANCEL, (named(None, order_id="7"), named(None, order_id="7")), "order_id: 7"),
    ],
)
def test_one_order_is_named_once(action: str, items: tuple[OrderItem, ...], why: str) -> None:
    last = len(items) - 1
    assert refused(*items, action=action) == f"items[{last}].{why} is that of items[0] too"


def test_the_command_id_survives_other_faults() -> None:
    with pytest.raises(MalformedCommand) as caught:
        read_command({**fields_of(command(item())), "action": "?"})
    assert caught.value.command_id == "c-1"
    with pytest.raises(MalformedCommand) as caught:
        read_command({"command_id": "\n"})
    assert caught.value.command_id is None


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A good command with any value in some places."""
    junk = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.lists(st.text(max_size=3))
    )
    fields = fields_of(draw(st.sampled_from(list(GOOD.values()))))
    fields["items"] = [dict(each) for each in fields["items"]]
    for target in (fields, *fields["items"][:1]):
        for name in draw(st.lists(st.sampled_from(sorted(target)), max_size=3)):
            target[name] = draw(junk)
    return fields


@given(damaged())
def test_any_record_is_a_command_or_malformed(fields: dict[str, Any]) -> None:
    try:
        made = read_command(fields)
    except MalformedCommand:
        return
    assert read_command(fields_of(made)) == made


@pytest.mark.parametrize("nanoseconds", [NOW * 1000, 2**62, -(2**62)])
def test_a_time_that_no_calendar_has_is_read_so_that_its_field_can_be_named(nanoseconds: int) -> None:
    stray = attrs.evolve(command(item()), not_after=Micros(nanoseconds))
    with pytest.raises(MalformedCommand, match=r"^not_after: ") as caught:
        read_command(DECODER.decode(encode_command(stray)))
    assert caught.value.command_id == "c-1"


def test_a_value_that_ends_too_early_is_said_to_be_cut_short() -> None:
    value = encode_command(command(item()))
    for length in range(10, len(value)):
        with pytest.raises(ValueError, match="cut short"):
            DECODER.decode(value[:length])
