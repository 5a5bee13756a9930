from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
from buckets import bucket as bucket

from autoquant.errors import RunError, UsageError
from autoquant.tuning.study.artifacts import Artifacts, check_place, open_artifacts

LARGE = 9_000_000
"""Bytes that boto3 uploads in parts."""


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for artifacts."""
    return (
        str(tmp_path / "place") if request.param == "directory" else f"{request.getfixturevalue('bucket')}/some/where"
    )


@pytest.fixture
def change(place: str) -> Callable[[str, bytes], None]:
    """Writes another content under the key of one."""

    def write(name: str, content: bytes) -> None:
        if "://" not in place:
            (Path(place) / name).write_bytes(content)
            return
        import boto3

        url = urlsplit(place)
        boto3.client("s3").put_object(Bucket=url.netloc, Key=f"{url.path[1:]}/{name}", Body=content)

    return write


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files(folder: Path, **contents: bytes) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def opened(place: str, study: str = "night") -> Artifacts:
    artifacts = Artifacts(place, study)
    artifacts.make()
    return artifacts


def test_what_is_put_is_taken(place: str, tmp_path: Path) -> None:
    contents = {"config": b"{}", "empty": b"", "model": bytes(range(256)) * (LARGE // 256)}
    digests = opened(place).put(7, files(tmp_path / "worker", **contents))
    assert digests == {name: sha256(content) for name, content in contents.items()}
    (tmp_path / "owner").mkdir()
    Artifacts(place, "night").take(7, digests, tmp_path / "owner")
    assert {path.name: path.read_bytes() for path in (tmp_path / "owner").iterdir()} == contents


def test_what_was_changed_or_is_not_there_is_not_taken(
    place: str, change: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    artifacts, folder = opened(place), tmp_path / "owner"
    folder.mkdir()
    digest = artifacts.put(7, files(tmp_path / "worker", model=b"a model"))["model"]
    change(f"night-artifacts/0007-{digest}", b"a mod")
    with pytest.raises(RunError, match=r"model of trial 7 was changed there \(another SHA-256\)"):
        artifacts.take(7, {"model": digest}, folder)
    for study, trial in (("night", 8), ("day", 7)):
        with pytest.raises(RunError, match=f"model of trial {trial} is not there"):
            Artifacts(place, study).take(trial, {"model": digest}, folder)
    assert not list(folder.iterdir())


def test_files_of_other_trials_are_removed_and_those_of_other_studies_are_not(
    place: str, change: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    """So is what was never whole, and what is none of ours stays."""
    night, day = opened(place), opened(place, "a/day")
    (path,) = files(tmp_path / "worker", model=b"a model")
    digests = {}
    for trial in (7, 8, 12345):
        digests = night.put(trial, [path])
    day.put(7, [path])
    change("night-artifacts/.0007-abc.1.tmp", b"a mod")
    change("night-artifacts/notes.txt", b"mine")
    night.keep(lambda number: number != 7)
    (tmp_path / "owner").mkdir()
    for artifacts, trial in ((night, 8), (night, 12345), (day, 7)):
        artifacts.take(trial, digests, tmp_path / "owner")
    with pytest.raises(RunError, match="is not there"):
        night.take(7, digests, tmp_path / "owner")
    left = sorted(night._store.listed())
    assert left == sorted([f"0008-{digests['model']}", f"12345-{digests['model']}", "notes.txt"])


def test_a_full_disk_leaves_nothing_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Any, name: str, content: BinaryIO) -> None:
        (tmp_path / "place" / "night-artifacts" / name).write_bytes(content.read(3))
        raise OSError(errno.ENOSPC, "No space left on device")

    artifacts = opened(str(tmp_path / "place"))
    monkeypatch.setattr("optuna.artifacts.FileSystemArtifactStore.write", write)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); .* are free: free the disk"):
        artifacts.put(7, files(tmp_path / "worker", model=b"a model"))
    assert not list((tmp_path / "place" / "night-artifacts").iterdir())


def test_a_disk_that_is_not_mounted_is_told(tmp_path: Path) -> None:
    """No folder is made there, which nobody else would see."""
    artifacts = Artifacts(str(tmp_path / "place"), "night")
    with pytest.raises(RunError, match=r"is not there; is the disk mounted on this machine\?"):
        artifacts.put(7, files(tmp_path / "worker", model=b"a model"))
    assert not (tmp_path / "place").exists()


def test_a_directory_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        Artifacts(str(tmp_path / "file" / "place"), "night").make()


def test_a_bucket_that_is_not_there_is_told_at_once(bucket: str) -> None:
    with pytest.raises(RunError, match=r"s3://other/a: cannot be used \(.*NoSuchBucket.*\); see that this machine"):
        Artifacts("s3://other/a", "night").make()


def test_without_credentials_a_bucket_cannot_be_used(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # which has found some
    with pytest.raises(RunError, match="Unable to locate credentials"):
        Artifacts(bucket, "night").put(7, files(tmp_path / "worker", model=b"a model"))


def test_without_boto3_there_is_no_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"boto3 is not installed here; pip install 'autoquant\[s3\]'"):
        Artifacts("s3://bucket", "night")
    told: list[str] = []
    assert open_artifacts("s3://bucket", "night", told.append) is None
    assert told == ["the best models are built again: s3://bucket: boto3 is not installed here; "
                    "pip install 'autoquant[s3]'"]  # fmt: skip
    assert open_artifacts("", "night", told.append) is None and len(told) == 1


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/a/b", "/mnt/a", "a b"])
def test_places(text: str) -> None:
    check_place(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://AKIA:secret@bucket/a", "has credentials"),
        ("s3://bucket/a?X-Amz-Signature=secret", "has credentials, or options"),
        ("s3:///a", "is no place for artifacts"),
        ("gs://bucket/a", "is no place for artifacts; give s3://bucket/prefix, or a directory"),
    ],
)
def test_what_is_no_place_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_place(text)
    assert "secret" not in str(error.value)
