"""Things of torch and transformers: state dicts, whole modules, optimizers, tensors, training arguments, tokenizers."""

from __future__ import annotations

import inspect

__all__ = ["language", "networks"]

SIZES = {
    "in_features": 4, "out_features": 3, "in1_features": 4, "in2_features": 4, "in_channels": 4, "out_channels": 4,
    "kernel_size": 2, "num_features": 4, "input_size": 4, "hidden_size": 4, "d_model": 4, "nhead": 2, "num_layers": 2,
    "embed_dim": 4, "num_heads": 2, "num_embeddings": 4, "embedding_dim": 4, "normalized_shape": 4, "num_groups": 2,
    "num_channels": 4, "padding": 1, "output_size": 2, "scale_factor": 2, "upscale_factor": 2, "downscale_factor": 2,
    "groups": 2, "dim": 1, "unflattened_size": (2, 2), "lower": 0.1, "upper": 0.3, "min_val": 0.0, "max_val": 1.0,
    "threshold": 0.1, "value": 0.0, "negative_slope": 0.1, "norm_type": 2, "dim_feedforward": 8, "n_classes": 8,
    "cutoffs": [2, 4], "size": 4, "lambd": 0.5, "unflattened": (2, 2),
}  # fmt: skip


def networks(thing):
    """Every `thing` of torch."""
    yield from _modules(thing)
    yield from _training(thing)
    yield from _tensors(thing)


def _modules(thing):
    import torch
    from torch import nn

    for name in sorted(dir(nn)):
        found = getattr(nn, name)
        if inspect.isclass(found) and issubclass(found, nn.Module) and "Parallel" not in name:
            yield thing("torch", name, "module", lambda found=found: _module(found))
            yield thing("torch", name, "state", lambda found=found: _module(found).state_dict())
    composed = {
        "Sequential mlp": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2)),
        "Sequential conv": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten()),
        "ModuleList": lambda: nn.ModuleList([nn.Linear(2, 2)]), "ModuleDict": lambda: nn.ModuleDict(
            {"a": nn.Linear(2, 2)}), "ParameterList": lambda: nn.ParameterList([nn.Parameter(torch.ones(2))]),
        "ParameterDict": lambda: nn.ParameterDict({"a": nn.Parameter(torch.ones(2))}),
        "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2),
        "TransformerEncoderLayer gelu": lambda: nn.TransformerEncoderLayer(4, 2, 8, activation="gelu"),
        "TransformerDecoder": lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8), 2),
        "parametrized": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)), "weight_norm": lambda: nn.utils.weight_norm(
            nn.Linear(3, 3)), "pruned": lambda: _pruned(nn), "DataParallel": lambda: nn.DataParallel(nn.Linear(2, 2)),
        "half": lambda: nn.Linear(2, 2).half(), "tied": lambda: _tied(nn), "frozen": lambda: nn.Linear(
            2, 2).requires_grad_(False), "eval": lambda: nn.LSTM(4, 4, 2).eval(), "quantized": lambda: _quantized(nn),
    }  # fmt: skip
    for variant, make in composed.items():
        yield thing("torch", variant.partition(" ")[0], variant, make)


def _module(found):
    known = inspect.signature(found.__init__).parameters
    given = {name: SIZES[name] for name, one in known.items() if name in SIZES and one.default is inspect._empty}
    if found.__name__ == "Module":
        return found()
    if "TransformerEncoder" in found.__name__ or "TransformerDecoder" in found.__name__:
        return _stacked(found)
    try:
        return found(**given)
    except Exception:
        return found(2, 2, 2)


def _stacked(found):
    from torch import nn

    if found.__name__.endswith("Layer"):
        return found(4, 2, 8)
    layer = nn.TransformerEncoderLayer if "Encoder" in found.__name__ else nn.TransformerDecoderLayer
    return found(layer(4, 2, 8), 1)


def _pruned(nn):
    from torch.nn.utils import prune

    return prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5)


def _tied(nn):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    return nn.Sequential(first, second)


def _quantized(nn):
    import torch

    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=torch.qint8)


def _training(thing):
    import torch
    from torch import nn, optim

    for name in sorted(dir(optim)):
        found = getattr(optim, name)
        if inspect.isclass(found) and issubclass(found, optim.Optimizer) and found is not optim.Optimizer:
            yield thing("torch", name, "optimizer", lambda found=found: _stepped(found)[0])
            yield thing("torch", name, "checkpoint", lambda found=found: {
                "epoch": 3, "optimizer_state_dict": _stepped(found)[0].state_dict(),
                "model_state_dict": _stepped(found)[1].state_dict(), "loss": torch.tensor(0.1)})  # fmt: skip
    schedulers = optim.lr_scheduler
    for name, given in {"StepLR": (2,), "MultiStepLR": ([1, 2],), "ExponentialLR": (0.9,), "CosineAnnealingLR": (3,),
                        "ReduceLROnPlateau": (), "CyclicLR": (0.1, 0.2), "OneCycleLR": (0.1, 5), "ConstantLR": (),
                        "LinearLR": (), "PolynomialLR": (), "CosineAnnealingWarmRestarts": (2,)}.items():  # fmt: skip

        def made(name=name, given=given):
            held = optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
            return getattr(schedulers, name)(held, *given)

        yield thing("torch", name, "scheduler", made)
        yield thing("torch", name, "state", lambda made=made: made().state_dict())


def _stepped(found):
    import torch
    from torch import nn

    model = nn.Embedding(4, 2, sparse=True) if "Sparse" in found.__name__ else nn.Linear(2, 2)
    held = found(model.parameters(), lr=0.01)
    given = torch.tensor([1]) if "Sparse" in found.__name__ else torch.ones(2, 2)

    def closure():
        loss = model(given).sum()
        loss.backward()
        return loss

    loss = closure()
    held.step(closure) if found.__name__ == "LBFGS" else held.step()
    return held, model, loss


def _tensors(thing):
    import torch

    for name in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool",
                 "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"):  # fmt: skip
        yield thing("torch", "tensor " + name, "tensor", lambda name=name: torch.zeros(3).to(getattr(torch, name)))
        yield thing("torch", "tensor " + name, "dtype", lambda name=name: getattr(torch, name))
        yield thing("torch", "tensor " + name, "dict", lambda name=name: {
            "layer.weight": torch.zeros(2, 3).to(getattr(torch, name)), "n": 1})  # fmt: skip
    one = torch.ones(3)
    objects = {
        "Size": lambda: one.shape, "device": lambda: torch.device("cpu"), "Generator": lambda: torch.get_rng_state(),
        "Parameter": lambda: torch.nn.Parameter(one), "Buffer": lambda: torch.nn.Buffer(one),
        "coo": lambda: torch.eye(3).to_sparse(), "csr": lambda: torch.eye(3).to_sparse_csr(),
        "csc": lambda: torch.eye(3).to_sparse_csc(), "bsr": lambda: torch.eye(4).to_sparse_bsr(2),
        "quantized tensor": lambda: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8),
        "quantized channel": lambda: torch.quantize_per_channel(
            torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
        "view": lambda: torch.arange(10)[2:6], "strided": lambda: torch.ones(3, 4).t(),
        "scalar": lambda: torch.tensor(1.0),
        "grad": lambda: torch.ones(2, requires_grad=True), "storage": lambda: one.untyped_storage(),
        "typed": lambda: one.storage(), "empty": lambda: torch.empty(0), "meta": lambda: torch.empty(3, device="meta"),
        "memory": lambda: [torch.contiguous_format, torch.strided, torch.preserve_format],
        "nested": lambda: torch.nested.nested_tensor([one, torch.ones(2)]), "conj": lambda: torch.ones(
            2, dtype=torch.complex64).conj(), "lists": lambda: [one, {"a": (one, [one])}], "extra": lambda: _extra(one),
        "functions": lambda: [torch.nn.functional.relu, torch.nn.functional.gelu, torch.relu, torch.tanh,
                              torch.sigmoid, torch.nn.functional.softmax, torch.nn.functional.silu],
        "distribution": lambda: torch.distributions.Normal(0.0, 1.0), "dataset": lambda: torch.utils.data.TensorDataset(
            one), "Namespace": lambda: _namespace(one), "numpy": lambda: {"a": one.numpy(), "b": one},
        "finfo": lambda: {"epoch": 1, "best": float("inf"), "args": {"lr": 1e-3}, "model": {"w": one}},
    }  # fmt: skip
    for variant, make in objects.items():
        yield thing("torch", variant.partition(" ")[0], variant, make)


def _extra(one):
    one = one.clone()
    one.note = "kept beside the numbers"
    return one


def _namespace(one):
    import argparse

    return {"args": argparse.Namespace(lr=0.1, layers=[1, 2]), "state_dict": {"w": one}}


def language(thing):
    """Every `thing` of transformers, small enough to be made from nothing."""
    import transformers

    def arguments(**more):
        return lambda: transformers.TrainingArguments("out", **more)

    found = {
        "TrainingArguments": arguments(), "TrainingArguments steps": arguments(
            save_strategy="steps", lr_scheduler_type="cosine", optim="adamw_torch", use_cpu=True),
        "Seq2SeqTrainingArguments": lambda: transformers.Seq2SeqTrainingArguments("out"),
        "GenerationConfig": transformers.GenerationConfig, "BatchEncoding": lambda: transformers.BatchEncoding(
            {"input_ids": [[1, 2]]}), "TrainerState": lambda: transformers.TrainerState(epoch=1.0),
        "TrainerControl": transformers.TrainerControl, "AddedToken": lambda: transformers.AddedToken("<a>"),
        "EarlyStoppingCallback": transformers.EarlyStoppingCallback, "tokenizer": _tokenizer,
        "tokenizer fast": lambda: transformers.PreTrainedTokenizerFast(tokenizer_object=_tokenizer()),
    }  # fmt: skip
    for variant, make in found.items():
        yield thing("transformers", variant.partition(" ")[0], variant, make)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "vocab_size": 16,
            "n_embd": 8, "n_layer": 1, "n_head": 2, "dim": 8, "n_heads": 2, "n_layers": 1, "hidden_dim": 8,
            "d_model": 8,
            "num_layers": 1, "num_heads": 2, "d_ff": 8, "d_kv": 4, "num_key_value_heads": 2, "embedding_size": 8,
            "image_size": 8, "patch_size": 4, "encoder_layers": 1, "decoder_layers": 1, "head_dim": 4,
            "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
    for name in ("Bert", "GPT2", "DistilBert", "Roberta", "T5", "Llama", "Albert", "Electra", "Mistral", "Qwen2", "ViT",
                 "Bart", "OPT", "Phi", "Gemma", "MPNet", "Deberta", "XLMRoberta", "GPTNeoX", "Whisper",
                 "CLIP"):  # fmt: skip

        def config(name=name):
            return getattr(transformers, name + "Config")()

        def model(name=name):
            made = getattr(transformers, name + "Config")
            return getattr(transformers, name + "Model")(made(**tiny))

        yield thing("transformers", name, "config", config)
        yield thing("transformers", name, "model", model)
        yield thing("transformers", name, "state", lambda model=model: model().state_dict())


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made
