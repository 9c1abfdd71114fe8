"""Bounded checks of ONNX models. Pure, apart from the protobuf parser of the `onnx` package.

An ONNX graph is a program, so only standard operators are accepted, which reach neither files, nor
the network, nor native code outside of onnxruntime. Large weights may be in separate files
(external data), but only in files of the same delivery.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from governance.errors import InvalidInput
from registry.intake.formats import MAX_DIMENSIONS, MAX_TENSORS, RejectedFile
from registry.manifests import check_path

# Parsing takes about twice as much memory. Larger weights go into external data.
MAX_ONNX_BYTES = 512 * 1024**2
MAX_NODES = 50_000
# Maximum nesting of graphs inside operators, such as the branches of an If.
MAX_DEPTH = 8
MAX_ATTRIBUTE_NUMBERS = 8_000_000
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
EXTERNAL_SUFFIXES = (".data", ".onnx_data")
# Their number of rounds is unbounded, and onnxruntime cannot be stopped inside of them.
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})


def check_onnx(path: Path) -> str:
    """Raise RejectedFile unless the graph is bounded and uses only standard operators."""
    import onnx

    model = _parse(path)
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise RejectedFile(
            f"its ONNX format is version {model.ir_version}; 3 to {onnx.IR_VERSION} are accepted"
        )
    if model.functions:
        raise RejectedFile(
            f"it defines the function {model.functions[0].name[:60]!r}; inline functions with "
            "onnx.inliner before delivery"
        )
    if model.training_info:
        raise RejectedFile("it holds graphs for training; export it for inference")
    versions = {each.domain: each.version for each in model.opset_import}
    for domain in versions:
        if domain not in DOMAINS:
            raise RejectedFile(_custom(domain))
    walk = _Walk(path, versions)
    walk.graph(model.graph, depth=0)
    return f"ONNX, {walk.nodes:,} operators, {walk.tensors:,} tensors"


def check_external_data(path: Path) -> str:
    """Raise RejectedFile unless an ONNX model next to the file refers to it for its weights."""
    for model in sorted(path.parent.glob("*.onnx")):
        if path.name in external_files(model):
            return "External data of an ONNX model"
    raise RejectedFile("no ONNX model next to it names it as its external data")


def external_files(path: Path) -> set[str]:
    """Return the names of the files with the initializers of a model's graph."""
    return {
        entry.value
        for tensor in _parse(path).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _parse(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_ONNX_BYTES:
        raise RejectedFile(
            f"it is larger than {MAX_ONNX_BYTES // 2**20} MiB; save its weights as external data"
        )
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise RejectedFile("it is not an ONNX model") from error
    if not model.graph.node and not model.graph.initializer:
        raise RejectedFile("it holds no ONNX graph")
    return model


def _custom(domain: str) -> str:
    return (
        f"it uses operators of the domain {domain[:60]!r}; only standard operators are accepted "
        "(ai.onnx and ai.onnx.ml)"
    )


class _Walk:
    """Walk through a graph and the graphs inside of its operators, with counts of both."""

    def __init__(self, path: Path, versions: dict[str, int]) -> None:
        self._path = path
        self._versions = {("" if name == "ai.onnx" else name): n for name, n in versions.items()}
        self.nodes = 0
        self.tensors = 0

    def graph(self, graph: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise RejectedFile(f"its graphs are nested more than {MAX_DEPTH} deep")
        self.nodes += len(graph.node)
        if self.nodes > MAX_NODES:
            raise RejectedFile(f"its graph has more than {MAX_NODES:,} operators")
        for tensor in graph.initializer:
            self._tensor(tensor)
        for sparse in graph.sparse_initializer:
            self._tensor(sparse.values)
            self._tensor(sparse.indices)
        for node in graph.node:
            self._operator(node)
            for attribute in node.attribute:
                self._attribute(attribute, depth)

    def _operator(self, node: Any) -> None:
        import onnx

        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in DOMAINS:
            raise RejectedFile(_custom(domain))
        version = self._versions.get(domain, 0)
        if node.op_type in LOOPS:
            raise RejectedFile(
                f"it uses {node.op_type}, whose number of rounds is unbounded; export the model "
                "with its loops unrolled"
            )
        if version < 1 or not onnx.defs.has(node.op_type, version, domain):
            raise RejectedFile(
                f"it uses {node.op_type[:60]!r}, which is not an operator of "
                f"{domain or 'ai.onnx'} {version}"
            )

    def _attribute(self, attribute: Any, depth: int) -> None:
        if attribute.ref_attr_name:
            raise RejectedFile(
                "an operator refers to an attribute of a function that does not exist"
            )
        numbers = len(attribute.floats) + len(attribute.ints) + len(attribute.strings)
        if numbers > MAX_ATTRIBUTE_NUMBERS:
            raise RejectedFile(
                f"an operator's setting has {numbers:,} numbers, more than are allowed"
            )
        for tensor in _tensors_of(attribute):
            self._tensor(tensor)
        for graph in (attribute.g, *attribute.graphs):
            if graph.ByteSize():
                self.graph(graph, depth + 1)

    def _tensor(self, tensor: Any) -> None:
        import onnx

        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            raise RejectedFile(f"it holds more than {MAX_TENSORS:,} tensors")
        label = repr(tensor.name[:80])
        if len(tensor.dims) > MAX_DIMENSIONS or any(not 0 <= n < 2**48 for n in tensor.dims):
            raise RejectedFile(f"tensor {label} has a malformed shape")
        count = math.prod(tensor.dims)
        types = onnx.TensorProto.DataType
        type_name = types.Name(tensor.data_type) if tensor.data_type in types.values() else ""
        bits = _BITS.get(type_name)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if bits is None:
                raise RejectedFile(f"tensor {label} has a type that external data cannot hold")
            self._external(tensor, label, size=-(-count * bits // 8))
        elif tensor.HasField("raw_data"):
            if bits is None or len(tensor.raw_data) != -(-count * bits // 8):
                raise RejectedFile(f"tensor {label} does not fill the bytes that it claims")
        elif count > max(len(getattr(tensor, name)) for name in _TYPED) * 2:
            # Two 4-bit numbers share an entry; complex numbers take two.
            raise RejectedFile(f"tensor {label} claims {count:,} numbers, which it does not hold")

    def _external(self, tensor: Any, label: str, size: int) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        try:
            check_path(name)
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except (InvalidInput, ValueError) as error:
            raise RejectedFile(
                f"tensor {label} names unsafe external data: {name[:80]!r}"
            ) from error
        file = self._path.parent / name
        if "/" in name or not name.lower().endswith(EXTERNAL_SUFFIXES):
            raise RejectedFile(
                f"tensor {label} names the external data {name[:80]!r}; it must be a file next to "
                f"the model that ends with {' or '.join(EXTERNAL_SUFFIXES)}"
            )
        if file.is_symlink() or not file.is_file():
            raise RejectedFile(f"tensor {label} names {name[:80]}, which was not delivered")
        if offset < 0 or length != size or offset + length > file.stat().st_size:
            raise RejectedFile(f"tensor {label} reaches past the end of its external data")


def _tensors_of(attribute: Any) -> Iterator[Any]:
    for tensor in (attribute.t, *attribute.tensors):
        if tensor.ByteSize():
            yield tensor
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        if sparse.ByteSize():
            yield sparse.values
            yield sparse.indices


_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
# Bits of one number, by the name of its type; texts have no fixed size.
_BITS = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64,
    "BOOL": 8, "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64,
    "COMPLEX128": 128, "BFLOAT16": 16, "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8,
    "FLOAT8E5M2FNUZ": 8, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4,
}  # fmt: skip
