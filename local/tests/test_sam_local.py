"""`sam local`, for real: the functions in Lambda's emulator, in Docker, against a database here.

Docker's image of Lambda is AWS's where that is there already, else one made from Debian packages.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from samtranslator.yaml_helper import yaml_parse

from local.database import LocalDatabase
from local.demo import matches
from local.docker import daemon, image, prepare
from local.docker.live import write_live_template
from local.fixtures import unmeasured
from local.servers import ServerMissingError, locked, require_server
from local.template import Values, read_functions

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"
EXPECTED = json.loads((EVENTS / "expected.json").read_text())

# In this order: the report counts the order placed before it.
ANSWERS = {
    "Migrate": "migrate.by_hand",
    "OrdersApi": "orders_api.place",
    "StockWorker": "stock_worker.deliveries",
    "SalesReport": "sales_report.since",
    "ConnectionCensus": "connection_census.each_minute",
}


@dataclass(frozen=True)
class SamLocal:
    """A machine on which `sam local` has all it needs."""

    database: LocalDatabase
    environ: dict[str, str]
    options: tuple[str, ...]
    template: Path

    def edit(self, function: str, folder: Path) -> Path:
        """From now on the function's code is a copy in `folder`; the path of its app.py."""
        document = yaml.safe_load(self.template.read_text())
        properties = document["Resources"][function]["Properties"]
        source = Path(properties["CodeUri"])
        assert source.parent == ROOT / "functions"  # where it is edited
        shutil.copytree(source, folder)
        properties["CodeUri"] = str(folder)
        self.template.write_text(yaml.safe_dump(document, sort_keys=False))
        return folder / "app.py"

    def invoke(self, function: str, case: str) -> Any:
        return prepare.invoke(
            function, EVENTS / f"{case}.json", *self.options, environ=self.environ
        )


@pytest.fixture
def sam_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamLocal]:
    folder = tmp_path_factory.mktemp("sam-local")
    with contextlib.ExitStack() as stack:
        # Two private daemons would give the same addresses to their containers.
        image.CACHE.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(image.CACHE / ".lock"))
        try:
            environ = stack.enter_context(daemon.docker())
        except daemon.DockerMissingError as error:
            pytest.skip(f"sam local is not tested: {error}")
        # sam is not what is measured, and slow enough.
        environ = unmeasured(environ)
        environ |= {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
        database, env_file = stack.enter_context(prepare.host_database(folder))
        template = prepare.build(database.ca_file, folder, environ=environ)
        options: tuple[str, ...] = ("--template", str(template), "--env-vars", str(env_file))
        options += (*prepare.FROM_HOST, *lambda_image(environ))
        yield SamLocal(database, environ, options, template)


def lambda_image(environ: dict[str, str]) -> tuple[str, ...]:
    """Options that name the image: none if Docker has the one that sam would take by itself."""
    from samcli.local.docker.lambda_image import LambdaImage, Runtime

    tag = Runtime.get_image_name_tag("python3.13", "x86_64")
    name = f"{LambdaImage._INVOKE_REPO_PREFIX}/{tag}"
    inspect = ["docker", "image", "inspect", name]
    if subprocess.run(inspect, env=environ, capture_output=True, check=False).returncode == 0:
        return ("--skip-pull-image",)
    try:
        return ("--skip-pull-image", "--invoke-image", image.load(environ))
    except image.ImageError as error:
        pull = ["docker", "pull", "--quiet", name]
        if subprocess.run(pull, env=environ, capture_output=True, check=False).returncode == 0:
            return ("--skip-pull-image",)
        pytest.skip(f"sam local is not tested: {error}; and `{' '.join(pull)}` fails too")


@pytest.mark.server
def test_the_functions_answer_under_sam_local_and_leave_no_session(
    sam_local: SamLocal, subtests: pytest.Subtests, tmp_path: Path
) -> None:
    """One test, as workers would start a daemon each."""
    database = sam_local.database
    assert set(ANSWERS) == functions()
    for function, case in ANSWERS.items():
        with subtests.test("sam local invoke", function=function):
            answer = sam_local.invoke(function, case)
            assert matches(answer, EXPECTED[case]["match"]), answer
            assert database.sessions() == []

    with subtests.test("a failure is told from an answer, though sam exits with 0"):
        with pytest.raises(prepare.PreparationError, match="Migrate failed with InvalidEventError"):
            sam_local.invoke("Migrate", "migrate.unknown_action")
        assert database.sessions() == []

    with subtests.test("an edited handler answers without another build"):
        app = sam_local.edit("ConnectionCensus", tmp_path / "census")
        assert sam_local.invoke("ConnectionCensus", ANSWERS["ConnectionCensus"])["limit"] >= 65
        app.write_text("def lambda_handler(event, context):\n    return 'edited'\n")
        assert sam_local.invoke("ConnectionCensus", ANSWERS["ConnectionCensus"]) == "edited"

    app = sam_local.edit("OrdersApi", tmp_path / "orders")
    with subtests.test("sam local start-api"), start_api(sam_local, tmp_path / "log") as url:
        with urllib.request.urlopen(f"{url}/products", timeout=60) as answer:
            assert {"id": 1, "name": "Espresso cup"}.items() <= json.load(answer)[0].items()
        assert database.sessions() == []

        order = {"customer": "Grace", "lines": [{"product_id": 2, "quantity": 1}]}
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        placing = urllib.request.Request(f"{url}/orders", json.dumps(order).encode(), headers)
        with urllib.request.urlopen(placing, timeout=60) as answer:
            assert answer.status == 201
            assert json.load(answer)["total_cents"] == 1250
        # Its container stays, warm and idle.
        assert database.sessions() == []

        app.write_text(app.read_text().replace('title="Shop"', 'title="Edited"'))
        deadline = time.monotonic() + 30
        while b'"Edited"' not in read(f"{url}/openapi.json"):
            assert time.monotonic() < deadline, "the warm container was never replaced"
            time.sleep(0.5)


def read(url: str) -> bytes:
    """The body, or nothing while a container is replaced."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.URLError:
        return b""


@contextlib.contextmanager
def start_api(sam_local: SamLocal, log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # LAZY: a container for OrdersApi when it is asked for, and it stays; the others never start.
    options = ("--port", str(port), "--warm-containers", "LAZY", *sam_local.options)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [prepare.sam(), "local", "start-api", *options],
            cwd=ROOT, env=sam_local.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not is_open(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # as Ctrl-C: it removes its containers
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ── What needs no Docker ──────────────────────────────────────────────────────────────────────


def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return loaded


def functions() -> set[str]:
    return {function.logical_id for function in read_functions().values()}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_mysql_in_docker_is_set_up_like_the_one_on_rds() -> None:
    group = template()["Resources"]["DatabaseParameters"]["Properties"]["Parameters"]
    rds = Values(template(), {}).resolve(group)
    switch = {"0": "OFF", "1": "ON"}
    for option in mysqld_options():
        name, here = option.removeprefix("--").split("=")
        if not name.startswith("ssl_"):
            assert here == switch.get(rds[name], str(rds[name])), name


def test_mysql_knows_every_option_that_compose_gives_it() -> None:
    try:
        server = require_server("mysql")
    except ServerMissingError as error:
        pytest.skip(str(error))
    # The last two: root may, and there is no folder for files.
    command = [*server.command, "--validate-config", "--user=root", "--secure-file-priv=NULL"]
    checked = subprocess.run(
        [*command, *mysqld_options()], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_shipped_passwords_are_those_of_the_database_in_docker() -> None:
    values = json.loads(prepare.ENVIRONMENT_FILE.read_text())
    master = values["Migrate"]["DATABASE_PASSWORD"]
    assert f"'master'@'%' IDENTIFIED BY '{master}'" in prepare.MASTER.read_text()
    assert f"--password={master}" in compose()["services"]["database"]["healthcheck"]["test"]
    application = values["Parameters"]["DATABASE_PASSWORD"]
    assert values["Migrate"]["APPLICATION_PASSWORD"] == application


def test_the_functions_look_for_the_authority_where_the_build_puts_it() -> None:
    values = json.loads(prepare.ENVIRONMENT_FILE.read_text())
    assert values["Parameters"]["DATABASE_CA_FILE"] == f"/opt/{prepare.CA_FILE}"


def test_the_template_for_sam_local_has_the_code_where_it_is_edited_and_packages_beside(
    tmp_path: Path,
) -> None:
    source = tmp_path / "template.yaml"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("edited")
    built = tmp_path / "built"
    for file in ("F/app.py", "F/pydantic/__init__.py", "F/six.py", "L/python/ours.py"):
        (built / file).parent.mkdir(parents=True, exist_ok=True)
        (built / file).touch()
    function = {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "code/"}}
    layer = {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "layer/"}}
    both = {"F": function, "Plain": function, "L": layer}
    source.write_text(yaml.safe_dump({"Resources": both}))
    made = {
        "F": {**function, "Properties": {"CodeUri": "F", "Layers": ["arn:own"]}},
        "Plain": {**function, "Properties": {"CodeUri": "../code"}},  # as SkipBuild leaves it
        "L": {**layer, "Properties": {"ContentUri": "L"}},
    }
    (built / "template.yaml").write_text(yaml.safe_dump({"Resources": made}))
    written = write_live_template(source, built / "template.yaml", tmp_path / "live")
    resources = yaml.safe_load(written.read_text())["Resources"]
    assert resources["F"]["Properties"] == {
        "CodeUri": str(tmp_path / "code"), "Layers": ["arn:own", {"Ref": "FPackages"}]
    }  # fmt: skip
    assert resources["Plain"]["Properties"] == {"CodeUri": str(tmp_path / "code")}
    assert resources["L"]["Properties"]["ContentUri"] == str(built / "L")
    packages = Path(resources["FPackages"]["Properties"]["ContentUri"])
    assert {path.name for path in (packages / "python").iterdir()} == {"pydantic", "six.py"}


def test_without_docker_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(daemon.DockerMissingError, match=r"apt-get install docker\.io"):
        with daemon.docker():
            pass
    assert prepare.main([]) == 1
    assert "apt-get install docker.io" in capsys.readouterr().err


def test_every_variable_of_the_env_file_is_declared_or_sam_would_drop_it() -> None:
    declared = template()["Globals"]["Function"]["Environment"]["Variables"].keys()
    for function, values in json.loads(prepare.ENVIRONMENT_FILE.read_text()).items():
        own = {}
        if function != "Parameters":
            properties = template()["Resources"][function]["Properties"]
            own = properties.get("Environment", {"Variables": {}})["Variables"]
        assert values.keys() <= declared | own.keys()


def test_samconfig_leads_sam_local_to_the_database() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    network = compose()["networks"]["functions"]["name"]
    for command in ("local_invoke", "local_start_api"):
        in_docker = config["default"][command]["parameters"]
        assert (ROOT / in_docker["env_vars"]) == prepare.ENVIRONMENT_FILE
        assert in_docker["docker_network"] == network
        for environment in ("default", "host"):
            named = config[environment][command]["parameters"]["template_file"]
            assert (ROOT / named) == prepare.LOCAL / "template.yaml"
        on_host = config["host"][command]["parameters"]
        assert (ROOT / on_host["env_vars"]) == prepare.LOCAL / "env.json"
        assert ("--add-host", *on_host["add_host"]) == prepare.FROM_HOST


def mysqld_options() -> list[str]:
    options: list[str] = compose()["services"]["database"]["command"][1:]
    return options
