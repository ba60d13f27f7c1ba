"""Models that every adapter must get right: one file for each adapter, walked by `tests/adapters/test_conformance.py`.

A file here has one function::

    def cases() -> dict[str, Callable[[], dict[str, Any]]]:
        return {"two classes": two_classes, "five classes, missing values": five_classes}

Each entry names a model and gives a function without arguments that makes it (called inside its test, so that walking
costs nothing) and returns the keyword arguments of `casemate.testing.check_model`::

    {
        "model": Model,             # what the adapter made
        "x": Array,                 # 20 to 200 samples, as `core.data.Data` holds them
        "native_predict": x -> (n,) # class indices by the native library itself, asked without Casemate
        "native_scores": x -> (n, k)  # optional: its probabilities, in the order of model.classes
        "native_logits": x -> (n, k)  # optional: its margins
        "reopened": Model,          # the same model after saving and opening it, or wrapped again: same digest
        "other": Model,             # the same kind of model with other weights: another digest
        "refused": {"a schema of another width": lambda: wrap(native, schema=narrow), ...},
                                    # what must raise a CasemateError that reads `expected ..., got ...: mend`
        "tolerance": 1e-6,          # optional: how far scores and logits may be off; labels never
    }

A file whose package is not installed skips by `pytest.importorskip` inside its functions, not at import. Files end in
an underscore where their name would shadow the package they test.
"""
