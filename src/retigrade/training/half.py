"""A network as ONNX whose weights are kept in sixteen bits: half as large, and as fast.

ONNX Runtime widens them once, when it opens the file, and computes in thirty-two bits as before.
"""

from __future__ import annotations

import numpy as np

_LEAST = 1024  # numbers that a tensor must have for its size to matter


def to_half(model: bytes) -> bytes:
    """Round the large weights of an ONNX file to float16 and cast them to float32 where they are used."""
    import onnx
    from onnx import numpy_helper

    network = onnx.load_from_string(model)
    graph = network.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST:
            continue
        wide, narrow = tensor.name, f"{tensor.name}.half"
        casts.append(onnx.helper.make_node("Cast", [narrow], [wide], name=f"{wide}.cast", to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), narrow))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(network.SerializeToString())
