"""The messages that an `Any` in a resource may hold, besides the kinds: imported so that they can be read and shown."""

from google.protobuf import struct_pb2, wrappers_pb2

from api.gen.michelangelo.api import typed_struct_pb2

TYPES = (typed_struct_pb2.TypedStruct, struct_pb2.Struct, wrappers_pb2.StringValue)
