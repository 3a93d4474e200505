"""What the binaries say of their settings."""

import os
import subprocess

import pytest

from support.stack import BIN

SECRETS = {"CRAFTERSE_REDIS_URL": "redis://:hunter2@redis:6379",
           "CRAFTERSE_KAFKA_SASL_PASSWORD": "hunter2",
           "CRAFTERSE_S3_SECRET_ACCESS_KEY": "hunter2",
           "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hunter2"}


@pytest.mark.parametrize("service", ["gateway", "router", "worker", "uploader"])
def test_no_password_is_printed(service, tmp_path):
    settings = {"CRAFTERSE_KAFKA_BROKERS": "kafka:9092",
                "CRAFTERSE_API_KEYS_FILE": tmp_path / "keys", "CRAFTERSE_MODEL_PATH": tmp_path,
                "CRAFTERSE_STORE_FOLDER": tmp_path, "CRAFTERSE_OBJECTS_FOLDER": tmp_path}
    (tmp_path / "keys").write_text("tests:" + "0" * 64 + "\n")
    told = subprocess.run([BIN / service, "--print-config"], capture_output=True, text=True,
                          env={**os.environ, **SECRETS, **settings}, check=False)
    assert told.returncode == 0, told.stderr
    assert "OTEL_EXPORTER_OTLP_HEADERS=***" in told.stdout
    assert "hunter2" not in told.stdout + told.stderr
