"""What is left out while Keras is imported: what its libraries say of themselves; nothing that anybody else says."""

import os
import subprocess
import sys

NOISY = """
import os, deepsky, keras
print(keras.ops.convert_to_numpy(keras.ops.ones(2)).sum())
os.write(2, b"I0000 mine\\n")
"""


def test_only_what_is_asked_for_reaches_stderr() -> None:
    def said(level: str) -> str:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": level, "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(
            [sys.executable, "-c", NOISY], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "2.0\n"
        return done.stderr

    assert said("3") == "I0000 mine\n"
    assert "port.cc" in said("0")
