"""One redactor: secrets by name and by shape, in names, texts, source and values; hardly a false alarm."""

import ast
import hashlib
import json
import os
import random
import re
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest

from durable_nb.errors import redaction
from durable_nb.errors.redaction import HIDDEN, redacted, redacted_message, redacted_source, secret_in
from durable_nb.errors.redaction.shapes import KINDS, SHAPES
from helpers.secrets_of import IN_CODE, IN_TEXTS, KNOWN

NOTEBOOKS = sorted((Path(__file__).parents[3] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("kind", KNOWN)
def test_a_secret_of_a_known_kind_is_found_wherever_it_stands(kind):
    secret = KNOWN[kind]
    for text in (
        secret,
        f"x = '{secret}'",
        f"refused: {secret}.",
        f"({secret})",
        f"https://h/?q={secret}&n=1",
    ):
        assert secret not in redacted(text)
    assert redacted(f"the server refused {secret} twice") == f"the server refused {HIDDEN} twice"
    assert secret_in("x", [secret]) or kind.startswith("random")


@pytest.mark.parametrize("kind", IN_TEXTS)
def test_a_secret_in_a_text_is_replaced_in_place(kind):
    text, secret = IN_TEXTS[kind]
    found = redacted(f"cannot connect: {text}")
    assert secret not in found
    assert HIDDEN in found
    assert found.startswith("cannot connect: ")


def test_the_rest_of_a_text_stays():
    for kind in (
        "url",
        "azure_storage",
        "azure_signature",
        "query",
        "odbc",
        "libpq",
        "json",
        "repr",
        "bearer",
    ):
        text, secret = IN_TEXTS[kind]
        assert redacted(text) == text.replace(secret, HIDDEN)


@pytest.mark.parametrize("kind", IN_CODE)
def test_a_literal_with_the_name_of_a_secret_is_replaced_in_source(kind):
    source, secret = IN_CODE[kind]
    found = redacted_source(source)
    assert secret not in found
    assert HIDDEN in found
    assert len(found.splitlines()) == len(source.splitlines())
    ast.parse(found)


@pytest.mark.parametrize("kind", KNOWN)
def test_a_secret_by_shape_is_replaced_in_source(kind):
    source = f"c = Client('eu', '{KNOWN[kind]}', n=3)  # as agreed"
    assert redacted_source(source) == f"c = Client('eu', '{HIDDEN}', n=3)  # as agreed"


def test_source_without_secrets_is_unchanged():
    for source in (
        "api_key = os.environ['OPENAI_API_KEY']",
        "token = None; use_password = True; max_tokens = 500",
        "client = Client(api_key=settings.api_key, password=password)",
        "df = df.sort_values(by='key').groupby('token_count').agg(n=('key', 'size'))",
        "x = {'key': 'name', 'sort_key': 'age', 'primary_key': 'id'}",
        "é = 'ü'; s = '''a\nb'''",
        "def f(:",
    ):
        assert redacted_source(source) == source


def test_hiding_one_of_several_literals_on_a_line_with_wide_characters():
    source = "é = 'ü', Client(pw='hush', name='ü', token='hush')\n"
    assert redacted_source(source) == f"é = 'ü', Client(pw='{HIDDEN}', name='ü', token='{HIDDEN}')\n"


SECRET_NAMES = """
    api_key apikey apiKey API_KEY OPENAI_API_KEY OPENAI_KEY openai_key openaiApiKey X-Api-Key token
    access_token
    accessToken authToken refresh_token HF_TOKEN BOT_TOKEN secret client_secret clientSecret SECRET_KEY
    password passwd pw db_pw pwd user_pwd passphrase PGPASSWORD db_password dbpassword mysqlPassword password2
    GITHUB_PAT gh_pat credential credentials aws_creds authorization Authorization Proxy-Authorization auth
    http_auth jwt JWT id_jwt cookie session_cookie bearer private_key ssh_key AZURE_STORAGE_KEY account_key
    signing_key encryption_key session_key sessionKey STRIPE_KEY AWS_SECRET_ACCESS_KEY otp mnemonic dsn
    seed_phrase SENTRY_DSN DATABASE_URL REDIS_URL SQLALCHEMY_DATABASE_URI SLACK_WEBHOOK_URL conn_str
    connection_string secretKey
"""
OTHER_NAMES = """
    key keys sort_key primary_key foreign_key partition_key public_key key_name keyboard monkey turkey
    tokenizer
    max_tokens n_tokens num_tokens input_tokens output_tokens token_count token_ids pad_token next_token
    total_tokens author authors secretary compass passed passenger bypass path pattern patient spat compute
    password_length secret_name token_url credentials_path api_key_name auth_url pwned url base_url image_url
    db database host user username email id run_id step_id session_id cell_id name data df model result
    cookiecutter PWD OLDPWD PATH HOME LANG SHELL authority authored keyword keypoints donkey_count jwtx dsns
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_the_name_of_a_secret_is_known_in_each_spelling(name):
    assert redaction.is_secret(name)
    assert redaction.is_secret(name, "postgresql://ann:hush@host/db")


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_a_name_that_only_resembles_one_is_none(name):
    assert not redaction.is_secret(name)
    assert not redaction.is_secret(name, "name")


def test_a_value_decides_where_a_name_does_not():
    assert redaction.is_secret("key", "h7Gf3kQ9")
    assert redaction.is_secret("pat", "s3cr3t")
    assert not redaction.is_secret("key", "feature_12")
    assert not redaction.is_secret("pat", r"\d+[a-z]")
    assert not redaction.is_secret("password", True)
    assert not redaction.is_secret("max_tokens", 500)
    assert not redaction.is_secret("DATABASE_URL", "sqlite:///shop.db")


def test_an_address_is_no_credential():
    assert redaction.is_credential("OPENAI_KEY")
    assert not redaction.is_credential("DATABASE_URL")
    assert not redaction.is_credential("name")


def random_ones():
    """Run ids, step ids, UUIDs, digests, hashes and times, as this package, git and others make them."""
    source = random.Random(1)
    for _ in range(50):
        data = source.randbytes(16)
        yield str(uuid.UUID(bytes=data))
        yield hashlib.sha256(data).hexdigest()
        yield hashlib.sha1(data).hexdigest()
        yield f"load/fetch[{data.hex()}]#3"
        yield f"etl-2026-11-{source.randrange(10, 31)}~{source.randrange(99)}"
        yield f"sha256:{hashlib.sha256(data).hexdigest()}"
        yield "01" + "".join(source.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=24))
        yield f"call_{''.join(source.choices('abcdefghijkXYZ123456789', k=24))}"
        yield f"2026-11-29T07:15:{source.randrange(10, 60)}.{source.randrange(10**6):06}+00:00"


ORDINARY = r"""
    The token was rejected by the server|Password must have at least 8 characters|Invalid API key
    no such table: users|Authentication failed: wrong credentials|Bearer authentication is required
    Basic usage: see the tutorial|/home/ann/projects/shop/data/2026/orders_v2.parquet
    C:\Users\ann\Documents\Report2026.xlsx|s3://bucket/raw/2026/x.csv
    https://example.org:8080/a/b?limit=5&page=2#top|https://docs.python.org/3/library/asyncio-task.html
    postgresql://db.example.org:5432/shop|sqlite:///data/shop.db|redis://localhost:6379/0
    mailto:ann@example.org|KeyError: 'customer_id'|ValueError: could not convert string to float: 'n/a'
    ZeroDivisionError: division by zero
    TypeError: Client.__init__() got an unexpected keyword argument 'token'
    HTTPError: 401 Client Error: Unauthorized|df.groupby('key').agg(total=('amount', 'sum'))
    model = LogisticRegression(max_iter=1000, C=0.1)|max_tokens=500, temperature=0.7
    tokenizer = AutoTokenizer.from_pretrained('bert-base-uncased')|claude-sonnet-4-20250514
    gpt-4o-mini-2024-07-18|meta-llama/Llama-3.1-8B-Instruct|sentence-transformers/all-MiniLM-L6-v2
    IPythonCoreInteractiveShellEmbed|getHTTPResponseCodeFromServer2|sklearn.preprocessing.StandardScaler
    numpy.core._multiarray_umath|durable_nb.notebook.namespace.snapshot|test_a_name_that_is_long_is_shown_42
    SELECT id, name FROM users WHERE key = 'a' ORDER BY created_at|(3, True, 7, None, 'mine')|[1, 2, 3]
    import pandas as pd|for key, value in settings.items(): print(key, value)|assert token == expected
    run 'etl', step 'load': its arguments changed. To run it again: wf.sync.resolve('etl', 'load', 'rerun')
    sk-learn|scikit-learn==1.5.2|sk-learn-contrib packages|hf_model_name_or_path|pat = re.compile('x')
    npm_config_prefix|Zürich, 29. November|日本語のテキスト|αβγδ εζηθ|naïve café|x² + y² = r²|12:30 to 13:45
    +41 44 123 45 67|0x7f3a2b|user@example.org|ann@host:~/work$|git@github.com:ann/shop.git
    ssh://git@host:22/x.git|127.0.0.1:8888|::1|password|secret|token|api key|Authorization
    the key to success: patience|secrets: three tales|token: str|kernel-1234.json|tmpa8x2k9qz
    ipykernel_12345/2384729384.py|cell-7f3a|2026-11-29_07-15-10.log|v1.2.3rc4+build5
    abcdefghijklmnopqrstuvwxyz|ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789|aaaaaaaaaaaaaaaaaaaaaaaaaaaa
    00000000000000000000|3.14159265358979323846264338327950288|1e-10|-273.15|1_000_000|99.9 %|$ 4.20|€ 1'000
    #ff8800|10.0.0.0/8|basic plan: 10 seats|digest sent weekly|token bucket: 5 per second|cookie recipes
    author: Ann|passed: 10, failed: 0|The quick brown fox jumps over the lazy dog|Lorem ipsum dolor sit amet
    To be or not to be|hello, world|ok|yes|no|async with asyncio.timeout(5): await fetch(url)
    lambda row: row['key'] == key|f'{name}: {value}'|print(f'{n=}')|Content-Type: application/json
    Accept: text/html|User-Agent: python-requests/2.32.3|ETag: W/5f3a|Retry-After: 120
    {'key': 'name', 'value': 3}|{"sort_key": "age", "tokens": 12}|Point(x=1, y=2)|<Response [200]>
    <task load>|dtype='float64'|shape=(1000, 12)|n_estimators=100, random_state=42|learning_rate=3e-4
    batch_size=32
"""
ORDINARY = [each.strip() for each in ORDINARY.replace("\n", "|").split("|") if each.strip()]
ORDINARY += [os.strerror(number) for number in range(1, 80)]
ORDINARY += [f"{status.value} {status.phrase}: {status.description}" for status in HTTPStatus]


def notebook_texts():
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            yield from filter(str.strip, "".join(cell["source"]).splitlines())
            for output in cell.get("outputs", ()):
                texts = [output.get("text", ""), *output.get("data", {}).values(), output.get("evalue", "")]
                yield from ("".join(text) for text in texts if isinstance(text, str | list))


@pytest.mark.parametrize(
    ("texts", "at_least"),
    [(random_ones, 450), (lambda: ORDINARY, 200), (notebook_texts, 300)],
    ids=["ids and digests", "ordinary", "notebooks"],
)
def test_false_alarms_are_rare(texts, at_least):
    found = list(texts())
    assert len(found) >= at_least
    wrong = [text for text in found if redacted(text) != text or redacted_source(text) != text]
    assert len(wrong) <= 0.01 * len(found), wrong


def test_ids_of_runs_stay_in_messages_of_this_package():
    run_id = KNOWN["random_base64"]
    message = f"run {run_id!r}, step 'load': api_key='hush', to run it again: %durable_reset load"
    assert redacted_message(message) == message.replace("hush", HIDDEN)
    assert run_id not in redacted(message)


def test_redacting_twice_changes_nothing():
    for text in (*(each.text for each in IN_TEXTS.values()), *KNOWN.values()):
        assert redacted(redacted(text)) == redacted(text)
    for source, _ in IN_CODE.values():
        assert redacted_source(redacted_source(source)) == redacted_source(source)


def test_each_kind_has_a_shape_that_compiles_alone():
    assert len(KINDS) >= 40
    assert all(re.compile(pattern) for pattern in KINDS.values())
    assert SHAPES.search("nothing") is None


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a=" * 50_000, "://" * 50_000, "-----BEGIN PRIVATE KEY-----" * 5000]
)
def test_long_texts_take_no_longer_than_their_length(text):
    assert len(redacted(text)) <= len(text) + 20


@dataclass
class Settings:
    user: str
    options: dict = field(default_factory=dict)


def test_where_a_value_holds_a_secret():
    assert secret_in("api_key", "hush") == "api_key"
    assert secret_in("config", {"db": [{"password": "hush"}]}) == "config['db'][0]['password']"
    assert secret_in("settings", Settings("ann", {"token": "hush"})) == "settings.options['token']"
    assert secret_in("conn", IN_TEXTS["url"].text) == "conn"
    assert secret_in("names", ["ann", "bob"]) is None
    assert secret_in("password", "") is None
    circle = []
    circle.append(circle)
    assert secret_in("circle", circle) is None


def test_a_class_that_hides_its_value_is_known_by_its_method():
    pydantic = pytest.importorskip("pydantic")
    assert redaction.hides_value(pydantic.SecretStr)
    assert redaction.hides_value(pydantic.SecretBytes)
    assert not redaction.hides_value(str)
