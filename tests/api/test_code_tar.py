"""A user's files as a tar: the same files give the same digest, and what does not belong in it is refused by name."""

import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from api.code_tar import IGNORE_FILE, MOST_BYTES, CodeRefused, pack, unpack


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "flow").mkdir(parents=True)
    (folder / "flow" / "__init__.py").write_text("")
    (folder / "flow" / "steps.py").write_text("def one():\n    return 1\n")
    return folder


def reasons(folder: Path) -> dict[str, str]:
    with pytest.raises(CodeRefused) as caught:
        pack(folder)
    return {refusal.path: refusal.reason for refusal in caught.value.refusals}


def test_the_same_files_have_the_same_digest_whoever_wrote_them_and_when(code: Path, tmp_path: Path) -> None:
    before = pack(code)
    os.utime(code / "flow" / "steps.py", (1, 1))
    (code / "flow" / "steps.py").chmod(0o600)
    other = tmp_path / "other"
    (other / "flow").mkdir(parents=True)
    for name in reversed(before.files):
        (other / name).write_bytes((code / name).read_bytes())
    assert before.files == ("flow/__init__.py", "flow/steps.py")
    assert pack(code).digest == before.digest == pack(other).digest == hashlib.sha256(before.data).hexdigest()


@pytest.mark.parametrize("edit", ["content", "name", "executable"])
def test_any_edit_changes_the_digest(code: Path, edit: str) -> None:
    before, steps = pack(code).digest, code / "flow" / "steps.py"
    if edit == "content":
        steps.write_text("def one():\n    return 2\n")
    elif edit == "name":
        steps.rename(code / "flow" / "others.py")
    else:
        steps.chmod(0o755)
    assert pack(code).digest != before


def test_caches_repositories_and_environments_are_left_out(code: Path) -> None:
    before = pack(code).digest
    for name in (".git/config", "flow/__pycache__/steps.cpython-311.pyc", ".venv/bin/python", "x.egg-info/PKG-INFO"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("x")
    assert pack(code).digest == before


def test_what_the_ignore_file_names_is_left_out(code: Path) -> None:
    (code / "data").mkdir()
    (code / "data" / "large.csv").write_text("1,2")
    (code / IGNORE_FILE).write_text("# no code\ndata/\n")
    assert pack(code).files == (IGNORE_FILE, "flow/__init__.py", "flow/steps.py")


def test_files_of_secrets_are_refused_all_in_one_answer(code: Path) -> None:
    for name in (".env", "flow/.env.production", "server.key", ".env.example"):
        (code / name).write_text("TOKEN=1")
    assert reasons(code) == dict.fromkeys((".env", "flow/.env.production", "server.key"), "SECRET_FILE")


def test_links_that_lead_out_are_refused_and_links_inside_are_files(code: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("secret = 1")
    (code / "inside.py").symlink_to("flow/steps.py")
    assert pack(code).files == ("flow/__init__.py", "flow/steps.py", "inside.py")
    (code / "up.py").symlink_to("../outside.py")
    (code / "root").symlink_to("/")
    (code / "loop").symlink_to(".")
    (code / "gone.py").symlink_to("nowhere.py")
    assert reasons(code) == {
        "up.py": "LINK_LEAVES_FOLDER",
        "root": "LINK_LEAVES_FOLDER",
        "loop": "LINK_TO_FOLDER",
        "gone.py": "LINK_TO_FOLDER",
    }


def test_a_pipe_and_a_name_with_a_newline_are_refused(code: Path) -> None:
    os.mkfifo(code / "pipe")
    (code / "a\nb.py").write_text("")
    assert reasons(code) == {"pipe": "NO_FILE", "'a\\nb.py'": "BAD_NAME"}


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(code: Path) -> None:
    with (code / "model.bin").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(CodeRefused, match=rf"model\.bin \({MOST_BYTES + 1} bytes\).*{IGNORE_FILE}"):
        pack(code)


def test_unpacking_gives_the_files_once_however_many_ask(code: Path, tmp_path: Path) -> None:
    packed = pack(code)
    (tmp_path / "a.tar").write_bytes(packed.data)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(unpack(tmp_path / "a.tar", packed.digest, tmp_path / "made")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {tmp_path / "made" / packed.digest}
    assert os.listdir(tmp_path / "made") == [packed.digest]
    assert pack(found[0]).digest == packed.digest


def test_a_tar_that_is_not_what_its_name_says_is_refused(code: Path, tmp_path: Path) -> None:
    packed = pack(code)
    (tmp_path / "a.tar").write_bytes(packed.data[:-1] + b"x")
    with pytest.raises(CodeRefused, match="is not what it was packed as"):
        unpack(tmp_path / "a.tar", packed.digest, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def evil(kind: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo({"above": "../out.py", "absolute": "/tmp/out.py"}.get(kind, "a"))
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    elif kind == "device":
        member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "device"])
def test_a_tar_made_by_hand_writes_nothing_outside(tmp_path: Path, kind: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(evil(kind))
    (tmp_path / "evil.tar").write_bytes(data.getvalue())
    with pytest.raises(CodeRefused, match="is no plain file"):
        unpack(tmp_path / "evil.tar", hashlib.sha256(data.getvalue()).hexdigest(), tmp_path / "made")
    assert os.listdir(tmp_path / "made") == []
