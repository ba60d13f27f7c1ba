# ruff: noqa: E501 (hand-made pickles and names of advisories)
"""Pickles that were published as bypasses of other scanners: the names and chains are facts, the files are made here.

Nothing is loaded: what a file would run is inert, and only its signs are looked at.
"""

from __future__ import annotations

import collections
import functools
import pickle

import numpy as np
import pytest
from tests.formats.scanning.desks import looked

from casemate.formats.scanning.pickles.judge import ruling_of
from casemate.formats.scanning.readers.pickles import READERS
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_bytes


def scan(data):
    return looked(data, READERS, name="m.pkl")


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(dotted):
    module, _, attribute = dotted.partition(":")
    return text(module) + text(attribute) + b"\x93"


def called(function, *args):
    return (function if isinstance(function, bytes) else name(function)) + b"(" + b"".join(args) + b"tR"


def whole(*parts):
    return b"\x80\x04" + b"0".join(parts) + b"."


def bare(value):
    return pickle.dumps(value, 2)[2:-1]


# ------------------------------------------------------------------------------------------------------ names, by source

NAMES = {
    "picklescan PR 48 and 49, and the tests of picklescan": """
        trace:Trace.run trace:Trace.runctx profile:Profile.run profile:Profile.runctx cProfile:run cProfile:runctx
        lib2to3.pgen2.grammar:Grammar.loads lib2to3.pgen2.pgen:ParserGenerator.make_label doctest:debug_script
        idlelib.debugobj:ObjectTreeItem.SetText idlelib.autocomplete:AutoComplete.get_entity ensurepip:_run_pip
        idlelib.autocomplete:AutoComplete.fetch_completions idlelib.calltip:Calltip.fetch_tip idlelib.calltip:get_entity
        idlelib.run:Executive.runcode idlelib.pyshell:ModifiedInterpreter.runcode
        idlelib.pyshell:ModifiedInterpreter.runcommand code:InteractiveInterpreter.runcode types:CodeType
        logging:FileHandler io:FileIO urllib.request:urlopen ssl:get_server_certificate marshal:loads""",
    "picklescan PR 47 (torch)": """
        torch.utils.bottleneck.__main__:run_cprofile torch.utils.bottleneck.__main__:run_autograd_prof
        torch._dynamo.guards:GuardBuilder.get torch.utils.collect_env:run torch._inductor.codecache:compile_file
        torch.fx.experimental.symbolic_shapes:ShapeEnv.evaluate_guards_expression torch.serialization:load
        torch.utils.data.datapipes.utils.decoder:basichandlers torch.jit.unsupported_tensor_ops:execWrapper
        torch.utils._config_module:ConfigModule.load_config numpy.testing._private.utils:runstring""",
    "GHSA-g38g-8gr9-h9xp, GHSA-vvpj-8cmc-gx39 (CVE-2026-56315)": """
        uuid:_get_command_stdout uuid:_popen imaplib:IMAP4_stream _pyrepl.pager:pipe_pager _osx_support:_read_output
        _aix_support:_read_cmd_output test.support.script_helper:assert_python_ok pkgutil:resolve_name""",
    "CVE-2025-1716": "pip:main pip._internal:main pip._internal.cli.main:main pip._vendor.distlib.scripts:ScriptMaker",
    "fickling PR 108, 186, 195, 210, 272, 302": """
        pty:spawn types:FunctionType runpy:run_path ctypes:CDLL pydoc:locate importlib:import_module
        code:InteractiveInterpreter multiprocessing.util:spawnv_passfds distutils.file_util:write_file _io:FileIO
        asyncio.unix_events:_UnixSubprocessTransport._start numpy.f2py.crackfortran:getlincoef aiohttp:ClientSession
        numpy.f2py.crackfortran:_eval_length _posixsubprocess:fork_exec site:addpackage atexit:register
        _interpreters:create _xxsubinterpreters:run_string _pickle:loads venv:create httplib:HTTPConnection""",
    "fickling PR 249": "fickling.hook:remove_hook picklescan.scanner:scan_pickle_bytes modelaudit.core:scan_file",
    "modelscan 269 and 338": """
        mlflow.projects.backend.local:_run_entry_point pandas.io.parsers.readers:read_csv pandas:read_pickle
        torch.library:torch.utils.collect_env.run numpy:__builtins__""",
    "modelaudit PR 1059 and 1061": """
        mailcap:findmatch setuptools._distutils.spawn:spawn pipes:Template.copy typing:_eval_type typing:get_type_hints
        dataclasses:_create_fn operator:call operator:methodcaller functools:reduce _functools:reduce
        itertools:starmap itertools:accumulate itertools:filterfalse itertools:takewhile itertools:groupby builtins:map
        builtins:filter functools:cmp_to_key functools:singledispatch contextvars:Context.run contextlib:ExitStack
        sched:scheduler.run concurrent.futures:ThreadPoolExecutor.submit unittest.mock:_get_target weakref:finalize
        unittest.loader:TestLoader.discover site:addsitedir _tkinter:TkappType.eval argparse:FileType sunau:open
        logging:StreamHandler logging:Logger.addHandler logging:Filterer.filter logging.config:listen aifc:open
        configparser:RawConfigParser.read mailbox:mbox.add csv:DictWriter tempfile:mkstemp copyreg:add_extension
        string:Formatter.get_field inspect:getattr_static inspect:getmembers types:MemberDescriptorType.__get__
        types:WrapperDescriptorType.__get__ statistics:mean.__getattribute__ statistics:mean.__globals__
        functools:cached_property.__get__ builtins:dict.get builtins:str.join builtins:__dict__ types:MethodType
        six.moves:getoutput botocore.vendored.six.moves:getoutput six.moves.cPickle:loads click:edit pydantic:Popen
        execnet:makegateway fsspec.implementations.cached:WholeFileCacheFileSystem dotenv.main:set_key resource:setrlimit
        yaml:unsafe_load zipfile:PyZipFile tarfile:open warnings:filterwarnings decimal:setcontext compileall:compile_dir
        sysconfig:prefix.os.system site:logging.config.dictConfig torch:compile mmap:mmap faulthandler:_sigsegv""",
    "modelscan 89: modules that others have imported": """
        collections:_sys.modules random:_os.system torch:os numpy:core._internal.sys.modules numpy:prod.os.system
        mymodel:os mymodel:subprocess mymodel:importlib mymodel:__builtins__""",
    "the standard library beyond every list": """
        turtle:Screen zipapp:create_archive rlcompleter:Completer nturl2path:url2pathname
        crypt:crypt smtpd:SMTPServer xdrlib:Packer plistlib:load _pyio:FileIO _bootsubprocess:Popen gettext:c2py
        codeop:compile_command symtable:symtable dis:dis time:sleep uu:decode cgitb:handler pyclbr:readmodule
        filecmp:cmp cmd:Cmd.cmdloop _android_support:init_streams annotationlib:ForwardRef""",
    "libraries, by the verbs of their functions": """
        sklearn.datasets:fetch_openml scipy.sparse:load_npz numpy:load torch.cuda.memory:_dump_snapshot
        joblib.disk:delete_folder transformers:AutoModel.from_pretrained keras.models:load_model nltk:download
        tensorflow.keras.models:load_model sklearn.externals.joblib:load torch.hub:download_url_to_file
        pandas.core.frame:DataFrame.to_pickle torch._utils:_import_dotted_name xgboost.core:Booster.load_model""",
}  # fmt: skip
KEPT = """
    mymodel:Net mymodel.layers:Gate mymodel:evaluate mymodel:Net.forward mymodel:Net.eval mymodel:load_weights mymodel:run_epoch
    logging:getLogger logging:Logger dataclasses:Field typing:ForwardRef enum:Enum inspect:Signature time:struct_time
    collections:UserDict string:Formatter json.encoder:JSONEncoder statistics:NormalDist posixpath:join weakref:ref
    hashlib:sha256 argparse:ArgumentParser email.message:Message xml.etree.ElementTree:Element abc:ABCMeta
    torch.nn.modules.new:Layer numpy._core.multiarray:_new_reconstruct sklearn.new:Estimator keras.src.models:Sequential
    tensorflow.python.keras.engine.sequential:Sequential spacy.lang.en:English loader:Loader executor:Executor"""


@pytest.mark.parametrize(
    ("source", "dotted"),
    [(source, dotted) for source, names in NAMES.items() for dotted in names.split()],
)
def test_a_name_that_was_published_is_malicious(source, dotted):
    assert scan(whole(called(dotted, text("x")))).level is Level.MALICIOUS, source


@pytest.mark.parametrize("dotted", KEPT.split())
def test_a_class_of_ones_own_and_data_of_the_standard_library_are_no_alarm(dotted):
    assert ruling_of(*dotted.split(":")).level is not Level.MALICIOUS


# -------------------------------------------------------------------------------------------------------------- chains

GETATTR = name("builtins:getattr")
JOINED = called(called(GETATTR, text(""), text("join")), b"](" + text("o") + text("s") + b"e")
CHAINS = {
    "modelscan 331: the operands of STACK_GLOBAL are computed with str.join": JOINED + text("system") + b"\x93" + text("true") + b"\x85R",
    "modelscan 338: the module is bytes": b"C\x02os" + text("system") + b"\x93",
    "modelscan 338: the module is a number": b"K\x2a" + text("os") + b"\x93",
    "modelscan 338: the name is a bytearray": text("os") + b"\x96\x06" + bytes(7) + b"system\x93",
    "modelscan 330: numpy.size gets the builtins as globals": name("numpy:size") + b"}}" + text("shape") + name("numpy:__builtins__") + b"s\x86b",
    "modelscan 89: a function gets sys.modules as attributes": name("numpy:prod") + b"N" + name("numpy:core._internal.sys.modules") + b"\x86b",
    "getattr of a dunder": called(GETATTR, name("mymodel:Net"), text("__globals__")),
    "getattr of a module that another imported": called(GETATTR, name("mymodel:helpers"), text("system")),
    "getattr of a computed name": called(GETATTR, name("mymodel:Net"), JOINED),
    "getattr of what a call gave": called(GETATTR, called("mymodel:find"), text("__class__")),
    "getattr bound by functools.partial": called("functools:partial", GETATTR, name("mymodel:Net")),
    "attrgetter of a dunder": called("operator:attrgetter", text("__init__.__globals__")),
    "attrgetter of a computed name": called("operator:attrgetter", JOINED),
    "itemgetter of a module": called("operator:itemgetter", text("os")),
    "what was made is asked for a dunder": called(called("mymodel:finder"), text("__builtins__")),
    "modelaudit turn 93: type() with a hook": called("builtins:type", text("P"), name("mymodel:Net") + b"\x85", b"}" + text("__radd__") + name("mymodel:run") + b"s"),
    "modelaudit turn 199: a registry of a module is written to": name("pydantic:_dynamic_imports") + text("x") + b"Ns",
    "modelaudit turn 195: the state of a public object": name("scipy.stats:norm") + b"}" + text("_parse_arg_template") + text("import os") + b"sb",
    "a pickle for torch's loader that is computed": called("torch.storage:_load_from_bytes", called("base64:b64decode", text("gAROLg=="))),
    "a pickle of ints for a vendored loader (modelaudit turn 181)": called("x.vendored.six.moves.cPickle:loads", called("builtins:bytes", b"](K\x80K\x04e")),
    "fickling: the call's result is built upon": called("pty:spawn", text("true")) + text("x") + b"b",
    "copyreg makes a foreign class": called("copyreg:_reconstructor", name("subprocess:Popen"), name("builtins:object"), b"N"),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_that_was_published_is_malicious(chain):
    assert scan(whole(CHAINS[chain])).level is Level.MALICIOUS


TWINS = {
    "the names come from the memo": text("OrderedDict") + b"\x940" + text("collections") + b"h\x00\x93)R",
    "a method of texts is kept": called(GETATTR, name("builtins:str"), text("lower")),
    "a class of texts": called("collections:OrderedDict"),
}


@pytest.mark.parametrize("twin", TWINS)
def test_its_benign_twin_is_clean(twin):
    assert scan(whole(TWINS[twin])).signs == ()


@pytest.mark.parametrize("protocol", range(6))
def test_idioms_of_plain_programs_are_clean(protocol):
    for thing in (
        collections.defaultdict(functools.partial(collections.defaultdict, int), a=collections.defaultdict(int, b=1)),
        {"preprocessor": str.lower, "split": str.split}, functools.partial(int, base=2),
    ):  # fmt: skip
        found = scan(pickle.dumps(thing, protocol))
        assert found.level is Level.CLEAN, (thing, found.signs)


@pytest.mark.parametrize(
    "body",
    [
        called(GETATTR, name("mymodel:Net"), text("__new__")),  # what `return cls.__new__, (cls,)` writes
        called(called(GETATTR, name("mymodel:Net"), text("_restore")), bare({"a": 1})),
        called(GETATTR, called("mymodel:Net"), text("eval")),
        called("functools:partial", name("mymodel:Net")),
        called(called("functools:partial", name("mymodel:Net")), bare(1)),
        called("builtins:type", text("Row"), b")", b"}" + text("__doc__") + b"Ns"),
        called("zlib:decompress", b"C\x01x"),
    ],
)
def test_idioms_of_classes_of_ones_own_are_no_alarm(body):
    assert scan(whole(body)).level is Level.SUSPICIOUS


# ----------------------------------------------------------------------------------------- states that crash their reader

DTYPE = "numpy:dtype"
PLAIN = (3, "<", None, None, None, -1, -1, 0)


def dtype(spec, state):
    return called(DTYPE, text(spec), b"\x89\x88") + (state if isinstance(state, bytes) else bare(state)) + b"b"


def array(size, objects):
    made = called("numpy._core.multiarray:_reconstruct", name("numpy:ndarray"), b"K\x00\x85", b"C\x01b")
    kind = dtype("O8", (3, "|", None, None, None, -1, -1, 63))
    return made + b"(K\x01" + bare((size,)) + kind + b"\x89" + objects + b"tb"


CRASHES = {
    "objects that are none": dtype("O8", (3, "|", None, None, None, -1, -1, 0)),
    "objects that are none, spelled otherwise": dtype("|O", (4, "|", None, None, None, -1, -1, 16, {})),
    "numbers that are objects": dtype("f8", (3, "<", None, None, None, -1, -1, 63)),
    "a record of objects that are none": dtype("V8", b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a") + dtype("O8", (3, "|", None, None, None, -1, -1, 63)) + b"K\x00\x86sK\x08K\x01K\x10t"),
    "a field behind the end of its record": dtype("V8", b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a") + dtype("f8", PLAIN) + b"K\x63\x86sK\x08K\x01K\x10t"),
    "objects that are references, but no list": dtype("O8", (3, "|", None, None, None, -1, -1, 1)),
    "a field in front of its record": dtype("V8", b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a") + dtype("f8", PLAIN) + b"J\xff\xff\xff\xff\x86sK\x08K\x01K\x10t"),
    "an array of more objects than its list": array(5, b"](K\x01K\x02e"),
    "a generator behind its words": called("numpy.random._pickle:__randomstate_ctor", text("MT19937")) + bare({"bit_generator": "MT19937", "state": {"pos": 100000}}) + b"b",
    "times without their unit": dtype("M8", PLAIN),
    "time differences without their unit": dtype("m8", (4, "<", None, None, None, -1, -1, 0, None)),
}  # fmt: skip


@pytest.mark.parametrize("crash", CRASHES)
def test_states_of_dtypes_that_crash_numpy_are_malicious(crash):
    assert scan(whole(CRASHES[crash])).rules == {"pickle/state-crashes"}


@pytest.mark.parametrize("size", [0, 1, 5, 5000, 20_000])
def test_arrays_of_objects_that_numpy_writes_are_clean(size):
    for thing in (list(range(size)), ["a"] * size, [(1, "b")] * size, [None] * size):
        made = np.empty(size, object)
        made[:] = thing
        for protocol in (2, 4, 5):
            assert (
                scan(pickle.dumps([made, np.random.RandomState(1), np.ma.array(made, mask=False)], protocol)).signs
                == ()
            )
    assert scan(whole(array(2, b"](K\x01K\x02e"))).signs == ()


def test_an_array_of_a_dtype_that_is_changed_later_is_told():
    late = called("numpy._core.multiarray:_reconstruct", name("numpy:ndarray"), b"K\x00\x85", b"C\x01b")
    late += b"(K\x01K\x01\x85" + called(DTYPE, text("V8"), b"\x89\x88") + b"\x89C\x0812345678tb"
    assert scan(whole(late)).level is Level.SUSPICIOUS


@pytest.mark.parametrize("protocol", range(6))
def test_dtypes_that_numpy_writes_are_clean(protocol):
    inner = np.dtype([("x", "f4"), ("o", object)])
    for spec in (
        "f8", ">i4", "?", "c16", "S3", "U7", "M8[ns]", "m8[D]", "O", "V5", [("a", "i4"), ("b", "f8", (2, 2))],
        np.dtype([("a", "i1"), ("b", "f8")], align=True), [("r", inner), ("s", "U2")], np.dtype(("f4", (3,))),
        {"names": ["a"], "formats": ["f4"], "offsets": [4], "itemsize": 16}, np.dtype("f8", metadata={"a": 1}),
        np.dtype((np.record, [("a", "f4"), ("b", object)])),
    ):  # fmt: skip
        made = np.zeros(2, spec)
        for thing in (np.dtype(spec), made, made[:1]):
            assert scan(pickle.dumps(thing, protocol)).level is Level.CLEAN, (thing, protocol)


def test_names_of_many_parts_cost_little():
    dotted = "a." * 15_000 + "b"
    module = "vendored." * 7_000 + "x"
    data = b"".join(b"c" + module.encode() + b"\n" + (dotted + str(i)).encode() + b"\n0" for i in range(20))
    assert scan(b"\x80\x04" + data + b"N.").level is Level.SUSPICIOUS


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib"])
@pytest.mark.parametrize(
    "data",
    [
        b"cos}system\n(Vtrue\ntR.",
        b"c\x7fs\nsysteo\n(Vtrue\ntR.",
        b"cos\nsystem\x08(Vtrue\ntR.",
        b"cos\nsys\xc2\x90tem\n(V",
    ],
)
def test_an_import_of_what_is_no_identifier_is_tried_by_an_unpickler_all_the_same(data, name):
    assert scan_bytes(data, name).level is not Level.CLEAN
