"""Every message between processes: its bytes, its version, and the security of the sockets that carry it.

`wire` has the binary messages between clients and server (any language can write them), `json_messages` the JSON messages
between launcher and server ranks, `contact` the file by which peers find the server, `sockets` the one place that
opens sockets. Encoding and decoding are pure. Nothing here imports anything of ours but the errors.
"""
