"""Sessions of the console, without a browser."""

from http.cookies import SimpleCookie

from services.reporter.inbound.console.session import Sessions


def sessions(token: str) -> Sessions:
    return Sessions(token, seconds=3600, clock=lambda: 1_000_000.0)


def test_two_stacks_on_one_machine_keep_their_sessions_apart() -> None:
    one, other = sessions("the token of the one"), sessions("the token of the other")
    browser = SimpleCookie(one.cookie(secure=False))
    browser.load(other.cookie(secure=False))
    sent = "; ".join(f"{morsel.key}={morsel.value}" for morsel in browser.values())

    assert one.is_open(sent)
    assert other.is_open(sent)


def test_a_session_of_one_stack_opens_no_other() -> None:
    one, other = sessions("the token of the one"), sessions("the token of the other")
    (morsel,) = SimpleCookie(one.cookie(secure=False)).values()

    assert not other.is_open(f"{other.cookie_name}={morsel.value}")
    assert one.cookie_name == sessions("the token of the one").cookie_name
