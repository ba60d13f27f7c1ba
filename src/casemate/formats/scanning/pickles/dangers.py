"""Families of names that are known to be harmful: whole modules first, so that a function nobody listed is named too.

Sources: the standard library's own index of modules, by what they do; published bypasses of pickle scanners. Errs
towards silence: a name of which nothing is known stays merely unknown.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

__all__ = ["danger_of"]

_RUNS = "runs commands or code"
_CODE = "makes or runs code from bytes or text"
_FILES = "reads, writes or deletes files"
_NET = "opens network connections"
_NATIVE = "loads native code or reaches into memory"
_IMPORT = "imports modules or finds names by text, and so reaches any function"
_PROCESS = "starts processes or threads"
_DEBUG = "reaches into the running interpreter"
_LOADS = "loads another pickle or model, which nobody has looked at"
_INSTALL = "installs or builds packages"
_SCREEN = "opens a browser, a window or a console"

# A module's whole subtree, unless a longer prefix has a row of its own; "" takes a subtree out again.
_MODULES: Final = {
    _RUNS: "os posix nt subprocess _posixsubprocess commands popen2 pty pipes runpy code timeit trace profile "
    "cProfile _lsprof pdb bdb doctest unittest test lib2to3 IPython ipykernel ipywidgets jupyter_core "
    "nbconvert sh plumbum pexpect ptyprocess fabric invoke paramiko ansible platform _osx_support _aix_support "
    "_pyrepl pydoc idlelib venv ensurepip zipapp compileall py_compile site sitecustomize usercustomize "
    "antigravity py pytest _pytest nose setuptools.sandbox sched turtledemo wsgiref torch.utils.bottleneck "
    "torch.utils.cpp_extension torch.utils.collect_env torch.distributed torch.testing "
    "torch.utils._config_module torch.utils.benchmark numpy.testing numpy.distutils numpy.f2py scipy.weave "
    "cffi.verifier tensorflow.python.debug execnet psutil dask.distributed distributed ray celery",
    _CODE: "marshal cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._make_code compiler jinja2 mako "
    "tornado.template django.template sympy.sympify sympy.core.sympify sympy.parsing sympy.external numexpr "
    "asteval dill.source torch._inductor torch._dynamo torch.fx torch.jit torch._export torch.export "
    "torch.onnx torch.compiler torch.ao.quantization.fx pandas.eval pandas.core.computation "
    "numba.core.serialize llvmlite cython Cython pyximport theano pythran "
    "tensorflow.python.framework.load_library tensorflow.raw_ops onnxscript triton",
    _FILES: "shutil fileinput linecache glob tarfile zipfile gzip bz2 lzma dbm shelve sqlite3 _sqlite3 mailbox netrc "
    "plistlib filecmp smart_open fsspec s3fs gcsfs h5py tables zarr pyarrow.fs pyarrow.parquet logging.config "
    "logging.handlers nis imghdr sndhdr sunau wave aifc chunk torch.utils.data torch.utils.tensorboard "
    "torch.utils.model_zoo scipy.io numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format "
    "numpy.lib._datasource numpy.lib._format_impl pandas.io imageio PIL.Image.open cv2 soundfile librosa "
    "skimage.io matplotlib.image tensorflow.io tensorflow.python.lib.io tensorflow.python.ops.io_ops "
    "tensorflow.python.ops.gen_io_ops fcntl termios tty pathlib.Path pathlib.PosixPath pathlib.WindowsPath "
    "pathlib._local.Path pathlib._local.PosixPath xml.sax xml.dom xml.etree xmlrpc",
    _NET: "socket _socket ssl _ssl http urllib urllib2 urllib3 httplib httplib2 httpx requests smtplib smtpd poplib "
    "imaplib nntplib ftplib telnetlib socketserver asyncore asynchat asyncio selectors select xmlrpclib "
    "SimpleXMLRPCServer SimpleHTTPServer BaseHTTPServer CGIHTTPServer webbrowser websocket websockets twisted "
    "tornado scapy dns boto boto3 botocore google.cloud azure huggingface_hub torch.hub keras.utils.get_file "
    "keras.src.utils.file_utils tensorflow.keras.utils.get_file gdown wget pycurl grpc zmq redis pymongo "
    "psycopg2 pymysql MySQLdb sqlalchemy ldap3 sklearn.datasets._openml sklearn.datasets._base "
    "torch.distributed.rpc wandb gevent eventlet",
    _NATIVE: "ctypes _ctypes cffi _cffi_backend _testcapi _testinternalcapi _xxsubinterpreters _xxtestfuzz "
    "_interpreters numpy.ctypeslib torch._C._jit torch.ops torch._ops torch.classes torch._classes "
    "faulthandler readline _winapi msvcrt winreg _winreg win32api win32com win32process pythoncom objc gi "
    "jpype clr",
    _IMPORT: "importlib _frozen_importlib _frozen_importlib_external imp _imp pkgutil zipimport modulefinder "
    "pkg_resources dill._dill._import_module dill._objects torch.package torch._utils_internal torch._lazy "
    "werkzeug.utils.import_string django.utils.module_loading zope.dottedname six.moves",
    _PROCESS: "multiprocessing _multiprocessing threading _thread thread dummy_threading concurrent signal _posixshmem "
    "joblib.externals.loky joblib.parallel joblib.pool loky billiard pathos subinterpreters",
    _DEBUG: "gc sys tracemalloc atexit _opcode ptvsd debugpy pydevd remote_pdb",
    _LOADS: "pickle _pickle cPickle dill cloudpickle jsonpickle pickle5 joblib.numpy_pickle joblib.numpy_pickle_utils "
    "joblib.numpy_pickle_compat joblib.memory joblib._store_backends torch.serialization yaml ruamel "
    "ruamel.yaml srsly klepto hickle pandas.read_pickle numpy.loads keras.models keras.src.saving keras.saving "
    "tensorflow.keras.models tensorflow.saved_model onnx.load transformers.pipelines transformers.utils.hub "
    "transformers.dynamic_module_utils",
    _INSTALL: "pip pip._internal setuptools distutils _distutils_hack pkginfo wheel easy_install conda build ensurepip "
    "virtualenv poetry",
    _SCREEN: "tkinter Tkinter _tkinter turtle curses PyQt5 PyQt6 PySide2 PySide6 wx pyautogui pynput winsound",
}  # fmt: skip
_HARMLESS: Final = (  # data, classes of plain values, and what loads by rules of its own
    "http.HTTPStatus http.HTTPMethod http.cookies ssl.AlertDescription ssl.TLSVersion socket.AddressFamily "
    "socket.SocketKind signal.Signals os.stat_result os.terminal_size posix.stat_result urllib.parse "
    "xml.etree.ElementTree.Element torch.fx.immutable_collections torch.utils.data.sampler "
    "torch.utils.data.dataset torch.utils.data.dataloader torch.distributed.algorithms sys.float_info "
    "torch.serialization._get_layout sys.maxsize platform.uname_result asyncio.exceptions "
    "concurrent.futures._base.CancelledError joblib.numpy_pickle.NumpyArrayWrapper "
    "joblib.numpy_pickle_compat.NDArrayWrapper joblib.numpy_pickle_compat.ZNDArrayWrapper "
    "dill._dill._create_array dill._dill._create_type dill._dill._load_type dill._dill._create_namedtuple "
    "dill._dill._create_cell sklearn.datasets._base.Bunch torch.distributed._shard torch.distributed.tensor "
    "torch.distributed._tensor os.PathLike sqlite3.Row pickle.PickleBuffer"
)
_NAMES: Final = {  # single names of modules that are otherwise harmless
    _CODE: "builtins.eval builtins.exec builtins.execfile builtins.compile operator.methodcaller "
    "dill._dill._create_code dill._dill._create_function dill._dill._eval_repr pandas.DataFrame.eval "
    "pandas.DataFrame.query pandas.core.frame.DataFrame.eval pandas.core.frame.DataFrame.query cgitb.handler "
    "timeit.timeit torch._utils_internal.compile_time_strobelight_meta sympy.sympify typing.get_type_hints "
    "typing.ForwardRef._evaluate dataclasses._create_fn tensorflow.load_op_library keras.layers.Lambda "
    "tensorflow.py_function tensorflow.numpy_function site.execsitecustomize attr._make._compile_and_eval "
    "weakref.finalize builtins.__build_class__",
    _FILES: "builtins.open io.open io.open_code io.FileIO io._io.FileIO _io.open _io.open_code _io.FileIO _pyio.open "
    "_pyio.FileIO codecs.open tokenize.open builtins.file numpy.fromfile numpy.load numpy.save numpy.savez "
    "numpy.savez_compressed numpy.savetxt numpy.loadtxt numpy.genfromtxt numpy.memmap numpy.DataSource "
    "numpy.fromregex numpy.ndarray.tofile numpy.ndarray.dump numpy.core.records.fromfile "
    "numpy._core.records.fromfile numpy.rec.fromfile numpy._core.memmap.memmap numpy.core.memmap.memmap "
    "pandas.HDFStore pandas.ExcelFile pandas.ExcelWriter pandas.DataFrame.to_csv pandas.DataFrame.to_pickle "
    "tensorflow.io.write_file tensorflow.io.read_file torch.from_file torch.save torch.Storage.from_file "
    "torch.UntypedStorage.from_file torch.storage.UntypedStorage.from_file torch.FloatStorage.from_file "
    "joblib.dump matplotlib.pyplot.savefig dill.dump numpy.lib.format.open_memmap logging.FileHandler "
    "logging.basicConfig",
    _LOADS: "torch.load torch.jit.load joblib.load sklearn.externals.joblib.load cloudpickle.load cloudpickle.loads "
    "cloudpickle.cloudpickle.load cloudpickle.cloudpickle.loads dill.load dill.loads dill.load_session "
    "dill.load_module",
    _IMPORT: "builtins.__import__ builtins.__loader__ builtins.__spec__ builtins.setattr builtins.delattr "
    "builtins.globals builtins.locals builtins.vars builtins.apply builtins.reload pydoc.locate "
    "torch._utils._import_dotted_name cloudpickle.cloudpickle.subimport "
    "cloudpickle.cloudpickle.dynamic_subimport dill._dill._getattribute dill._dill._get_attr "
    "dill._dill._import_module transformers.utils.import_utils._LazyModule",
    _DEBUG: "builtins.breakpoint builtins.exit builtins.quit builtins.help builtins.license inspect.currentframe "
    "inspect.stack",
    _SCREEN: "builtins.input builtins.raw_input",
}  # fmt: skip

_SEGMENTS: Final = (
    "os posix nt subprocess sys builtins __builtins__ __builtin__ importlib ctypes socket shutil pty runpy "
    "pickle marshal system popen Popen exec eval __import__ load_library LoadLibrary __globals__ "
    "__subclasses__ __code__ __reduce__ __reduce_ex__ __getattribute__ __loader__ __bases__ __mro__ __dict__ "
    "__init_subclass__ f_globals f_locals gi_frame func_globals execfile spawn spawnv execv execvp "
    "check_output check_call getoutput getstatusoutput import_module run_module run_path write_text "
    "write_bytes unlink rmtree urlopen urlretrieve download_url_to_file"
)
_PANDAS: Final = re.compile(r"pandas(\.io\..*|\.core\..*)?\.(read|to)_\w+")
_PACKAGES: Final = re.compile(r"(?:.*\.)?(?:tests?|testing|conftest|__main__|_distutils|setup)(?:\..*)?")


@lru_cache(maxsize=1 << 14)
def danger_of(module: str, name: str) -> str:
    """Why `module` and (dotted) `name` are known to be harmful, in words that follow "it"; empty for any other name.

    Every segment of a dotted name is judged: protocol 4 walks from attribute to attribute.
    """
    module = {"__builtin__": "builtins", "__builtins__": "builtins"}.get(module, module)
    parts = f"{module}.{name}".split(".")
    for size in range(len(parts), 0, -1):
        why = _table().get(".".join(parts[:size]))
        if why is not None:
            if why:
                return why
            break
    if _PANDAS.fullmatch(".".join(parts)):
        return _FILES
    walked = name.split(".")
    if any(part in _segments() for part in walked[:-1]) or (len(walked) > 1 and walked[-1] in _segments()):
        return _IMPORT
    return _RUNS if _PACKAGES.fullmatch(module) and walked[-1] in _segments() else ""


@cache
def _segments() -> frozenset[str]:
    return frozenset(_SEGMENTS.split())


@cache
def _table() -> dict[str, str]:
    """What is known of each dotted prefix."""
    found = {}
    for rows in (_MODULES, _NAMES):
        for why, text in rows.items():
            found.update(dict.fromkeys(text.split(), why))
    found.update(dict.fromkeys(_HARMLESS.split(), ""))
    return found
