"""Credentials in a text: only forms that are hardly ever anything else, so that hardly any sign is wrong.

Forms: the providers' own documentation of their tokens' prefixes and lengths. Examples from documentation, placeholders
and texts of one repeated character are left out. Errs towards silence: a password without a known form is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["secrets_in"]

_FORMS = (  # a marker that a plain search finds fast, what it is, and its whole form
    ("AKIA", "an access key of AWS", r"\bAKIA[A-Z2-7]{16}\b"),
    ("ASIA", "a temporary access key of AWS", r"\bASIA[A-Z2-7]{16}\b"),
    ("aws_secret", "a secret key of AWS", r"aws_secret_access_key[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9/+]{40})\b"),
    ("AWS_SECRET", "a secret key of AWS", r"AWS_SECRET_ACCESS_KEY[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9/+]{40})\b"),
    ("AccountKey=", "a storage key of Azure", r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    ("AIza", "an API key of Google", r"\bAIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])"),
    ("ya29.", "an OAuth token of Google", r"\bya29\.[0-9A-Za-z_\-]{40,}"),
    ("GOCSPX-", "an OAuth secret of Google", r"\bGOCSPX-[0-9A-Za-z_\-]{28}(?![0-9A-Za-z_\-])"),
    ("hf_", "a token of Hugging Face", r"\bhf_[A-Za-z0-9]{34}\b"),
    (
        "sk-", "an API key of OpenAI or Anthropic",
        r"\bsk-(?:proj-|ant-[a-z0-9]+-|svcacct-)?(?=[A-Za-z_\-]{0,200}[0-9])[A-Za-z0-9_\-]{40,}",
    ),
    *((f"gh{kind}_", "a token of GitHub", rf"\bgh{kind}_[A-Za-z0-9]{{36}}\b") for kind in "pousr"),
    ("github_pat_", "a token of GitHub", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    ("glpat-", "a token of GitLab", r"\bglpat-[A-Za-z0-9_\-]{20,}"),
    ("xox", "a token of Slack", r"\bxox[abeoprs]-[0-9]{6,}-[A-Za-z0-9\-]{16,}"),
    (
        "hooks.slack.com", "a webhook of Slack",
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/([A-Za-z0-9]{24})",
    ),
    ("sk_live_", "a secret key of Stripe", r"\bsk_live_[A-Za-z0-9]{24,}"),
    ("rk_live_", "a secret key of Stripe", r"\brk_live_[A-Za-z0-9]{24,}"),
    ("npm_", "a token of npm", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi-AgEI", "a token of PyPI", r"\bpypi-AgEI[A-Za-z0-9_\-]{50,}"),
    (
        "-----BEGIN ", "a private key",
        r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])*"
        r"([A-Za-z0-9+/=:,\- \\\r\n]{64})",
    ),
    (
        "://", "a password in an address",
        r"://[^\s/:@'\"<>{}$]{1,64}:([^\s/:@'\"<>{}$\[\]()]{6,128})@([a-zA-Z0-9.\-]+)",
    ),
)  # fmt: skip
_COMPILED = tuple((marker, kind, re.compile(form)) for marker, kind, form in _FORMS)
_PLACEHOLDER = re.compile(
    r"(?i)example|x{5}|\*{3}|\.{3}|pass(?:word|wd)?$|^secret|your|token$|changeme|dummy|placeholder|redacted|0{8}|1234567|abcdef"
)
_HOSTS = re.compile(r"(?i)(?:.*\.)?(?:example(?:\.\w+)?|localhost|host(?:name)?|test|invalid)|127\.0\.0\.1|0\.0\.0\.0")
_FEWEST = 8  # different characters of a real token; passwords have no such floor
_MOST = 20  # signs of one text
_TRIES = 1_000_000  # places of one text at which a form may begin: longer texts are made to keep us busy


def secrets_in(source: Source, text: str, where: str = "") -> Iterator[Sign]:
    """A sign for each credential in a text; `where` names the field it stands in. At most twenty for one text."""
    count, tries = 0, iter(range(_TRIES))
    for marker, kind, form in _COMPILED:
        for found in _found(text, marker, form, tries):
            if _made_up(kind, found):
                continue
            count += 1
            if count > _MOST:
                return
            what = f"{kind}{f' in {where}' if where else ''}: {found[0][:8].strip()}..."
            why = "everyone who gets the model can use it"
            mend = "revoke it, then take it out of the file and of its history"
            yield noted(source, SUSPICIOUS, "secret/credential", what, why=why, mend=mend, at=found.start())


def _found(text: str, marker: str, form: re.Pattern[str], tries: Iterator[int]) -> Iterator[re.Match[str]]:
    """Where a form begins; it begins with its marker, so that a plain search is enough."""
    at = text.find(marker)
    while at >= 0 and next(tries, None) is not None:
        found = form.match(text, at)
        if found:
            yield found
        at = text.find(marker, found.end() if found else at + 1)


def _made_up(kind: str, found: re.Match[str]) -> bool:
    groups = found.groups()
    secret = groups[0] if groups else found[0]
    if kind.startswith("a password"):
        return bool(_PLACEHOLDER.search(secret) or _HOSTS.fullmatch(groups[1])) or len(set(secret)) < 4
    return bool(_PLACEHOLDER.search(secret)) or len(set(secret)) < _FEWEST
