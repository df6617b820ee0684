"""Actions: the three ways to write one, what is refused and how, what a log keeps of them."""

import inspect
from typing import get_args

import msgspec
import pytest

from runtimed import InvalidAction, actions
from runtimed.actions import (
    Action,
    Click,
    Drag,
    Fill,
    Goto,
    HandleDialog,
    Secret,
    Target,
    Wait,
    masked,
    masked_secrets,
    parse_action,
    recorded,
)


@pytest.mark.parametrize(
    "given",
    [
        {"action": Click(ref="d1e2")},
        {"action": {"type": "click", "ref": "d1e2"}},
        {"action": {"type": "click", "id": "d1e2"}},
        {"type": "click", "fields": {"ref": "d1e2"}},
        {"type": "click", "fields": {"id": "d1e2"}},
        {"action": "click", "fields": {"ref": "d1e2"}},
    ],
)
def test_an_action_is_an_object_a_dict_or_a_type_with_fields(given):
    assert parse_action(**given) == Click(ref="d1e2")


@pytest.mark.parametrize(
    ("given", "says", "nearest"),
    [
        ({"type": "clik", "fields": {"ref": "d1e2"}}, "There is no action 'clik'; did you mean 'click'?", "click"),
        ({"type": "press"}, "There is no action 'press'; did you mean 'press_key'?", "press_key"),
        ({"type": "click", "fields": {"reff": "x"}}, "There is no field of click 'reff'; did you mean 'ref'?", "ref"),
        ({"type": "search"}, "There is no action 'search'. There are: ", None),
        (
            {"type": "screenshot"},
            "'screenshot' is not an action: call the method session.screenshot() instead",
            None,
        ),
        ({"type": "navigate"}, "There is no action 'navigate'; did you mean 'goto'?", "goto"),
        ({"type": "refresh"}, "There is no action 'refresh'; did you mean 'reload'?", "reload"),
        ({"type": "sendKeys"}, "There is no action 'sendKeys'; did you mean 'type'?", "type"),
        ({"type": "uncheck"}, "There is no action 'uncheck'; did you mean 'check' with value=False?", "check"),
        ({"type": "double-click"}, "There is no action 'double-click'; did you mean 'click' with count=2?", "click"),
        ({"type": "fill", "fields": {"text": "x"}}, "There is no field of fill 'text'; did you mean 'value'?", "value"),
        ({"type": "wait", "fields": {"ms": 5}}, "There is no field of wait 'ms'; did you mean 'seconds'?", "seconds"),
        (
            {"type": "drag", "fields": {"source": "#a", "target": "#b"}},
            "There is no field of drag 'source'; did you mean 'selector'? There are: to,",
            "selector",
        ),
        (
            {"type": "drag", "fields": {"selector": "#a", "target": "#b"}},
            "There is no field of drag 'target'; did you mean 'to'? There are: to,",
            "to",
        ),
        ({"action": {"url": "x"}}, "The action is missing; there are: goto,", None),
        ({}, "The action is missing; there are: goto,", None),
        ({"type": 7}, "There is no action 7. There are: goto,", None),
    ],
)
def test_an_unknown_action_or_field_is_a_type_error_that_names_the_nearest_one(given, says, nearest):
    with pytest.raises(TypeError) as caught:
        parse_action(**given)

    assert isinstance(caught.value, InvalidAction)
    assert str(caught.value).startswith(says)
    assert caught.value.nearest == nearest


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"type": "goto"}, "goto: the field 'url' is missing"),
        ({"type": "goto", "fields": {"url": 5}}, "goto: expected `str`, got `int` - at `$.url`"),
        ({"action": Goto(5)}, "goto: expected `str`, got `int` - at `$.url`"),  # type: ignore[arg-type]  # that is it
        ({"type": "click"}, "click: the element is missing: give ref, selector, or role with name"),
        (
            {"type": "click", "fields": {"ref": "a", "selector": "b"}},
            "click: an element is named in one way; ref and selector were given",
        ),
        ({"type": "click", "fields": {"ref": "a", "id": "b"}}, "id and ref mean the same; give one of them"),
        ({"type": "click", "fields": {"name": "b"}}, "click: name needs role, such as role='button', name='Save'"),
        (
            {"type": "click", "fields": {"ref": "a", "count": 0}},
            "click: count is a number of clicks from 1 to 10, not 0",
        ),
        (
            {"type": "click", "fields": {"ref": "a", "timeout": -1}},
            "click: timeout is in seconds, not milliseconds: above 0 and at most 600, not -1",
        ),
        (
            {"type": "click", "fields": {"ref": "a", "timeout": 5000}},
            "click: timeout is in seconds, not milliseconds: above 0 and at most 600, not 5000",
        ),
        ({"type": "click", "fields": {"x": 5}}, "click: a point needs both x and y, in CSS pixels"),
        (
            {"type": "drag", "fields": {"x": 5, "y": 5, "to": {"y": 1}}},
            "drag: a point needs both x and y, in CSS pixels",
        ),
        ({"type": "fill", "fields": {"selector": "a", "value": "", "x": 5}}, "There is no field of fill 'x'"),
        ({"type": "click", "fields": {"role": "a", "exact": True}}, "click: exact needs role and name"),
        ({"type": "type", "fields": {"value": "a", "clear": True}}, "type: clear needs an element: give ref,"),
        ({"type": "type", "fields": {"value": "", "delay": 9}}, "type: delay is a number of seconds from 0 to 1"),
        ({"type": "wait"}, "wait: wait needs exactly one of seconds, text, selector, gone, url and load_state"),
        (
            {"type": "wait", "fields": {"seconds": 2, "timeout": 1}},
            "wait: timeout must be at least seconds: 1 is less than 2",
        ),
        ({"type": "drag", "fields": {"ref": "a"}}, "drag: the field 'to' is missing"),
        ({"type": "drag", "fields": {"ref": "a", "to": {}}}, "drag: the element is missing: give ref, selector, or"),
        ({"type": "drag", "fields": {"ref": "a", "to": 5}}, "An element is named by a ref, a selector, a Target, or"),
        ({"action": Goto("x"), "fields": {"url": "y"}}, "execute takes an action or its fields, not both: Goto("),
        ({"action": 5}, "An action is an object of runtimed.actions, a dict, or type= with fields; not int"),
        (
            {"action": {"type": "goto", "url": "x"}, "type": "click"},
            "Two types were given for one action: 'goto' and 'click'",
        ),
    ],
)  # fmt: skip
def test_what_an_action_lacks_is_said(given, says):
    with pytest.raises(InvalidAction) as caught:
        parse_action(**given)

    assert str(caught.value).startswith(says)


def test_every_action_has_a_type_of_its_own_that_is_its_name_in_small_letters():
    kinds = get_args(Action)

    assert [cls for _, cls in inspect.getmembers(actions, inspect.isclass) if cls in kinds] == sorted(
        kinds, key=lambda cls: cls.__name__
    )
    for kind in kinds:
        tag = kind.__struct_config__.tag
        assert tag.replace("_", "") == kind.__name__.lower()
        assert kind.__doc__


@pytest.mark.parametrize(
    "action",
    [
        Goto("x"),
        Click(ref="a", modifiers=("Shift",)),
        Drag(Target("b"), ref="a"),
        Wait(seconds=1),
        Fill("x", ref="a"),
    ],
)  # fmt: skip
def test_actions_travel(action):
    assert msgspec.convert(msgspec.to_builtins(action), Action) == action


@pytest.mark.parametrize("to", ["#b", Target(selector="#b"), {"selector": "#b"}])
def test_something_is_dragged_to_what_a_text_names_too(to):
    assert parse_action(type="drag", fields={"selector": "#a", "to": to}) == Drag(Target(selector="#b"), selector="#a")
    assert parse_action(Drag(to, selector="#a")) == Drag(Target(selector="#b"), selector="#a")
    assert parse_action(Drag("d1e2", ref="d1e1")) == Drag(Target("d1e2"), ref="d1e1")


def test_a_secret_shows_its_text_nowhere():
    action = Fill(Secret("hunter2", name="password"), selector="#password")

    assert "hunter2" not in f"{action!r} {action.value} {masked(action)}"
    assert masked(action) == {
        "type": "fill",
        "value": {"secret": "***", "name": "password"},
        "selector": "#password",
    }
    assert msgspec.convert(msgspec.to_builtins(action), Action) == action


def test_what_a_log_holds_can_be_done_again():
    assert recorded({"action": {"type": "click", "ref": "d7e5"}, "selector": 'role=button[name="Go"]'}) == Click(
        selector='role=button[name="Go"]'
    )
    assert recorded(
        {"action": {"type": "drag", "ref": "d7e5", "to": {"ref": "d7e6"}}, "selector": "#a", "to_selector": "#b"}
    ) == Drag(Target(selector="#b"), selector="#a")
    assert recorded(
        {"action": {"type": "drag", "x": 1, "y": 2, "to": {"ref": "d7e6", "x": 3, "y": 4}}, "to_selector": "#b"}
    ) == Drag(Target(selector="#b", x=3, y=4), x=1, y=2)
    logged = {"action": masked(Fill(Secret("hunter2", "password"), selector="#p"))}
    assert recorded(
        {
            "action": {"type": "drag", "ref": "d7e5", "to": {"ref": "d7e6"}, "timeout": 0.5},
            "selector": "#card",
            "element": {"role": "listitem", "name": "Card"},
            "to_selector": "#bin",
            "to_element": {"role": "button", "name": ""},
        }
    ) == Drag(
        selector="#card", role="listitem", name="Card", to=Target(selector="#bin", role="button", name="")
    )  # what is found must be what was meant
    assert recorded(logged, {"password": "hunter2"}) == Fill(Secret("hunter2", "password"), selector="#p")
    with pytest.raises(InvalidAction, match="needs the secret 'password', which the action log does not keep"):
        recorded(logged)
    answered = {"action": masked(HandleDialog(text=Secret("hunter2", "the code")))}
    assert answered == {"action": {"type": "handle_dialog", "text": {"secret": "***", "name": "the code"}}}
    assert masked_secrets(answered["action"]) == {"text": "the code"}
    assert recorded(answered, {"the code": "hunter2"}) == HandleDialog(text=Secret("hunter2", "the code"))
    with pytest.raises(
        InvalidAction, match="This handle_dialog needs the secret 'the code', which the action log does not keep"
    ):
        recorded(answered)
    with pytest.raises(InvalidAction, match="no selector for the element of this click"):
        recorded({"action": {"type": "click", "ref": "d7e5"}})


def test_an_address_whose_password_was_masked_is_not_opened_again():
    with pytest.raises(
        InvalidAction, match="This goto needs a password in its address, which the action log does not keep"
    ):
        recorded({"action": {"type": "goto", "url": "http://ann:***@host/"}})
