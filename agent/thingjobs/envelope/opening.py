"""Opening a signed document on a device, and sealing one at its author's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.documents import check_form
from thingjobs.documents.placeholders import placeholder
from thingjobs.documents.shape import invalid, shown
from thingjobs.envelope import claims as claimed
from thingjobs.envelope import dsse, urls
from thingjobs.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.envelope.claims import Claims
    from thingjobs.envelope.dsse import Envelope
    from thingjobs.envelope.keys import Sign, Verify
    from thingjobs.model import Json

#: The key by which a signed document is told from the others.
SIGNED = "signed"
_URLS = "urls"


@dataclass(frozen=True, slots=True)
class Here:
    """What a signature is held against.

    Attributes:
        thing: the thing's name.
        job: the id of the job that brought the document; None: not known.
        now: seconds since the epoch; None: nobody has set the clock.
    """

    thing: str
    job: str | None
    now: float | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A document that is signed, for this thing and job, and good now.

    Attributes:
        document: what is asked for, with the URLs in it.
        key: the name of the key that vouches for it.
        not_after: seconds since the epoch.
    """

    document: Json
    key: str
    not_after: float


def opened(document: Json, keys: Mapping[str, Verify], here: Here) -> Opened:
    """Return what a signed document asks for.

    Args:
        document: the job document, which has the key `signed`.
        keys: those that are trusted, by name.
        here: who we are, and when it is.

    Raises:
        DocumentError: no key that is trusted vouches for it, here and now; `code` and `reason` say why.
        StateError: whether it is good still cannot be told, because nobody has set the clock yet.
    """
    if stranger := next((key for key in document if key not in (SIGNED, _URLS)), None):
        raise invalid(f"{shown(stranger)} stands beside signed, and nobody has signed it: there may only be urls")
    envelope = dsse.read(document[SIGNED])
    key = _vouching(envelope, keys)
    claims = claimed.read(envelope.payload)
    claims.check_addressee(here.thing, here.job)
    if here.now is None:
        raise StateError("the document is signed for a time, and the clock is not synchronised yet")
    claims.check_time(here.now)
    return Opened(urls.filled(claims.document, document.get(_URLS, {})), key, claims.not_after)


def sealed(claims: Claims, links: Mapping[str, str], key: str, sign: Sign) -> Json:
    """Return a signed document.

    Args:
        claims: what is vouched for.
        links: the URLs, or the placeholders of AWS IoT for them, by name.
        key: the name by which devices know the key.
        sign: signs by it.

    Raises:
        DocumentError: it would be refused: a URL is missing, a placeholder stands where nobody replaces it, or no
            device understands it.
    """
    payload = claimed.written(claims)
    claimed.read(payload)
    if found := placeholder(claims.document):
        how = '{"$url": NAME, "digest": "sha256:…"}'
        raise invalid(f"AWS IoT cannot replace {found}, because that is signed; write {how} there, and say --url")
    check_form(urls.filled(claims.document, dict(links)))
    signature = dsse.Signature(key, sign(dsse.pae(dsse.PAYLOAD_TYPE, payload)))
    made = {SIGNED: dsse.as_json(dsse.Envelope(dsse.PAYLOAD_TYPE, payload, (signature,)))}
    return {**made, _URLS: dict(links)} if links else made


def _vouching(envelope: Envelope, keys: Mapping[str, Verify]) -> str:
    """Return the name of a trusted key whose signature is right; a signature without a name may be by any.

    Raises:
        DocumentError: document.signature; there is none.
    """
    message = dsse.pae(envelope.payload_type, envelope.payload)
    for one in envelope.signatures:
        for name in (one.key,) if one.key else tuple(keys):
            if name in keys and keys[name](one.value, message):
                return name
    raise dsse.refused(_why(envelope, keys))


def _why(envelope: Envelope, keys: Mapping[str, Verify]) -> str:
    names = ", ".join(shown(one.key) if one.key else "a key without a name" for one in envelope.signatures)
    if not keys:
        return f"the document is signed by {names}, and this device trusts no key: see [signed] keys"
    if not any(one.key in keys or not one.key for one in envelope.signatures):
        return f"the document is signed by {names}, and the keys that this device trusts are {', '.join(sorted(keys))}"
    return f"the signature by {names} is wrong: the document was changed afterwards, or another key signed it"
