"""S3 as boto3 sees it: moto's server on a free port of loopback, which processes of a test's own reach too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-central-1"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, for which the environment has endpoint and credentials."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    try:
        name = uuid.uuid4().hex  # all servers of a process have the same buckets
        region = {"LocationConstraint": KEYS["AWS_DEFAULT_REGION"]}
        boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=region)
        yield f"s3://{name}"
    finally:
        server.stop()
