"""A client of the container runtime interface (CRI) of Kubernetes, runtime.v1, for tests: gRPC by curl(1), which
speaks HTTP/2 over unix sockets, protocol buffers by hand, and the streams by WebSocket."""
import os, socket, struct, subprocess, tempfile, urllib.parse

# Message: field: (number, type). Types: s text, i integer, b bytes, m map of texts, or a message; * is repeated.
MESSAGES = {
    "Empty": {},
    "VersionResponse": {"runtime_name": (2, "s"), "runtime_version": (3, "s")},
    "Int": {"value": (1, "i")},
    "IdMapping": {"host_id": (1, "i"), "container_id": (2, "i"), "length": (3, "i")},
    "UserNamespace": {"mode": (1, "i"), "uids": (2, "*IdMapping"), "gids": (3, "*IdMapping")},
    "NamespaceOption": {"network": (1, "i"), "pid": (2, "i"), "ipc": (3, "i"), "target_id": (4, "s"), "userns_options": (5, "UserNamespace")},
    "SecurityProfile": {"profile_type": (1, "i"), "localhost_ref": (2, "s")},
    "SandboxSecurity": {"namespace_options": (1, "NamespaceOption"), "run_as_user": (3, "Int"), "privileged": (6, "i"), "seccomp": (9, "SecurityProfile")},
    "LinuxSandbox": {"cgroup_parent": (1, "s"), "security_context": (2, "SandboxSecurity"), "sysctls": (3, "m")},
    "PodMetadata": {"name": (1, "s"), "uid": (2, "s"), "namespace": (3, "s"), "attempt": (4, "i")},
    "PortMapping": {"protocol": (1, "i"), "container_port": (2, "i"), "host_port": (3, "i")},
    "DnsConfig": {"servers": (1, "*s"), "searches": (2, "*s")},
    "PodConfig": {"metadata": (1, "PodMetadata"), "hostname": (2, "s"), "log_directory": (3, "s"), "dns_config": (4, "DnsConfig"), "port_mappings": (5, "*PortMapping"), "labels": (6, "m"), "annotations": (7, "m"), "linux": (8, "LinuxSandbox")},
    "RunPodSandboxRequest": {"config": (1, "PodConfig"), "runtime_handler": (2, "s")},
    "PodId": {"pod_sandbox_id": (1, "s")},
    "PodIp": {"ip": (1, "s")},
    "PodStatus": {"id": (1, "s"), "state": (3, "i"), "network": (5, "PodIp"), "runtime_handler": (9, "s")},
    "PodStatusRequest": {"pod_sandbox_id": (1, "s"), "verbose": (2, "i")},
    "PodStatusResponse": {"status": (1, "PodStatus"), "info": (2, "m")},
    "Pods": {"items": (1, "*PodStatus")},
    "Metadata": {"name": (1, "s"), "attempt": (2, "i")},
    "Image": {"image": (1, "s")},
    "KeyValue": {"key": (1, "s"), "value": (2, "s")},
    "Mount": {"container_path": (1, "s"), "host_path": (2, "s"), "readonly": (3, "i"), "propagation": (5, "i"), "uidMappings": (6, "*IdMapping"), "gidMappings": (7, "*IdMapping"), "recursive_read_only": (8, "i")},
    "Device": {"container_path": (1, "s"), "host_path": (2, "s"), "permissions": (3, "s")},
    "Resources": {"cpu_period": (1, "i"), "cpu_quota": (2, "i"), "cpu_shares": (3, "i"), "memory_limit_in_bytes": (4, "i"), "oom_score_adj": (5, "i"), "cpuset_cpus": (6, "s"), "unified": (9, "m"), "memory_swap_limit_in_bytes": (10, "i")},
    "Capability": {"add_capabilities": (1, "*s"), "drop_capabilities": (2, "*s")},
    "ContainerSecurity": {"capabilities": (1, "Capability"), "privileged": (2, "i"), "namespace_options": (3, "NamespaceOption"), "run_as_user": (5, "Int"), "run_as_username": (6, "s"), "readonly_rootfs": (7, "i"), "supplemental_groups": (8, "*i"), "no_new_privs": (11, "i"), "run_as_group": (12, "Int"), "masked_paths": (13, "*s"), "readonly_paths": (14, "*s"), "seccomp": (15, "SecurityProfile"), "apparmor": (16, "SecurityProfile")},
    "LinuxContainer": {"resources": (1, "Resources"), "security_context": (2, "ContainerSecurity")},
    "ContainerConfig": {"metadata": (1, "Metadata"), "image": (2, "Image"), "command": (3, "*s"), "args": (4, "*s"), "working_dir": (5, "s"), "envs": (6, "*KeyValue"), "mounts": (7, "*Mount"), "devices": (8, "*Device"), "log_path": (11, "s"), "stdin": (12, "i"), "stdin_once": (13, "i"), "tty": (14, "i"), "linux": (15, "LinuxContainer")},
    "CreateContainerRequest": {"pod_sandbox_id": (1, "s"), "config": (2, "ContainerConfig"), "sandbox_config": (3, "PodConfig")},
    "ContainerId": {"container_id": (1, "s")},
    "StopContainerRequest": {"container_id": (1, "s"), "timeout": (2, "i")},
    "Container": {"id": (1, "s"), "pod_sandbox_id": (2, "s"), "state": (6, "i")},
    "Containers": {"containers": (1, "*Container")},
    "ContainerStatus": {"id": (1, "s"), "state": (3, "i"), "exit_code": (7, "i"), "reason": (10, "s"), "message": (11, "s")},
    "ContainerStatusRequest": {"container_id": (1, "s"), "verbose": (2, "i")},
    "ContainerStatusResponse": {"status": (1, "ContainerStatus"), "info": (2, "m")},
    "UpdateContainerResourcesRequest": {"container_id": (1, "s"), "linux": (2, "Resources")},
    "ExecSyncRequest": {"container_id": (1, "s"), "cmd": (2, "*s"), "timeout": (3, "i")},
    "ExecSyncResponse": {"stdout": (1, "b"), "stderr": (2, "b"), "exit_code": (3, "i")},
    "ExecRequest": {"container_id": (1, "s"), "cmd": (2, "*s"), "tty": (3, "i"), "stdin": (4, "i"), "stdout": (5, "i"), "stderr": (6, "i")},
    "AttachRequest": {"container_id": (1, "s"), "stdin": (2, "i"), "tty": (3, "i"), "stdout": (4, "i"), "stderr": (5, "i")},
    "PortForwardRequest": {"pod_sandbox_id": (1, "s"), "port": (2, "*i")},
    "Url": {"url": (1, "s")},
    "Cpu": {"timestamp": (1, "i"), "usage_core_nano_seconds": (2, "Int")},
    "Memory": {"timestamp": (1, "i"), "working_set_bytes": (2, "Int")},
    "Attributes": {"id": (1, "s")},
    "ContainerStats": {"attributes": (1, "Attributes"), "cpu": (2, "Cpu"), "memory": (3, "Memory")},
    "ContainerStatsResponse": {"stats": (1, "ContainerStats")},
    "LinuxPodStats": {"cpu": (1, "Cpu"), "memory": (2, "Memory"), "containers": (5, "*ContainerStats")},
    "PodStats": {"linux": (2, "LinuxPodStats")},
    "PodStatsResponse": {"stats": (1, "PodStats")},
    "StatusRequest": {"verbose": (1, "i")},
    "HandlerFeatures": {"recursive_read_only_mounts": (1, "i"), "user_namespaces": (2, "i")},
    "RuntimeHandler": {"name": (1, "s"), "features": (2, "HandlerFeatures")},
    "StatusResponse": {"info": (2, "m"), "runtime_handlers": (3, "*RuntimeHandler")},
}
# call: (request, response)
CALLS = {
    "Version": ("Empty", "VersionResponse"), "Status": ("StatusRequest", "StatusResponse"),
    "RunPodSandbox": ("RunPodSandboxRequest", "PodId"), "StopPodSandbox": ("PodId", "Empty"),
    "RemovePodSandbox": ("PodId", "Empty"), "PodSandboxStatus": ("PodStatusRequest", "PodStatusResponse"),
    "ListPodSandbox": ("Empty", "Pods"), "CreateContainer": ("CreateContainerRequest", "ContainerId"),
    "StartContainer": ("ContainerId", "Empty"), "StopContainer": ("StopContainerRequest", "Empty"),
    "RemoveContainer": ("ContainerId", "Empty"), "ContainerStatus": ("ContainerStatusRequest", "ContainerStatusResponse"),
    "ListContainers": ("Empty", "Containers"), "UpdateContainerResources": ("UpdateContainerResourcesRequest", "Empty"),
    "ExecSync": ("ExecSyncRequest", "ExecSyncResponse"), "Exec": ("ExecRequest", "Url"),
    "Attach": ("AttachRequest", "Url"), "PortForward": ("PortForwardRequest", "Url"),
    "ContainerStats": ("ContainerId", "ContainerStatsResponse"), "PodSandboxStats": ("PodId", "PodStatsResponse"),
}


class Refused(Exception):
    """The server said no; the message is the server's."""


def _varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def _tagged(number, data):
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def encode(kind, values):
    out = b""
    for name, value in values.items():
        number, type_ = MESSAGES[kind][name]
        if type_ == "m":
            for pair in value.items():
                out += _tagged(number, b"".join(_tagged(at + 1, text.encode()) for at, text in enumerate(pair)))
            continue
        many, type_ = type_.startswith("*"), type_.lstrip("*")
        for one in value if many else [value]:
            if type_ == "i":
                out += _varint(number << 3) + _varint(int(one))
            elif type_ in "sb":
                out += _tagged(number, one if isinstance(one, bytes) else one.encode())
            else:
                out += _tagged(number, encode(type_, one))
    return out


def decode(kind, data):
    fields = {number: (name, type_) for name, (number, type_) in MESSAGES[kind].items()}
    out = {name: [] if type_.startswith("*") else {} if type_ == "m" else 0 if type_ == "i" else b"" if type_ == "b" else "" if type_ == "s" else {}
           for name, type_ in fields.values()}
    at = 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(data):
        tag = varint()
        wire = tag & 7
        if wire == 0:
            value = varint()
        elif wire == 2:
            length = varint()
            value = data[at:at + length]
            at += length
        else:
            length = {1: 8, 5: 4}[wire]
            value = data[at:at + length]
            at += length
        name, type_ = fields.get(tag >> 3, (None, None))
        if name is None:
            continue
        many, type_ = type_.startswith("*"), type_.lstrip("*")
        if type_ == "s":
            value = value.decode()
        elif type_ == "m":
            pair = decode("KeyValue", value)
            out[name][pair["key"]] = pair["value"]
            continue
        elif type_ not in "ib":
            value = decode(type_, value)
        if many:
            out[name].append(value)
        else:
            out[name] = value
    return out


class Cri:
    def __init__(self, path="/run/containerd/containerd.sock"):
        self.path = path

    def __getattr__(self, call):
        request, response = CALLS[call]
        return lambda **values: decode(response, self._grpc(call, encode(request, values)))

    def _grpc(self, call, message):
        """One unary call. The status comes as a trailer, which curl prints with the headers."""
        with tempfile.NamedTemporaryFile() as body:
            result = subprocess.run(
                ["curl", "-sS", "--http2-prior-knowledge", "--unix-socket", self.path, "--max-time", "900",
                 "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-",
                 "-D", "-", "-o", body.name, f"http://localhost/runtime.v1.RuntimeService/{call}"],
                input=b"\0" + struct.pack(">I", len(message)) + message, capture_output=True)
            headers = dict(line.split(": ", 1) for line in result.stdout.decode().splitlines() if ": " in line)
            data = body.read()
        if headers.get("grpc-status") != "0":
            said = urllib.parse.unquote(headers.get("grpc-message", ""))
            raise Refused(f"{call}: {said or result.stderr.decode()}")
        return data[5:5 + struct.unpack(">I", data[1:5])[0]]


class WebSocket:
    """A client's side of RFC 6455, as far as kubelet's streams need it."""

    def __init__(self, url, protocol):
        url = urllib.parse.urlparse(url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=90)
        path = url.path + (f"?{url.query}" if url.query else "")
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                             f"Origin: http://{url.netloc}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.splitlines()[0]:
            raise Refused(head.decode())

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def _take(self, count):
        while len(self.buffer) < count:
            self._more()
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def send(self, channel, data):
        data = bytes([channel]) + data
        length = bytes([128 | len(data)]) if len(data) < 126 else bytes([254]) + struct.pack(">H", len(data))
        self.socket.sendall(b"\x82" + length + bytes(4) + data)

    def receive(self):
        """(channel, data) of the next message, None at the end."""
        while True:
            try:
                first, length = self._take(2)
            except (EOFError, ConnectionError):
                return None
            if length == 126:
                length, = struct.unpack(">H", self._take(2))
            elif length == 127:
                length, = struct.unpack(">Q", self._take(8))
            data = self._take(length)
            if first & 15 == 8:
                return None
            if first & 15 in (1, 2) and data:
                return data[0], data[1:]
