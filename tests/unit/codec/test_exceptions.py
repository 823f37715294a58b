"""Failures come back as what ``except`` names, whatever their classes do; and what they lack, they say."""

import base64
import concurrent.futures
import json
import pickle
import socket
import threading

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from durable_nb.codec import decode, decode_failure, encode, encode_failure, failure_line, failure_text
from durable_nb.errors import StepFailed
from durable_nb.records import Payload
from helpers.secrets_of import IN_TEXTS
from helpers.secrets_of import KNOWN as SECRETS


def again(exc):
    return decode_failure(encode_failure(exc))


def held_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock


def raised(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


# Classes that pickle themselves, in C


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    number: int
    name: str = ""

    @field_validator("name")
    def check(cls, name):
        if name == "custom":
            raise PydanticCustomError("odd", "an odd {what}", {"what": "{name}"})
        if name:
            raise ValueError("no name is allowed")
        return name


@pytest.mark.parametrize(
    "data", [{}, {"number": "x"}, {"number": 1, "name": "a"}, {"number": 1, "name": "custom"}]
)
def test_an_error_of_pydantic_comes_back_whole(data):
    exc = raised(Model.model_validate, data)
    for restored in (again(exc), decode(encode([exc]))[0]):
        assert type(restored) is ValidationError
        assert str(restored) == str(exc)
        assert repr(restored.errors()) == repr(exc.errors())


def test_an_error_of_pydantic_about_what_cannot_be_pickled_is_still_one():
    restored = again(raised(Model.model_validate, {"number": held_lock()}))
    assert type(restored) is ValidationError
    assert [(each["loc"], each["type"]) for each in restored.errors()] == [(("number",), "int_type")]
    assert restored.errors()[0]["input"] == "<lock, which could not be saved>"
    assert restored.__notes__ == ["durable_nb: saved without parts of it, which cannot be saved"]


# Classes as libraries write them


class Proxy:
    """As a multidict's: it refuses to be pickled."""

    def __reduce__(self):
        raise TypeError("can't pickle")


class ClientResponseError(Exception):
    """As aiohttp's."""

    def __init__(self, request_info, history, *, status, headers):
        self.request_info, self.status, self.headers = request_info, status, headers
        super().__init__()
        self.args = (request_info, history)

    def __str__(self):
        return f"{self.status}, url={self.request_info['url']!r}, {self.headers is not None}"


class Inactive(Exception):
    """As grpc's _InactiveRpcError."""

    def __init__(self, state):
        self._state = state

    def code(self):
        return self._state[0]

    def __str__(self):
        return f"<{self.code()}>"


class ClientError(Exception):
    """As botocore's: what it generates cannot be pickled by name, so that each of them would be this one."""

    def __init__(self, response, operation):
        super().__init__(f"{operation}: {response['Code']}")
        self.response = response

    def __reduce__(self):
        return ClientError, (self.response, "?")


class Strict(Exception):
    """Its ``__reduce__`` is wrong: its class takes other arguments."""

    def __init__(self, a, *, b):
        super().__init__(a)
        self.b = b

    def __reduce__(self):
        return type(self), (self.args[0], self.b)


KNOWN = []


class Registered(Exception):
    detail = "of the class"

    def __init_subclass__(cls, *, code):
        KNOWN.append(code)


class NotFound(Registered, code=404):
    pass


class Falsy(Exception):
    def __len__(self):
        return 0


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_whose_arguments_are_plain_comes_back_as_its_own_class(status):
    exc = ClientResponseError({"url": "/a"}, (), status=status, headers=None)
    restored = again(exc)
    assert type(restored) is ClientResponseError
    assert (str(restored), restored.args, restored.status) == (str(exc), exc.args, status)


def test_an_error_that_holds_what_cannot_be_pickled_is_caught_and_says_what_it_lacks():
    exc = ClientResponseError({"url": "/a", "headers": Proxy()}, (), status=404, headers=Proxy())
    exc.add_note("a note")
    with pytest.raises(ClientResponseError) as caught:
        raise again(exc)
    restored = caught.value
    assert (type(restored).__name__, type(restored).__module__) == ("ClientResponseError", __name__)
    assert str(restored) == str(exc)
    assert restored.args == ({"url": "/a", "headers": "<Proxy, which could not be saved>"}, ())
    assert restored.status == 404
    assert restored.__notes__ == [
        "a note",
        "durable_nb: saved without args, request_info, headers, which cannot be saved",
    ]
    assert not hasattr(restored, "headers")
    with pytest.raises(AttributeError) as said:
        _ = restored.headers
    assert str(said.value) == (
        "attribute 'headers' of the recorded ClientResponseError was not saved, since it cannot be pickled: "
        "read it in the task that raises the exception, and raise what is plain data"
    )


def test_what_an_error_lacks_is_said_by_its_own_methods_too():
    exc = Inactive(["UNAVAILABLE", threading.Condition(held_lock())])
    restored = again(exc)
    assert isinstance(restored, Inactive)
    assert str(restored) == "<UNAVAILABLE>"
    with pytest.raises(AttributeError, match="attribute '_state' of the recorded Inactive was not saved"):
        restored.code()


def test_a_generated_class_comes_back_under_its_name_and_its_base():
    generated = type("NoSuchKey", (ClientError,), {"__module__": "a_factory_of_classes"})
    exc = generated({"Code": "NoSuchKey"}, "GetObject")
    restored = again(exc)
    assert isinstance(restored, ClientError)
    assert type(restored).__name__ == "NoSuchKey"
    assert (str(restored), restored.args, restored.response) == (str(exc), exc.args, exc.response)


def test_an_error_of_tenacity_comes_back_with_its_cause():
    tenacity = pytest.importorskip("tenacity", reason="NOT TESTED: tenacity is not installed")

    @tenacity.retry(stop=tenacity.stop_after_attempt(2))
    def fail():
        raise OSError("down")

    exc = raised(fail)
    restored = again(exc)
    assert isinstance(restored, tenacity.RetryError)
    assert repr(restored.__cause__) == repr(restored.last_attempt.exception()) == "OSError('down')"


@pytest.mark.parametrize(
    "exc",
    [Strict(1, b=2), NotFound("gone"), Falsy("empty"), concurrent.futures.BrokenExecutor("broken")],
    ids=lambda exc: type(exc).__name__,
)
def test_a_class_that_cannot_be_called_again_comes_back(exc):
    restored = again(exc)
    assert type(restored) is type(exc)
    assert (str(restored), restored.args, vars(restored)) == (str(exc), exc.args, vars(exc))


def test_a_stand_in_runs_no_code_of_its_class_and_hides_no_loss():
    exc = NotFound("gone")
    exc.detail = socket.socket()
    with exc.detail:
        restored = again(exc)
    assert isinstance(restored, NotFound)
    assert KNOWN == [404]
    assert repr(restored) == "NotFound('gone')"
    assert not hasattr(restored, "detail")  # neither is it that of the class
    restored.detail = "set"
    assert restored.detail == "set"


def test_a_stand_in_is_recorded_like_any_exception():
    exc = Inactive([3, held_lock()])
    exc.kept = 1
    for restored in (again(again(exc)), pickle.loads(pickle.dumps(again(exc))), decode(encode(again(exc)))):
        assert isinstance(restored, Inactive)
        assert (str(restored), restored.kept) == ("<3>", 1)
        assert not hasattr(restored, "_state")


def test_a_group_keeps_its_members():
    group = ExceptionGroup("several", [Inactive([1, held_lock()]), ValueError(2)])
    restored = again(group)
    assert isinstance(restored, ExceptionGroup)
    assert str(restored) == str(group)
    caught, rest = restored.split(Inactive)
    assert [str(each) for each in caught.exceptions] == ["<1>"]
    assert repr(rest.exceptions) == "(ValueError(2),)"


def test_a_record_without_a_pickle_names_its_class():
    data = b'{"class": "builtins:KeyError", "message": "told", "notes": ["n"], "suppress": false}'
    restored = decode_failure(Payload("failure", data))
    assert isinstance(restored, KeyError)
    assert (str(restored), restored.args) == ("told", ("told",))
    assert restored.__notes__ == [
        "durable_nb: only the class and the message of this exception could be restored",
        "n",
    ]


@pytest.mark.parametrize(
    "name", ["no_module_of_this_name:Gone", "builtins:NoError", "builtins:int", "os:path"]
)
def test_a_record_whose_class_is_gone_is_a_step_failed(name):
    data = f'{{"class": "{name}", "message": "told", "suppress": false}}'.encode()
    restored = decode_failure(Payload("failure", data))
    assert type(restored) is StepFailed
    assert "told" in str(restored)


class Refused(Exception):
    """An error as clients raise it: with the request that it is about."""

    def __init__(self, message, request):
        super().__init__(message)
        self.request = request


class Request:
    def __init__(self, headers):
        self.headers = headers


def everything_in(payload):
    """What is kept of a failure, as text, with its pickles."""
    record = json.loads(payload.data)
    pickles = [base64.b64decode(record[way]) for way in ("pickle", "stand_in", "reduced") if record.get(way)]
    return payload.data.decode() + "".join(data.decode("latin-1") for data in pickles)


@pytest.mark.parametrize("kind", IN_TEXTS)
def test_a_failure_is_kept_without_the_secrets_in_its_message(kind):
    text, secret = IN_TEXTS[kind]
    error = ValueError(f"cannot connect: {text}", {"password": secret})
    error.add_note(text)
    error.__cause__ = OSError(5, text)
    payload = encode_failure(error)
    assert secret not in everything_in(payload)
    restored = decode_failure(payload)
    assert type(restored) is ValueError
    assert restored.args[0].startswith("cannot connect: ")
    assert type(restored.__cause__) is OSError
    assert secret not in failure_line(payload) + failure_text(payload)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_failure_that_holds_a_secret_in_an_object_is_kept_without_the_object(kind):
    secret = SECRETS[kind]
    payload = encode_failure(Refused(f"refused: {secret}", Request({"Authorization": f"Bearer {secret}"})))
    assert secret not in everything_in(payload)
    restored = decode_failure(payload)
    assert isinstance(restored, Refused)
    assert str(restored).startswith("refused: ")


def test_a_failure_without_secrets_is_kept_as_it_is():
    error = Refused("refused", Request({"Accept": "text/html"}))
    restored = decode_failure(encode_failure(error))
    assert type(restored) is Refused
    assert restored.request.headers == {"Accept": "text/html"}


def test_a_failure_that_was_kept_with_a_secret_is_shown_without_it():
    text = "password='hush'"
    record = {"class": "builtins:ValueError", "message": text, "traceback": f"ValueError: {text}"}
    payload = Payload("failure", json.dumps(record).encode())
    assert "hush" not in failure_line(payload) + failure_text(payload)
