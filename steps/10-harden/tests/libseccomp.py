# Builds filters with libseccomp, as runc does, and prints their programs.
#
# A line of standard input is a filter, in JSON:
#   {"default": 327681, "archs": [3221225534, ...],
#    "rules": [{"name": "read", "action": 2147418112, "args": [[0, op, a, b]]}]}
# A line of standard output is its program, in hexadecimal, and the names that
# the library does not know; or "error", and why.
import ctypes, ctypes.util, json, os, sys

library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p

class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

def must(result, what):
    if result < 0 and result != -17:  # EEXIST
        raise Exception(f"{what}: {os.strerror(-result)}")

def build(filter):
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(filter["default"])))
    unknown = []
    try:
        for arch in filter["archs"]:
            must(library.seccomp_arch_add(context, ctypes.c_uint32(arch)), "arch_add")
        for rule in filter["rules"]:
            if rule["action"] == filter["default"]:
                continue
            number = library.seccomp_syscall_resolve_name(rule["name"].encode())
            if number == -1:
                unknown.append(rule["name"])
                continue
            args = [Compare(*one) for one in rule["args"]]
            must(library.seccomp_rule_add_array(
                context, ctypes.c_uint32(rule["action"]), number, ctypes.c_uint(len(args)),
                (Compare * max(len(args), 1))(*args)), f"rule_add {rule}")
        out = os.memfd_create("program")
        try:
            must(library.seccomp_export_bpf(context, out), "export_bpf")
            os.lseek(out, 0, 0)
            program = os.read(out, 1 << 20)
        finally:
            os.close(out)
        return " ".join([program.hex()] + unknown)
    finally:
        library.seccomp_release(context)

for line in sys.stdin:
    try:
        print(build(json.loads(line)), flush=True)
    except Exception as error:
        print("error", error, flush=True)
