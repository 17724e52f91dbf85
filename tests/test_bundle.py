import dataclasses
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from retigrade.bundle import Bundle, bundle_file, read_metadata, reseal, seal, shipped_bundle, strip
from retigrade.errors import BundleError
from retigrade.onnx_file import OPERATORS
from tiny_bundle import CELLS, CHANNELS, SIZE, tiny_card, tiny_model, write_tiny_bundle

SEALED_CARD = reseal(tiny_model(), tiny_card())
SEAL_BYTES = 86


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny.onnx")


def with_card_text(text: bytes, *, copies: int = 1) -> bytes:
    """A sealed bundle whose card is this text, right or wrong."""
    model = onnx.load_from_string(tiny_model())
    for _ in range(copies):
        model.metadata_props.add(key="retigrade", value=text.decode())
    return seal(model.SerializeToString())


def card_json(**changes: object) -> bytes:
    return json.dumps({**json.loads(tiny_card().model_dump_json()), **changes}).encode()


def test_the_card_comes_back_as_it_went_in(path: Path) -> None:
    assert Bundle.load(path).metadata == tiny_card()


def test_identity_is_the_name_and_the_files_digest(path: Path) -> None:
    assert Bundle.load(path).identity == f"tiny@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def test_a_bundle_is_an_onnx_file_to_everyone_else(path: Path) -> None:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    entries = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert json.loads(entries["retigrade"])["name"] == "tiny"
    assert entries["retigrade_sha256"] == hashlib.sha256(path.read_bytes()[:-SEAL_BYTES]).hexdigest()


def test_strip_recovers_the_network_byte_for_byte() -> None:
    assert strip(SEALED_CARD) == tiny_model()
    assert strip(tiny_model()) == tiny_model()


def test_a_new_card_replaces_the_old_and_nothing_else() -> None:
    again = reseal(SEALED_CARD, tiny_card(temperature=3.0))
    assert strip(again) == tiny_model()
    assert read_metadata(again).temperature == 3.0
    assert reseal(again, tiny_card()) == SEALED_CARD


def test_other_metadata_is_kept() -> None:
    model = onnx.load_from_string(tiny_model())
    model.metadata_props.add(key="note", value="kept")
    data = model.SerializeToString()
    assert strip(reseal(data, tiny_card())) == data


def test_it_runs_and_maps_average_to_logits(path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    logits, maps, features = Bundle.load(path).run(photos)
    assert logits.shape == (3, 5)
    assert maps.shape == (3, 5, CELLS, CELLS)
    assert features.shape == (3, CHANNELS)
    assert all(array.dtype == np.float32 for array in (logits, maps, features))
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits, atol=1e-5)


def test_one_thread_says_what_two_say(path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    one, two = (Bundle.load(path, threads=threads).run(photos) for threads in (1, 2))
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-6)


@pytest.mark.parametrize("shape", [(SIZE, SIZE, 3), (1, SIZE, SIZE, 4), (1, SIZE + 1, SIZE, 3)])
def test_run_refuses_other_shapes(path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"photos must be uint8 \\(N, {SIZE}"):
        Bundle.load(path).run(np.zeros(shape, np.uint8))


def test_run_refuses_other_kinds(path: Path) -> None:
    with pytest.raises(ValueError, match="got float32"):
        Bundle.load(path).run(np.zeros((1, SIZE, SIZE, 3), np.float32))  # type: ignore[arg-type]


# What must be refused


@given(
    place=st.integers(0, len(SEALED_CARD) - 1) | st.integers(len(SEALED_CARD) - SEAL_BYTES, len(SEALED_CARD) - 1),
    change=st.integers(1, 255),
)
def test_any_byte_altered_is_refused(place: int, change: int) -> None:
    altered = bytearray(SEALED_CARD)
    altered[place] ^= change
    with pytest.raises(BundleError, match="seal"):
        read_metadata(bytes(altered))


def test_every_byte_of_the_seal_counts() -> None:
    for place in range(len(SEALED_CARD) - SEAL_BYTES, len(SEALED_CARD)):
        altered = bytearray(SEALED_CARD)
        altered[place] ^= 0x20  # also turns a digit's letter into a capital
        with pytest.raises(BundleError, match="seal"):
            read_metadata(bytes(altered))


@given(st.integers(0, len(SEALED_CARD) - 1))
def test_cut_short_is_refused(length: int) -> None:
    with pytest.raises(BundleError, match="seal"):
        read_metadata(SEALED_CARD[:length])


def test_added_bytes_are_refused() -> None:
    with pytest.raises(BundleError, match="seal"):
        read_metadata(SEALED_CARD + b"\0")


@given(st.binary(max_size=60))
def test_sealed_rubbish_is_refused(rubbish: bytes) -> None:
    with pytest.raises(BundleError):
        read_metadata(seal(rubbish))


def test_a_refusal_names_the_file(path: Path) -> None:
    path.write_bytes(SEALED_CARD[:-1])
    with pytest.raises(BundleError, match=re.escape(f"{path}: it does not end in the seal")):
        Bundle.load(path)


def test_plain_onnx_is_refused(path: Path) -> None:
    path.write_bytes(tiny_model())
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.load(path)


def test_missing_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        Bundle.load(tmp_path / "absent.onnx")
    with pytest.raises(BundleError, match="not a file"):
        Bundle.load(tmp_path)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(BundleError, match="not a file"):
        Bundle.load(tmp_path / "pipe.onnx")


@pytest.mark.parametrize("copies", [0, 2])
def test_no_card_or_two_are_refused(copies: int) -> None:
    with pytest.raises(BundleError, match=f"has {copies} entries of metadata"):
        read_metadata(with_card_text(card_json(), copies=copies))


def test_another_schema_is_refused_by_its_number() -> None:
    with pytest.raises(BundleError, match="schema 5 and this program reads 3 and 4"):
        read_metadata(with_card_text(card_json(schema_version=5, novelty=True)))


def test_a_bundle_of_the_schema_before_has_no_quality_head() -> None:
    values = json.loads(card_json(schema_version=3))
    del values["quality_head"]
    assert read_metadata(with_card_text(json.dumps(values).encode())).quality_head is None


@pytest.mark.parametrize(
    "changes",
    [
        {"novelty": 1},
        {"temperature": 0.0},
        {"temperature": "1.5"},
        {"referable_threshold": 1.2},
        {"cam_maximum": -1.0},
        {"decision": {"rule": "mean", "cuts": [0.5, 1.5, 1.5, 3.5]}},
        {"decision": {"rule": "guess", "cuts": [0.5, 1.5, 2.5, 3.5]}},
        {"features": {"mean": "AAA=", "scale": "AAA=", "components": "", "limit": 1.0}},
        {"name": "../tiny"},
    ],
)
def test_an_invalid_card_is_refused_by_its_key(changes: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=f"not valid at {next(iter(changes))}"):
        read_metadata(with_card_text(card_json(**changes)))


@pytest.mark.parametrize("key", sorted(json.loads(card_json())))
def test_a_missing_key_is_refused(key: str) -> None:
    values = json.loads(card_json())
    del values[key]
    with pytest.raises(BundleError, match=f"not valid at {key}"):
        read_metadata(with_card_text(json.dumps(values).encode()))


def test_a_missing_quality_limit_is_refused() -> None:
    values = json.loads(card_json())
    limit = next(iter(values["quality"]))
    del values["quality"][limit]
    with pytest.raises(BundleError, match=f"lack the quality limits {limit}"):
        read_metadata(with_card_text(json.dumps(values).encode()))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"card"', b"{}"])
def test_a_card_that_is_no_card_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match="not valid"):
        read_metadata(with_card_text(text))


def test_another_field_geometry_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "old.onnx", field_version=0)
    with pytest.raises(BundleError, match=r"field geometry 0 and this program makes \d+: train it again"):
        Bundle.load(path)


@pytest.mark.parametrize(
    ("breach", "complaint"),
    [
        ({"size": 32}, r"photo is .* must be tensor\(uint8\) \[N, 64, 64, 3\]"),
        ({"kind": TensorProto.FLOAT}, r"photo is tensor\(float\)"),
        ({"batch": 1}, "photo is"),
        ({"photo": "image"}, "maps image to"),
        ({"logits": "scores"}, "must map photo to logits, maps, features"),
        ({"grades": 4}, "logits is"),
        ({"square": False}, "maps is"),
        ({"honest_maps": False}, "do not average"),
        ({"gain": float("nan")}, "not finite"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused(
    tmp_path: Path, breach: dict[str, object], complaint: str
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(reseal(tiny_model(**breach), tiny_card()))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=complaint):
        Bundle.load(path)


def test_a_network_that_cannot_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(reseal(b"", tiny_card()))
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        Bundle.load(path)


def test_the_shipped_bundle_is_there_or_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retigrade.bundle.resources.files", lambda package: tmp_path)
    with pytest.raises(BundleError, match="--bundle FILE"):
        shipped_bundle()
    (tmp_path / "bundles").mkdir()
    path = write_tiny_bundle(tmp_path / "bundles" / "retigrade-mobilenetv2.onnx")
    assert shipped_bundle() == path


def test_a_bundle_beside_the_usual_one_is_taken_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.bundle.resources.files", lambda package: tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="--bundle FILE"):
        bundle_file("thorough")
    (tmp_path / "bundles").mkdir()
    usual, beside = (
        write_tiny_bundle(tmp_path / "bundles" / f"retigrade-{name}.onnx") for name in ("mobilenetv2", "thorough")
    )
    assert bundle_file(None) == usual
    assert bundle_file("thorough") == bundle_file(Path("thorough")) == beside
    assert bundle_file("other") == Path("other")
    write_tiny_bundle(tmp_path / "thorough")
    assert bundle_file("thorough") == Path("thorough")


def test_loading_and_running_write_nothing(path: Path) -> None:
    code = (
        "import sys, pathlib, numpy; from retigrade.bundle import Bundle; "
        f"Bundle.load(pathlib.Path(sys.argv[1])).run(numpy.zeros((1, {SIZE}, {SIZE}, 3), numpy.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# Crafted bundles


def crafted(nodes: list[onnx.NodeProto], *, initializers: Sequence[onnx.TensorProto] = ()) -> bytes:
    """The tiny network with these nodes between the last maps and what leaves it."""
    model = onnx.load_from_string(tiny_model())
    for node in model.graph.node:
        if node.output[0] == "maps":
            node.output[0] = "inner"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    return bytes(model.SerializeToString())


def number(name: str, value: object, kind: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, kind), name)


def endless_loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["", "yes", "inner"], ["maps"], body=body)]
    return crafted(nodes, initializers=[number("yes", True, np.bool_)])


def terabytes() -> bytes:
    """A tensor of 4 TB, by a shape that is known when the network runs only."""
    nodes = [
        helper.make_node("Shape", ["inner"], ["shape"]),
        helper.make_node("ReduceMax", ["shape"], ["most"], keepdims=1),
        helper.make_node("Mul", ["most", "many"], ["long"]),
        helper.make_node("ConstantOfShape", ["long"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["inner", "nothing"], ["maps"]),
    ]
    return crafted(nodes, initializers=[number("many", [2 * 10**11])])


def not_a_number_on_photographs() -> bytes:
    """0 / (the brightest feature is at least as in a grey square): only what is lively gives NaN."""
    nodes = [
        helper.make_node("ReduceMax", ["unit"], ["brightest"], keepdims=0),
        helper.make_node("Less", ["brightest", "limit"], ["dull"]),
        helper.make_node("Cast", ["dull"], ["one"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["one", "one"], ["nan"]),
        helper.make_node("Mul", ["inner", "nan"], ["maps"]),
    ]
    return crafted(nodes, initializers=[number("limit", 0.6, np.float32)])


def weights_elsewhere() -> bytes:
    model = onnx.load_from_string(tiny_model())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return bytes(model.SerializeToString())


def foreign_operator() -> bytes:
    return crafted([helper.make_node("Relu\x1b[31m", ["inner"], ["maps"], domain="com.example")])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (endless_loop, "branches or loops"),
        (terabytes, "cannot be run|memory"),
        (not_a_number_on_photographs, "not finite"),
        (weights_elsewhere, "weights in other files"),
        (foreign_operator, r"operator Relu\\x1b\[31m of com\.example"),
    ],
)
def test_a_crafted_network_is_refused_in_seconds(tmp_path: Path, make: Callable[[], bytes], complaint: str) -> None:
    path = tmp_path / "crafted.onnx"
    path.write_bytes(reseal(make(), tiny_card()))
    limit = resource.getrlimit(resource.RLIMIT_AS)
    started = time.monotonic()
    with pytest.raises(BundleError, match=complaint):
        Bundle.load(path)
    assert time.monotonic() - started < 10
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


@pytest.mark.parametrize("change", [{"centre": [0.0]}, {"weights": [0.0]}, {"spread": None}])
def test_gate_scores_of_another_length_or_without_spread_are_refused(change: dict[str, list[float] | None]) -> None:
    values = json.loads(card_json())
    score = values["quality"]["eye"]
    score |= {key: value or [0.0] * len(score[key]) for key, value in change.items()}
    with pytest.raises(BundleError, match=r"not valid at quality\.eye.*a positive spread"):
        read_metadata(with_card_text(json.dumps(values).encode()))


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"name": "' + b"x" * 2**24 + b'"}'], ids=len)
def test_deep_and_huge_metadata_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match="metadata"):
        read_metadata(with_card_text(text))


def test_numbers_that_are_not_finite_end_a_run_too(path: Path) -> None:
    bundle = Bundle.load(path)
    broken = dataclasses.replace(bundle, session=Always(np.nan))
    with pytest.raises(BundleError, match="not finite"):
        broken.run(np.zeros((1, SIZE, SIZE, 3), np.uint8))


class Always:
    """A session that answers one number."""

    def __init__(self, value: float) -> None:
        self._value = value

    def run(self, *_: object) -> list[np.ndarray]:
        return [np.full((1, 5), self._value)] * 3


@pytest.mark.parametrize("name", [None, "thorough"])
def test_shipped_bundles_use_known_operators(name: str | None) -> None:
    model = onnx.load(bundle_file(name))
    assert {node.op_type for node in model.graph.node} <= OPERATORS


def test_the_runtime_leaves_nothing_behind_and_reports_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", "import retigrade; retigrade.load(threads=1)"]
    subprocess.run(command, env={**environment, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [16, 64])
def test_a_machine_of_many_cores_loads_the_shipped_bundle(threads: int) -> None:
    code = f"from retigrade.bundle import Bundle, shipped_bundle as b; Bundle.load(b(), threads={threads})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
