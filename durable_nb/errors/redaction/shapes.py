"""The shapes of known kinds of secrets, and of texts that are random rather than words."""

from __future__ import annotations

import itertools
import re
from typing import Final

__all__ = ["HIDDEN", "KINDS", "SHAPES", "is_opaque", "is_random"]

HIDDEN: Final = "\u2039hidden\u203a"
"""Stands in place of a secret."""

KINDS: Final = {
    "private key": (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END)[\s\S])*(?:-----END[^-\n]*-----)?"
    ),
    "age": r"AGE-SECRET-KEY-1[0-9A-Z]{20,}",
    "JSON web token": r"eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*){0,3}",
    "OpenAI, Anthropic, DeepSeek": r"sk-(?=[\w-]*[\dA-Z])[\w-]{8,}",
    "Stripe": r"(?:sk|rk|pk)_(?:live|test|prod)_[0-9A-Za-z]{8,}|whsec_[\w+/=-]{16,}",
    "GitHub": r"gh[pousr]_[0-9A-Za-z]{16,}|github_pat_\w{16,}",
    "GitLab": r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[\w.-]{12,}",
    "Slack": r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|xoxe\.xox[bp]-[\w-]{8,}",
    "AWS": r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{12,}|ABSK[A-Za-z0-9+/]{40,}=*",
    "Google": r"AIza[\w-]{20,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}|1//0[\w-]{20,}",
    "Hugging Face": r"hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}",
    "Groq, Replicate, xAI, Perplexity": r"(?:gsk_|r8_|xai-|pplx-)[A-Za-z0-9]{20,}",
    "Pinecone, LangSmith, Tavily": r"pcsk_\w{20,}|ls(?:v2)?_(?:pt|sk)_\w{20,}|tvly-[\w-]{16,}",
    "npm": r"npm_[A-Za-z0-9]{20,}",
    "PyPI": r"pypi-[\w-]{16,}",
    "RubyGems, crates.io, NuGet": r"rubygems_[0-9a-f]{20,}|cio[A-Za-z0-9]{32}|oy2[a-z0-9]{43}",
    "SendGrid": r"SG\.[\w-]{12,}\.[\w-]{12,}",
    "Mailgun, Mailchimp": r"key-[0-9a-f]{32}|[0-9a-f]{32}-us\d{1,2}",
    "Twilio": r"SK[0-9a-f]{32}",
    "Shopify": r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{16,}",
    "Square": r"sq0[a-z]{3}-[\w-]{16,}|EAAA[\w-]{40,}",
    "DigitalOcean": r"do[opr]_v1_[0-9a-f]{20,}",
    "Docker": r"dckr_(?:pat|oat)_[\w-]{16,}",
    "Databricks": r"dapi[0-9a-f]{32}(?:-\d)?",
    "Atlassian": r"ATATT3[\w=-]{20,}|ATCTT3[\w=-]{20,}|ATBB[\w=-]{20,}",
    "Airtable": r"pat[A-Za-z0-9]{14}\.[0-9a-f]{32,}",
    "Notion": r"secret_[A-Za-z0-9]{20,}|ntn_[A-Za-z0-9]{20,}",
    "Linear, Figma, Postman": r"lin_api_[A-Za-z0-9]{16,}|figd_[\w-]{16,}|PMAK-[0-9a-f-]{24,}",
    "Grafana": r"glsa_[A-Za-z0-9]{16,}_[0-9a-f]{8}|glc_[A-Za-z0-9+/]{32,}=*",
    "New Relic": r"NR(?:AK|II|JS|RA)-[A-Za-z0-9_-]{16,}",
    "Sentry": r"sntry[su]_[\w+/=-]{16,}",
    "Vault, Terraform": r"hv[sbr]\.[\w-]{16,}|[A-Za-z0-9]{14}\.atlasv1\.[\w-]{32,}",
    "Doppler": r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{16,}",
    "Pulumi, PlanetScale": r"pul-[0-9a-f]{40}|pscale_(?:tkn|pw|oauth)_[\w.=-]{16,}",
    "Supabase, Netlify, Vercel": r"sbp_[0-9a-f]{32,}|nfp_[A-Za-z0-9]{20,}|vercel_blob_rw_\w{16,}",
    "Fly, Heroku": r"fo1_[\w-]{24,}|fm[12][ar]?_[A-Za-z0-9+/=]{24,}|HRKU-[\w-]{20,}",
    "Dynatrace": r"dt0[a-z]\d\d\.[A-Z0-9]{20,}\.[A-Z0-9]{32,}",
    "Contentful, Typeform, Readme": r"CFPAT-[\w-]{20,}|tfp_[\w.=-]{20,}|rdme_[a-z0-9]{32,}",
    "EasyPost, Flutterwave": r"EZ[AT]K[A-Za-z0-9]{32,}|FLWSECK(?:_TEST)?-[0-9A-Za-z]{12,}",
    "Alibaba, Tencent": r"LTAI[A-Za-z0-9]{12,}|AKID[A-Za-z0-9]{24,}",
    "Yandex": r"AQVN[\w-]{32,}|t1\.[\w-]{16,}\.[\w-]{32,}",
    "Dropbox, Asana, Buildkite": r"sl\.[\w-]{40,}|[012]/\d{12,}:[0-9a-f]{32}|bk[au]{2}_[0-9a-f]{32,}",
    "Facebook": r"EAA[A-Z][A-Za-z0-9]{30,}",
    "Telegram": r"\d{8,10}:AA[\w-]{30,}",
    "Discord": r"[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{25,}",
    "Adafruit, Prefect": r"aio_[A-Za-z0-9]{24,}|pn[ub]_[A-Za-z0-9]{24,}",
    "Weights & Biases": r"wandb_v1_[\w-]{16,}",
}
"""Regular expressions of known kinds of secrets, by who gives them out."""

SHAPES: Final = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(KINDS.values())})(?![A-Za-z0-9])")
"""A secret of a known kind, in a text."""

_IDENTIFIER: Final = re.compile(
    r"[0-9a-fA-F-]+|0x[0-9a-fA-F]+|[0-7][0-9A-HJKMNP-TV-Z]{25}|sha\d+[-:=].*"
    r"|(?:call|toolu|chatcmpl|msg|resp|req|run|step|pyd_ai)[_-].*"
)
"""UUIDs, digests, hashes, ULIDs, ids of calls: random, and no secrets."""

_CHANGES: Final = (0.4, 0.25)
"""How often random characters of both cases, and of one, change between upper case, lower case and digits."""


def is_opaque(text: str) -> bool:
    """Return whether a text is like a key or a password rather than like a word: it mixes letters and digits.

    Example:
        >>> is_opaque("s3cr3t"), is_opaque("feature_12"), is_opaque("9f1c22ab")
        (True, False, False)
    """
    if _IDENTIFIER.fullmatch(text):
        return False
    return re.search(r"\d[A-Za-z]|[a-z][A-Z].*\d|\d.*[a-z][A-Z]", text) is not None or is_random(text)


def is_random(text: str) -> bool:
    """Return whether a text is long, and its characters are like random ones; ids and digests are not.

    Example:
        >>> is_random("q7Zr2mXw9TnB4kLs8VdE"), is_random("d41d8cd98f00b204e9800998ecf8427e")
        (True, False)
    """
    if _IDENTIFIER.fullmatch(text) or re.search(r"(?:^|/)[a-z_]{4,}/", text):
        return False
    return any(_is_random(part) for part in re.split(r"[-_+/=.]", text) if len(part) >= 16)


def _is_random(part: str) -> bool:
    digits = sum(map(str.isdecimal, part))
    if digits < 2 or digits > 0.7 * len(part) or re.fullmatch("[0-9a-f]+|[0-9A-F]+", part):
        return False
    classes = [char.isdecimal() + 2 * char.isupper() for char in part]
    changes = sum(a != b for a, b in itertools.pairwise(classes)) / len(part)
    mixed = part != part.lower() and part != part.upper()
    return changes >= _CHANGES[0] if mixed else changes >= _CHANGES[1] and digits >= 4 and len(part) >= 20
