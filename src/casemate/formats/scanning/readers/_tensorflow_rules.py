"""What TensorFlow's operations do beside computing: run code, read and write files, talk to other machines.

An allowlist: an operation that is neither ruled here nor among the stock ones comes from a library of somebody's own.
"""

from __future__ import annotations

from typing import Final

from casemate.formats.scanning.readers._tensorflow_ops import STOCK
from casemate.formats.scanning.signs import Level

__all__ = ["BY_ATTRIBUTE", "SAVERS", "TABLES", "rule_of"]

_RUNS = "it calls a Python function of the process that loads the graph"
_READS = "it reads or lists files of the machine that runs the graph"
_WRITES = "it writes files on the machine that runs the graph"
_TALKS = "it opens connections to other machines"
_CHECKPOINT = "it reads or writes checkpoints at any path, and no saver of this model says that it is the saver's"
_OTHER = "it is stock, and what it runs or loads cannot be seen in the graph"
_CUSTOM = "it is none of TensorFlow's own: a native library of somebody's own implements it"

SAVERS: Final = frozenset(
    ("Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2", "MergeV2Checkpoints")
)
TABLES: Final = frozenset(("InitializeTableFromTextFile", "InitializeTableFromTextFileV2"))
BY_ATTRIBUTE: Final = {  # harmless unless this attribute names a file or an address
    "PrintV2": "output_stream",
    "DebugIdentity": "debug_urls",
    "DebugIdentityV2": "debug_urls",
    "DebugIdentityV3": "debug_urls",
    "DebugNanCount": "debug_urls",
    "DebugNumericSummary": "debug_urls",
    "DebugNumericSummaryV2": "debug_urls",
    "FixedUnigramCandidateSampler": "vocab_file",
    "DecodeProtoV2": "descriptor_source",
    "EncodeProto": "descriptor_source",
}
_MALICIOUS: Final = {
    _RUNS: "PyFunc EagerPyFunc PyFuncStateless",
    _READS: "ReadFile MatchingFiles WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 "
    "FixedLengthRecordReader FixedLengthRecordReaderV2 TFRecordReader TFRecordReaderV2 LMDBReader TextLineDataset "
    "TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 "
    "ExperimentalCSVDataset SqlDataset ExperimentalSqlDataset LMDBDataset ExperimentalLMDBDataset MatchingFilesDataset "
    "ExperimentalMatchingFilesDataset LoadDataset SnapshotDatasetReader SnapshotNestedDatasetReader "
    "SnapshotChunkDataset ListSnapshotChunksDataset RecordInput ImmutableConst",
    _WRITES: "WriteFile SaveDataset SaveDatasetV2 DatasetToTFRecord ExperimentalDatasetToTFRecord DistributedSave "
    "SnapshotDataset SnapshotDatasetV2",
    _TALKS: "RpcClient RpcCall RpcServer RpcServerRegister RpcServerStart RpcCheckStatus RpcGetValue Rpc TryRpc "
    "DeleteRpcFutureResource DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 "
    "RegisterDataset RegisterDatasetV2",
}
_SUSPICIOUS: Final = {
    _READS: "LoadAndRemapMatrix GenerateVocabRemapping DTensorRestoreV2",
    _WRITES: "CreateSummaryFileWriter CreateSummaryDbWriter CacheDataset CacheDatasetV2",
    _TALKS: "RemoteCall FileSystemSetConfiguration GcsConfigureCredentials GcsConfigureBlockCache WorkerHeartbeat "
    "ConfigureDistributedTPU ShutdownDistributedTPU ConfigureAndInitializeGlobalTPU ShutdownTPUSystem",
    _CHECKPOINT: " ".join(sorted(SAVERS)),
    _OTHER: "XlaHostCompute _XlaHostComputeMlir XlaSendToHost XlaRecvFromHost _XlaRecvAtHost _XlaSendFromHost "
    "_XlaRecvAtHostV2 _XlaSendFromHostV2 XlaCustomCall XlaCustomCallV2 MlirPassthroughOp Abort DatasetFromGraph "
    "DeserializeIterator RemoteFusedGraphExecute TRTEngineOp Fact",
}
_RULED: Final = {
    name: (level, why)
    for level, table in ((Level.MALICIOUS, _MALICIOUS), (Level.SUSPICIOUS, _SUSPICIOUS))
    for why, names in table.items()
    for name in names.split()
}
_CLEAN: Final = (Level.CLEAN, "")


def rule_of(op: str) -> tuple[Level, str]:
    """How bad an operation is by its name alone, and why; `CLEAN` for those that depend on an attribute or a table."""
    if op in STOCK or op in BY_ATTRIBUTE or op in TABLES:
        return _CLEAN
    return _RULED.get(op, (Level.SUSPICIOUS, _CUSTOM))
