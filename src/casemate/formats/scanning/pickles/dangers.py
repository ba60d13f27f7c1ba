"""Families of names that are known to be harmful: whole modules first, so that a function nobody listed is named too.

`danger_of` knows families; `misplaced` knows what no model holds, by two rules that need no list of gadgets: the
standard library but for its modules of data, and functions of the large libraries that say by their name that they
read, write, load or run something.

Sources: the standard library's own index of modules, by what they do; published bypasses of pickle scanners. Errs
towards silence: a name of which nothing is known stays merely unknown.
"""

from __future__ import annotations

import re
import sys
from functools import cache, lru_cache
from typing import Final

__all__ = ["danger_of", "misplaced", "says_power"]

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
_CALLS = "calls whatever it is given, so that no rule sees what is called"
_COMPUTES = "takes a method of a plain type by a dotted name, as no pickler does, and so computes what is hidden"
_GUARDS = "reaches into a scanner of model files, as if to turn it off"
_GLOBAL = "changes how the whole program behaves"
_STALLS = "stops the program"

# A module's whole subtree, unless a longer prefix has a row of its own; "" takes a subtree out again.
_MODULES: Final = {
    _RUNS: "os posix nt subprocess _posixsubprocess commands popen2 pty pipes runpy code timeit trace profile "
    "cProfile _lsprof pdb bdb doctest unittest test lib2to3 IPython ipykernel ipywidgets jupyter_core nbconvert sh "
    "plumbum pexpect ptyprocess fabric invoke paramiko ansible platform _osx_support _aix_support _pyrepl pydoc "
    "idlelib venv ensurepip zipapp compileall py_compile site sitecustomize usercustomize antigravity py pytest "
    "_pytest nose setuptools.sandbox sched turtledemo wsgiref torch.utils.bottleneck torch.utils.cpp_extension "
    "torch.utils.collect_env torch.distributed torch.testing torch.utils._config_module torch.utils.benchmark "
    "numpy.testing numpy.distutils numpy.f2py scipy.weave cffi.verifier tensorflow.python.debug execnet psutil "
    "dask.distributed distributed ray celery click typer fire ultralytics.nn.tasks.parse_model "
    "ultralytics.nn.tasks.guess_model_task nltk.decorators spacy.util.get_lang_class "
    "spacy.util.run_command skops.card matplotlib._get_executable_info "
    "tensorflow.python.tpu mlflow.projects mlflow.utils.process mlflow.utils.virtualenv mlflow.server mlflow.cli "
    "mlflow.recipes torch.backends.xeon torch._strobelight torch.utils._strobelight torch.utils._get_clean_triton "
    "mailcap sklearn.utils._testing sklearn.utils.estimator_checks sklearn._build_utils sklearn.conftest "
    "joblib.testing scipy._lib._testutils scipy.conftest pandas.util._tester pandas._testing pandas.testing "
    "torch._numpy.testing torch.utils.hipify aiobotocore awscli",
    _CODE: "marshal cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._make_code compiler jinja2 mako "
    "tornado.template django.template sympy.sympify sympy.core.sympify sympy.parsing sympy.external numexpr asteval "
    "dill.source torch._inductor torch._dynamo torch.fx torch.jit torch._export torch.export torch.onnx "
    "torch.compiler torch.ao.quantization.fx pandas.eval pandas.core.computation numba.core.serialize llvmlite "
    "cython Cython pyximport theano pythran tensorflow.python.framework.load_library tensorflow.raw_ops "
    "tensorflow.python.autograph onnxscript triton torch._functorch torch._guards torch._library "
    "torch._higher_order_ops torch._vendor torch.cuda._utils torch._native codeop",
    _FILES: "shutil fileinput linecache glob tarfile zipfile gzip bz2 lzma dbm shelve sqlite3 _sqlite3 mailbox netrc "
    "plistlib filecmp smart_open fsspec s3fs gcsfs h5py tables zarr pyarrow.fs pyarrow.parquet logging.config "
    "logging.handlers nis imghdr sndhdr sunau wave aifc chunk torch.utils.data torch.utils.tensorboard "
    "torch.utils.model_zoo scipy.io numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format numpy.lib._datasource "
    "numpy.lib._format_impl pandas.io imageio PIL.Image.open cv2 soundfile librosa skimage.io matplotlib.image "
    "tensorflow.io tensorflow.python.lib.io tensorflow.python.ops.io_ops tensorflow.python.ops.gen_io_ops fcntl "
    "termios tty pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib._local.Path pathlib._local.PosixPath "
    "pathlib._local.WindowsPath pathlib.types dotenv mmap tempfile uu joblib.disk joblib.logger joblib.compressor "
    "joblib._memmapping_reducer sklearn.datasets._twenty_newsgroups sklearn.datasets._lfw scipy.datasets "
    "torch._utils._augment_memory_snapshot_stack_traces torch.utils._content_store torch.utils.show_pickle "
    "torch.utils.model_dump torch.utils.file_baton torch.cuda._memory_viz torch.cuda.tunable "
    "torch.profiler._cupti_monitor torch.profiler._chrome_trace_export mlflow.utils.file_utils mlflow.artifacts "
    "mlflow.store xml.sax xml.dom xml.etree xmlrpc",
    _NET: "socket _socket ssl _ssl http urllib urllib2 urllib3 httplib httplib2 httpx requests smtplib smtpd poplib "
    "imaplib nntplib ftplib telnetlib socketserver asyncore asynchat asyncio selectors select xmlrpclib "
    "SimpleXMLRPCServer SimpleHTTPServer BaseHTTPServer CGIHTTPServer webbrowser websocket websockets twisted "
    "tornado scapy dns boto boto3 botocore google.cloud azure huggingface_hub torch.hub keras.utils.get_file "
    "keras.src.utils.file_utils tensorflow.keras.utils.get_file gdown wget pycurl grpc zmq redis pymongo psycopg2 "
    "pymysql MySQLdb sqlalchemy ldap3 aiohttp aiofiles sklearn.datasets._openml sklearn.datasets._base "
    "torch.distributed.rpc wandb gevent eventlet mlflow.deployments mlflow.gateway mlflow.tracking paho kafka "
    "smbclient pysftp",
    _NATIVE: "ctypes _ctypes cffi _cffi_backend _testcapi _testinternalcapi _xxsubinterpreters _xxtestfuzz "
    "_interpreters numpy.ctypeslib torch._C._jit torch.ops torch._ops torch.classes torch._classes faulthandler "
    "readline _winapi msvcrt winreg _winreg win32api win32com win32process pythoncom objc gi jpype clr",
    _IMPORT: "importlib _frozen_importlib _frozen_importlib_external imp _imp pkgutil zipimport modulefinder "
    "pkg_resources dill._dill._import_module dill._objects torch.package torch._utils_internal torch._lazy "
    "werkzeug.utils.import_string django.utils.module_loading zope.dottedname six.moves",
    _PROCESS: "multiprocessing _multiprocessing threading _thread thread dummy_threading concurrent signal "
    "_posixshmem joblib.externals.loky joblib.parallel joblib.pool loky billiard pathos subinterpreters "
    "torch.multiprocessing",
    _DEBUG: "gc sys tracemalloc atexit _opcode ptvsd debugpy pydevd remote_pdb",
    _LOADS: "pickle _pickle cPickle dill cloudpickle jsonpickle pickle5 joblib.numpy_pickle "
    "joblib.numpy_pickle_utils joblib.numpy_pickle_compat joblib.memory joblib._store_backends torch.serialization "
    "yaml ruamel ruamel.yaml srsly klepto hickle pandas.read_pickle numpy.loads keras.models keras.src.saving "
    "keras.saving tensorflow.keras.models tensorflow.saved_model onnx.load transformers.pipelines "
    "transformers.utils.hub transformers.dynamic_module_utils pandas.compat.pickle_compat "
    "torch.multiprocessing.queue",
    _INSTALL: "pip pip._internal setuptools distutils _distutils_hack pkginfo wheel easy_install conda build "
    "ensurepip virtualenv poetry",
    _GUARDS: "fickling picklescan modelscan modelaudit modelaudit_picklescan saferpickle",
    _SCREEN: "tkinter Tkinter _tkinter turtle curses PyQt5 PyQt6 PySide2 PySide6 wx pyautogui pynput winsound",
}  # fmt: skip
_HARMLESS: Final = (  # data, classes of plain values, and what loads by rules of its own
    "http.HTTPStatus http.HTTPMethod http.cookies ssl.AlertDescription ssl.TLSVersion socket.AddressFamily "
    "socket.SocketKind signal.Signals os.stat_result os.terminal_size posix.stat_result urllib.parse "
    "xml.etree.ElementTree.Element torch.fx.immutable_collections torch.utils.data.sampler torch.utils.data.dataset "
    "torch.utils.data.dataloader torch.distributed.algorithms sys.float_info torch.serialization._get_layout "
    "sys.maxsize platform.uname_result asyncio.exceptions concurrent.futures._base.CancelledError "
    "joblib.numpy_pickle.NumpyArrayWrapper joblib.numpy_pickle_compat.NDArrayWrapper "
    "joblib.numpy_pickle_compat.ZNDArrayWrapper dill._dill._create_array dill._dill._create_type "
    "dill._dill._load_type dill._dill._create_namedtuple dill._dill._create_cell keras.src.saving.keras_saveable "
    "keras.src.saving.pickle_utils sklearn.datasets._base.Bunch torch.distributed._shard torch.distributed.tensor "
    "torch.distributed._tensor os.PathLike sqlite3.Row pickle.PickleBuffer"
)
_NAMES: Final = {  # single names of modules that are otherwise harmless
    _CODE: "builtins.eval builtins.exec builtins.execfile builtins.compile operator.methodcaller "
    "dill._dill._create_code dill._dill._create_function dill._dill._eval_repr pandas.DataFrame.eval "
    "pandas.DataFrame.query pandas.core.frame.DataFrame.eval pandas.core.frame.DataFrame.query cgitb.handler "
    "timeit.timeit torch._utils_internal.compile_time_strobelight_meta sympy.sympify typing.get_type_hints "
    "typing.ForwardRef._evaluate dataclasses._create_fn tensorflow.load_op_library keras.layers.Lambda "
    "tensorflow.py_function tensorflow.numpy_function site.execsitecustomize attr._make._compile_and_eval "
    "weakref.finalize builtins.__build_class__ types.FunctionType types.CodeType types.LambdaType typing._eval_type "
    "inspect.get_annotations inspect.signature inspect.Signature.from_callable inspect._signature_fromstr "
    "dataclasses.make_dataclass dataclasses._FuncBuilder torch.compile torch.utils._traceback six.exec_ "
    "sklearn.externals.array_api_compat._internal.clone_module scipy._lib.array_api_compat._internal.clone_module "
    "scipy._lib._bunch._make_tuple_bunch scipy.optimize._nonlin._nonlin_wrapper "
    "scipy.stats._distn_infrastructure.rv_generic._attach_argparser_methods "
    "scipy.stats._distn_infrastructure.rv_generic._construct_argparser",
    _CALLS: "builtins.map builtins.filter functools.reduce _functools.reduce operator.call _operator.call "
    "_operator.methodcaller itertools.starmap itertools.accumulate itertools.filterfalse itertools.takewhile "
    "itertools.dropwhile itertools.groupby contextvars.Context contextlib.ExitStack contextlib.AsyncExitStack "
    "types.MethodType types.new_class re.sub re.subn functools.singledispatch functools.singledispatchmethod "
    "functools.cmp_to_key",
    _GLOBAL: "copyreg.add_extension copyreg.remove_extension copyreg.clear_extension_cache copyreg.pickle "
    "copyreg.constructor copyreg.dispatch_table warnings.filterwarnings warnings.simplefilter warnings.showwarning "
    "warnings.resetwarnings warnings.catch_warnings decimal.setcontext locale.setlocale logging.disable "
    "logging.captureWarnings logging.setLoggerClass logging.setLogRecordFactory logging.shutdown codecs.register "
    "codecs.register_error numpy.set_string_function numpy.seterrcall numpy.setbufsize torch.set_default_tensor_type",
    _STALLS: "time.sleep",
    _FILES: "builtins.open io.open io.open_code io.FileIO io._io.FileIO _io.open _io.open_code _io.FileIO _pyio.open "
    "_pyio.FileIO codecs.open tokenize.open builtins.file numpy.fromfile numpy.load numpy.save numpy.savez "
    "numpy.savez_compressed numpy.savetxt numpy.loadtxt numpy.genfromtxt numpy.memmap numpy.DataSource "
    "numpy.fromregex numpy.ndarray.tofile numpy.ndarray.dump numpy.core.records.fromfile "
    "numpy._core.records.fromfile numpy.rec.fromfile numpy._core.memmap.memmap numpy.core.memmap.memmap "
    "pandas.HDFStore pandas.ExcelFile pandas.ExcelWriter pandas.DataFrame.to_csv pandas.DataFrame.to_pickle "
    "tensorflow.io.write_file tensorflow.io.read_file torch.from_file torch.save torch.Storage.from_file "
    "torch.UntypedStorage.from_file torch.storage.UntypedStorage.from_file torch.FloatStorage.from_file joblib.dump "
    "matplotlib.pyplot.savefig dill.dump numpy.lib.format.open_memmap logging.FileHandler logging.basicConfig "
    "logging.StreamHandler argparse.FileType argparse.ArgumentParser._read_args_from_files optparse.Values "
    "configparser.RawConfigParser.read configparser.ConfigParser.read configparser.SafeConfigParser.read "
    "numpy.ma.mrecords.openfile numpy.ma.mrecords.fromtextfile numpy.random._examples io.BufferedWriter "
    "io.BufferedRandom io.TextIOWrapper _io.BufferedWriter _io.BufferedRandom _io.TextIOWrapper "
    "codecs.StreamReaderWriter codecs.StreamWriter csv.DictWriter csv.writer _csv.writer zoneinfo._tzpath "
    "zoneinfo.ZoneInfo.from_file inspect.getsource inspect.getsourcelines inspect.findsource",
    _RUNS: "uuid._get_command_stdout uuid._popen uuid.getnode uuid.uuid1 uuid._ip_getnode uuid._ifconfig_getnode "
    "uuid._arp_getnode uuid._lanscan_getnode uuid._netstat_getnode",
    _LOADS: "torch.load torch.jit.load joblib.load sklearn.externals.joblib.load cloudpickle.load cloudpickle.loads "
    "cloudpickle.cloudpickle.load cloudpickle.cloudpickle.loads dill.load dill.loads dill.load_session "
    "dill.load_module",
    _IMPORT: "builtins.__import__ builtins.__loader__ builtins.__spec__ builtins.setattr builtins.delattr "
    "builtins.globals builtins.locals builtins.vars builtins.apply builtins.reload pydoc.locate "
    "torch._utils._import_dotted_name cloudpickle.cloudpickle.subimport cloudpickle.cloudpickle.dynamic_subimport "
    "dill._dill._getattribute dill._dill._get_attr dill._dill._import_module "
    "transformers.utils.import_utils._LazyModule builtins.getattr.__call__ six._import_module warnings._getcategory "
    "string.Formatter.get_field string.Formatter.vformat string.Formatter._vformat string.Formatter.format "
    "numpy._core.function_base.add_newdoc numpy.lib._utils_impl scipy._lib._uarray pandas.compat._optional "
    "torch.utils._pytree._defaultdict_deserialize torch.utils._pytree.enum_object_hook "
    "torch.nn.utils._deprecation_utils _operator.attrgetter _operator.itemgetter",
    _DEBUG: "builtins.breakpoint builtins.exit builtins.quit builtins.help builtins.license inspect.currentframe "
    "inspect.stack inspect.getmembers inspect.trace inspect.getinnerframes inspect.getouterframes "
    "inspect.getattr_static inspect.getmodule types.FrameType traceback.walk_stack",
    _SCREEN: "builtins.input builtins.raw_input",
}  # fmt: skip

_SEGMENTS: Final = (
    "os posix nt subprocess sys builtins __builtins__ __builtin__ importlib ctypes socket shutil pty runpy pickle "
    "marshal system popen Popen exec eval __import__ load_library LoadLibrary __globals__ __subclasses__ __code__ "
    "__reduce__ __reduce_ex__ __getattribute__ __loader__ __bases__ __mro__ __dict__ __init_subclass__ __get__ "
    "__set__ __setattr__ __delattr__ _os _sys _subprocess _socket _builtins _importlib f_globals f_locals gi_frame "
    "func_globals execfile spawn spawnv execv execvp check_output check_call getoutput getstatusoutput import_module "
    "run_module run_path write_text write_bytes unlink rmtree urlopen urlretrieve download_url_to_file"
)
_DATA: Final = (  # modules of which models and their authors' own classes do hold things
    "abc argparse array ast base64 binascii bisect builtins calendar cmath codecs collections colorsys configparser "
    "contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib email encodings enum errno fnmatch "
    "fractions functools genericpath graphlib hashlib heapq hmac html inspect io ipaddress itertools json keyword "
    "locale logging math ntpath numbers operator optparse pathlib posixpath pprint queue random re reprlib secrets "
    "sre_compile sre_constants sre_parse statistics string stringprep struct textwrap time token traceback types "
    "typing unicodedata uuid warnings weakref zlib zoneinfo __future__ _abc _bisect _codecs _collections "
    "_collections_abc _contextvars _csv _datetime _decimal _functools _hashlib _heapq _io _json _operator _py_abc "
    "_pydatetime _pydecimal _queue _random _sre _string _strptime _struct _warnings _weakref _weakrefset _zoneinfo "
    "cStringIO ConfigParser Cookie HTMLParser Queue StringIO UserDict UserList UserString copy_reg exceptions "
    "htmlentitydefs repr urlparse sets"
)
_GONE: Final = (  # modules of other releases; names that projects give to modules of their own are left out
    "aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils imghdr imp lib2to3 macpath mailcap msilib "
    "nis nntplib ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib _bootlocale _bootsubprocess "
    "_dummy_thread _dummy_threading annotationlib compression _android_support _apple_support _ios_support "
    "_sysconfig _interpreters _interpchannels _interpqueues _remote_debugging _testcapi _testinternalcapi _pyrepl "
    "_xxsubinterpreters _xxinterpchannels _colorize _pylong _hmac _zstd Bastion DocXMLRPCServer MimeWriter "
    "SocketServer anydbm cookielib dircache dl dumbdbm fpformat hotshot htmllib ihooks imputil mhlib mimetools "
    "mimify multifile posixfile rexec rfc822 robotparser sgmllib statvfs toaiff whichdb xmllib"
)
_OUTSIDE: Final = "is a part of the standard library that no model holds"
_LIBRARIES: Final = (
    "PIL accelerate catboost category_encoders dask datasets detectron2 diffusers evaluate fairseq fastai flair flax "
    "gensim gradio h2o imblearn jax joblib keras lightgbm lightning lightning_fabric matplotlib mlflow mlxtend mmcv "
    "mmengine monai nemo networkx nltk numpy onnx onnxruntime optuna pandas peft polars pyarrow pyspark "
    "pytorch_lightning scipy sentence_transformers skimage sklearn skops spacy statsmodels streamlit tensorflow "
    "tf_keras thinc timm tokenizers torch torch_geometric torchaudio torchtext torchvision transformers trl "
    "ultralytics xgboost"
)
_VERB: Final = re.compile(
    r"(?:|\w*_)(?:exec|execute|system|shell|subprocess|popen|spawn|import|download|upload|fetch|urlopen|load|loads|open"
    r"|read|write|save|dump|dumps|export|unlink|rmtree|mkdir|mkdirs|makedirs|compile|run|pretrained|unpickle|install"
    r"|rmdir|symlink|mkdtemp|getoutput)(?:_\w*)?"
)
_TOOL: Final = re.compile(  # parts of the names of modules
    r"cli|commands?|tests?|testing|testing_utils|test_\w+|\w+_test|tools|launch(?:ers)?|downloads?|downloader"
    r"|download_manager|checks|scripts|benchmarks?|conftest|setup|__main__"
)
_TOOLS: Final = "is a part of the library's tools and tests, which no model holds"
_METHOD: Final = "takes a method of the standard library by a dotted name, as no model does"
_VENDORED: Final = re.compile(r"(?:.*\.)?(?:_?vendor(?:ed)?|_?externals?|third_?party)\.(?P<inner>.+)")
_ACTS: Final = "reads, writes, loads or runs something, as no model asks for while it is loaded"
_PANDAS: Final = re.compile(r"pandas(\.io\..*|\.core\..*)?\.(read|to)_\w+")


_PLAIN: Final = ("__main__", "__mp_main__", "__name__", "__qualname__", "__module__", "__doc__", "__init__", "__new__")
_DEEPEST: Final = 8  # parts of the longest row


@lru_cache(maxsize=1 << 14)
def danger_of(module: str, name: str) -> str:
    """Why `module` and (dotted) `name` are known to be harmful, in words that follow "it"; empty for any other name.

    Every segment of a dotted name is judged: protocol 4 walks from attribute to attribute, through modules too.
    """
    parts, walked = _parts(module, name), name.split(".")
    vendored = _VENDORED.fullmatch(f"{module}.{name}") if len(parts) < 2 * _DEEPEST else None
    why = _row(parts) or (_row(vendored["inner"].split(".")) if vendored else None)
    if why:
        return why
    if _PANDAS.fullmatch(".".join(parts)):
        return _FILES
    own = len(walked) > 1 and walked[-1] == "eval" and walked[-2][:1].isupper()  # every module of torch has one
    if any(part in _words(_SEGMENTS) for part in (walked[:-1] if own else walked)):
        return _IMPORT
    for start in range(len(walked) - 1):
        if walked[start] in _tops() and not walked[start][0].isupper():  # classes are walked through as well
            why = _row(walked[start : start + _DEEPEST])
            if why:
                return why
    return ""


@lru_cache(maxsize=1 << 14)
def misplaced(module: str, name: str) -> str:
    """Why no model holds a name that no table has, in words that follow "it"; empty for any other name."""
    parts = _parts(module, name)
    top = parts[0]
    if top in sys.stdlib_module_names or top in _words(_GONE) or top in _words(_DATA):
        if _row(parts) is not None:
            return ""
        if top not in _words(_DATA):
            return _OUTSIDE
        method = "." in name and not parts[-1][:1].isupper()  # CPython writes those of plain types as `getattr`
        return "" if not method else _COMPUTES if top == "builtins" else _METHOD
    if top not in _words(_LIBRARIES):
        return ""
    return _ACTS if _VERB.fullmatch(parts[-1]) else _TOOLS if any(map(_TOOL.fullmatch, module.split(".")[1:])) else ""


def says_power(text: str) -> bool:
    """Whether a (dotted) attribute is one from which any function can be reached."""
    return any(part in _words(_SEGMENTS) or (part[:2] == "__" and part not in _PLAIN) for part in text.split("."))


def _parts(module: str, name: str) -> list[str]:
    module = {"__builtin__": "builtins", "__builtins__": "builtins"}.get(module, module)
    return f"{module}.{name}".split(".")


def _row(parts: list[str]) -> str | None:
    """What is known of the longest prefix that has a row; empty for a harmless one, None where none has."""
    for size in range(min(len(parts), _DEEPEST), 0, -1):
        why = _table().get(".".join(parts[:size]))
        if why is not None:
            return why
    return None


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@cache
def _tops() -> frozenset[str]:
    return frozenset(row.partition(".")[0] for row in _table())


@cache
def _table() -> dict[str, str]:
    """What is known of each dotted prefix."""
    found = {}
    for rows in (_MODULES, _NAMES):
        for why, text in rows.items():
            found.update(dict.fromkeys(text.split(), why))
    found.update(dict.fromkeys(_HARMLESS.split(), ""))
    return found
