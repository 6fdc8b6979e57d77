"""What must not be read is left out, and nothing else."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from thingjobs.redact import discreet, redacted

SECRETS = {
    "get https://bucket/fw.bin?X-Amz-Signature=c0ffee&x=1 now": "get https://bucket/fw.bin?… now",
    "proxy http://user:c0ffee@proxy:3128/": "proxy http://…@proxy:3128/",
    '"GET /f?X-Amz-Credential=c0ffee%2F2026&X-Amz-Signature=c0ffee"': '"GET /f?X-Amz-Credential=…&X-Amz-Signature=…"',
    "…&x-amz-signature=c0ffee": "…&x-amz-signature=…",
    "X-Amz-Security-Token: c0ffee": "X-Amz-Security-Token: …",
    "AWS_SECRET_ACCESS_KEY=c0ffee": "AWS_SECRET_ACCESS_KEY=…",
    '{"aws_session_token": "c0ffee", "a": 1}': '{"aws_session_token": "…", "a": 1}',
    "x-amz-customauthorizer-signature=c0ffee&token=1": "x-amz-customauthorizer-signature=…&token=1",
    '{"secretAccessKey": "c0ffee", "sessionToken":"c0ffee"}': '{"secretAccessKey": "…", "sessionToken":"…"}',
    r'"{\"sessionToken\": \"c0ffee\"}"': r'"{\"sessionToken\": \"…\"}"',
    "> Authorization: Bearer c0ffee\nnext": "> Authorization: …\nnext",
    "Proxy-Authorization: Basic c0ffee=": "Proxy-Authorization: …",
    "{'Authorization': 'AWS4-HMAC-SHA256 Credential=c0ffee/x, Signature=c0ffee'}": "{'Authorization': '…'}",
    "a -----BEGIN EC PRIVATE KEY-----\nc0ffee\n-----END EC PRIVATE KEY----- b": "a (a private key was here) b",
    "a -----BEGIN PRIVATE KEY-----\nc0ffee": "a (a private key was here)",
}


def test_queries_passwords_signatures_and_keys_are_left_out() -> None:
    for text, expected in SECRETS.items():
        assert discreet(text) == expected


def test_what_is_no_secret_stays() -> None:
    for text in (
        "exit status 3",
        "see https://example.com/a/b:c",
        "the token of the ring",
        "the session token: it is old",
        "authorization: the policy denies it",
        "a=b&c=d",
        "-----BEGIN CERTIFICATE-----",
    ):
        assert discreet(text) == text


@given(st.text(st.sampled_from("a:/@?#&= \n\"'.")))
def test_what_is_left_out_once_is_all(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)
    assert discreet(discreet(text)) == discreet(text)


@given(st.text(), st.from_regex(r"[a-z]{8}", fullmatch=True), st.text())
def test_no_secret_gets_through_whatever_stands_around_it(before: str, secret: str, after: str) -> None:
    text = f"{before} https://h/p?X-Amz-Signature=SECRET{secret} {after}"
    assert f"SECRET{secret}" not in discreet(text)


def test_a_long_text_does_not_take_the_square_of_its_length() -> None:
    begin = time.process_time()
    discreet("https://" + "a@" * 500_000)
    discreet("a://b " * 200_000)
    assert time.process_time() - begin < 5
