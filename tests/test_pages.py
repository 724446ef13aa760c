"""What the pages show of other people's libraries works, on a real server.

`make test-pages` installs them; `make test` skips what is not there.
"""

import importlib.util
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from single_connection.testing import LambdaContext

from local.database import LocalDatabase

DOCS = Path(__file__).parents[1] / "docs"
# A request of API Gateway's HTTP API.
EVENT = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/stock",
    "rawQueryString": "",
    "headers": {"host": "shop.example"},
    "requestContext": {
        "http": {
            "method": "GET",
            "path": "/stock",
            "protocol": "HTTP/1.1",
            "sourceIp": "192.0.2.1",
        },
        "stage": "$default",
    },
    "isBase64Encoded": False,
}


def python(page: str) -> list[str]:
    """The page's Python."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def named(page: str, file: str) -> str:
    """What the page would have in that file."""
    (code,) = [one for one in python(page) if one.startswith(f"# {file}")]
    return code


def handlers(page: str) -> list[Any]:
    """The page's handlers."""
    code = [one for one in python(page) if "def lambda_handler" in one]
    return [pytest.param(one, id=f"{page}-{n}") for n, one in enumerate(code)]


def need(code: str) -> None:
    """Skip where a library that the code shows is not installed, saying how to."""
    for name in sorted(set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: run `make test-pages`")


@pytest.fixture
def environment(shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDatabase]:
    """The shop, and its master user, who may define tables."""
    for name, value in shop.master_environ().items():
        monkeypatch.setenv(name, value)
    yield shop
    sys.modules.pop("page", None)


def load(code: str) -> types.ModuleType:
    """The code as a module: FastAPI and SQLModel look there for the names in annotations."""
    module = types.ModuleType("page")
    sys.modules["page"] = module
    exec(compile(code, "page", "exec"), module.__dict__)
    return module


def stock(shop: LocalDatabase) -> Any:
    return shop.execute("SELECT stock FROM products WHERE id = 1")[0]["stock"]


@pytest.mark.filterwarnings("default")  # theirs are none of our business
@pytest.mark.parametrize("code", [*handlers("sqlalchemy.md"), *handlers("libraries.md")])
def test_the_code_of_the_page_answers_in_every_invocation(
    environment: LocalDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    need(code)
    if "alembic" in code:
        monkeypatch.chdir(tmp_path)
        write_migration(tmp_path / "migrations")
    handler = load(code).lambda_handler
    before = stock(environment)
    total = environment.execute("SELECT SUM(stock) AS n FROM products WHERE id <= 2")[0]["n"]
    for number in (1, 2):
        answer = handler(EVENT, LambdaContext(10))
        assert environment.sessions() == []
        if "pandas" in code:
            assert answer == total
        elif "alembic" in code:
            assert environment.execute("SELECT n FROM made") == [{"n": 1}]
        else:
            assert stock(environment) == before - number
            assert (json.loads(answer["body"]) if isinstance(answer, dict) else answer) == stock(
                environment
            )


def write_migration(folder: Path) -> None:
    """Alembic's folder with the page's env.py, and one migration."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(named("sqlalchemy.md", "env.py"))
    (folder / "versions" / "one.py").write_text(
        "import sqlalchemy\nfrom alembic import op\n\nrevision, down_revision = 'one', None\n\n"
        "def upgrade():\n"
        "    op.create_table('made', sqlalchemy.Column('n', sqlalchemy.Integer))\n"
        "    op.execute('INSERT INTO made VALUES (1)')\n"
    )


DJANGO = """
import django, json, sys
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

settings.configure(
    DATABASES={"default": {"ENGINE": "one_connection", "NAME": "shop"}},
    ROOT_URLCONF="__main__",
    ALLOWED_HOSTS=["*"],
)
django.setup()

from django.core.asgi import get_asgi_application
from django.db import connection, models, transaction
from mangum import Mangum
from one_connection.base import database
from single_connection.testing import LambdaContext


class Product(models.Model):
    stock = models.IntegerField()

    class Meta:
        app_label, db_table = "shop", "products"


def stock(request):
    with transaction.atomic():
        product = Product.objects.select_for_update().get(id=1)
        product.stock -= 1
        product.save()
        product.save()  # nothing changes, and it is there all the same
        try:
            with transaction.atomic():
                Product.objects.update(stock=0)
                raise ValueError
        except ValueError:
            pass
    return JsonResponse({"stock": Product.objects.get(id=1).stock})


urlpatterns = [path("stock", stock)]
handle = Mangum(get_asgi_application(), lifespan="off")
lambda_handler = database.invocation(lambda event, context: handle(event, context))
for _ in range(2):
    print(lambda_handler(json.loads(sys.argv[1]), LambdaContext(10))["body"])
"""


def test_djangos_backend_of_the_page_serves_requests(
    environment: LocalDatabase, tmp_path: Path
) -> None:
    need("import django\nimport mangum")
    (tmp_path / "one_connection").mkdir()
    (tmp_path / "one_connection" / "__init__.py").touch()
    (tmp_path / "one_connection" / "base.py").write_text(named("libraries.md", "base.py"))
    (tmp_path / "site.py").write_text(DJANGO)
    before = stock(environment)
    ran = subprocess.run(
        [sys.executable, tmp_path / "site.py", json.dumps(EVENT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert said == [{"stock": before - 1}, {"stock": before - 2}], ran.stderr
    assert stock(environment) == before - 2
    assert environment.sessions() == []
