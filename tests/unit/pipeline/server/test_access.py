"""Named keys without a server: what is kept of them, what each may do, and how often."""

import hmac
import json
import stat
from pathlib import Path

import pytest

from encoders.errors import UserError
from pipeline import cli
from pipeline.server.access import key as keys_module
from pipeline.server.access.audit_log import AuditLog
from pipeline.server.access.doorkeeper import Doorkeeper, key_of, right_of
from pipeline.server.access.key import RIGHTS, Key, is_secret_of, new_key, split_token
from pipeline.server.access.key_file import KeyFile
from pipeline.server.access.rate_limit import RateLimit
from pipeline.server.errors import ApiError


def made(file: KeyFile, name: str, *rights: str, banks: tuple[str, ...] = (), rate: int = 0) -> str:
    key, token = new_key(name, rights or ("ask",), banks, rate, 0.0)
    file.add(key)
    return token


def admitted(doorkeeper: Doorkeeper, token: str, method: str = "GET", path: str = "/v1/models"):
    """The key that is let in."""
    scope = {"type": "http", "method": method, "path": path}
    doorkeeper.admit(scope, {b"authorization": f"Bearer {token}".encode()})
    return key_of(scope)


def refusal(doorkeeper: Doorkeeper, token: str, *request: str) -> tuple[int, str]:
    with pytest.raises(ApiError) as error:
        admitted(doorkeeper, token, *request)
    return error.value.status, error.value.message


def test_the_file_holds_no_key_and_only_its_owner_may_read_it(tmp_path: Path):
    file = KeyFile(tmp_path / "k" / "films-keys.json")
    token = made(file, "laptop", "ask", "add")
    text = file.path.read_text()
    key_id, secret = split_token(token)
    assert secret and secret not in text and key_id in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="has a key laptop already"):
        made(file, "laptop")
    with pytest.raises(UserError, match="has no key desk; it has laptop"):
        file.revoke("desk")
    for name, rights in (("../x", ("ask",)), ("x", ("write",)), ("x", ())):
        with pytest.raises(UserError):
            new_key(name, rights, (), 0, 0.0)


def test_the_secret_is_compared_in_constant_time_also_where_there_is_no_key(monkeypatch):
    key, token = new_key("a", ("ask",), (), 0, 0.0)
    _, secret = split_token(token)
    compared, compare_digest = [], hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", compare)
    assert is_secret_of(key, secret)
    assert not is_secret_of(key, secret[:-1]) and not is_secret_of(None, secret)
    assert not is_secret_of(None, "") and compared == [(64, 64)] * 4


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/v1/chat/completions", "ask"),
        ("POST", "/v1/responses", "ask"),
        ("POST", "/v1/embeddings", "ask"),
        ("POST", "/v1/search", "ask"),
        ("GET", "/v1/files/file-1/content", "ask"),
        ("HEAD", "/v1/files/file-1/content", "ask"),
        ("GET", "/v1/models", "ask"),
        ("POST", "/v1/files", "add"),
        ("DELETE", "/v1/files/file-1", "delete"),
        ("GET", "/metrics", "admin"),
        ("POST", "/v1/anything-new", "admin"),
        ("PUT", "/v1/files/file-1", "admin"),
    ],
)
def test_each_path_needs_its_right_and_admin_has_all(tmp_path: Path, method, path, right):
    file = KeyFile(tmp_path / "keys.json")
    doorkeeper = Doorkeeper("", file)
    tokens = {own: made(file, own, own) for own in RIGHTS}
    assert right_of(method, path) == right
    for own, token in tokens.items():
        if own in (right, "admin"):
            assert admitted(doorkeeper, token, method, path).name == own
        else:
            status, said = refusal(doorkeeper, token, method, path)
            assert status == 403 and said.startswith(f"The key {own} may not")


def test_a_key_that_is_revoked_is_refused_from_the_next_request_on(tmp_path: Path):
    file, other = KeyFile(tmp_path / "keys.json"), KeyFile(tmp_path / "keys.json")
    doorkeeper = Doorkeeper("", other)
    assert not doorkeeper.is_closed and admitted(doorkeeper, "") is None
    token = made(file, "laptop")
    assert doorkeeper.is_closed and admitted(doorkeeper, token).name == "laptop"
    for wrong in ("", "x", token[:-1], token.swapcase(), "rb_unknown_" + token.split("_", 2)[2]):
        assert refusal(doorkeeper, wrong)[0] == 401
    file.revoke("laptop")  # as another process does
    assert refusal(doorkeeper, token)[0] == 401
    assert json.loads(file.path.read_text())["keys"] == [] and doorkeeper.is_closed
    file.path.unlink()  # a file that is gone opens nothing
    assert refusal(doorkeeper, token)[0] == 401
    file.path.write_text("{")
    assert refusal(doorkeeper, token)[0] == 503


def test_the_one_key_of_the_settings_goes_on_to_work_beside_named_ones(tmp_path: Path):
    file = KeyFile(tmp_path / "keys.json")
    doorkeeper = Doorkeeper("sesame", file)
    token = made(file, "laptop")
    assert admitted(doorkeeper, "sesame", "GET", "/metrics").name == "api_key"
    assert admitted(doorkeeper, token).name == "laptop"
    assert refusal(doorkeeper, "sesam")[0] == 401 and refusal(Doorkeeper("é"), "e")[0] == 401


def test_a_key_sees_its_banks_alone(tmp_path: Path):
    file, films, cams = KeyFile(tmp_path / "keys.json"), tmp_path / "films", tmp_path / "cams"
    doorkeeper = Doorkeeper("", file, (str(films), str(cams)))
    own = made(file, "own", "ask", "add", banks=(str(cams),))
    foreign = made(file, "foreign", "ask", banks=(str(tmp_path / "other"),))
    key = admitted(doorkeeper, own)
    assert key.sees(cams) and not key.sees(films)
    assert refusal(doorkeeper, own, "GET", "/v1/files") == (
        403,
        "The key own may not see this bank.",
    )
    assert refusal(doorkeeper, foreign)[0] == 403
    doorkeeper.stream_banks = lambda: [str(tmp_path / "other")]  # of a stream that is started
    assert admitted(doorkeeper, foreign).name == "foreign"
    for path in ("/v1/files", "/v1/files/file-1/content"):
        assert refusal(doorkeeper, foreign, "GET", path)[0] == 403
    assert not key.sees("")  # a bank that nobody knows any more


def test_only_its_owner_may_read_the_audit_log_and_it_begins_with_the_first_key(tmp_path: Path):
    path, keys = tmp_path / "logs" / "audit.log", list[str]()
    log = AuditLog(path, lambda: bool(keys), file_bytes=400)
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "client": ("::1", 7)}
    log.write(scope, 200, 0.1)
    assert not path.exists()
    keys.append("laptop")
    for _ in range(9):
        log.write(scope, 401, 0.1)
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) > 2 and json.loads(path.read_text().splitlines()[-1])["status"] == 401
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    with pytest.raises(UserError, match="cannot be written"):
        AuditLog(tmp_path)


def test_a_key_makes_so_many_requests_a_minute(tmp_path: Path):
    now = [0.0]
    limit = RateLimit(lambda: now[0])
    taken = 0
    for tenth in range(6000):  # ten minutes, a try every tenth of a second
        now[0] = tenth / 10
        taken += limit.wait("a", 30) == 0
    assert 300 <= taken <= 306 and limit.wait("b", 30) == 0
    file = KeyFile(tmp_path / "keys.json")
    doorkeeper = Doorkeeper("", file)
    token = made(file, "slow", rate=6)
    assert admitted(doorkeeper, token).name == "slow"
    status, said = refusal(doorkeeper, token)
    assert status == 429 and said == "The key slow may make 6 requests a minute."


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture):
    bank = str(tmp_path / "films")

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(["keys", *words, "--bank", bank])
        assert not end.value.code
        return capsys.readouterr().out

    token = run("add", "laptop", "--rights", "ask,add", "--rate", "60").strip()
    file = KeyFile(Path(f"{bank}-keys.json"))
    assert admitted(Doorkeeper("", file), token).name == "laptop"
    assert run("ls").startswith("laptop: ask, add, 60 requests a minute; made ")
    listed = json.loads(run("ls", "--json"))["keys"]
    assert [row["name"] for row in listed] == ["laptop"] and "digest" not in listed[0]
    assert run("revoke", "laptop") == "revoked laptop\n" and run().startswith("no keys in ")
    for words in (["drop"], ["add"], ["add", "x", "--rights", "write"], ["revoke", "x"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["keys", *words, "--bank", bank])
        err = capsys.readouterr().err
        assert end.value.code == 2 and err.count("\n") == 1 and "Traceback" not in err


def test_a_key_is_what_its_record_says():
    key, _ = new_key("a", ("delete", "ask"), ("~/films",), 5, 1.0)
    assert Key.of(json.loads(json.dumps(key.to_dict()))) == key
    assert key.rights == ("ask", "delete") and key.sees(Path.home() / "films")
