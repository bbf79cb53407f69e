"""Asking the official reader, in C, for a span's parent and nothing else."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from neatlogs_processor.core.policy import is_root_span
from neatlogs_processor.core.schema import SPAN_PARENT_SPAN_ID


def is_child(span: bytes) -> bool:
    """Whether a span is known to be a child, however it is encoded. One that cannot be read is not known to be any."""
    try:
        return not is_root_span(_PARENT.FromString(span).parent_span_id)
    except DecodeError:
        return False


def _message_type() -> type[Message]:
    file = FileDescriptorProto(name="neatlogs_processor/parents.proto", package="neatlogs_processor", syntax="proto2")
    file.message_type.add(name="Child").field.add(
        name="parent_span_id",
        number=SPAN_PARENT_SPAN_ID,
        type=FieldDescriptorProto.TYPE_BYTES,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    # A pool of its own: the names are nobody else's.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("neatlogs_processor.Child"))


_PARENT: Final[Any] = _message_type()
