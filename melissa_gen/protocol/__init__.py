"""The messages between the processes of a run: their bytes, their version, and the sockets that carry them.

`wire` defines the binary messages between clients and server, `wire_types` the encoding of their fields,
`failures` the codes of failures and their sentences, `json_messages` the JSON messages between launcher and server
ranks, `contact` the file that tells peers where the
server listens, `shared_memory` the buffers that a client and a server on one machine share, and `sockets` opens every
socket. Encoding and decoding are pure functions. This package imports nothing of melissa_gen but `melissa_gen.errors`.
"""
