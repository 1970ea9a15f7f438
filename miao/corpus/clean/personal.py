"""Personal data in text, masked: e-mail addresses, telephone numbers, numbers of identity cards."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

MASKS = {"email": "[email]", "phone": "[phone]", "id": "[id]"}

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}"
    r"(?![\w-]|:[\w/])"  # git@host:path is no address
)
_DOCUMENTATION = re.compile(
    r"@(?:[\w-]+\.)*(?:example|domain|yourdomain|contoso)\.(?:com|org|net)$|@[\w.-]+\.(?:example|test)$"
)
_PHONE = re.compile(
    r"(?<![\d.\-/_=#A-Za-z])(?<!  )(?<!\t)(?:"  # not a number in a column of a table
    r"(?:(?:\+|00)86[ -]?)?1[3-9]\d(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}"  # Chinese mobile
    r"|(?:\+86[ -]?)?(?:\(0\d{2,3}\)|（0\d{2,3}）|0\d{2,3}[-–])\s?[2-9]\d{6,7}"  # with area code
    r"|\+[1-9]\d{0,2}[ -]\(?\d{1,4}\)?(?:[ -]\d{2,4}){2,4}"  # international, in groups
    r")(?![\d\-/_A-Za-z]|\.\d)"
)
_IDENTITY = re.compile(r"[1-9](?<![\dA-Za-z].)\d{5}(?:19|20)\d{9}[\dXx](?![\dA-Za-z])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def mask_emails(text: str) -> str:
    """E-mail addresses; those that documentation uses (RFC 2606, domain.com) stay."""
    if "@" not in text:
        return text
    return _EMAIL.sub(lambda m: m[0] if _DOCUMENTATION.search(m[0]) else MASKS["email"], text)


def mask_phones(text: str) -> str:
    """Chinese mobile and area-code numbers, and international ones written in groups."""
    return _PHONE.sub(MASKS["phone"], text)


def mask_identity_numbers(text: str) -> str:
    """Numbers of Chinese identity cards: a possible date of birth and the right check digit."""
    return _IDENTITY.sub(lambda m: MASKS["id"] if is_identity_number(m[0]) else m[0], text)


def is_identity_number(number: str) -> bool:
    """GB 11643-1999: 6 digits of place, date of birth, 3 of sequence, ISO 7064 mod 11-2 check."""
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number, strict=False))
    return "10X98765432"[total % 11] == number[17].upper() and born.year >= 1900


MASKERS: dict[str, Callable[[str], str]] = {
    "id": mask_identity_numbers,
    "email": mask_emails,
    "phone": mask_phones,
}
