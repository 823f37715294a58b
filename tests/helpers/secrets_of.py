"""Secrets of many kinds, made up, each with the text by which a test looks for it."""

from __future__ import annotations

import base64
import random
import string
from typing import NamedTuple

RANDOM = random.Random("canaries")
BOTH = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"


def some(count, chars=BOTH):
    """Random characters, among them a digit."""
    text = "".join(RANDOM.choices(chars, k=count - 1))
    place = RANDOM.randrange(1, count - 1)
    return f"{text[:place]}{RANDOM.randrange(10)}{text[place:]}"


def _token():
    parts = (b'{"alg":"HS256","typ":"JWT"}', f'{{"sub":"{some(12)}"}}'.encode())
    return ".".join([*(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts), some(43)])


KNOWN = {
    "openai": f"sk-proj-{some(40)}",
    "anthropic": f"sk-ant-api03-{some(40)}",
    "stripe": f"sk_live_{some(24)}",
    "stripe_restricted": f"rk_test_{some(24)}",
    "stripe_webhook": f"whsec_{some(32)}",
    "github": f"ghp_{some(36)}",
    "github_app": f"ghs_{some(36)}",
    "github_fine": f"github_pat_{some(22)}_{some(59)}",
    "gitlab": f"glpat-{some(20)}",
    "slack_bot": f"xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
    "slack_app": f"xapp-1-{some(11, UPPER)}-{some(13, string.digits)}-{some(40, HEX)}",
    "aws": f"AKIA{some(16, UPPER)}",
    "google": f"AIza{some(35)}",
    "google_client": f"GOCSPX-{some(28)}",
    "google_access": f"ya29.{some(60)}",
    "hugging_face": f"hf_{some(34)}",
    "groq": f"gsk_{some(52)}",
    "replicate": f"r8_{some(37)}",
    "pinecone": f"pcsk_{some(30)}",
    "langsmith": f"lsv2_pt_{some(32, HEX)}_{some(10, HEX)}",
    "npm": f"npm_{some(36)}",
    "pypi": f"pypi-AgEIcHlwaS5vcmc{some(60)}",
    "sendgrid": f"SG.{some(22)}.{some(43)}",
    "mailgun": f"key-{some(32, HEX)}",
    "mailchimp": f"{some(32, HEX)}-us12",
    "twilio": f"SK{some(32, HEX)}",
    "shopify": f"shpat_{some(32, HEX)}",
    "square": f"sq0csp-{some(43)}",
    "digitalocean": f"dop_v1_{some(64, HEX)}",
    "docker": f"dckr_pat_{some(27)}",
    "databricks": f"dapi{some(32, HEX)}",
    "atlassian": f"ATATT3xFfGF0{some(60)}",
    "airtable": f"pat{some(14)}.{some(64, HEX)}",
    "notion": f"ntn_{some(40)}",
    "linear": f"lin_api_{some(40)}",
    "figma": f"figd_{some(40)}",
    "postman": f"PMAK-{some(24, HEX)}-{some(34, HEX)}",
    "grafana": f"glsa_{some(32)}_{some(8, HEX)}",
    "new_relic": f"NRAK-{some(27, UPPER)}",
    "sentry_token": f"sntrys_{some(60)}",
    "vault": f"hvs.{some(24)}",
    "doppler": f"dp.pt.{some(40)}",
    "supabase": f"sbp_{some(40, HEX)}",
    "telegram": f"{some(10, '123456789')}:AA{some(33)}",
    "discord": f"M{some(23)}.{some(6)}.{some(27)}",
    "dynatrace": f"dt0c01.{some(24, UPPER)}.{some(64, UPPER)}",
    "json_web_token": _token(),
    "age": f"AGE-SECRET-KEY-1{some(58, UPPER)}",
    "random_base64": some(44),
    "random_lower": some(40, LOWER),
}
"""Secrets whose shape alone tells what they are."""


class Held(NamedTuple):
    """A text that holds a secret, and the secret."""

    text: str
    secret: str


def _held(template, secret):
    return Held(template.format(secret), secret)


IN_TEXTS = {
    "url": _held("postgresql://ann:{}@db.example.org:5432/shop", some(10)),
    "url_without_user": _held("redis://:{}@localhost:6379/0", some(10)),
    "url_odd_password": _held("mysql://ann:{}@host/db", f"p@{some(6)}/{some(4)}"),
    "url_of_broker": _held("amqps://guest:{}@rabbit:5671/vhost", some(9)),
    "dsn": _held("https://{}@o123.ingest.sentry.io/456", some(32, HEX)),
    "slack_hook": _held("https://hooks.slack.com/services/T0000001/B0000002/{}", some(24)),
    "discord_hook": _held("https://discord.com/api/webhooks/1234567890/{}", some(60)),
    "azure_storage": _held(
        "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};EndpointSuffix=core.windows.net",
        f"{some(86)}==",
    ),
    "azure_bus": _held(
        "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey={}", f"{some(43)}="
    ),
    "azure_signature": _held("https://shop.blob.core.windows.net/c/f?sv=2022-11-02&sig={}&se=2030", some(30)),
    "aws_signature": _held("https://b.s3.amazonaws.com/k?X-Amz-Signature={}&x=1", some(64, HEX)),
    "query": _held("GET https://api.example.org/v1/items?limit=5&api_key={}&page=2", some(12)),
    "bearer": _held("Authorization: Bearer {}", some(14)),
    "basic": _held("headers={{'Authorization': 'Basic {}'}}", "YW5uOmh1c2gtaHVzaA=="),
    "header": _held("X-Api-Key: {}", some(16)),
    "curl": _held("curl -H 'Authorization: token {}' https://api", some(20)),
    "odbc": _held("Driver={{ODBC}};Server=db;Uid=ann;Pwd={};Encrypt=yes", some(9)),
    "libpq": _held("host=db user=ann password={} dbname=shop", some(9)),
    "json": _held('{{"user": "ann", "client_secret": "{}", "ok": true}}', "hush hush"),
    "repr": _held("Config(user='ann', password='{}', port=5432)", "correct horse"),
    "switch": _held("mysqldump --user ann --password {} shop", some(8)),
    "environment": _held("export OPENAI_KEY={}", some(12)),
    "private_key": _held(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        "\n".join(some(60) for _ in range(3)),
    ),
    "random": _held("the server refused q={} twice", some(32)),
}
"""Texts in which a secret stands beside what is none."""

IN_CODE = {
    "assigned": _held("api_key = '{}'", "hush 1"),
    "in_camel_case": _held("dbPassword = '{}'", "hush 2"),
    "in_upper_case": _held("OPENAI_KEY = '{}'", "hush 3"),
    "to_the_environment": _held("os.environ['GITHUB_PAT'] = '{}'", "hush 4"),
    "as_a_default": _held("os.environ.setdefault('JWT', '{}')", "hush 5"),
    "chained": _held("x = os.environ['SENTRY_DSN'] = '{}'", "hush 6"),
    "by_keyword": _held("client = Client('eu', api_key='{}')", "hush 7"),
    "in_a_dict": _held("hdr = {{'Authorization': '{}'}}", "hush 8"),
    "in_a_call_of_dict": _held("options = dict(passwd='{}')", "hush 9"),
    "in_a_tuple": _held("auth = ('ann', '{}')", "hush 10"),
    "as_a_pair": _held("headers = [('X-Auth-Token', '{}')]", "hush 11"),
    "unpacked": _held("user, pw = 'ann', '{}'", "hush 12"),
    "of_an_attribute": _held("openai.api_key = '{}'", "hush 13"),
    "as_a_parameter": _held("def connect(host, *, password='{}'): ...", "hush 14"),
    "compared": _held("if token == '{}': allow()", "hush 15"),
    "annotated": _held("token: str = '{}'", "hush 16"),
    "in_a_walrus": _held("len(secret := '{}')", "hush 17"),
    "as_bytes": _held("signing_key = b'{}'", "hush 18"),
    "in_an_f_string": _held("password = f'{{n}}{}'", "hush 19"),
    "as_a_number": _held("password = {}", "90210777"),
    "of_a_setter": _held("keyring.set_password('shop', 'ann', '{}')", "hush 21"),
    "of_a_class": _held("value = SecretStr('{}')", "hush 22"),
    "or_else": _held("token = os.getenv('TOKEN') or '{}'", "hush 23"),
    "in_lines": _held("password = '''{}'''\n", "hush\n24"),
    "in_a_class_body": _held("class C:\n    secret: str = '{}'\n", "hush 25"),
    "in_a_comment": _held("x = 1  # password: '{}'", "hush 26"),
    "in_a_lambda": _held("f = lambda password='{}': 1", "hush 27"),
}
"""Source code in which a literal is a secret by the name that it has."""
