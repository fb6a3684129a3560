"""Every setting with its default. The other files of this folder start from here and change only what they need.

The meaning of each key is given next to its field in stag_jax/config.py.
"""


def settings(changes: dict | None = None) -> dict:
    """Return all settings as plain nested dicts. `changes` gives new values by dotted key, e.g. {"model.width": 64}.

    Raises KeyError for an unknown key.
    """
    tree = {
        "seeds": (0,),
        "data": {
            "dataset": "synth_me",
            "data_dir": "data",
            "manual_dir": "",
            "labels": "",
            "classes": ("negative", "positive", "surprise"),
            "skip_faceless": False,
            "workers": 0,
        },
        "face": {
            "predictor": "",
            "size": 128,
            "reference_frames": 3,
            "min_score": 0.0,
            "redetect_jump": 0.1,
            "max_turn": 40.0,
            "smooth": 7,
        },
        "motion": {
            "first_look": "auto",
            "flow": "tvl1",
            "reference": "onset",
            "stabilise": "similarity",
            "average_ms": 10.0,
            "frames": 8,
            "selection": "magnitude",
            "patch": 4,
            "spacing": 3.0,
            "window_ms": 500.0,
            "hop_ms": 40.0,
            "clip_norm": False,
        },
        "graph": {"kind": "roi", "grid": 6, "units": (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17), "nodes": ()},
        "model": {
            "name": "stag",
            "width": 32,
            "heads": 2,
            "score_dim": 4,
            "gat_layers": 2,
            "window": 1,
            "transformer_layers": 1,
            "cross_layers": 1,
            "mlp_ratio": 2,
            "readout_dim": 8,
            "dropout": 0.2,
            "edge_dropout": 0.1,
            "au_guidance": True,
            "dynamic": True,
            "cross_to_space": True,
            "cross_to_time": True,
            "temporal_attention": True,
            "dtype": "float32",
            "symmetric": True,
            "strain": True,
        },
        "loss": {"gamma": 2.0, "class_balance": 0.5, "label_smoothing": 0.0, "lambda_au": 3.0},
        "distil": {"teacher": "", "weight": 0.5, "temperature": 2.0},
        "train": {
            "steps": 600,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "warmup_steps": 50,
            "weight_decay": 1e-2,
            "clip_norm": 1.0,
        },
        "augment": {"mirror": 0.5, "magnitude": 0.2, "noise": 0.1, "frame_drop": 0.1, "mixup": 0.0},
        "protocol": {"split": "loso", "folds": 5, "seed": 0, "test": (), "bootstrap": 2000},
        "parallel": {"mode": "sharded", "cpu_devices": 0, "members_per_chunk": 0, "steps_per_dispatch": 20},
        "checkpoint": {"every_s": 180.0, "keep": 2, "history": True},
    }
    for key, value in (changes or {}).items():
        *groups, name = key.split(".")
        group = tree
        for part in groups:
            group = group[part]
        if name not in group:
            raise KeyError(f"no setting {key}")
        group[name] = value
    return tree


def config_dict(changes: dict | None = None) -> "ConfigDict":
    """Return the settings as a ConfigDict, for the flag --config, whose overrides need ml_collections."""
    from ml_collections import ConfigDict

    return ConfigDict(settings(changes))


def get_config() -> "ConfigDict":
    """Return the default settings."""
    return config_dict()
