"""What Python's functions do, by their dotted names, and commands that no model needs.

Source: the index of the standard library, and the packages that models' code is known to use. A name that is in no row
is not judged: code beside a model is mostly layers.
"""

from __future__ import annotations

import re
from typing import Final

from casemate.formats.scanning.readers._plain import words

__all__ = ["COMMAND", "CONSTANT", "DECODERS", "Kind", "kind_of"]

Kind = str
"""`runs`, `net`, `native`, `loads`, `deletes`, `installs`, `debug`, or empty."""
_ROWS: Final[dict[Kind, str]] = {
    "runs": "os.system os.popen os.popen2 os.popen3 os.popen4 os.execl os.execle os.execlp os.execlpe os.execv "
    "os.execve os.execvp os.execvpe os.spawnl os.spawnle os.spawnlp os.spawnlpe os.spawnv os.spawnve os.spawnvp "
    "os.spawnvpe os.posix_spawn os.posix_spawnp os.startfile os.fork os.forkpty posix.system nt.system subprocess "
    "pty.spawn commands popen2 runpy builtins.eval builtins.exec builtins.execfile code.interact "
    "code.InteractiveInterpreter code.InteractiveConsole codeop timeit.timeit timeit.repeat pexpect sh plumbum "
    "fabric invoke paramiko asyncio.create_subprocess_shell asyncio.create_subprocess_exec IPython.shell.system "
    "IPython.shell.getoutput IPython.shell.run_cell IPython.start_ipython _posixsubprocess cProfile.run "
    "cProfile.runctx profile.run profile.runctx pdb.run pdb.runeval pdb.runcall bdb.Bdb doctest.debug_script "
    "numpy.testing.runstring numpy.testing._private.utils.runstring numpy.f2py.compile "
    "torch.jit.unsupported_tensor_ops.execWrapper multiprocessing.util.spawnv_passfds "
    "types.FunctionType types.CodeType distutils.spawn.spawn",
    "net": "socket.socket socket.create_connection socket.create_server urllib.request urllib2 urllib.urlopen "
    "http.client http.server httplib httplib2 requests httpx aiohttp urllib3 ftplib smtplib telnetlib poplib "
    "imaplib nntplib xmlrpc socketserver websocket websockets asyncio.open_connection asyncio.start_server "
    "webbrowser.open pycurl boto3 wget gdown torch.hub.load_state_dict_from_url torch.hub.download_url_to_file "
    "torch.hub.load dns.resolver",
    "native": "ctypes ctypes.CDLL ctypes.PyDLL ctypes.WinDLL ctypes.CFUNCTYPE cffi _ctypes torch.ops.load_library "
    "torch.classes.load_library torch.utils.cpp_extension numpy.ctypeslib.load_library tensorflow.load_op_library "
    "tensorflow.load_library",
    "loads": "pickle.load pickle.loads pickle.Unpickler _pickle.load _pickle.loads cPickle.load cPickle.loads "
    "dill.load dill.loads cloudpickle.load cloudpickle.loads joblib.load marshal.load marshal.loads shelve.open "
    "pandas.read_pickle yaml.unsafe_load yaml.full_load yaml.UnsafeLoader jsonpickle.decode torch.load",
    "deletes": "shutil.rmtree os.remove os.unlink os.rmdir os.removedirs os.chmod os.chown os.kill os.killpg "
    "os.setuid",
    "installs": "pip setuptools.sandbox ensurepip pip._internal.main",
    "debug": "sys.settrace sys.setprofile sys.meta_path sys.path_hooks sys._getframe gc.get_objects "
    "gc.get_referrers inspect.currentframe builtins.__loader__ site.addsitedir",
}  # fmt: skip
_TABLE: Final = {name: kind for kind, names in _ROWS.items() for name in names.split()}
CONSTANT: Final = re.compile(
    r"(?:.*\.)?(?:[A-Z][A-Z0-9_]*|c_\w+|exceptions(?:\.\w+)*"
    r"|\w*(?:Error|Exception|Expired|Warning|Timeout|Response|Session))"
)
"""Names of constants and classes that do nothing by themselves: `subprocess.PIPE`, `ctypes.c_int`."""
DECODERS: Final = words(
    "base64.b64decode base64.b32decode base64.b16decode base64.b85decode base64.a85decode base64.urlsafe_b64decode "
    "base64.standard_b64decode base64.decodebytes base64.decodestring bytes.fromhex bytearray.fromhex "
    "binascii.unhexlify binascii.a2b_base64 binascii.a2b_hex zlib.decompress gzip.decompress bz2.decompress "
    "lzma.decompress codecs.decode marshal.loads marshal.load pickle.loads dill.loads cryptography.fernet.Fernet"
)
"""Functions that hide what is run: nobody writes readable code through them."""
COMMAND: Final = re.compile(
    r"(?:curl|wget|fetch)\b(?:(?!curl|wget|fetch)[^\n;|]){0,400}\|\s*(?:sudo\s+)?(?:ba|z|da|k)?sh\b"
    r"|(?:curl|wget)\b(?:(?!curl|wget)[^\n;|]){0,400}\|\s*(?:sudo\s+)?python\d?\b"
    r"|(?:ba|z)?sh\s+(?:-c\s+)?[\"']?(?:\$\(|<\()\s*(?:curl|wget)"
    r"|/dev/(?:tcp|udp)/"
    r"|\bnc(?:at)?\s+[^\n]{0,60}-[a-z]{0,8}[ec]\b"
    r"|\bbash\s+-i\b|base64\s+(?:-d|--decode|-D)(?:(?!base64)[^\n|]){0,400}\|\s*(?:ba|z)?sh\b"
    r"|\bmkfifo\b(?:(?!mkfifo)[^\n]){0,400}\bnc\b"
    r"|powershell[^\n]{0,80}-e(?:nc|ncodedcommand)?\s"
    r"|\bchmod\s+(?:\+x|[0-7]{0,3}7[0-7]{0,3})\s+\S{1,200}\s*(?:;|&&)\s*(?:\./|/tmp/)|\brm\s+-rf\s+(?:/|~)(?:\s|$|\*)"
    r"|>>?\s{0,4}[~/$.\w{}\-]{0,80}(?:authorized_keys|\.bashrc|crontab)\b"
)
"""Shell commands that fetch and run, or call home."""


def kind_of(dotted: str) -> Kind:
    """What a function or module of that name does; empty where nothing is known of it."""
    dotted = dotted[:200]
    parts = dotted.split(".", 8)[:8]
    for size in range(len(parts), 0, -1):
        kind = _TABLE.get(".".join(parts[:size]))
        if kind is not None:
            return "" if size < len(parts) and CONSTANT.fullmatch(dotted) else kind
    return ""
